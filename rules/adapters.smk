rule train_adapter:
    input:
        study=local(ancient(paths.study_lock)),
        checkpoint=paths.checkpoint(),
        corpus=paths.corpus(study.corpus.name),
    output:
        directory(paths.adapter()),
    log:
        paths.log("train_adapter", "model", "condition", "seed"),
    benchmark:
        paths.benchmark("train_adapter", "model", "condition", "seed")
    container:
        images["train"]
    threads: study.training.threads * study.training.processes
    resources:
        **resources.for_rule(study, "train_adapter"),
    params:
        digest=lambda w: study.digest("train_adapter", w),
    message:
        "Fine-tune {wildcards.model}: {wildcards.condition}, seed {wildcards.seed}"
    shell:
        "zpdbench train-adapter --study {input.study:q} --checkpoint {input.checkpoint:q}"
        " --corpus {input.corpus:q} --model {wildcards.model} --condition {wildcards.condition}"
        " --seed {wildcards.seed} --out {output:q} &> {log:q}"
