# All of this takes seconds: it runs where Snakemake runs, a cluster's queue would take longer.
run_scores = [paths.scores(*run) for run in study.all_runs]
# What was said of their corpus stands in every row of every table.
run_adapters = [paths.adapter(*run) for run in study.runs]


rule aggregate_scores:
    input:
        study=local(ancient(paths.study_lock)),
        scores=run_scores,
        adapters=run_adapters,
    output:
        scores=paths.table("scores"),
        curves=paths.table("curves"),
    log:
        paths.log("aggregate_scores"),
    benchmark:
        paths.benchmark("aggregate_scores")
    localrule: True
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
        "zpdbench aggregate-scores --study {input.study:q} --out-scores {output.scores:q}"
        " --out-curves {output.curves:q} {input.scores:q} --adapters {input.adapters:q} &> {log:q}"


h3a_table = report(
    paths.table("h3a"),
    category="Tables",
    caption=f"{workflow.basedir}/captions/h3a.rst",
)


rule h3a:
    input:
        study=local(ancient(paths.study_lock)),
        scores=run_scores,
        adapters=run_adapters,
    output:
        h3a_table,
    log:
        paths.log("h3a"),
    benchmark:
        paths.benchmark("h3a")
    localrule: True
    container:
        images["stats"]
    threads: 1
    resources:
        **resources.for_rule(study, "h3a"),
    params:
        digest=study.digest("h3a"),
    message:
        "Is the gain larger in the larger model? (H3a)"
    shell:
        "zpdbench h3a --configfile {input.study:q} --scores {input.scores:q}"
        " --adapters {input.adapters:q} --out {output:q} &> {log:q}"


# Where the runs' own verdicts are read, item by item.
for verb in ("h3a_sensitivity", "calibration"):

    rule:
        name:
            verb
        input:
            study=local(ancient(paths.study_lock)),
            scores=run_scores,
            adapters=run_adapters,
        output:
            paths.table(verb),
        log:
            paths.log(verb),
        benchmark:
            paths.benchmark(verb)
        localrule: True
        container:
            images["stats"]
        threads: 1
        resources:
            **resources.for_rule(study, verb),
        params:
            digest=study.digest(verb),
            verb=verb.replace("_", "-"),
        message:
            "Statistics: {params.verb}"
        shell:
            "zpdbench {params.verb:q} --study {input.study:q} --scores {input.scores:q}"
            " --adapters {input.adapters:q} --out {output:q} &> {log:q}"


from_scores_table = {"rq1": "anova", "h3b": "h3b", "r1": "r1", "power": "power"}
from_scores_table |= {
    t: t for t in study.further_tables if t in ("ablations", "ladder")
}

# Verb -> table, where one table of scores is all that is read.
for verb, table in from_scores_table.items():

    rule:
        name:
            verb
        input:
            study=local(ancient(paths.study_lock)),
            scores=paths.table("scores"),
            adapters=run_adapters,
        output:
            paths.table(table),
        log:
            paths.log(verb),
        benchmark:
            paths.benchmark(verb)
        localrule: True
        container:
            images["stats"]
        threads: 1
        resources:
            **resources.for_rule(study, verb),
        params:
            digest=study.digest(verb),
            verb=verb,
        message:
            "Statistics: {params.verb}"
        shell:
            "zpdbench {params.verb:q} --study {input.study:q} --scores {input.scores:q}"
            " --adapters {input.adapters:q} --out {output:q} &> {log:q}"


rule efficiency:
    input:
        study=local(ancient(paths.study_lock)),
        scores=paths.table("scores"),
        adapters=run_adapters,
    output:
        paths.table("efficiency"),
    log:
        paths.log("efficiency"),
    benchmark:
        paths.benchmark("efficiency")
    localrule: True
    container:
        images["stats"]
    threads: 1
    resources:
        **resources.for_rule(study, "efficiency"),
    params:
        digest=study.digest("efficiency"),
    message:
        "Steps, FLOPs and seconds to the control's final score"
    shell:
        "zpdbench efficiency --study {input.study:q} --scores {input.scores:q}"
        " --adapters {input.adapters:q} --out {output:q} &> {log:q}"


rule expected:
    input:
        study=local(ancient(paths.study_lock)),
        scores=paths.table("scores"),
        efficiency=paths.table("efficiency"),
        adapters=run_adapters,
    output:
        paths.table("expected"),
    log:
        paths.log("expected"),
    benchmark:
        paths.benchmark("expected")
    localrule: True
    container:
        images["stats"]
    threads: 1
    resources:
        **resources.for_rule(study, "expected"),
    params:
        digest=study.digest("expected"),
    message:
        "What was expected, and what came out"
    shell:
        "zpdbench expected --study {input.study:q} --scores {input.scores:q}"
        " --efficiency {input.efficiency:q} --adapters {input.adapters:q} --out {output:q} &> {log:q}"


# Do the tests keep their level? Asked for by name, and of no study: it simulates its own.
#     snakemake --cores all results/validation.tsv [--config replicates=20000]
rule validate_statistics:
    output:
        paths.table("validation"),
    log:
        paths.log("validate_statistics"),
    benchmark:
        paths.benchmark("validate_statistics")
    localrule: True
    container:
        images["stats"]
    threads: 1
    resources:
        **resources.for_rule(study, "validate_statistics"),
    params:
        digest=study.digest("validate_statistics"),
        replicates=request.get("replicates", 2000),
    message:
        "Simulated studies: level, coverage, power"
    shell:
        "zpdbench validate-statistics --replicates {params.replicates:q} --out {output:q} &> {log:q}"


tables_of_study = [
    paths.table({"rq1": "anova"}.get(verb, verb)) for verb in study.tables
]
