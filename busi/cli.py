"""The `busi` command, which people type and the Snakefile calls."""

import logging
import signal
import sys
import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

import typer
import yaml

from busi.config import SECOND, Parameters, RunConfig, StudyError, find_study_folder, read_parameters, read_profile

# Each command imports what it needs when it is called: `busi --help` and commands that only read do not wait for Keras.
app = typer.Typer(help="Breast ultrasound segmentation on BUSI.", no_args_is_help=True, add_completion=False)

Files = Annotated[
    list[Path], typer.Option("-f", "--parameters-file", help="YAML of parameters, as for papermill; later ones win.")
]
Pairs = Annotated[list[str] | None, typer.Option("-p", "--parameter", help="NAME=VALUE; wins over the files.")]
LAYOUT_HELP = "How image and mask files are paired, if that cannot be detected: see docs/datasets.md."
Layout = Annotated[str, typer.Option(help=LAYOUT_HELP)]
RunsDir = Annotated[str, typer.Option(help="Folder in which runs are looked for by their names.")]
Labels = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="For example published/300px-16f-75e/loss-kld/fold0-seed0.")
]


@app.command()
def phantom(folder: Path, benign: int = 16, malignant: int = 8, normal: int = 4, seed: int = 0) -> None:
    """Draw a phantom data set in BUSI's layout into a new FOLDER."""
    from busi.dataset.phantom import draw_phantoms

    print(draw_phantoms(folder, benign=benign, malignant=malignant, normal=normal, seed=seed))


@app.command()
def download(
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("data/Dataset_BUSI_with_GT"),
    url: Annotated[str | None, typer.Option(help="Fetch the zip file at this address instead of Kaggle's.")] = None,
    archive: Annotated[Path | None, typer.Option("--zip", help="Use this zip file, downloaded by hand.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Hash that the zip file must have.")] = None,
    accept: Annotated[bool, typer.Option("--accept", help="Accept any other data set, and record its pixels.")] = False,
) -> None:
    """Get BUSI from Kaggle or from a zip file, compare its pixels with those of the release, and put it into data/."""
    from busi.dataset import download

    print(download.download(out, url=url, archive=archive, sha256=sha256, accept=accept))


@app.command()
def verify(folder: Path, layout: Layout = "") -> None:
    """Read the data set in FOLDER and report what it holds and how it was read, or what is wrong with it."""
    from busi.dataset.catalog import read_catalog
    from busi.dataset.layouts import LAYOUTS

    catalog = read_catalog(folder, layout)
    patients = catalog.table.group.nunique()
    encodings = [f"{count} {encoding}" for encoding, count in catalog.encodings.items()]
    # A pattern of one's own has no other name.
    pattern = LAYOUTS.get(catalog.layout)
    print(f"layout: {catalog.layout} ({pattern})" if pattern else f"layout: {catalog.layout}")
    print(f"masks: {', '.join(encodings)}")
    print(f"groups: {patients} patients" if patients else "groups: near-duplicates (no patients are named)")
    print(catalog.table.groupby("image_class", sort=False).size().to_string())
    print(f"whole; fingerprint {catalog.fingerprint}")


