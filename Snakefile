"""The study as a graph of jobs: data -> runs -> notebooks -> pages -> index. Settings come from the Makefile."""

import sys
import time
from hashlib import sha256
from pathlib import Path
from shlex import quote
from threading import Thread

from filelock import FileLock, Timeout
from snakemake.logging import logger

from busi import config as parameters
from busi import plan
from busi.evaluation import SCORING
from busi.mechanisms import experiments

PROFILE = config.get("profile", "smoke")
OVERRIDES = {name: config[name] for name in ("data_dir", "runs_dir") if name in config}

STUDY = parameters.read(f"params/{PROFILE}.yaml", **OVERRIDES)
if STUDY.train_missing and not STUDY.data_dir:
    raise parameters.StudyError(f"profile {PROFILE!r} is for real images: give DATA=/path/to/Dataset_BUSI_with_GT")

REPORT, BUILD = f"reports/{PROFILE}", f"build/{PROFILE}"
MARKS = f"{BUILD}/finished"
RUNS = experiments.every_job(STUDY)
JOBS = [list(RUNS)[start : start + STUDY.runs_per_job] for start in range(0, len(RUNS), STUDY.runs_per_job)]
FAMILY = {"1_upsampling": "upsampling", "2_optimization": "optimization", "3_loss": "loss", "4_data": "data"}
GATHERED = [
    f"{REPORT}/results/{name}"
    for name in ("dataset.csv", "floors.json", "duplicates.csv", "split.csv", "heldout/trivial.sha256")
]
FILES = f"-f params/{PROFILE}.yaml"
PAIRS = " ".join("-p " + quote(f"{name}={value}") for name, value in OVERRIDES.items())
PAPERMILL_PAIRS = " ".join(f"-p {name} {quote(str(value))}" for name, value in OVERRIDES.items())

# Two studies of one profile in one folder would overwrite each other's pages: the second waits, then finds them made.
# The system lets go of this lock when a study is killed.
if workflow.is_main_process and not workflow.dryrun:
    Path(BUILD).mkdir(parents=True, exist_ok=True)
    LOCK = FileLock(f"{BUILD}/study.lock")
    try:
        LOCK.acquire(blocking=False)
    except Timeout:
        print(f"another study of profile {PROFILE!r} is at work in this folder: waiting for its end", file=sys.stderr)
        LOCK.acquire()


def mark(job):
    """What says, in this working copy, that a job's runs are finished, and where they are."""
    digest = sha256("".join(RUNS[name][0].digest() for name in job).encode()).hexdigest()[:8]
    return f"{MARKS}/{job[0]}-{digest}"


MARKED = {mark(job): job for job in JOBS} if STUDY.train_missing else {}

# A finished run may have been damaged since: without its mark, its job has a look at it.
if workflow.is_main_process and not workflow.dryrun:
    for path, job in MARKED.items():
        if Path(path).is_file() and any(store.damage(run) for run, store in map(RUNS.get, job)):
            Path(path).unlink()


def finished(names):
    """The marks of the jobs that runs belong to; none where nothing is to be trained."""
    wanted = set(names)
    return [mark for mark, job in MARKED.items() if not wanted.isdisjoint(job)]


def needs(wildcards):
    """A notebook's runs: those of its family or its sections, or all of them for the summary."""
    if wildcards.notebook == "6_summary":
        return finished(RUNS)
    if wildcards.notebook == "5_mechanisms":
        return finished(experiments.jobs(STUDY))
    if wildcards.notebook == "gallery":
        return finished(name for name in RUNS if name.startswith("heldout/"))
    if family := FAMILY.get(wildcards.notebook):
        study = parameters.family(family, PROFILE, **OVERRIDES)
        variants = [runs for protocol in parameters.PROTOCOLS for runs in study.configs(protocol).values()]
        return finished(run.label for runs in variants for run in runs)
    return []


def tell_progress():
    """What is being trained and when all will be, wherever Snakemake's own messages go."""
    while not Path(GATHERED[0]).is_file():  # the job that reads the data has not ended
        time.sleep(1)
    try:
        plan.tell(STUDY, workflow.cores if workflow.local_exec else workflow.nodes, logger.info)
    except parameters.StudyError as error:
        logger.error(f"busi: progress is not told: {error}")


onstart:
    if STUDY.train_missing:
        Thread(target=tell_progress, daemon=True).start()


onerror:
    missing = [name for mark, job in MARKED.items() if not Path(mark).exists() for name in job]
    if missing:
        print(
            f"busi: not trained: {', '.join(missing)}. The reasons are told above; a job that was killed ran out of "
            "memory or of time. All else is kept: mend it and give the same command again",
            file=sys.stderr,
        )


wildcard_constraints:
    digest="[0-9a-f]{8}",


# Seconds of work, not worth a place in a cluster's queue.
localrules:
    all,
    page,
    index,


rule all:
    input:
        f"{REPORT}/index.html",
        finished(RUNS),  # or a mark that is missing would not be missed while the pages are there


if STUDY.train_missing:

    # What scores the untrained predictors is an input: notebooks would notice the change as well, each in its own time,
    # and those made before the last of them once more in the next study.
    rule data:
        input:
            [f"busi/evaluation/{module}.py" for module in SCORING],
        output:
            GATHERED,
        benchmark:
            f"{BUILD}/benchmark/data.tsv"
        params:
            folder=str(STUDY.data_path),
        shell:
            "busi data {FILES} {PAIRS}"

    # A mark of this working copy and not the gathered results: those are committed, of fewer epochs too, and the command
    # knows which of them are the run that is asked for.
    rule run:
        input:
            f"{REPORT}/results/dataset.csv",
        output:
            f"{MARKS}/{{first}}-{{digest}}",
        benchmark:
            f"{BUILD}/benchmark/run/{{first}}-{{digest}}.tsv"
        params:
            runs=lambda wildcards, output: " ".join(map(quote, MARKED[output[0]])),
        threads: 1
        shell:
            "busi train {params.runs} {FILES} {PAIRS} --threads {threads} > {output}"


rule notebook:
    input:
        notebook="notebooks/{notebook}.ipynb",
        parameters=lambda wildcards: [
            f"params/{name}.yaml" for name in (FAMILY.get(wildcards.notebook), PROFILE) if name
        ],
        settings=lambda wildcards: "params/mechanisms.yaml" if wildcards.notebook == "5_mechanisms" else [],
        gathered=GATHERED if STUDY.train_missing else [],
        runs=needs,
    output:
        f"{BUILD}/{{notebook}}.ipynb",
    benchmark:
        f"{BUILD}/benchmark/notebook/{{notebook}}.tsv"
    params:
        files=lambda wildcards, input: " ".join(f"-f {file}" for file in input.parameters),
        pairs=PAPERMILL_PAIRS,
    # A busy machine may fail to start a kernel in time.
    retries: 2
    shell:
        "papermill --no-progress-bar --log-level WARNING {params.files} {params.pairs} {input.notebook} {output}"


rule page:
    input:
        f"{BUILD}/{{notebook}}.ipynb",
    output:
        f"{REPORT}/{{notebook}}.html",
    benchmark:
        f"{BUILD}/benchmark/page/{{notebook}}.tsv"
    shell:
        "busi page {input} {output}"


rule index:
    input:
        [f"{REPORT}/{stem}.html" for stem in STUDY.pages],
    output:
        f"{REPORT}/index.html",
    benchmark:
        f"{BUILD}/benchmark/index.tsv"
    shell:
        "busi index {PROFILE}"
