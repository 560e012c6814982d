"""A copy of the repository with a study of its own, to be started, killed and broken by a test."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import psutil
import yaml

from busi.config import FAMILIES, ROOT

PARTS = ("Makefile", "Snakefile", "busi", "notebooks", "params", "profiles", "pyproject.toml", "requirements.lock")

EPOCH = re.compile(r"^\d\d:\d\d:\d\d \w+/(?P<run>\S+)/\S+: epoch (?P<epoch>\d+) of", re.MULTILINE)
"""What training says after every epoch."""

TINY = {
    "profile": "tiny",
    "data_dir": "phantom",
    "image_size": 188,
    "base_filters": 2,
    "epochs": 4,
    "show_pixels": True,
    "heldout": {"image_size": 32, "base_filters": 2, "epochs": 2},
}

FEW = {"KLD": {"loss": "kld"}, "DICE": {"loss": "dice"}}
"""Variants that stay themselves in a study of few runs; all others are the baseline: three runs in place of nine."""


TIMED = {"runs.csv", "heldout.csv"}
"""Tables with a column `seconds`, which no two studies share."""


class WorkingCopy:
    """A copy of the repository under ``folder``, and a study of it.

    Args:
        folder: Must not exist.
        profile: Of the study; "tiny" is the copy's own.
        runs: The store; in the copy by default.
        few: Whether the study has three runs only, and of the notebooks the summary alone.
    """

    def __init__(self, folder: Path, *, profile: str = "tiny", runs: Path | None = None, few: bool = False):
        self.folder, self.profile, self.runs = folder, profile, runs or folder / "runs"
        self.report = folder / "reports" / profile
        folder.mkdir(parents=True)
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
            copy(ROOT / part, folder / part)
        (folder / ".venv").symlink_to(sys.prefix)
        self._write("tiny", TINY)
        if few:
            for family in FAMILIES:
                labels = yaml.safe_load((ROOT / "params" / f"{family}.yaml").read_text(encoding="utf-8"))["variants"]
                self._write(family, {"family": family, "variants": {label: FEW.get(label, {}) for label in labels}})
            mechanisms = yaml.safe_load((ROOT / "params" / "mechanisms.yaml").read_text(encoding="utf-8"))
            empty = {name: section | {"variants": {}} for name, section in mechanisms["sections"].items()}
            self._write("mechanisms", mechanisms | {"sections": empty})
            for notebook in (folder / "notebooks").iterdir():
                if not notebook.name.startswith("6_"):
                    notebook.unlink()
        self.log = folder / "log"

    def start(self, *, log: Path | None = None, environment: dict | None = None, **variables) -> subprocess.Popen:
        """``make study`` with ``variables`` in a process group of its own; what it says is added to ``log``."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTEST"))}
        variables = {"PROFILE": self.profile, "RUNS": self.runs} | variables
        # The installation is taken as it is: no copy may change it.
        make = ["make", "--old-file", ".venv/.installed", "study", *(f"{k}={v}" for k, v in variables.items())]
        with (log or self.log).open("a") as output:
            return subprocess.Popen(
                make,
                cwd=self.folder,
                env=kept | {"PYTHONPATH": str(self.folder)} | (environment or {}),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def study(self, **options) -> int:
        """`start`, and wait for its end; returns the exit code."""
        return self.start(**options).wait()

    def said(self) -> str:
        """All that its studies have said."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def tables(self) -> dict[str, bytes]:
        """The report's tables, but for the seconds that runs took."""
        found = {file.name: file.read_bytes() for file in (self.report / "tables").iterdir()}
        for name in TIMED & found.keys():
            found[name] = pd.read_csv(io.BytesIO(found[name]), dtype=str).drop(columns="seconds").to_csv().encode()
        return found

    def processes(self, *words: str) -> list[psutil.Process]:
        """Processes at work in the copy of whose arguments one ends with each of ``words``."""
        found = []
        for process in psutil.process_iter():
            try:
                arguments = process.cmdline() if Path(process.cwd()).is_relative_to(self.folder) else []
                if arguments and all(any(each.endswith(word) for each in arguments) for word in words):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def _write(self, name: str, content: dict) -> None:
        (self.folder / "params" / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def kill(process: subprocess.Popen) -> None:
    """Kill a process and its whole group, as a power cut would."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def epochs(said: str) -> Counter:
    """How often each epoch of each run was trained: {("loss-kld", 1): 1, ...}."""
    return Counter((match["run"], int(match["epoch"])) for match in EPOCH.finditer(said))
