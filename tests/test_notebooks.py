"""The notebooks, executed by papermill on a few phantom images in a copy of the repository."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from small_study import finish_run, numbers

from busi import config, study
from busi.config import Parameters
from busi.dataset.arrays import Arrays
from busi.dataset.catalog import load_catalog
from busi.dataset.parts import load_parts
from busi.dataset.phantom import draw_phantoms
from busi.published import published_tables
from busi.runs import Predictions

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
REPORTED = [path for path in NOTEBOOKS if path.stem != "explore"]
"""Notebooks that have a page in the report; `explore` is for the lab."""
EXECUTED = [path.stem for path in REPORTED if path.stem not in ("5_mechanisms", "7_recipe")]
"""Notebooks that are executed here; the others have runs of their own."""

TABLES = published_tables()
FAMILY = {f"{number}_{content['family']}": content["family"] for number, content in TABLES.items()}
NUMBER = dict(zip(FAMILY, TABLES, strict=True))
METHODS = {stem: list(content["rows"]) for stem, content in zip(FAMILY, TABLES.values(), strict=True)}
SECTION = {"1_upsampling": "checkerboards", "2_optimization": "collapse", "3_loss": "identity", "4_data": "flips"}
# Name and seed of each published row's run: one is in three tables, so that nine are trained.
RUNS = {
    "Upsampling2D": "baseline/fold0-seed0",
    "Conv2DTranspose": "upsampling-Conv2DTranspose/fold0-seed0",
    "SGD + fixed LR": "baseline/fold0-seed0",
    "Adam + fixed LR": "optimizer-adam/fold0-seed0",
    "SGD + decaying LR": "momentum-0.0_schedule-exponential/fold0-seed0",
    "Adam + decaying LR": "optimizer-adam_schedule-exponential/fold0-seed0",
    "KLD": "loss-kld/fold0-seed0",
    "DICE": "loss-dice/fold0-seed0",
    "BCE": "baseline/fold0-seed1000",
    "No preprocess": "baseline/fold0-seed0",
    "Resize+Norm+Std+Aug.": "optimizer-adam_preprocessing-code/fold0-seed0",
}
SECTIONS = """
from busi import config
from busi.mechanisms import checkerboards, collapse, identity
parameters = config.read_profile("smoke")
for section in (checkerboards, collapse, identity):
    section.show(parameters)
"""
EXECUTE = """
import sys
import papermill
for stem in sys.argv[1:]:
    papermill.execute_notebook(f"notebooks/{stem}.ipynb", f"build/{stem}.ipynb", progress_bar=False)
"""
PAGES = """
import sys
from pathlib import Path
from busi import config
from busi.report import pages
parameters = config.read_profile("smoke")
for stem in sys.argv[1:]:
    pages.write_page(Path(f"build/{stem}.ipynb"), Path(f"reports/smoke/{stem}.html"), parameters=parameters)
