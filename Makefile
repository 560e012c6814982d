# The commands people type. The Snakefile says what a study does, requirements.lock what is installed.

PYTHON  ?= python3
PROFILE ?= smoke
DATA    ?=
RUNS    ?= runs
KILLS   ?= 100
PARTS   ?= speed profile growth
REPORT  ?=
# The report's folder under reports/.
NAME    := $(or $(REPORT),$(PROFILE))

# Where the jobs of a study run, on this machine or through one of profiles/, and how many of them at a time.
WORKFLOW_PROFILE ?=
JOBS    ?= $(if $(WORKFLOW_PROFILE),100,2)
WORKERS := $(if $(WORKFLOW_PROFILE),--workflow-profile profiles/$(WORKFLOW_PROFILE) --jobs,--cores) $(JOBS)
# Number of GPUs that one of profiles/ requests for a training.
export GPUS ?= 0

# Rules of the Snakefile call commands of the environment. TensorFlow's start-up messages say nothing about a study.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export TF_CPP_MIN_LOG_LEVEL := 3

# Besides outputs and counts, this removes what papermill writes into a notebook: where it ran, and on which Python.
NBSTRIPOUT := .venv/bin/nbstripout --keep-id --extra-keys \
	"metadata.papermill metadata.language_info.version cell.metadata.papermill"

ifneq ($(DATA),)
ifneq ($(shell test -d "$(DATA)" && echo found),found)
$(error DATA=$(DATA): no such folder. Expected one of images with masks, e.g. the BUSI release, Dataset_BUSI_with_GT, holding benign/, malignant/ and normal/)
endif
endif

ifneq ($(EXTERNAL),)
ifneq ($(shell test -d "$(EXTERNAL)" && echo found),found)
$(error EXTERNAL=$(EXTERNAL): no such folder. Expected one of images with masks, in any layout of docs/datasets.md that needs no name)
endif
endif

