rule score_run:
    input:
        study=local(ancient(paths.study_lock)),
        generations=lambda w: study.run_generations(w.model, w.condition, w.seed),
        benchmark_items=[paths.items(b) for b in study.benchmarks],
    output:
        paths.scores(),
    log:
        paths.log("score_run", "model", "condition", "seed"),
    benchmark:
        paths.benchmark("score_run", "model", "condition", "seed")
    container:
        images["score"]
    threads: 1
    resources:
        **resources.for_rule(study, "score_run"),
    params:
        digest=lambda w: study.digest("score_run", w),
    message:
        "Verdicts on {wildcards.model}: {wildcards.condition}, seed {wildcards.seed}"
    shell:
        "zpdbench score-run --study {input.study:q} --model {wildcards.model}"
        " --condition {wildcards.condition} --seed {wildcards.seed}"
        " --generations {input.generations:q} --items {input.benchmark_items:q} --out {output:q} &> {log:q}"
