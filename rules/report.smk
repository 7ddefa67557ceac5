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
