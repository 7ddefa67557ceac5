# From checkpoints to a verdict. Ask for the file you want:
#     snakemake --cores all results/h3a.tsv
#     snakemake results/r4/h3a.tsv --cores all --configfile config/r4.yaml
from snakemake.utils import min_version

min_version("9.0")

if not workflow.overwrite_configfiles:

    configfile: "config/mini.yaml"


include: "rules/common.smk"
include: "rules/checkpoints.smk"
include: "rules/corpora.smk"
include: "rules/adapters.smk"
include: "rules/generations.smk"
include: "rules/scores.smk"
include: "rules/statistics.smk"
include: "rules/report.smk"
include: "rules/images.smk"


rule all:
    default_target: True
    input:
        tables_of_study,
        figures,
        f"{paths.results}/report.html",
        # By itself Snakemake does not miss a deleted file whose consumers are still there.
        run_scores,
    localrule: True


include: "rules/artifacts.smk"
