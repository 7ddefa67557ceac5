from zpdbench.artifacts import layout

# Figure -> the table that it is drawn from, a key of draw_figures' input.
drawn = {
    f: t
    for f, t in layout.FIGURES_OF.items()
    if t in ("curves", "scores", *study.tables)
}
captions = {
    n: f"{workflow.basedir}/captions/{n}.rst"
    for n in (*drawn, *layout.TRAINING_FIGURES, "report")
}


table_figures, training_figures = [], []
for kept, names in (
    (table_figures, drawn),
    (training_figures, layout.TRAINING_FIGURES),
):
    for name in names:
        for kind in ("svg", "png"):
            file = paths.figure(f"{name}.{kind}")
            shown = report(file, category="Figures", caption=captions[name])
            kept.append(shown)
figures = [*table_figures, *training_figures]
page = report(
    f"{paths.results}/report.html", category="Report", caption=captions["report"]
)
figure_tables = {table: paths.table(table) for table in drawn.values()}


rule draw_figures:
    input:
        **figure_tables,
        study=local(ancient(paths.study_lock)),
    output:
        table_figures,
    log:
        paths.log("draw_figures"),
    benchmark:
        paths.benchmark("draw_figures")
    localrule: True
    container:
        images["stats"]
    threads: 1
    resources:
        **resources.for_rule(study, "draw_figures"),
    params:
        digest=study.digest("draw_figures"),
        tables=shlex.join(
            word
            for name, path in figure_tables.items()
            for word in (f"--{name}", path)
        ),
    message:
        "Figures"
    shell:
        "zpdbench draw-figures --study {input.study:q} {params.tables} --out {output:q} &> {log:q}"


rule draw_training:
    input:
        study=local(ancient(paths.study_lock)),
        adapters=[paths.adapter(*run) for run in study.runs],
        corpus=paths.corpus(study.corpus.name),
    output:
        training_figures,
    log:
        paths.log("draw_training"),
    benchmark:
        paths.benchmark("draw_training")
    localrule: True
    container:
        images["stats"]
    threads: 1
    resources:
        **resources.for_rule(study, "draw_training"),
    params:
        digest=study.digest("draw_training"),
    message:
        "Figures of the training"
    shell:
        "zpdbench draw-training --study {input.study:q} --adapters {input.adapters:q}"
        " --corpus {input.corpus:q} --out {output:q} &> {log:q}"


rule report:
    input:
        study=local(ancient(paths.study_lock)),
        tables=tables_of_study,
        scores_table=[paths.table("scores"), paths.table("curves")],
        scores=run_scores,
        generations=[paths.generations(*chunk) for chunk in study.chunks],
        benchmark_items=[paths.items(b) for b in study.benchmarks],
        adapters=[paths.adapter(*run) for run in study.runs],
        corpus=paths.corpus(study.corpus.name),
    output:
        page,
    log:
        paths.log("report"),
    benchmark:
        paths.benchmark("report")
    localrule: True
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
        "zpdbench report --study {input.study:q} --tables {input.tables:q} {input.scores_table:q}"
        " --scores {input.scores:q} --generations {input.generations:q}"
        " --items {input.benchmark_items:q} --adapters {input.adapters:q} --corpus {input.corpus:q}"
        " --out {output:q} &> {log:q}"