"""
TINY = {"image_size": 188, "base_filters": 2, "epochs": 1}
TINY_HELDOUT = {"image_size": 32, "base_filters": 2, "epochs": 1}
UNTRAINED = ["Background everywhere", "Lesion everywhere", "Darkest blob", "Mean mask", "Perfect mask"]


# As committed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs_and_for_any_python(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook.metadata.language_info == {"name": "python"}
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.source for cell in code if cell.outputs or cell.execution_count is not None] == []
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_s_parameters_are_all_left_to_the_profile(path):
    cells = nbformat.read(path, as_version=4).cells
    tagged = [number for number, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == [0]
    parameters = {}
    exec(cells[0].source, parameters)
    given = {name: value for name, value in parameters.items() if not name.startswith("__")}
    variants = {"family", "variants", "heldout_variants", "second_variants"}
    of_family = variants if path.stem in FAMILY else set()
    assert given.keys() == Parameters.model_fields.keys() - (variants - of_family)
    named = {name: value for name, value in given.items() if value is not None}
    assert named == {"profile": "smoke"} | ({"family": FAMILY[path.stem]} if of_family else {})


def test_all_notebooks_explain_their_parameters_in_the_same_words():
    cells = {path.stem: nbformat.read(path, as_version=4).cells[0].source.splitlines() for path in NOTEBOOKS}
    shared = cells["0_dataset"]
    for stem, lines in cells.items():
        assert lines[: len(shared)] == shared
        assert len(lines) == len(shared) + (4 if stem in FAMILY else 0)


@pytest.mark.parametrize("path", REPORTED, ids=lambda path: path.stem)
def test_every_finding_of_a_notebook_is_computed(path):
    cells = nbformat.read(path, as_version=4).cells
    assert {cell.cell_type for cell in cells if "finding" in cell.metadata.get("tags", [])} == {"code"}


# Executed


class Repository:
    """A copy of the repository, in which nothing of the original is written."""

    def __init__(self, root: Path):
        self.root = root
        self.report = root / "reports" / "smoke"
        for folder in ("busi", "notebooks", "params"):
            shutil.copytree(REPOSITORY / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        smoke = root / "params" / "smoke.yaml"
        profile = yaml.safe_load(smoke.read_text(encoding="utf-8"))
        smoke.write_text(yaml.safe_dump(profile | TINY | {"heldout": TINY_HELDOUT}), encoding="utf-8")
        draw_phantoms(root / "data" / "phantom", benign=16, malignant=8, normal=4, seed=0)
        for backend in ("keras", "tensorflow"):
            (root / "bare" / backend).mkdir(parents=True)
            (root / "bare" / backend / "__init__.py").write_text(f"raise ImportError('no {backend} here')\n")

    def python(self, *arguments, keras=False) -> subprocess.CompletedProcess:
        """Run Python here; without ``keras``, no Keras backend can be imported."""
        path = str(self.root) if keras else f"{self.root / 'bare'}{os.pathsep}{self.root}"
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.root,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
        )

    def papermill(self, stem: str, *more, keras=False, out="build") -> subprocess.CompletedProcess:
        """Execute a notebook with no parameters but ``more``."""
        (self.root / out).mkdir(exist_ok=True)
        options = ["--no-progress-bar", "--log-level", "WARNING", *more]
        return self.python("-m", "papermill", *options, f"notebooks/{stem}.ipynb", f"{out}/{stem}.ipynb", keras=keras)

    def busi(self, *arguments) -> subprocess.CompletedProcess:
        return self.python("-c", "from busi.cli import main; main()", *arguments)

    def page(self, stem: str) -> BeautifulSoup:
        return BeautifulSoup((self.report / f"{stem}.html").read_text(encoding="utf-8"), "html.parser")

    def tables(self, stem: str) -> list[pd.DataFrame]:
        """The tables on a notebook's page, as text."""
        return [
            pd.DataFrame(
                [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in table.tbody.find_all("tr")],
                columns=[head.get_text() for head in table.thead.find_all("th")],
            )
            for table in self.page(stem).find_all("table")
        ]

    def results(self, group: str, table: str) -> pd.DataFrame:
        return pd.read_csv(next((self.report / "results" / group).glob(f"{table}.csv*")))

    def published_run(self, method: str) -> pd.Series:
        """The row of a published row's run in the results."""
        stem = next(stem for stem, methods in METHODS.items() if method in methods)
        runs = self.results(f"published/{FAMILY[stem]}", "runs").set_index("variant")
        return runs.loc[method]

    def scored(self, family: str, variant: str) -> pd.DataFrame:
        """The images that a held-out variant was scored on."""
        images = self.results(f"heldout/{family}", "images")
        return images[images.variant == variant]

    def runs(self) -> dict[str, int]:
        """The weights of every finished run, and when they were written."""
        folder = self.root / "runs" / "smoke"
        files = folder.glob("*/*/*/*-????????/state.weights.h5")
        return {file.relative_to(folder).as_posix(): file.stat().st_mtime_ns for file in files}

    def trained(self, group: str) -> list[str]:
        """Names and seeds of the finished runs of a protocol and size."""
        names = {run.removeprefix(group).rpartition("-")[0].strip("/") for run in self.runs() if run.startswith(group)}
        return sorted(names)

    def csv(self, table: str) -> pd.DataFrame:
        return pd.read_csv(self.report / "tables" / table)

    def floors(self) -> dict[str, float]:
        table = pd.read_csv(self.report / "results" / "floors.csv", skiprows=1)
        return dict(table.values)