@app.command()
def split(
    folder: Path,
    form: Annotated[
        Literal["csv", "json", "nnunet"] | None,
        typer.Option("--format", help="Write the grouped folds for other software; nnunet: splits_final.json."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write with --format; never overwritten.")] = None,
    layout: Layout = "",
) -> None:
    """Write the cross-validation splits of FOLDER into params/, where every study of the same images then finds them.

    With --format, write the grouped folds to OUT instead, in a form that other software reads.
    """
    if out and not form:
        raise StudyError(f"--out: got {out} without --format; expected both: say the form, e.g. --format csv")
    from busi.dataset import splits
    from busi.dataset.catalog import read_catalog
    from busi.dataset.convert import SPLIT_FILES, write_split

    catalog = read_catalog(folder, layout)
    if form:
        split = splits.load_split(catalog, "grouped")
        print(write_split(split, form, out or Path(SPLIT_FILES[form])))
        return
    # All kinds, because a study compares them.
    print(*splits.write_splits(catalog), sep="\n")


@app.command()
def convert(
    folder: Path,
    out: Path,
    layout: Annotated[Literal["images-masks", "nnunet"], typer.Option(help="nnunet: raw data set of nnU-Net 2.")],
    source: Annotated[str, typer.Option("--from", metavar="LAYOUT", help=LAYOUT_HELP)] = "",
) -> None:
    """Write the images of FOLDER into the new folder OUT in a form that other training software reads.

    Images are grey PNG files. Each has one mask of its size, the union of all its masks.
    """
    from busi.dataset.catalog import read_catalog
    from busi.dataset.convert import convert_catalog

    print(convert_catalog(read_catalog(folder, source), out, layout))


@app.command()
def data(
    files: Files,
    pairs: Pairs = None,
    images_only: Annotated[bool, typer.Option("--images-only", help="Verify and describe the images only.")] = False,
) -> None:
    """Verify a study's images and measure everything about them that its report needs."""
    parameters = _read_options(files, pairs)  # first, so that a mistake is reported at once
    from busi import study
    from busi.dataset.catalog import read_catalog

    # The external test comes last: a wrong folder would otherwise be noticed only after all training.
    if parameters.external_dir:
        read_catalog(parameters.external_path, expected=None)
    study.measure_images(parameters)
    if images_only:
        return
    study.measure_audit(parameters)
    study.measure_split(parameters)
    study.measure_duplicates(parameters)
    study.measure_floors(parameters)
    study.measure_blind(parameters)
    study.measure_untrained(parameters)
    if parameters.second_size:
        study.measure_untrained(parameters, SECOND)


@app.command()
def train(
    labels: Labels,
    files: Files,
    pairs: Pairs = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of TensorFlow's arithmetic.")] = None,
) -> None:
    """Train runs of a study one after another.

    A run that is finished, because it is in the store or its results are in the report, is left alone.
    """
    # Ctrl-C ends the process at once, and checkpoints are kept: Python would wait until TensorFlow ends an epoch.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parameters = _read_options(files, pairs)
    from busi import study
    from busi.dataset.catalog import load_catalog

    configs = _find_configs(labels, parameters)
    catalog = load_catalog(parameters)
    store = study.open_store(parameters, catalog)
    keys = study.gathered_keys(parameters, catalog)
    failures = []
    for config in configs:
        if store.key(config) in keys and not store.folder(config).is_dir():
            print(f"{config.label}: its results are in {parameters.results_path}")
            continue
        try:
            print(study.find_or_train(config, catalog, store, threads=threads).folder)
        except StudyError as error:  # the other runs are still trained
            failures.append(str(error))
    if failures:
        raise StudyError("\nbusi: ".join(failures))


@app.command()
def score(labels: Labels, files: Files, pairs: Pairs = None) -> None:
    """Score finished runs from their predictions; those already scored by the current code are left alone."""
    parameters = _read_options(files, pairs)
    from busi import study
    from busi.dataset.catalog import load_catalog
    from busi.scoring.scores import find_or_decide_fate, find_or_score

    configs = _find_configs(labels, parameters)
    catalog = load_catalog(parameters)
    store = study.open_store(parameters, catalog)
    for config in configs:
        # The results of a run without a folder are in the report.
        run = store.find(config, weights="there")
        if run:
            find = find_or_score if config.protocol == "heldout" else find_or_decide_fate
            find(run, catalog)
            print(f"{config.label}: scored")


@app.command()
def predict(
    runs_and_images: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN...] IMAGES",
            help="Folders or names of runs, whose predictions are averaged (if none are given, the recipe's runs); "
            "then an image, a folder or a pattern in quotes.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="New folder: masks, probability maps, overlays and predictions.csv.")],
    runs_dir: RunsDir = "runs",
) -> None:
    """Predict where images show a lesion, with one network or the mean of several."""
    *names, where = runs_and_images
    from tqdm import tqdm

    from busi.lab.networks import Network, find_recipe_runs, open_run
    from busi.lab.predict import find_images, predict_files

    runs = [open_run(name, runs_dir) for name in names] or find_recipe_runs(runs_dir)
    network = Network(*runs)
    if not names:
        # The user should not have to guess which networks these are.
        print(f"busi: no run was named; taking the mean of these {len(runs)} of the recipe:", file=sys.stderr)
        print(*(f"  {run.config.label}" for run in runs), sep="\n", file=sys.stderr)
    files = find_images(where)
    failed = 0
    # The progress bar is shown on a terminal only.
    for row in tqdm(predict_files(network, files, out), total=len(files), unit="image", disable=None):
        if "error" in row:
            failed += 1
            tqdm.write(f"busi: {row['error']}", file=sys.stderr)
    print(f"{len(files) - failed} of {len(files)} images: {out / 'predictions.csv'}")
    if failed:
        raise typer.Exit(1)


@app.command()
def evaluate(
    runs_and_data: Annotated[
        list[str], typer.Argument(metavar="[RUN...] DATA_DIR", help="Runs, whose mean is scored; then a data folder.")
    ],
    masks: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of masks by any software, named as the images; may be given several times."),
    ] = None,
    out: Annotated[Path, typer.Option(help="New folder: scores.csv, images.csv, missing.csv, index.html.")] = Path(
        "evaluation"
    ),
    layout: Layout = "",
    runs_dir: RunsDir = "runs",
) -> None:
    """Score networks, or masks made by any software, on a data set with masks."""
    # Typer allows no argument after a list, so the last one is taken off here.
    *names, folder = runs_and_data
    from busi.dataset.catalog import read_catalog
    from busi.lab.evaluate import evaluate_predictors
    from busi.lab.networks import open_run

    runs = [open_run(name, runs_dir) for name in names]
    catalog = read_catalog(Path(folder), layout, expected=None)
    table = evaluate_predictors(catalog, runs, masks or [], out)
    print(table[["predictor", "answered", "n_images", "dice", "dice_low", "dice_high"]].to_string(index=False))
    print(out / "index.html")


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Folder or name of a finished run.")],
    out: Annotated[Path, typer.Option(help="File to write, NAME.keras or NAME.onnx; a model card stands beside it.")],
    runs_dir: RunsDir = "runs",
) -> None:
    """Write the network of RUN, with a model card, as a file that can be used without this study."""
    from busi.lab.export import export_network
    from busi.lab.networks import open_run

    print(export_network(open_run(run, runs_dir), out))


