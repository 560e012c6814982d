"""The study as a graph of jobs: images, runs, scores, notebooks, pages, index. Settings come from the Makefile."""

import re
import sys
import time
from hashlib import sha256
from pathlib import Path
from shlex import quote
from threading import Thread

from filelock import FileLock, Timeout
from snakemake.logging import logger

import busi
from busi import selection
from busi.config import GALLERY, SECOND, StudyError, code_version, read_profile
from busi.dataset import arrays, audit, catalog, duplicates, splits
from busi.plan import tell_progress
from busi.runs import TRAINING_VERSION, find_damage
from busi.scoring import blind, floors, metrics, predictors
from busi.scoring.scores import scoring_version
from busi.study import find_groups, list_runs

PROFILE = config.get("profile", "smoke")
# All of them are text, even the name of a report such as 2024.
TEXTS = ("data_dir", "layout", "external_dir", "runs_dir", "report")
OVERRIDES = {name: str(config[name]) for name in TEXTS if name in config}

PARAMETERS = read_profile(PROFILE, **OVERRIDES)
if PARAMETERS.train_missing and not PARAMETERS.data_dir:
    raise StudyError(f"profile {PROFILE!r} is for real images: give DATA=/path/to/Dataset_BUSI_with_GT")

REPORT = f"reports/{PARAMETERS.report or PROFILE}"
BUILD = f"build/{PARAMETERS.report or PROFILE}"
MARKS = f"{BUILD}/finished"
GROUPS = find_groups(PARAMETERS)
RUNS = list_runs(PARAMETERS)
LABELS = list(RUNS)
SIZE = PARAMETERS.runs_per_job
JOBS = [LABELS[start : start + SIZE] for start in range(0, len(LABELS), SIZE)]
IMAGES = f"{REPORT}/results/dataset.csv"
MEASURED = [
    f"{REPORT}/results/{name}.csv"
    for name in (
        "files",
        "audit",
        "mean_mask",
        "floors",
        "blind",
        "duplicates",
        "split",
        "untrained/images",
        "untrained/pixels",
        *((f"untrained/{SECOND}/images", f"untrained/{SECOND}/pixels") if PARAMETERS.second_size else ()),
    )
]
PAGES = [f"{REPORT}/{stem}.html" for stem in PARAMETERS.pages]
SUMMARY = "6_summary"
FILES = f"-f params/{PROFILE}.yaml"
PAIRS = " ".join("-p " + quote(f"{name}={value}") for name, value in OVERRIDES.items())
# -r takes values as text; with -p papermill would turn some of them into numbers.
PAPERMILL_PAIRS = " ".join(f"-r {name} {quote(value)}" for name, value in OVERRIDES.items())

# Snakemake itself knows only after this file has been read.
IS_DRY_RUN = any(re.fullmatch("-[a-z]*n[a-z]*|--dry-?run", argument) for argument in sys.argv)
IS_STUDY = workflow.is_main_process and not IS_DRY_RUN

# Two studies of one profile in one folder would overwrite each other's pages: the second waits for the first, then
# finds everything made. The operating system releases this lock when a study is killed.
if IS_STUDY:
    Path(BUILD).mkdir(parents=True, exist_ok=True)
    LOCK = FileLock(f"{BUILD}/study.lock")
    try:
        LOCK.acquire(blocking=False)
    except Timeout:
        print(f"another study of profile {PROFILE!r} is running in this folder: waiting for it to end", file=sys.stderr)
        LOCK.acquire()


