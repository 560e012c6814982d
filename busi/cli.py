"""The `busi` command: what the Snakefile calls, and what people type."""

import logging
import signal
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer
import yaml

from busi import config
from busi.config import StudyError

app = typer.Typer(help="Breast ultrasound segmentation on BUSI.", no_args_is_help=True, add_completion=False)

Files = Annotated[
    list[Path], typer.Option("-f", "--parameters-file", help="YAML of parameters, as for papermill; later ones win.")
]
Pairs = Annotated[list[str] | None, typer.Option("-p", "--parameter", help="NAME=VALUE, wins over the files.")]


@app.command()
def phantom(folder: Path, benign: int = 16, malignant: int = 8, normal: int = 4, seed: int = 0) -> None:
    """Draw a phantom data set in BUSI's layout into a new FOLDER."""
    from busi.dataset import phantom

    print(phantom.draw(folder, benign=benign, malignant=malignant, normal=normal, seed=seed))


@app.command()
def verify(folder: Path) -> None:
    """Read FOLDER as BUSI is released and say what is wrong with it, or what it holds."""
    from busi.dataset import catalog

    found = catalog.read(folder)
    print(found.table.groupby("image_class", sort=False).size().to_string())
    print(f"whole; fingerprint {found.fingerprint}")


@app.command()
def split(folder: Path) -> None:
    """Write the cross-validation splits of FOLDER into params/, which every study of the same images then uses."""
    from busi.dataset import catalog, splits

    found = catalog.read(folder)
    for kind in splits.KINDS:
        print(splits.write(found, kind))


@app.command()
def data(files: Files, parameters: Pairs = None) -> None:
    """Verify a study's images and gather what its report needs of them beside the runs."""
    study = _study(files, parameters)  # first, so that a mistake is told at once
    from busi.dataset import catalog
    from busi.evaluation import floors
    from busi.report import heldout

    catalog.gathered(study)
    floors.gathered(study)
    heldout.near_duplicates(study)
    heldout.split(study)
    heldout.trivial(study)


@app.command()
def params(
    notebook: Annotated[str, typer.Argument(help="Its name, e.g. 3_loss; all are listed without one.")] = "",
) -> None:
    """Show what each parameter of NOTEBOOK is, for papermill's -p NAME VALUE: type, default, meaning."""
    import nbformat
    from papermill import inspect_notebook

    logging.getLogger("papermill").setLevel(logging.WARNING)  # which file it reads is what was asked for
    files = {file.stem: file for file in sorted((config.ROOT / "notebooks").glob("*.ipynb"))}
    if not notebook:
        titles = [(name, _title(nbformat.read(file, as_version=4))) for name, file in files.items()]
        print(_columns(titles))
    elif notebook not in files:
        raise StudyError(f"{notebook}: no such notebook; there are {', '.join(files)}")
    else:
        found = inspect_notebook(files[notebook]).values()
        print(
            _columns(
                [tuple(each[part] for part in ("name", "inferred_type_name", "default", "help")) for each in found]
            )
        )


@app.command()
def train(
    labels: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="As under results/, e.g. published/loss-kld/fold0-seed0")
    ],
    files: Files,
    parameters: Pairs = None,
    threads: Annotated[int | None, typer.Option(help="Of TensorFlow's arithmetic.")] = None,
) -> None:
    """Train runs of a study one after another, or find them finished, and gather their results."""
    # Ctrl-C at once: Python would wait for TensorFlow's epoch to end, and what is trained has been put aside.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    study = _study(files, parameters)  # first, so that a mistake is told at once
    from busi import study as runs
    from busi.dataset import catalog
    from busi.mechanisms import experiments

    jobs = experiments.every_job(study)
    for label in labels:
        if label not in jobs:
            close = ", ".join(get_close_matches(label, jobs, cutoff=0))
            raise StudyError(f"{label}: not one of the {len(jobs)} runs of profile {study.profile!r}; close: {close}")
    data, failed = catalog.of(study), []
    for run, store in (jobs[label] for label in labels):
        try:
            print(runs.finished(run, data, store, threads=threads).folder)
        except StudyError as error:  # the others go on
            failed.append(str(error))
    if failed:
        raise StudyError("\nbusi: ".join(failed))


@app.command()
def plan(
    files: Files,
    parameters: Pairs = None,
    jobs: Annotated[int, typer.Option(min=1, help="Workers that train side by side.")] = 2,
) -> None:
    """Say how many runs a study has, how many are done, and how long the rest will take; nothing is started."""
    from busi import plan

    study = _study(files, parameters)
    print(plan.described(study, plan.table(study), jobs))


@app.command()
def bench(
    parts: Annotated[
        list[str] | None, typer.Argument(help="speed, study, scale, precision; the first three where none is named.")
    ] = None,
    files: Files = [],  # noqa: B006
    parameters: Pairs = None,
    filters: Annotated[list[int], typer.Option(help="Widths of the published network.")] = [64, 16],  # noqa: B006
    windows: Annotated[int, typer.Option(min=1, help="Of each contender, in turn.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.01, help="Of a window.")] = 10,
) -> None:
    """Measure speed, the smoke study and how cost grows, into reports/benchmark/.

    And what a precision changes: that part trains the baselines of the study that -f and -p name, an hour for laptop's.
    """
    study = _study(files, parameters) if files else None
    from busi.benchmark import record

    parts = parts or ["speed", "study", "scale"]
    record.measure(parts, filters=filters, windows=windows, seconds=seconds, study=study)
    print(record.page(record.OUT))


@app.command()
def page(notebook: Path, out: Path) -> None:
    """Write an executed NOTEBOOK as the page OUT, reports/<profile>/<name>.html."""
    from busi.report import pages

    study = _profile(out.parent.name)
    print(pages.page(notebook, out, profile=study.profile, pages=study.pages))


@app.command()
def index(profile: str) -> None:
    """Write reports/PROFILE/index.html, which leads to its pages."""
    from busi.report import overview

    print(overview.write(_profile(profile)))


@app.command()
def render(folder: Path, jobs: int = 2) -> None:
    """Draw the report FOLDER, e.g. reports/laptop, again from its results: no data, no training, no TensorFlow."""
    from busi.report import render

    print(render.report(folder, jobs=jobs))


@app.command()
def readme(profile: str = "laptop") -> None:
    """Fill the findings in README.md from what reports/PROFILE has gathered."""
    from busi.report import readme

    print(readme.update(_profile(profile)))


def main() -> None:
    """Run the command; what a user can mend is told in one message, without a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        app()
    except StudyError as error:
        sys.exit(f"busi: {error}")


def _title(notebook) -> str:
    """The first heading of a notebook, which is its page's title."""
    lines = [line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    return next(line.removeprefix("# ") for line in lines if line.startswith("# "))


def _columns(rows: list[tuple[str, ...]]) -> str:
    """Rows of text with their columns aligned, save the last, which may be long."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )


def _profile(name: str) -> config.Study:
    """A profile for its readers."""
    return config.read(config.ROOT / "params" / f"{name}.yaml", train_missing=False)


def _study(files: list[Path], parameters: list[str] | None) -> config.Study:
    pairs = [pair.partition("=") for pair in parameters or []]
    for name, equals, _ in pairs:
        if not equals:
            raise StudyError(f"-p {name}: expected NAME=VALUE, e.g. -p epochs=5")
    return config.read(*files, **{name: _value(name, text) for name, _, text in pairs})


def _value(name: str, text: str):
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise StudyError(
            f"-p {name}: got {text!r}, which is not YAML; expected e.g. epochs=5 or seeds=[0,1]"
        ) from error
