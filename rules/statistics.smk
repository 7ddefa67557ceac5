run_scores = [paths.scores(*run) for run in study.all_runs]


rule aggregate_scores:
    input:
        study=ancient(paths.study_lock),
        scores=run_scores,
    output:
        scores=paths.table("scores"),
        curves=paths.table("curves"),
    log:
        paths.log("aggregate_scores"),
    benchmark:
        paths.benchmark("aggregate_scores")
    container:
        images["stats"]
    threads: 1
    resources:
        **resources.for_rule(study, "aggregate_scores"),
    params:
        digest=study.digest("aggregate_scores"),
    message:
        "Scores and learning curves"
    shell:
        "zpdbench aggregate-scores --study {input.study} --out-scores {output.scores}"
        " --out-curves {output.curves} {input.scores} &> {log}"


rule test_h3a:
    input:
        study=ancient(paths.study_lock),
        scores=run_scores,
    output:
        paths.table("h3a"),
    log:
        paths.log("test_h3a"),
    benchmark:
        paths.benchmark("test_h3a")
    container:
        images["stats"]
    threads: 1
    resources:
        **resources.for_rule(study, "test_h3a"),
    params:
        digest=study.digest("test_h3a"),
    message:
        "Is the gain larger in the larger model? (H3a)"
    shell:
        "zpdbench h3a --configfile {input.study} --scores {input.scores} --out {output} &> {log}"
