"""Growth of a study's cost: time of the smoke study, measured runs replayed on many workers, plans of many runs."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml

from benchmarks.race import MAXRSS_MIB
from busi import config
from busi.config import StudyError
from busi.plan import makespan
from busi.study import list_runs

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
PLANNED = (100, 1_000, 10_000)


def measure() -> dict[str, pd.DataFrame]:
    """Measure "study" (the smoke study), "scaling" (runs of reports/laptop on more workers) and "plans" (more runs)."""
    studies = [measure_smoke_study(cores) for cores in (1, 2)]
    seconds = read_run_seconds(config.find_study_folder() / "reports" / "laptop" / "results")
    replays = [replay(seconds, jobs) for jobs in (len(seconds), max(PLANNED))]
    return {"study": pd.concat(studies), "scaling": pd.concat(replays), "plans": measure_plans()}


def measure_smoke_study(cores: int) -> pd.DataFrame:
    """Run the smoke study from nothing on ``cores`` cores, then once more.

    Returns:
        One row per part: `cores`, `part`, `jobs`, `seconds`. "whole study" and "warm rerun" are by the clock. The other
        parts are sums over jobs, several of which run at a time: the Snakefile's rules, and "training alone", which is
        what the runs say.
    """
    with workbench() as folder:
        options = ("--cores", str(cores), "--config", "profile=smoke")
        # The second study finds everything made, so it measures what looking costs.
        first = run_snakemake(folder, *options)
        again = run_snakemake(folder, *options)
        rules = read_rule_times(folder / "build" / "smoke" / "benchmark")
        training = read_run_seconds(folder / "reports" / "smoke" / "results")
    rows = [
        {"part": "whole study", "jobs": 1, "seconds": first.seconds},
        {"part": "warm rerun", "jobs": 1, "seconds": again.seconds},
        *rules.to_dict("records"),
        {"part": "training alone", "jobs": len(training), "seconds": sum(training)},
    ]
    table = pd.DataFrame(rows)
    table.insert(0, "cores", cores)
    return table


@contextmanager
def workbench() -> Iterator[Path]:
    """Copy the study into a temporary folder, where nothing is drawn, trained or built yet."""
    study = config.find_study_folder()
    with TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("busi", "notebooks", "params"):
            shutil.copytree(study / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(study / "Snakefile", folder / "Snakefile")
        yield folder


class Finished(NamedTuple):
    """A finished command: its output, its time, the peak memory of its largest process."""

    output: str
    seconds: float
    memory_mib: float


def run_snakemake(folder: Path, *options: str) -> Finished:
    """Run Snakemake in a `workbench`; raises StudyError with the end of its output if it fails."""
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        # Or every job compiles all that it imports, which more than doubles the time it takes to start.
        "PYTHONDONTWRITEBYTECODE": "",
    }
    command = [sys.executable, "-m", "snakemake", *options]
    start = time.perf_counter()
    with (folder / "output").open("w+", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
        # Resources of this child alone; `resource.getrusage` would mix them with those of other children.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        file.seek(0)
        output = file.read()
    if process.returncode:
        raise StudyError(f"{' '.join(command[1:])}: exit code {process.returncode}; its output ends:\n{output[-2000:]}")
    return Finished(output, seconds, usage.ru_maxrss * MAXRSS_MIB)


def read_rule_times(folder: Path) -> pd.DataFrame:
    """Read the files that the Snakefile's ``benchmark:`` lines write, ``folder/RULE/**.tsv``.

    Returns:
        One row per rule: `part` (its name), `jobs`, `seconds`.

    Raises:
        StudyError: There are no such files.
    """
    rows = []
    for file in sorted(folder.rglob("*.tsv")):
        rule = file.relative_to(folder).with_suffix("").parts[0]
        rows.append({"part": rule, "seconds": pd.read_csv(file, sep="\t").s.sum()})
    if not rows:
        raise StudyError(f"{folder}: no *.tsv files; expected those that the Snakefile's benchmark: lines name")
    return pd.DataFrame(rows).groupby("part").seconds.agg(jobs="count", seconds="sum").reset_index()


def read_run_seconds(results: Path) -> list[float]:
    """Read the seconds of training of each run under ``results``, in the order of the runs' names.

    Raises:
        StudyError: There are no results.
    """
    tables = [pd.read_csv(file) for file in results.rglob("runs.csv")]
    if not tables:
        raise StudyError(f"{results}: no runs.csv; run the study of this profile first")
    # Groups share runs: the baseline of one family is the baseline of the others.
    return pd.concat(tables).drop_duplicates("run").sort_values("run").seconds.tolist()


def replay(seconds: list[float], jobs: int, workers: tuple[int, ...] = WORKERS) -> pd.DataFrame:
    """Replay ``jobs`` runs, whose durations are drawn from ``seconds`` with replacement, on simulated workers.

    Returns:
        One row per number of workers: `jobs`, `workers`, `hours` (until the last run is done; each is started, in the
        order drawn, on the worker that is free first), `speedup` (relative to one worker), `efficiency` (speedup per
        worker).
    """
    # Always the same draw, so that only the number of workers differs.
    drawn = np.random.default_rng(0).choice(seconds, jobs)
    table = pd.DataFrame({"jobs": jobs, "workers": workers})
    table["hours"] = [makespan(drawn, count) / 3600 for count in workers]
    table["speedup"] = drawn.sum() / 3600 / table.hours
    table["efficiency"] = table.speedup / table.workers
    return table


def measure_plans(counts: tuple[int, ...] = PLANNED) -> pd.DataFrame:
    """Let Snakemake plan studies of at least ``counts`` runs, of which nothing is run.

    Returns:
        One row per plan: `runs`, `seconds` (of the whole dry run), `memory_mib` (peak).
    """
    # Sections have seeds of their own, from 0, and share runs with families that have these: no section has the first.
    first = 100
    one_seed = len(list_runs(config.read_profile("smoke", seeds=[first])))
    another_seed = len(list_runs(config.read_profile("smoke", seeds=[first, first + 1]))) - one_seed
    rows = []
    with workbench() as folder:
        file = folder / "params" / "smoke.yaml"
        smoke = yaml.safe_load(file.read_text(encoding="utf-8"))
        for count in counts:
            seeds = 1 + -(-max(0, count - one_seed) // another_seed)
            # One job per run, so that the plan is as long as it can be.
            larger = smoke | {"seeds": list(range(first, first + seeds)), "runs_per_job": 1}
            file.write_text(yaml.safe_dump(larger), encoding="utf-8")
            plan = run_snakemake(folder, "--dry-run", "--quiet", "rules", "--cores", "1", "--config", "profile=smoke")
            counted = re.search(r"^run\s+(\d+)$", plan.output, re.MULTILINE)
            if not counted:
                raise StudyError(f"snakemake --dry-run: no number of runs in its output:\n{plan.output[-2000:]}")
            rows.append({"runs": int(counted[1]), "seconds": plan.seconds, "memory_mib": plan.memory_mib})
    return pd.DataFrame(rows)