PUBLISHED = "published/188px-2f-1e"
HELDOUT = "heldout/32px-2f-1e"
TRAINED = {
    f"{PUBLISHED}/loss-kld/fold0-seed0",
    f"{HELDOUT}/baseline/fold0-seed0",
    f"{HELDOUT}/loss-kld/fold0-seed1000",
}
"""Runs that the loss notebook trains here."""


def done(process: subprocess.CompletedProcess) -> None:
    assert process.returncode == 0, process.stderr


def make_up_runs() -> None:
    """Finish the runs of families and of the log but `TRAINED` with made-up predictions: a training takes seconds."""
    parameters = config.read_profile("smoke")
    catalog = load_catalog(parameters)
    store = study.open_store(parameters, catalog)
    generator = np.random.default_rng(0)

    def make_up(images: Arrays) -> Predictions:
        noise = generator.random(images.targets.shape[:3], dtype=np.float32)
        return Predictions(images.names, 0.6 * images.targets[..., 0] + 0.4 * noise)

    groups = study.find_groups(parameters).values()
    planned = {
        run_config.label: run_config
        for group in groups
        if group.name == "mechanisms/log" or not group.name.startswith("mechanisms/")
        for run_config in group.configs
    }
    found = {label: store.find(run_config) for label, run_config in planned.items()}
    environment = next(run.environment for run in found.values() if run)
    for label, run_config in planned.items():
        if label in TRAINED or found[label]:
            continue
        parts = load_parts(run_config, catalog)
        epochs = run_config.epochs
        history = {"epoch": range(1, epochs + 1), "seconds": 1.5}
        outcome = {"images": len(parts.training), "seconds": 1.5 * epochs, "parameters": 7, "epochs": epochs}
        if run_config.protocol == "published":
            metrics = {name: generator.random(epochs) for name in ("loss", "accuracy", "auc", "lesion_share")}
            history |= metrics
            training = {name: values[-1] for name, values in metrics.items()}
            still = {name: value / 2 for name, value in training.items()}
            outcome |= {"end": "planned", "training": training, "still": still}
            predictions = {"training": make_up(parts.training)}
        else:
            history |= {"loss": 0.3, "validation_dice": 0.5}
            outcome |= {"end": "planned", "threshold": 0.5, "best_epoch": 1, "validation_dice": 0.5}
            predictions = {"validation": make_up(parts.validation), "test": make_up(parts.test)}
        finish_run(store, run_config, predictions, outcome, history, environment)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Repository:
    """Two sections and the loss notebook have trained runs, the other runs are made up."""
    repository = Repository(tmp_path_factory.mktemp("repository"))
    done(repository.python("-c", SECTIONS, keras=True))
    with chdir(repository.root):
        make_up_runs()
    before = repository.runs()
    done(repository.papermill("3_loss", keras=True))
    after = repository.runs()
    assert {run.rpartition("-")[0] for run in after.keys() - before.keys()} == TRAINED
    assert before.items() <= after.items()
    return repository


@pytest.fixture(scope="module")
def repository(trained) -> Repository:
    """Every notebook executed and its page written, where no Keras can be imported."""
    before = trained.runs()
    # The others as papermill's command would, and `busi page` for each of them, both in one process.
    others = [stem for stem in EXECUTED if stem != "3_loss"]
    done(trained.python("-c", EXECUTE, *others))
    done(trained.python("-c", PAGES, *EXECUTED))
    assert trained.runs() == before
    return trained


