rule make_items:
    input:
        study=local(ancient(paths.study_lock)),
        files=lambda w: [local(f) for f in inputs.of_items(study, w.benchmark)],
    output:
        paths.items(),
    log:
        paths.log("make_items", "benchmark"),
    benchmark:
        paths.benchmark("make_items", "benchmark")
    localrule: True
    container:
        images["train"]
    threads: 1
    resources:
        **resources.for_rule(study, "make_items"),
    params:
        digest=lambda w: study.digest("make_items", w),
    message:
        "Items of {wildcards.benchmark}"
    shell:
        "zpdbench make-items --study {input.study:q} --benchmark {wildcards.benchmark}"
        " --out {output:q} &> {log:q}"


rule make_corpus:
    input:
        # Benchmarks' items are searched for among the examples, and read from where they come from:
        # more or fewer of them is no reason to train again. With their files as `ancient` inputs
        # Snakemake 9.27 would not look at changes of any job after this one while one is made anew.
        study=local(ancient(paths.study_lock)),
        files=lambda w: [local(f) for f in inputs.of_corpus(study)],
    output:
        paths.corpus(),
    log:
        paths.log("make_corpus", "corpus"),
    benchmark:
        paths.benchmark("make_corpus", "corpus")
    container:
        images["train"]
    threads: 2
    resources:
        **resources.for_rule(study, "make_corpus"),
    params:
        digest=lambda w: study.digest("make_corpus", w),
    message:
        "Corpus {wildcards.corpus}, with its difficulty"
    shell:
        "zpdbench make-corpus --study {input.study:q} --corpus {wildcards.corpus}"
        " --threads {threads} --out {output:q} &> {log:q}"
