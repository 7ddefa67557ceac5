# Figure -> the table that it is drawn from, a key of draw_figures' input.
drawn = {"curves": "curves", "effects": "h3a", "power": "power", "ladder": "ladder"}
drawn = {f: t for f, t in drawn.items() if t in ("curves", *study.tables)}
captions = {n: f"{workflow.basedir}/captions/{n}.rst" for n in (*drawn, "report")}
figures = []
for name in drawn:
    for kind in ("svg", "png"):
        file = paths.figure(f"{name}.{kind}")
        shown = report(file, category="Figures", caption=captions[name])
        figures.append(shown)
page = report(
    f"{paths.results}/report.html", category="Report", caption=captions["report"]
)
figure_tables = {table: paths.table(table) for table in drawn.values()}


rule draw_figures:
    input:
        **figure_tables,
        study=local(ancient(paths.study_lock)),
    output:
        figures,
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
        tables=" ".join(f"--{name} {path}" for name, path in figure_tables.items()),
    message:
        "Figures"
    shell:
        "zpdbench draw-figures --study {input.study} {params.tables} --out {output} &> {log}"


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
        "zpdbench report --study {input.study} --tables {input.tables} {input.scores_table}"
        " --scores {input.scores} --generations {input.generations}"
        " --items {input.benchmark_items} --adapters {input.adapters} --corpus {input.corpus}"
        " --out {output} &> {log}"