def test_eleven_rows_are_nine_runs_with_the_profile_s_size(repository):
    assert repository.trained(PUBLISHED) == sorted(set(RUNS.values()))
    for method, run in RUNS.items():
        row = repository.published_run(method)
        assert row.run == f"{PUBLISHED}/{run}"
        assert TINY.items() <= json.loads(row.config).items()


@pytest.mark.parametrize("stem", FAMILY)
def test_the_csv_tables_hold_the_runs_metrics(repository, stem):
    table = repository.csv(f"table{NUMBER[stem]}.csv")
    assert list(table.method) == METHODS[stem]
    floors = repository.floors()
    for row in table.itertuples():
        run = repository.published_run(row.method)
        for name in ("loss", "accuracy", "auc"):
            assert getattr(row, name) == pytest.approx(run[f"training_{name}"], abs=5.1e-7)
        assert (row.n_runs, row.fates, row.verdict) == (1, f"1 {run.fate}", "open: fewer than 3 runs")
        loss = {"KLD": "kld", "DICE": "dice_loss"}.get(row.method, "bce")
        assert (row.floor_loss, row.floor_accuracy, row.floor_auc) == pytest.approx(
            (floors[loss], floors["accuracy"], floors["auc"]), abs=5.1e-7
        )


@pytest.mark.parametrize("stem", FAMILY)
def test_a_family_s_page_shows_its_runs_and_says_where_each_method_stands(repository, stem):
    table, blind, runs, *_ = repository.tables(stem)
    assert list(table.method) == list(blind.method) == METHODS[stem]
    for method, loss in zip(table.method, table["our loss"], strict=True):
        assert loss == f"{repository.published_run(method).training_loss:.4f}"
    assert len(runs) == len({RUNS[method] for method in METHODS[stem]})


@pytest.mark.parametrize("stem", FAMILY)
def test_a_family_s_page_draws_the_outlines_of_three_cases_a_variant(repository, stem):
    name = FAMILY[stem]
    held_out = repository.report / "results" / "heldout" / name
    for run in pd.read_csv(held_out / "runs.csv").itertuples():
        dice = repository.scored(name, run.variant).dice.dropna()
        traced = pd.read_csv(repository.report / "results" / "outlines" / "heldout" / f"{run.name}.csv", skiprows=1)
        ends = traced.groupby("case").dice.first()
        assert (ends["best"], ends["worst"]) == pytest.approx((dice.max(), dice.min()), abs=1e-6)
    alts = [image["alt"] for image in repository.page(stem).main.find_all("img")]
    assert sum(alt.startswith("Median cases have Dice ") for alt in alts) == 1


@pytest.mark.parametrize("stem", FAMILY)
def test_a_family_s_page_holds_its_own_section(repository, stem):
    recorded = json.loads((repository.report / "findings.json").read_text(encoding="utf-8"))
    conclusion = recorded["mechanisms"][SECTION[stem]]
    assert conclusion != "Not run yet."
    text = " ".join(repository.page(stem).main.get_text().split())
    assert " ".join(conclusion.split()) in text
    assert (repository.report / "tables" / f"mechanisms_{SECTION[stem]}.csv").is_file()


