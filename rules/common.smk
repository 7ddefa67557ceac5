# The study that all rules share: read, checked and locked once, before any job starts.
import os
import shlex
import sys
from pathlib import Path

sys.path.insert(0, os.path.join(workflow.basedir, "src"))

from snakemake.deployment.singularity import Image
from snakemake.exceptions import WorkflowError

from zpdbench import cluster, failures, grid, inputs, places, preflight, resources
from zpdbench.errors import UserError
from zpdbench.images import containers, unpacked
from zpdbench.study import lock_study, write_lock

# What `verify` is asked for is no part of a study.
asked = ["bundle", "level", "minutes", "digest", "replicates"]
if "bundle" in config:
    asked += ["signers", "signature", "data", "seed"]
request = {key: config.pop(key) for key in asked if key in config}

resources.use_this_interpreter()
try:
    in_containers = "apptainer" in map(
        str, workflow.deployment_settings.deployment_method
    )
    request = places.of_request(request)
    study = lock_study(config, workflow.configfiles, in_containers=in_containers)
    preflight.check_names(study)
    inputs.check(study)
    images = containers.image_files(study.images, Path(workflow.basedir))
    # In a dry run too: Snakemake itself wants Apptainer for that.
    if in_containers:
        containers.enter(
            study,
            Path(workflow.basedir),
            given=request,
            main_process=workflow.is_main_process,
        )
        unpacked.substitute(Image)
except UserError as error:
    print(f"configuration: {error}", file=sys.stderr)
    sys.exit(2)

paths = study.paths


wildcard_constraints:
    **grid.WILDCARDS,


# What is looked at before the first job starts, and not in a dry run: that may be made where the
# data are not.
onstart:
    try:
        # Now that Snakemake's own lock is held: another call beside a run, or a dry run, must not
        # change what the run's jobs read.
        write_lock(study)
        preflight.check_machine(study)
        jobs = list(workflow.dag.needrun_jobs())
        preflight.check_tables(study, {job.name for job in jobs})
        trained = [job for job in jobs if job.rule.name == "train_adapter"]
        preflight.check_trained(study, {job.wildcards.model for job in trained})
    except UserError as error:
        print(f"configuration: {error}", file=sys.stderr)
        sys.exit(2)
    try:
        computed = {
            job.wildcards.model
            for job in jobs
            if job.rule.name == "train_adapter"
            or (
                job.rule.name == "generate_chunk"
                and study.generations.engine != "openai"
            )
        }
        preflight.note_size(study, computed)
        if workflow.executor_plugin.name == "local":
            preflight.check_gpu(study, computed, contained=in_containers)
        if in_containers:
            containers.check(
                (job.container_img_url for job in jobs if job.container_img_url),
                workflow.deployment_settings.apptainer_args,
                unpack=(
                    Path(study.images.folder)
                    if study.images.unpack
                    and workflow.executor_plugin.name == "local"
                    else None
                ),
            )
        if workflow.executor_plugin.name == "slurm":
            settings = workflow.executor_settings
            cluster.check(cluster.requests(jobs, settings))
            cluster.warn(cluster.last_requests(jobs, settings))
    except UserError as error:
        raise WorkflowError(str(error))


onsuccess:
    if os.path.exists(paths.table("h3a")):
        shell(shlex.join(["zpdbench", "show", paths.table("h3a")]))
        published = f"{workflow.basedir}/config/published.json"
        words = ["--study", paths.study_lock, "--published", published]
        shell(shlex.join(["zpdbench", "compare-published", *words]))


onerror:
    for file in [log] if isinstance(log, str) else log:
        print(*failures.reasons(Path(file)), sep="\n", file=sys.stderr)