@app.command()
def gather(files: Files, pairs: Pairs = None) -> None:
    """Gather the results of all finished runs of a study into its report; train nothing."""
    parameters = _read_options(files, pairs)
    from busi import study
    from busi.dataset.catalog import load_catalog

    catalog = load_catalog(parameters)
    for name, group in study.find_groups(parameters).items():
        gathered = study.gather_results(parameters, group, catalog, train=False)
        print(f"{name}: {len(gathered.runs)} of {len(group.configs)} runs")


@app.command()
def plan(
    files: Files,
    pairs: Pairs = None,
    jobs: Annotated[int, typer.Option(min=1, help="Number of runs trained side by side.")] = 2,
    runs: Annotated[bool, typer.Option("--runs", help="List the runs by name, as `busi train` takes them.")] = False,
) -> None:
    """Show how many runs a study has, how many are finished, and how long the rest takes; train nothing.

    Phantom images are drawn if the study needs them.
    """
    from busi.plan import describe_plan, plan_runs

    parameters = _read_options(files, pairs)
    planned = plan_runs(parameters)
    print(describe_plan(parameters, planned, jobs))
    if runs:
        print(planned[["run", "state", "epoch", "epochs"]].to_string(index=False))


@app.command()
def page(notebook: Path, out: Path, files: Files, pairs: Pairs = None) -> None:
    """Write an executed NOTEBOOK as a web page to OUT, reports/<report>/<name>.html."""
    from busi.report.pages import write_page

    print(write_page(notebook, out, parameters=_read_options(files, pairs)))


@app.command()
def index(files: Files, pairs: Pairs = None) -> None:
    """Write reports/<report>/index.html, which leads to the pages."""
    from busi.report.index import write_index

    print(write_index(_read_options(files, pairs)))


@app.command()
def render(
    folder: Path,
    profile: Annotated[str, typer.Option(help="Its profile, if FOLDER does not have the profile's name.")] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Number of notebooks executed side by side.")] = 2,
) -> None:
    """Make the report in FOLDER, e.g. reports/laptop, again from its results, without data, training or TensorFlow."""
    from busi.report.render import render_report

    print(render_report(folder, profile, jobs=jobs))


@app.command()
def readme(profile: str = "laptop") -> None:
    """Write the findings of reports/PROFILE into README.md."""
    from busi.report.readme import update_readme

    print(update_readme(read_profile(profile), find_study_folder() / "README.md"))


def main() -> None:
    """Run the command; report an error that the user can fix in one message, without a traceback."""
    # To the error stream, so that what a command prints can be piped.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    warnings.formatwarning = lambda message, *_: f"busi: warning: {message}\n"  # no line of source
    try:
        app()
    except StudyError as error:
        if error.exit_code == 1:
            sys.exit(f"busi: {error}")
        print(f"busi: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        # Such as a full disk, or a folder that cannot be written: Python's own message names the file.
        sys.exit(f"busi: {error}")


def _find_configs(labels: list[str], parameters: Parameters) -> list[RunConfig]:
    """Return the runs of a study by their labels; StudyError names a label that is unknown and those closest to it."""
    from busi.study import list_runs

    runs = list_runs(parameters)
    for label in labels:
        if label not in runs:
            close = ", ".join(get_close_matches(label, runs, cutoff=0))
            raise StudyError(
                f"{label}: not one of the {len(runs)} runs of profile {parameters.profile!r}; close: {close}"
            )
    return [runs[label] for label in labels]


def _read_options(files: list[Path], pairs: list[str] | None) -> Parameters:
    overrides = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not equals:
            raise StudyError(f"-p {name}: expected NAME=VALUE, e.g. -p epochs=5")
        field = Parameters.model_fields.get(name)
        # Text is used as it is: a folder may be called "set #1", a report 2024, and a layout contains braces.
        if field and field.annotation is str:
            overrides[name] = text
            continue
        # Numbers, lists and true are written as in a parameter file.
        try:
            overrides[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise StudyError(
                f"-p {name}: got {text!r}, which is not YAML; expected e.g. epochs=5 or seeds=[0,1]"
            ) from error
    return read_parameters(*files, **overrides)