def test_every_held_out_variant_is_scored_on_images_it_never_saw(repository):
    table = repository.csv("heldout.csv")
    dice = ["dice", "dice_low", "dice_high"]
    overlap = ["iou", "hd95", "nsd", "precision", "recall"]
    pixels = ["auc", "accuracy", "ece", "normals_fpr"]
    counts = ["n_images", "n_runs", "parameters", "seconds"]
    assert list(table.columns[:18]) == ["family", "variant", *dice, *overlap, *pixels, *counts]
    assert {"n_empty", "nsd_tolerance", "n_capped", "n_dead", "size"} <= {*table.columns}
    split = pd.read_csv(repository.report / "results" / "split.csv", skiprows=1).set_index("name")
    for family in FAMILY.values():
        params = yaml.safe_load((REPOSITORY / "params" / f"{family}.yaml").read_text(encoding="utf-8"))
        rows = table[table.family == family]
        assert list(rows.variant) == [*params["heldout_variants"], *UNTRAINED]
        trained = rows[~rows.variant.isin(UNTRAINED)]
        assert (trained.n_runs == 1).all()
        tested = split[(split.fold0 == "test") & (split.image_class != "normal")]
        assert (trained.n_images == len(tested)).all()
    # The baseline is in four families; sections have runs in other folds.
    assert len([run for run in repository.trained(HELDOUT) if "/fold0-" in run]) == 19
    scored = repository.scored("loss", "KLD")
    assert set(scored.name) == set(split.index[split.fold0 == "test"])
    kld = table[table.variant == "KLD"].iloc[0]
    lesions = scored[scored.image_class != "normal"]
    assert (kld.dice, kld.accuracy) == pytest.approx((lesions.dice.mean(), lesions.accuracy.mean()), abs=2e-6)


def test_every_two_variants_are_compared(repository):
    pairs = repository.csv("pairwise.csv")
    of_variants = pairs[pairs.kind.isin(["variants", "A/A"])]
    assert of_variants.groupby("family", sort=False).size().to_dict() == {
        "upsampling": 5 * 4 / 2,
        "optimization": 7 * 6 / 2,
        "loss": 5 * 4 / 2,
        "data": 5 * 4 / 2,
    }
    assert ((pairs.p_holm >= pairs.p) & (pairs.p_holm <= 1)).all()
    # The study's own A/A test stands in its row; that it covers 0 is simulated in the tests of the statistics.
    same = pairs[pairs.kind == "A/A"].iloc[0]
    assert (same.a, same.b) == ("KLD", "BCE")
    # With equal seeds the two would be equal bits.
    assert same.difference != 0
    assert len(repository.csv("power.csv")) == len(of_variants)


@pytest.mark.parametrize("stem", FAMILY)
def test_a_family_s_page_opens_with_the_verdict_of_the_summary_and_ends_with_its_evidence(repository, stem):
    verdicts = repository.csv("claims.csv")
    row = verdicts[verdicts.claim.str.startswith(f"{NUMBER[stem]}. ")].iloc[0]
    finding = " ".join(repository.page(stem).select_one(".finding").get_text().split())
    assert finding.startswith(f"{row.verdict.capitalize()}: ")
    assert f"{row.title}. At {row['size']}: {row.reason}." in finding
    text = " ".join(repository.page(stem).main.get_text().split())
    assert f"At {row['size']}, {row.verdict}: {row.evidence}" in text
    assert (repository.report / "figures" / f"claim-{NUMBER[stem]}.svg").is_file()


def test_the_summary_begins_with_the_claims(repository):
    columns = repository.csv("claims.csv").columns.tolist()
    assert columns[:4] == ["claim", "verdict", "evidence", "size"]
    items = repository.page("6_summary").select(".finding li")
    # Below each claim are its sizes.
    finding = [item for item in items if item.find_parent("li") is None]
    assert ["(claim " + str(number) in item.get_text() for number, item in enumerate(finding, 1)] == [True] * 5


def test_the_summary_lists_each_run_once(repository):
    runs = repository.csv("runs.csv")
    assert len(runs) == 9
    assert len(runs.drop_duplicates(["run", "seed"])) == 9
    adam = runs[runs.run == "optimizer-adam"].iloc[0]
    run = repository.published_run("Adam + fixed LR")
    for name in ("loss", "accuracy", "auc", "lesion_share"):
        for reading in ("training", "still"):
            assert adam[f"{reading}_{name}"] == pytest.approx(run[f"{reading}_{name}"], abs=5.1e-7)


