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
        "zpdbench make-items --study {input.study} --benchmark {wildcards.benchmark}"
        " --out {output} &> {log}"


rule make_corpus:
    input:
        study=local(ancient(paths.study_lock)),
        # Searched for among the examples. More or fewer of them is no reason to train again; another
        # source of them is, and stands in the digest.
        benchmark_items=[ancient(paths.items(b)) for b in study.benchmarks],
        files=lambda w: [local(f) for f in inputs.of_corpus(study)],
    output:
        paths.corpus(),
    log:
        paths.log("make_corpus", "corpus"),
    benchmark:
        paths.benchmark("make_corpus", "corpus")
    container:
        images["train"]
    threads: 1
    resources:
        **resources.for_rule(study, "make_corpus"),
    params:
        digest=lambda w: study.digest("make_corpus", w),
    message:
        "Corpus {wildcards.corpus}, with its difficulty"
    shell:
        "zpdbench make-corpus --study {input.study} --corpus {wildcards.corpus}"
        " --items {input.benchmark_items} --out {output} &> {log}"
