"""A copy of the repository with a study of its own, for tests that start it, kill it and break it."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent

PARTS = ("Makefile", "Snakefile", "busi", "notebooks", "params", "profiles", "pyproject.toml", "requirements.lock")

EPOCH = re.compile(
    r"^\d\d:\d\d:\d\d (?P<protocol>\w+)/\S+/(?P<name>[^/\s]+)/fold\d-seed\d+: epoch (?P<epoch>\d+) of", re.MULTILINE
)
"""Line that training writes to the log after every epoch."""

TINY = {
    "profile": "tiny",
    "data_dir": "phantom",
    "image_size": 188,
    "base_filters": 2,
    "epochs": 4,
    "folds": [0],
    "heldout": {"image_size": 32, "base_filters": 2, "epochs": 2},
}
"""Profile of the study of few runs."""

FEW = {
    "family": "loss",
    "variants": {"baseline": {}, "KLD": {"loss": "kld"}, "DICE": {"loss": "dice"}},
    "heldout_variants": {"BCE": {}},
}
"""Family of the study of few runs: four runs in place of all of `smoke`."""

RUNS = {"published/baseline": 4, "published/loss-kld": 4, "published/loss-dice": 4, "heldout/baseline": 2}
"""Runs of that study, with their epochs."""

PAGE = """
import pandas as pd

from busi import results, study
from busi.report import index, tables

published = study.load_results(parameters, "published/loss")
heldout = study.load_results(parameters, "heldout/loss")
results.write_table(parameters, "runs", tables.list_runs(published.runs))
for name in ("epochs", "images"):
    results.write_table(parameters, f"heldout_{name}", heldout.tables[name])

# The rest is what the index cannot do without.
results.write_table(parameters, "claims", pd.DataFrame(columns=["claim", "title", "reason"]))
results.write_table(parameters, "counts", pd.DataFrame({"table": ["none"]}))
results.record_finding(parameters, "summary", answer=["None."], details=[], rows="None.", size={}, made={})
for name in (index.HEADLINE_FIGURE, index.NARROW_FIGURE):
    figure = parameters.report_path / "figures" / name
    figure.parent.mkdir(exist_ok=True)
    figure.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
"""
"""Only page of the study of few runs, after its cells of parameters."""


class WorkingCopy:
    """A copy of the repository under ``folder``, and its study: `smoke`, or one of few runs and a single page.

    Args:
        folder: Must not exist.
        few: Whether the study has few runs.
        runs: The store; a folder of the copy by default.
    """

    def __init__(self, folder: Path, *, few: bool = False, runs: Path | None = None):
        self.folder = folder
        self.profile = "tiny" if few else "smoke"
        self.runs = runs or folder / "runs"
        self.report = folder / "reports" / self.profile
        self.log = folder / "log"
        folder.mkdir(parents=True)
        for part in PARTS:
            copy = shutil.copytree if (REPOSITORY / part).is_dir() else shutil.copy2
            copy(REPOSITORY / part, folder / part)
        (folder / ".venv").symlink_to(sys.prefix)
        if few:
            self._keep_few()

    def _keep_few(self) -> None:
        """Replace the families by one of few variants, take the sections away, and write the only notebook."""
        page = nbformat.read(self.folder / "notebooks" / "3_loss.ipynb", as_version=4)
        # The cells of parameters are the real ones.
        del page.cells[2:]
        page.cells.append(nbformat.v4.new_markdown_cell("# Few runs\n\nDoes a fault change them?"))
        page.cells.append(nbformat.v4.new_code_cell(PAGE))
        shutil.rmtree(self.folder / "notebooks")
        (self.folder / "notebooks").mkdir()
        nbformat.write(page, self.folder / "notebooks" / "1_loss.ipynb")
        (self.folder / "params" / "recipe.yaml").unlink()
        mechanisms = yaml.safe_load((self.folder / "params" / "mechanisms.yaml").read_text(encoding="utf-8"))
        for name, content in {"tiny": TINY, "loss": FEW, "mechanisms": mechanisms | {"sections": {}}}.items():
            (self.folder / "params" / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")

    def start(self, *, log: Path | None = None, environment: dict | None = None, **variables) -> subprocess.Popen:
        """Start ``make study`` with ``variables`` in a process group of its own; its output is added to ``log``."""
        # The installation is taken as it is: no copy may change it.
        command = ["make", "--old-file", ".venv/.installed", "study"]
        for name, value in ({"PROFILE": self.profile, "RUNS": self.runs} | variables).items():
            command.append(f"{name}={value}")
        with (log or self.log).open("a") as output:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment() | (environment or {}),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def environment(self) -> dict[str, str]:
        """Return the environment of its commands, in which Python finds the copy's code, not the installed one."""
        tools = ("MAKE", "MFLAGS", "PYTEST")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(tools)}
        return kept | {"PYTHONPATH": str(self.folder)}

    def study(self, **options) -> int:
        """Run ``make study``, as `start`, and return its exit code."""
        return self.start(**options).wait()

    def said(self) -> str:
        """Return all that its studies have written to the log."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def tables(self) -> dict[str, bytes]:
        """Return the report's tables, without the seconds that runs took."""
        contents = {}
        for file in (self.report / "tables").iterdir():
            content = file.read_bytes()
            table = pd.read_csv(io.BytesIO(content), dtype=str)
            # No two studies share their timings.
            timed = "seconds" in table
            contents[file.name] = table.drop(columns="seconds").to_csv().encode() if timed else content
        return contents

    def find_folder(self, run: str) -> Path:
        """Return the folder of a finished run of the study of few runs, e.g. "published/loss-kld"."""
        protocol, name = run.split("/")
        (folder,) = (self.runs / self.profile / protocol).glob(f"*/{name}/fold0-seed0-????????")
        return folder

    def processes(self, *words: str) -> list[psutil.Process]:
        """Return the processes in the copy that have, for each of ``words``, an argument that ends with it."""
        matching = []
        for process in psutil.process_iter():
            try:
                inside = Path(process.cwd()).is_relative_to(self.folder)
                arguments = process.cmdline() if inside else []
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            given = [any(argument.endswith(word) for argument in arguments) for word in words]
            if arguments and all(given):
                matching.append(process)
        return matching


def kill(process: subprocess.Popen) -> None:
    """Kill a process and its whole group, as a power cut would."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def epochs(said: str) -> Counter:
    """Count how often each epoch of each run was trained: {("published/loss-kld", 1): 1, ...}."""
    trained = Counter()
    for line in EPOCH.finditer(said):
        run = f"{line['protocol']}/{line['name']}"
        trained[run, int(line["epoch"])] += 1
    return trained
