"""Files of the benchmark: its tables as CSV, the machine each was measured on, and a page that shows them."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from benchmarks import speed

PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "torch", "numpy", "snakemake")
"""Packages whose versions are recorded, where they are installed."""

HEADINGS = {
    "speed": "Speed: training images per second, median and range of windows that take turns",
    "precision": "Effect of bfloat16: both baselines trained in either precision",
    "profile": "Where the time of a training step goes: operations of this package",
    "study": "The smoke study from nothing: where its seconds go",
    "scaling": "More workers: measured runs replayed on simulated ones",
    "plans": "More runs: building Snakemake's plan",
}
"""Tables in the order of the page."""

SHOWN = 12
"""Operations shown for each network."""


def write_tables(out: Path, tables: dict[str, pd.DataFrame], **facts: float) -> None:
    """Write tables to ``out``/<name>.csv, and machine and other facts to environment.json; other tables stay."""
    out.mkdir(parents=True, exist_ok=True)
    environments = read_environments(out)
    for name, table in tables.items():
        table.to_csv(out / f"{name}.csv", index=False, float_format="%.6g")
        environments[name] = describe_environment() | facts
    (out / "environment.json").write_text(json.dumps(environments, indent=2) + "\n", encoding="utf-8")


def read_environments(out: Path) -> dict[str, dict]:
    """Read the machine that each table was measured on."""
    file = out / "environment.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def describe_environment() -> dict:
    """Return processor, cores, load and versions of this machine."""
    # Imports a Keras backend, which takes seconds and is needed only once something has been measured.
    from busi.training import processor_name

    environment = {
        "processor": processor_name(),
        "bfloat16": speed.bfloat16_instructions(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            environment[package] = version(package)
        except PackageNotFoundError:
            continue
    return environment


def write_page(out: Path) -> Path:
    """Write ``out``/README.md from the tables in ``out`` and return its path."""
    environments = read_environments(out)
    parts = ["# Benchmark", "Written by `make bench`."]
    for name, heading in HEADINGS.items():
        if not (out / f"{name}.csv").is_file():
            continue
        # Columns of whole numbers stay whole although values are missing.
        table = pd.read_csv(out / f"{name}.csv").convert_dtypes()
        if name == "speed":
            table = speed.add_speedup(table)
        # A network has dozens of operations, most of which take next to no time.
        if name == "profile":
            table = table.groupby("network", sort=False).head(SHOWN)
        facts = [f"{fact} {value}" for fact, value in environments[name].items()]
        parts += [f"## {heading}", format_table(table), f"Measured on: {'; '.join(facts)}."]
    page = out / "README.md"
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return page


def format_table(table: pd.DataFrame) -> str:
    """Format a table as Markdown, with numbers to four digits and missing values blank."""
    rows = [list(table.columns), ["---"] * len(table.columns)]
    for values in table.itertuples(index=False):
        cells = ["" if pd.isna(value) else value for value in values]
        rows.append([f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
