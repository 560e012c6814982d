"""How a study's cost grows: the smoke study's parts, job times replayed on many workers, plans of many runs."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import yaml

from busi.config import PROTOCOLS, ROOT, StudyError, distinct, read
from busi.plan import duration, makespan

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
PLANNED = (100, 1_000, 10_000)
"""Runs of which a plan is built."""

_RUN_COUNT = re.compile(r"^run\s+(\d+)$", re.MULTILINE)


@contextmanager
def workbench() -> Iterator[Path]:
    """A copy of the study in a folder of its own: nothing trained, nothing built, phantom data still to be drawn."""
    with TemporaryDirectory() as folder:
        for name in ("busi", "notebooks", "params"):
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(ROOT / "Snakefile", Path(folder) / "Snakefile")
        yield Path(folder)


@dataclass(frozen=True)
class Finished:
    """A command that has run: `output` (stdout and stderr), `seconds`, `memory_mib` (peak of its largest process)."""

    output: str
    seconds: float
    memory_mib: float


def snakemake(folder: Path, *options: str) -> Finished:
    """Run Snakemake on a `workbench`.

    Raises:
        StudyError: It fails; with the end of what it said.
    """
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "",  # or every job compiles all that it imports, which more than doubles its start
    }
    command = [sys.executable, "-m", "snakemake", *options]
    start = time.perf_counter()
    with (folder / "output").open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        # This child's own use of resources, which `resource.getrusage` would mix with that of others.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        output.seek(0)
        said = output.read()
    if process.returncode:
        raise StudyError(f"{' '.join(command[1:])}: exit code {process.returncode}; it said:\n{said[-2000:]}")
    return Finished(said, seconds, usage.ru_maxrss / 2**10)


def smoke(cores: int) -> pd.DataFrame:
    """Run the smoke study from nothing on ``cores``, then once more.

    Returns:
        One row a part: `cores`, `part`, `jobs`, `seconds`. "whole study" and "warm rerun" are by the clock; the others
        are sums over jobs, several of which run at a time. Of the jobs that train, "imports" is one measured start of
        Python with Keras for each, "training" what the runs' histories say, "compiling, scoring" the rest.
    """
    with workbench() as folder:
        options = ("--cores", str(cores), "--config", "profile=smoke")
        whole, again = (snakemake(folder, *options).seconds for _ in range(2))
        rules = benchmarks(folder / "build" / "smoke" / "benchmark")
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import busi.training"], check=True, capture_output=True)
        importing = (time.perf_counter() - start) * rules.jobs["run"]
        training = sum(job_times(folder / "reports" / "smoke" / "results"))
    parts = {
        "whole study": (1, whole),
        "warm rerun": (1, again),
        "data": rules.loc["data"],
        "imports": (rules.jobs["run"], importing),
        "training": (rules.jobs["run"], training),
        "compiling, scoring": (rules.jobs["run"], rules.seconds["run"] - importing - training),
        "notebooks": rules.loc["notebook"],
        "rendering": rules.loc[["page", "index"]].sum(),
    }
    table = pd.DataFrame.from_dict(parts, orient="index", columns=["jobs", "seconds"]).rename_axis("part").reset_index()
    table.insert(0, "cores", cores)
    return table.astype({"jobs": int})


def benchmarks(folder: Path) -> pd.DataFrame:
    """What Snakemake's ``benchmark:`` wrote to ``folder/RULE/**.tsv``: a row a rule, with its `jobs` and `seconds`.

    Raises:
        StudyError: There is none.
    """
    files = sorted(folder.rglob("*.tsv"))
    if not files:
        raise StudyError(f"{folder}: no *.tsv; expected those of the Snakefile's benchmark: lines")
    rows = [(file.relative_to(folder).with_suffix("").parts[0], pd.read_csv(file, sep="\t").s.sum()) for file in files]
    return pd.DataFrame(rows, columns=["rule", "seconds"]).groupby("rule").seconds.agg(jobs="count", seconds="sum")


def job_times(results: Path) -> list[float]:
    """Seconds of training of each run gathered under ``results``, in the order of their paths."""
    return [json.loads(file.read_text(encoding="utf-8"))["seconds"] for file in sorted(results.rglob("metrics.json"))]


def replayed(seconds: list[float], jobs: int, workers: tuple[int, ...] = WORKERS) -> pd.DataFrame:
    """Measured job times on simulated workers.

    Args:
        seconds: Of measured jobs.
        jobs: How many to simulate, drawn from ``seconds`` with replacement.
        workers: Numbers of workers.

    Returns:
        One row a number of workers: `jobs`, `workers`, `hours` (until the last job is done; each is started, in the
        order drawn, on the worker that is free first), `speedup` (against one worker), `efficiency` (that by workers).
    """
    drawn = np.random.default_rng(0).choice(seconds, jobs)
    hours = np.array([makespan(drawn, count) for count in workers]) / 3600
    speedup = drawn.sum() / 3600 / hours
    table = {"workers": workers, "hours": hours, "speedup": speedup, "efficiency": speedup / np.array(workers)}
    return pd.DataFrame(table).assign(jobs=jobs)[["jobs", *table]]


def planned(counts: tuple[int, ...] = PLANNED) -> pd.DataFrame:
    """Build Snakemake's plan of studies with many seeds, without running anything.

    Args:
        counts: Runs to plan, at least.

    Returns:
        One row a plan: `runs`, `seconds` (of the whole dry run), `memory_mib` (peak).
    """
    smoke, rows = read(ROOT / "params" / "smoke.yaml"), []
    a_seed = sum(len(distinct(smoke.model_copy(update={"seeds": [0]}), protocol)) for protocol in PROTOCOLS)
    with workbench() as folder:
        for count in counts:
            larger = {"seeds": list(range(-(-count // a_seed))), "runs_per_job": 1}
            content = smoke.model_dump(exclude_unset=True) | larger
            (folder / "params" / "smoke.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
            plan = snakemake(folder, "--dry-run", "--quiet", "rules", "--cores", "1", "--config", "profile=smoke")
            if not (found := _RUN_COUNT.search(plan.output)):
                raise StudyError(f"snakemake --dry-run: no number of runs in what it said:\n{plan.output[-2000:]}")
            rows.append({"runs": int(found[1]), "seconds": plan.seconds, "memory_mib": plan.memory_mib})
    return pd.DataFrame(rows)


def bottleneck(plans: pd.DataFrame, replay: pd.DataFrame) -> str:
    """What `planned` and `replayed` say together: how much of a large study its plan is, and from when on all of it."""
    plan, largest = plans.iloc[-1], replay[replay.jobs == replay.jobs.max()]
    alone, crowd = largest.iloc[0], largest.iloc[-1]
    a_run, a_job = plan.seconds / plan.runs, alone.hours * 3600 * alone.workers / alone.jobs
    return (
        f"Planning {plan.runs:.0f} runs takes {duration(plan.seconds)}, {a_run * 1000:.0f} ms a run; training "
        f"{crowd.jobs:.0f} runs of {duration(a_job)} on average takes {crowd.workers:.0f} workers "
        f"{duration(crowd.hours * 3600)}. At that rate planning takes as long as training from {a_job / a_run:,.0f} "
        "workers on."
    )


def goals(study: pd.DataFrame) -> pd.DataFrame:
    """The goals of `smoke` on two cores: `goal`, `measured`, `reached`."""
    seconds = study[study.cores == 2].set_index("part").seconds
    limits = {"whole study": 180, "warm rerun": 15}
    rows = [
        {
            "goal": f"smoke study on two cores, {part}: under {limit} s",
            "measured": f"{seconds[part]:.0f} s",
            "reached": "yes" if seconds[part] < limit else "no",
        }
        for part, limit in limits.items()
    ]
    return pd.DataFrame(rows)