def state_of(folder):
    """Return a hash of the names, sizes and times of a folder's files: other data under the same name are read again."""
    files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
    states = [f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return sha256("\n".join(states).encode()).hexdigest()[:8]


def hash_package():
    """Return a hash of all files of the package, which draw the pages."""
    files = sorted(file for file in Path(busi.__file__).parent.rglob("*.*") if file.suffix != ".pyc")
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


CODE = hash_package()
# Phantom images are drawn by the study itself, always alike. A report may be drawn without its data.
DATA = "" if PARAMETERS.data_dir in ("", "phantom") else state_of(PARAMETERS.data_path)
# Runs of another training code or another split are other runs.
VERSIONS = [str(TRAINING_VERSION), *map(splits.read_split_file, splits.KINDS)]


def mark_of(job):
    """Return the mark of a job: the file that says, in this working copy, that its runs are finished, and where."""
    content = [RUNS[label].digest() for label in job] + VERSIONS
    return f"{MARKS}/{job[0]}-{sha256(''.join(content).encode()).hexdigest()[:8]}"


MARKED = {mark_of(job): job for job in JOBS} if PARAMETERS.train_missing else {}
SCORED = {f"{mark}.scored-{scoring_version()}": mark for mark in MARKED}

# A finished run may have been damaged or deleted since: removing its mark makes its job look at it again. A mark lists
# the folders of its runs, so that the data need not be read here.
if IS_STUDY:
    for mark in MARKED:
        lines = Path(mark).read_text(encoding="utf-8").splitlines() if Path(mark).is_file() else []
        folders = [Path(line) for line in lines if Path(line).is_absolute()]
        if any(find_damage(folder, weights="there") for folder in folders):
            Path(mark).unlink()


def marks_of(labels):
    """Return the marks, trained and scored, of the jobs that some runs belong to; none if nothing is to be trained."""
    wanted = set(labels)
    trained = [mark for mark, job in MARKED.items() if not wanted.isdisjoint(job)]
    return trained + [scored for scored, mark in SCORED.items() if mark in trained]


def needed_runs(wildcards):
    """Return the marks of the runs that a notebook shows; for the gallery, those of all held-out runs."""
    labels = []
    for group in GROUPS.values():
        in_gallery = wildcards.notebook == GALLERY and group.name.startswith("heldout/")
        if group.notebook == wildcards.notebook or in_gallery:
            labels += [run.label for run in group.configs]
    return marks_of(labels)


def needed_parameters(wildcards):
    """Return the parameter files of a notebook: its family's, if it has one, then the profile's."""
    names = [group.name.partition("/") for group in GROUPS.values() if group.notebook == wildcards.notebook]
    families = {family for protocol, _, family in names if protocol != "mechanisms"}
    return [f"params/{name}.yaml" for name in (*sorted(families), PROFILE)]


def needed_notebooks(wildcards):
    """Return the executed notebooks whose tables a notebook reads: all others for the summary, none for the rest."""
    others = [stem for stem in PARAMETERS.pages if stem not in (SUMMARY, GALLERY)]
    return [f"{BUILD}/{stem}.ipynb" for stem in others] if wildcards.notebook == SUMMARY else []


def tell():
    """Say among Snakemake's own messages what is being trained and when all runs will be."""
    while not Path(IMAGES).is_file():  # the job that reads the data has not finished yet
        time.sleep(1)
    try:
        tell_progress(PARAMETERS, workflow.cores if workflow.local_exec else workflow.nodes, logger.info)
    except StudyError as error:
        logger.error(f"busi: cannot tell the progress: {error}")


onstart:
    if PARAMETERS.train_missing:
        Thread(target=tell, daemon=True).start()


onerror:
    missing = [label for mark, job in MARKED.items() if not Path(mark).exists() for label in job]
    if missing:
        print(
            f"busi: not trained: {', '.join(missing)}. The reasons are given above; a job that was killed ran out of "
            "memory or time. Everything else is kept: fix this and give the same command again",
            file=sys.stderr,
        )


wildcard_constraints:
    first=r"(?:(?!\.scored-).)+",
    digest="[0-9a-f]{8}",
    version="[0-9a-f]{8}",


# These take seconds, and are not worth a place in a cluster's queue.
localrules:
    all,
    images,
    page,
    index,


rule all:
    input:
        f"{REPORT}/index.html",
        # Otherwise a missing page or run would go unnoticed if the index exists.
        PAGES,
        marks_of(RUNS),


if PARAMETERS.train_missing:

    # A rule of its own, and first, so that faulty data stop a study with one message before anything is trained.
    rule images:
        output:
            IMAGES,
        benchmark:
            f"{BUILD}/benchmark/images.tsv"
        params:
            folder=str(PARAMETERS.data_path),
            data=DATA,
            code=code_version(catalog),
        shell:
            "busi data --images-only {FILES} {PAIRS}"

    # Notebooks would measure these tables as well after a change of the code. But each would do so in its turn, and
    # those made before the last table changed would be made once more in the next study.
    rule data:
        input:
            IMAGES,
        output:
            MEASURED,
        benchmark:
            f"{BUILD}/benchmark/data.tsv"
        params:
            folder=str(PARAMETERS.data_path),
            code=code_version(audit, duplicates, splits, blind, floors, metrics, predictors, arrays, selection),
        shell:
            "busi data {FILES} {PAIRS}"

    # The output is a mark, which belongs to this working copy, and not the gathered results: these are committed, some
    # of them of fewer epochs, and only the command knows whether they are of the run that is asked for.
    rule run:
        input:
            IMAGES,
        output:
            f"{MARKS}/{{first}}-{{digest}}",
        benchmark:
            f"{BUILD}/benchmark/run/{{first}}-{{digest}}.tsv"
        params:
            runs=lambda wildcards, output: " ".join(map(quote, MARKED[output[0]])),
        threads: 1
        shell:
            "busi train {params.runs} {FILES} {PAIRS} --threads {threads} > {output}"

    # Scores have a job of their own, named by the version of the scoring code, so that a new metric trains nothing.
    rule score:
        input:
            f"{MARKS}/{{first}}-{{digest}}",
        output:
            f"{MARKS}/{{first}}-{{digest}}.scored-{{version}}",
        benchmark:
            f"{BUILD}/benchmark/score/{{first}}-{{digest}}-{{version}}.tsv"
        params:
            runs=lambda wildcards, input: " ".join(map(quote, MARKED[input[0]])),
        shell:
            "busi score {params.runs} {FILES} {PAIRS} > {output}"


rule notebook:
    input:
        notebook="notebooks/{notebook}.ipynb",
        parameters=needed_parameters,
        # A study of one's own may have no recipe.
        sections=[file for file in ("params/mechanisms.yaml", "params/recipe.yaml") if Path(file).is_file()],
        measured=[IMAGES, *MEASURED] if PARAMETERS.train_missing else [],
        runs=needed_runs,
        notebooks=needed_notebooks,
    output:
        f"{BUILD}/{{notebook}}.ipynb",
    benchmark:
        f"{BUILD}/benchmark/notebook/{{notebook}}.tsv"
    params:
        files=lambda wildcards, input: " ".join(f"-f {file}" for file in input.parameters),
        # A function, because Snakemake would take the braces of a layout for wildcards.
        pairs=lambda wildcards: PAPERMILL_PAIRS,
        code=CODE,
    # On a busy machine a kernel may not start in time.
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
    params:
        code=CODE,
    shell:
        "busi page {input} {output} {FILES} {PAIRS}"


rule index:
    input:
        PAGES,
    output:
        f"{REPORT}/index.html",
    benchmark:
        f"{BUILD}/benchmark/index.tsv"
    params:
        code=CODE,
    shell:
        "busi index {FILES} {PAIRS}"