def test_the_summary_draws_the_ten_figures_of_the_paper(repository):
    page = repository.page("6_summary")
    *_, network, curves = [figure.img for figure in page.find_all("figure")]
    assert "22,321,090" in network["alt"]
    fell = repository.csv("rows.csv").fates.str.contains("falling|learned").sum()
    assert numbers(curves["alt"]) == ([str(fell), "9"] if fell else ["9"])
    # A panel for each of Figures 2 to 10, whose title begins with its number.
    drawn = base64.b64decode(curves["src"].partition(",")[2]).decode()
    assert re.findall(r"<!-- (\d+): ", drawn) == [str(number) for number in range(2, 11)]


def test_the_summary_compares_the_rows_at_the_width_of_its_runs(repository):
    table = repository.csv("widths.csv")
    assert table[["filters", "n_runs"]].values.tolist() == [[2, 1]] * 9
    for row in table.set_index("row").itertuples():
        assert row.loss == pytest.approx(repository.published_run(row.Index).training_loss, abs=5.1e-7)


def test_the_summary_lists_the_conclusions_of_all_sections(repository):
    conclusions = repository.csv("mechanisms_conclusions.csv").set_index("section").conclusion
    assert len(conclusions) == 13
    # Those of the notebooks that are not executed here are missing.
    assert (conclusions == "Not run yet.").sum() == 8
    assert conclusions["Collapse"] != "Not run yet."


def test_the_summary_records_what_the_index_tells(repository):
    summary = json.loads((repository.report / "findings.json").read_text(encoding="utf-8"))["summary"]
    assert set(summary) == {"answer", "details", "rows", "progress", "size", "made"}
    beyond = (repository.csv("rows.csv").reached_by == "none").sum()
    assert numbers(summary["rows"]) == ([str(beyond), "9"] if beyond else ["9"])
    assert summary["size"]["Our runs, published protocol"].startswith("188² pixels, 2 to 32 filters, 1 epochs")
    assert summary["made"]["Training time"].endswith("hours in 32 trainings")
    assert (repository.report / "figures" / "rows-against-blind.svg").is_file()


def test_the_data_s_page_counts_the_images_and_lists_the_floors(repository):
    files, classes, intensity, faults, groups, folds, floors, blind = repository.tables("0_dataset")
    assert files.found.tolist()[0] == "busi"
    assert faults.set_index("finding").images["several masks"] == "2"
    assert intensity["image class"].tolist() == ["benign", "malignant", "normal"]
    assert classes[["class", "images", "several masks"]].values.tolist() == [
        ["benign", "16", "2"],
        ["malignant", "8", "0"],
        ["normal", "4", "0"],
    ]
    # No phantom is a copy of another one, so that no group is listed.
    assert groups.columns[:2].tolist() == ["images", "groups"]  # the published audit's are BUSI's alone
    assert len(groups) == 0
    tested = folds[["test, benign", "test, malignant", "test, normal"]].astype(int)
    assert tested.sum().tolist() == [16, 8, 4]
    assert folds.fold.tolist() == ["0", "1", "2", "3", "4"]
    expected = repository.floors()
    assert dict(floors.values) == {name: f"{value:.4f}" for name, value in expected.items()}
    written = pd.read_csv(repository.report / "tables" / "floors.csv", index_col="floor").value
    assert written.to_dict() == pytest.approx(expected, abs=5.1e-7)
    # For each of the nine rows, two biases sorted by class and in mixed orders.
    assert blind.predictor.tolist() == ["constant", "mean mask", "two biases", "two biases"] * 9
    assert blind.orders.tolist() == ["1", "1", "1", "25"] * 9


def test_the_index_leads_to_every_page(repository):
    done(repository.busi("index", "-f", "params/smoke.yaml"))
    index = repository.page("index")
    links = {link["href"] for link in index.main.find_all("a")}
    assert {f"{stem}.html" for stem in EXECUTED} <= links
    assert {f"tables/table{number}.csv" for number in (1, 2, 3, 4)} <= links
    assert "9 runs of published rows have been trained" in index.main.get_text()


