rule make_checkpoint:
    input:
        study=local(ancient(paths.study_lock)),
        files=lambda w: [local(f) for f in inputs.of_checkpoint(study, w.model)],
    output:
        directory(paths.checkpoint()),
    log:
        paths.log("make_checkpoint", "model"),
    benchmark:
        paths.benchmark("make_checkpoint", "model")
    container:
        images["train"]
    threads: 1
    resources:
        **resources.for_rule(study, "make_checkpoint"),
    params:
        digest=lambda w: study.digest("make_checkpoint", w),
    message:
        "Base model {wildcards.model}"
    shell:
        "zpdbench make-checkpoint --study {input.study:q} --model {wildcards.model}"
        " --threads {threads} --out {output:q} &> {log:q}"
