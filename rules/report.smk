figures = [
    paths.figure(f"{name}.{kind}")
    for name in ("curves", "effects")
    for kind in ("svg", "png")
]


rule draw_figures:
    input:
        study=ancient(paths.study_lock),
        curves=paths.table("curves"),
        h3a=paths.table("h3a"),
    output:
        figures,
    log:
        paths.log("draw_figures"),
    benchmark:
        paths.benchmark("draw_figures")
    container:
        images["stats"]
    threads: 1
    resources:
        **resources.for_rule(study, "draw_figures"),
    params:
        digest=study.digest("draw_figures"),
    message:
        "Figures"
    shell:
        "zpdbench draw-figures --study {input.study} --curves {input.curves} --h3a {input.h3a}"
        " --out {output} &> {log}"


rule report:
    input:
        study=ancient(paths.study_lock),
        tables=tables_of_study,
        scores_table=[paths.table("scores"), paths.table("curves")],
        scores=run_scores,
        generations=[paths.generations(*chunk) for chunk in study.chunks],
        benchmark_items=[paths.items(b) for b in study.benchmarks],
        adapters=[paths.adapter(*run) for run in study.runs],
        corpus=paths.corpus(study.corpus.name),
    output:
        f"{paths.results}/report.html",
    log:
        paths.log("report"),
    benchmark:
        paths.benchmark("report")
    container:
        images["stats"]
    threads: 1
    resources:
        **resources.for_rule(study, "report"),
    params:
        digest=study.digest("report"),
    message:
        "The report"
    shell:
        "zpdbench report --study {input.study} --tables {input.tables} {input.scores_table}"
        " --scores {input.scores} --generations {input.generations}"
        " --items {input.benchmark_items} --adapters {input.adapters} --corpus {input.corpus}"
        " --out {output} &> {log}"