def test_the_gallery_shows_three_cases_of_each_variant_once(repository):
    page = repository.page("gallery")
    headings = [heading.get_text() for heading in page.select(".output h3")]
    assert len(headings) == len(set(headings)) == 19
    scored = repository.scored("loss", "KLD")
    ranked = scored.dropna(subset="dice").sort_values(["dice", "name"]).name.tolist()
    told = next(image["alt"] for image in page.find_all("img") if image["alt"].startswith("loss: KLD. "))
    assert told.startswith(f"loss: KLD. Best: {ranked[-1]}, Dice ")
    assert f". Worst: {ranked[0]}, Dice " in told


def test_a_gallery_without_permission_shows_no_image_of_the_data(repository):
    done(repository.papermill("gallery", "-p", "show_pixels", False, out="hidden"))
    notebook = nbformat.read(repository.root / "hidden" / "gallery.ipynb", as_version=4)
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert [data.get("text/markdown") for data in shown].count("*No pixels shown.*") == 1
    assert sum("<img" in str(data.get("text/html")) for data in shown) == 1  # Dice against size


# Run again, or wrongly


def test_a_second_execution_trains_nothing_and_finds_the_same(repository):
    before = repository.runs()
    done(repository.papermill("3_loss", out="again"))
    assert repository.runs() == before
    shown = [
        [cell.outputs for cell in nbformat.read(file, as_version=4).cells if "finding" in cell.metadata.get("tags", [])]
        for file in sorted(repository.root.glob("*/3_loss.ipynb"))
        if file.parent.name in ("again", "build")
    ]
    assert len(shown) == 2
    assert shown[0][0][0].data == shown[1][0][0].data


def test_a_mistyped_parameter_stops_a_notebook_before_it_trains(repository):
    before = repository.runs()
    process = repository.papermill("3_loss", "-p", "epoch", "5", out="mistyped", keras=True)
    assert process.returncode != 0
    assert "unknown parameter 'epoch'; known are image_size, base_filters, epochs" in process.stderr
    assert repository.runs() == before


def test_the_summary_names_what_has_to_run_first(repository):
    process = repository.papermill("6_summary", "-p", "report", "empty", out="early")
    assert process.returncode != 0
    assert "NotMeasured" in process.stderr
    assert not (repository.root / "reports" / "empty" / "tables").exists()


def test_a_notebook_asks_for_the_data_of_a_profile_that_has_none(repository):
    """The profile's name is enough: smoke's phantom images, size and filters are not used for laptop."""
    process = repository.papermill("3_loss", "-p", "profile", "laptop", keras=True, out="other")
    assert process.returncode != 0
    assert "StudyError" in process.stderr
    assert "data_dir" in process.stderr
    assert not (repository.root / "reports" / "laptop").exists()
    assert not (repository.root / "runs" / "laptop").exists()


# The lab


def test_the_lab_s_notebook_shows_a_case_of_a_trained_network(repository):
    before = repository.runs()
    done(repository.papermill("explore", keras=True))
    notebook = nbformat.read(repository.root / "build" / "explore.ipynb", as_version=4)
    widgets = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
    shown = [widget["state"].get("value", "") for widget in widgets if widget["model_name"] == "HTMLModel"]
    assert sum("benign (1). upsampling: Nearest, first step: Dice " in value for value in shown) == 1
    assert repository.runs() == before


def test_the_lab_s_notebook_names_the_command_where_nothing_is_trained(repository):
    done(repository.papermill("explore", "-p", "runs_dir", "none", keras=True))
    notebook = nbformat.read(repository.root / "build" / "explore.ipynb", as_version=4)
    told = [output.data.get("text/markdown", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("run `make study PROFILE=smoke` in a terminal" in text for text in told)
