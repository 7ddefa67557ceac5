rule generate_chunk:
    input:
        study=local(ancient(paths.study_lock)),
        checkpoint=paths.checkpoint(),
        adapters=lambda w: study.chunk_adapters(w.model, w.chunk),
        benchmark_items=[paths.items(b) for b in study.benchmarks],
    output:
        paths.generations(),
    log:
        paths.log("generate_chunk", "model", "chunk"),
    benchmark:
        paths.benchmark("generate_chunk", "model", "chunk")
    container:
        images["serve"]
    threads: study.generations.threads
    resources:
        **resources.for_rule(study, "generate_chunk"),
    params:
        digest=lambda w: study.digest("generate_chunk", w),
    message:
        "Answers of {wildcards.model}, chunk {wildcards.chunk}"
    shell:
        "zpdbench generate-chunk --study {input.study:q} --model {wildcards.model}"
        " --chunk {wildcards.chunk} --checkpoint {input.checkpoint:q} --adapters {input.adapters:q}"
        " --items {input.benchmark_items:q} --out {output:q} &> {log:q}"