ifneq ($(WORKFLOW_PROFILE),)
ifeq ($(wildcard profiles/$(WORKFLOW_PROFILE)/config.yaml),)
$(error WORKFLOW_PROFILE=$(WORKFLOW_PROFILE): no such profile. There are: $(notdir $(wildcard profiles/*)))
endif
endif

.PHONY: help data study plan report gallery bench test test-faults test-slurm lint format lock lab clean

help: ## List these targets
	@awk -F ': .*## ' '/^[a-z-]+: .*## / { printf "make %-13s%s\n", $$1, $$2 }' Makefile

data: .venv/.installed ## Get BUSI from Kaggle into data/Dataset_BUSI_with_GT [OUT=folder URL=address or ZIP=file.zip]
	.venv/bin/busi download $(if $(OUT),--out "$(OUT)") $(if $(URL),--url "$(URL)") $(if $(ZIP),--zip "$(ZIP)")

# --nolock: a study that was killed leaves Snakemake's lock behind, which would stop the next one. The Snakefile has a
# lock of its own.
study: .venv/.installed ## Run a study [PROFILE=smoke|laptop|paper DATA=Dataset_BUSI_with_GT LAYOUT=name RUNS=runs REPORT=name EXTERNAL=folder JOBS=2 WORKFLOW_PROFILE=slurm GPUS=1]
	.venv/bin/snakemake --snakefile Snakefile $(WORKERS) --nolock --rerun-incomplete --keep-going \
		--config profile="$(PROFILE)" runs_dir="$(RUNS)" $(if $(DATA),data_dir="$(DATA)") $(if $(LAYOUT),layout="$(LAYOUT)") $(if $(EXTERNAL),external_dir="$(EXTERNAL)") $(if $(REPORT),report="$(REPORT)")
	@echo "The study is in reports/$(NAME)/index.html"

plan: .venv/.installed ## Say what a study has left to train and for how long, and start nothing [PROFILE=laptop DATA=... LAYOUT=name REPORT=name JOBS=2]
	.venv/bin/busi plan -f params/$(PROFILE).yaml -p runs_dir="$(RUNS)" $(if $(DATA),-p data_dir="$(DATA)") $(if $(LAYOUT),-p layout="$(LAYOUT)") $(if $(REPORT),-p report="$(REPORT)") --jobs $(JOBS)

report: .venv/.installed ## Draw a report again from what it has gathered, without data or training [PROFILE=laptop REPORT=name]
	.venv/bin/busi render "reports/$(NAME)" --profile "$(PROFILE)" --jobs $(JOBS)
	@echo "The report is in reports/$(NAME)/index.html"

# For those who have the data, because the page shows images. Variants that have not been trained are left out.
gallery: .venv/.installed ## Draw each variant's best, median and worst cases, not to be published [PROFILE=laptop DATA=... LAYOUT=name REPORT=name RUNS=runs]
	@mkdir -p "build/$(NAME)"
	.venv/bin/papermill --no-progress-bar --log-level WARNING -f "params/$(PROFILE).yaml" -p show_pixels True \
		-r runs_dir "$(RUNS)" $(if $(DATA),-r data_dir "$(DATA)") $(if $(LAYOUT),-r layout "$(LAYOUT)") $(if $(REPORT),-r report "$(REPORT)") notebooks/gallery.ipynb "build/$(NAME)/gallery.ipynb"
	.venv/bin/busi page "build/$(NAME)/gallery.ipynb" "reports/$(NAME)/gallery.html" -f "params/$(PROFILE).yaml" -p show_pixels=true $(if $(REPORT),-p report="$(REPORT)")

bench: .venv/.installed ## Measure speed and growth on a quiet machine, into reports/benchmark/ [PARTS="speed profile growth", or precision with PROFILE=laptop DATA=...]
	.venv/bin/python -m benchmarks $(PARTS) --profile "$(PROFILE)" --runs-dir "$(RUNS)" $(if $(DATA),--data-dir "$(DATA)")

test: .venv/.installed ## Run the tests; the environment variable BUSI_DATA_DIR adds those on real images
	.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore tests/faults

test-faults: .venv/.installed ## Kill studies [KILLS=100] with one worker and as often with two, fill the disk, ... (an hour)
	KILLS=$(KILLS) .venv/bin/python -m pytest --capture=no --verbose tests/faults

test-slurm: .venv/.installed ## Run a study through Slurm on this machine and pull the plug of a node (root on Debian; installs Slurm)
	.venv/bin/python -m pytest --capture=no --verbose tests/cluster/slurm.py

lint: .venv/.installed ## Check style, layers, pins, and that notebooks are committed without outputs
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/lint-imports
	$(NBSTRIPOUT) --verify notebooks/*.ipynb
	.venv/bin/python -m pytest --quiet tests/test_environment.py

format: .venv/.installed ## Fix what lint can fix: style, and notebooks with outputs
	.venv/bin/ruff check --fix-only
	.venv/bin/ruff format
	$(NBSTRIPOUT) notebooks/*.ipynb

lab: .venv/.installed ## Explore in JupyterLab [LAB=--no-browser, or any other option of it]
	.venv/bin/jupyter lab $(LAB) notebooks

# --no-strip-extras: pip accepts a pin with hashes for a package with extras only if the pin names the extras too, or if
# it is the newest release.
lock: .venv/.installed ## Pin anew what pyproject.toml asks for [UPGRADE=1: the newest releases]
	.venv/bin/python -m pip install --quiet uv
	.venv/bin/uv pip compile pyproject.toml --extra cpu --extra dev --output-file requirements.lock \
		--python-version 3.11 --universal --fork-strategy fewest --generate-hashes --no-strip-extras --no-header \
		--no-annotate --quiet $(if $(UPGRADE),--upgrade)

clean: ## Remove all that is made again in minutes; finished runs stay
	rm -rf .venv .snakemake build data/phantom reports/smoke *.egg-info .*_cache .hypothesis

.venv/.installed: requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "Python 3.11, 3.12 or 3.13 is needed, and $(PYTHON) is none: name another, make PYTHON=python3.12 ..."; \
		exit 1; } >&2
	"$(PYTHON)" -m venv .venv
	.venv/bin/python -m pip install --quiet --require-hashes --requirement requirements.lock
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
