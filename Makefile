# `make h3a` and `make test` each set up all they need on a fresh machine; envs/python.sh finds Python 3.11.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?=
BIN := .venv/bin
CORES ?= all

# torch's CPU wheel: from the folder that PIP_FIND_LINKS names, else from PyTorch's own CPU index.
ifdef PIP_FIND_LINKS
TORCH := --find-links "$(PIP_FIND_LINKS)"
else
TORCH := --torch-backend cpu
endif

DOCKER ?=
# The runs' verdicts an item; scores.tsv has only their means.
ifndef SCORES
SCORES := results/scores/*/*/*.parquet
ADAPTERS ?= $(wildcard results/adapters/*/*/s*)
endif
CONFIG ?= config/mini.yaml
OUT ?= h3a.tsv

.PHONY: browser controls docs images test-images test-cluster test-containers test-slurm test-all docker-h3a help venv h3a test test-fast check format lock schema

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

venv: .venv/installed ## .venv with everything, each package checked by hash

.venv/installed: envs/all.txt envs/uv.txt pyproject.toml
	@test -x $(BIN)/pip || { python=$$(envs/python.sh "$(PYTHON)") && "$$python" -m venv .venv; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r envs/uv.txt
	# The lock is complete, so nothing is resolved: what others ask for and overrides.txt drops stays out.
	UV_DEFAULT_INDEX="$$($(BIN)/python -m pip config get global.index-url 2>/dev/null || true)"; \
	export UV_DEFAULT_INDEX; test -n "$$UV_DEFAULT_INDEX" || unset UV_DEFAULT_INDEX; \
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps --require-hashes $(TORCH) -r envs/all.txt; \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

h3a: venv ## the main job: results/h3a.tsv
	$(BIN)/snakemake --cores $(CORES) all

controls: venv ## studies whose answer is known: the default, config/null.yaml, config/harm.yaml
	$(BIN)/snakemake --cores $(CORES) results/h3a.tsv
	$(BIN)/snakemake --cores $(CORES) results/null/h3a.tsv --configfile config/null.yaml
	$(BIN)/snakemake --cores $(CORES) results/harm/h3a.tsv --configfile config/harm.yaml

check: venv ## lint, format, types, tests that can be collected, the workflow's lint and dry run
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check --compact-diff Snakefile rules
	$(BIN)/mypy
	$(BIN)/python -m pytest --collect-only -qq >/dev/null || $(BIN)/python -m pytest --collect-only -q
	$(BIN)/snakemake --lint
	for config in config/*.yaml; do case $$config in *lock*) continue;; esac; \
	  $(BIN)/snakemake --dry-run --quiet all --configfile $$config --config "results=$$(mktemp -d)" >/dev/null \
	    || { echo "dry run failed: $$config" >&2; exit 1; }; done

format: venv ## put code and rules into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

# Left to test-all: what needs a cluster, images, a server or an environment of its own.
APART := tests/workflow/test_slurm.py tests/workflow/test_apptainer.py tests/sandbox/test_apptainer.py \
  tests/engines/test_openai.py tests/e2e/test_r4_miniature.py tests/e2e/test_review.py tests/e2e/test_stranger.py

# Tests wait for processes more than they compute: WORKERS of pytest's processes at once, a file's
# tests in one of them, as they share what is dear to make.
WORKERS ?= 2
TOGETHER := --dist loadfile --no-loadscope-reorder

APT_CHROMIUM := DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium

browser: venv ## Chromium for the report's tests, where there is none: Debian's, else playwright's
	command -v chromium >/dev/null || { test "$$(id -u)" = 0 && { $(APT_CHROMIUM) || { apt-get update && $(APT_CHROMIUM); }; }; } \
	  || $(BIN)/playwright install chromium

test: venv ## all tests but those of images, Slurm, servers and fresh environments, fast ones first
	$(BIN)/python -m pytest -m "not full" -q -n $(WORKERS) $(TOGETHER) $(APART:%=--ignore=%)

# Debian's packages for these are installed by the tests themselves, as root; where that cannot be
# done they fail here, and are skipped elsewhere.
test-containers: venv ## score and stats images, built, and the micro grid's scores and statistics in them
	ZPDBENCH_REQUIRE=apptainer $(BIN)/python -m pytest -q tests/workflow/test_apptainer.py tests/sandbox/test_apptainer.py \
	  -k 'not slurm_and_images'

# The least of the two that shows each: images built here, both stages in them, a sandbox inside, and
# the whole grid through Slurm, its jobs killed.
test-cluster: venv ## score and stats images with what runs in them, and the micro grid through Slurm
	ZPDBENCH_REQUIRE=slurm,apptainer $(BIN)/python -m pytest -q tests/sandbox/test_apptainer.py \
	  tests/workflow/test_apptainer.py::test_scores_and_statistics_are_the_hosts_bytes \
	  tests/workflow/test_slurm.py::test_killed_jobs_come_back_with_the_same_bytes tests/images/test_unpacked.py

test-slurm: venv ## the micro grid through a Slurm of our own, its jobs killed in every way, and with images
	ZPDBENCH_REQUIRE=slurm,apptainer $(BIN)/python -m pytest -q tests/workflow/test_slurm.py \
	  tests/workflow/test_apptainer.py::test_slurm_and_images_together

test-all: venv ## those too
	$(BIN)/python -m pytest -q

test-fast: venv ## what takes seconds
	$(BIN)/python -m pytest -m "not slow and not full" -q -n $(WORKERS) $(TOGETHER)

lock: venv ## compile envs/*.in again
	PATH="$$PWD/$(BIN):$$PATH" envs/lock.sh uv

schema: venv ## write config/schema.json from the study model
	$(BIN)/zpdbench schema > config/schema.json

docs: venv ## the documentation as a site in .cache/site, which fetches nothing when it is read
	test -x .venv-docs/bin/python || $(BIN)/python -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r envs/docs.txt
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	! grep -rlE '<(script|link|img|iframe)[^>]+(src|href)="?https?://' .cache/site --include=*.html

images: venv ## the stages' container images, built where missing
	$(BIN)/snakemake --cores $(CORES) images

test-images: venv ## all four images, the micro grid in them, on the host and through Slurm
	ZPDBENCH_TEST_IMAGES=all ZPDBENCH_REQUIRE=slurm,apptainer $(BIN)/python -m pytest -q tests/images tests/workflow

docker-h3a: venv ## OUT (h3a.tsv) from SCORES (the runs' verdicts) in the stats image, by podman or docker
	$(BIN)/snakemake --cores $(CORES) "$$($(BIN)/python -c 'import pathlib; from zpdbench.images import names; print(".cache/images/" + names.image_name(pathlib.Path("."), "stats") + ".sif")')"
	DOCKER="$(DOCKER)" containers/run-oci.sh stats zpdbench h3a --scores $(SCORES) \
	  $(if $(ADAPTERS),--adapters $(ADAPTERS)) --configfile $(CONFIG) --out "$(OUT)"
