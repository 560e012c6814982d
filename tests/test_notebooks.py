"""The notebooks, executed by papermill on a few phantom images in a copy of the repository."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup

from busi.config import ROOT, Study
from busi.dataset import phantom

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPORTED = [path for path in NOTEBOOKS if path.stem != "explore"]
"""Those with a page in the report; the other is for the lab."""
EXECUTED = [path.stem for path in REPORTED if path.stem != "5_mechanisms"]
"""Here; the mechanisms have runs of their own."""
KERAS = ["6_summary", "gallery"]
"""Those that ask networks: the summary draws one."""

FAMILY = {"1_upsampling": "upsampling", "2_optimization": "optimization", "3_loss": "loss", "4_data": "data"}
NUMBER = {"1_upsampling": 1, "2_optimization": 2, "3_loss": 3, "4_data": 4}
METHODS = {
    "1_upsampling": ["Upsampling2D", "Conv2DTranspose"],
    "2_optimization": ["SGD + fixed LR", "Adam + fixed LR", "SGD + decaying LR", "Adam + decaying LR"],
    "3_loss": ["KLD", "DICE", "BCE"],
    "4_data": ["No preprocess", "Resize+Norm+Std+Aug."],
}
# Where each published row's run is kept: one stands in three tables, so that nine are trained.
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
    "Resize+Norm+Std+Aug.": "preprocessing-code/fold0-seed0",
}
PAGES = """
import sys
from pathlib import Path
from busi.report import pages
for stem in sys.argv[1:]:
    pages.page(
        Path(f"build/{stem}.ipynb"), Path(f"reports/smoke/{stem}.html"), profile="smoke", pages=sys.argv[1:]
    )
"""
TINY = {"image_size": 188, "base_filters": 2, "epochs": 1}
TINY_HELDOUT = {"image_size": 32, "base_filters": 2, "epochs": 1}
UNTRAINED = ["Background everywhere", "Lesion everywhere", "Darkest blob"]


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
def test_a_notebook_begins_with_the_smoke_profile_as_its_parameters(path):
    cells = nbformat.read(path, as_version=4).cells
    tagged = [number for number, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == [0]
    parameters = {}
    exec(cells[0].source, parameters)
    given = {name: value for name, value in parameters.items() if not name.startswith("__")}
    profile = yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text(encoding="utf-8"))
    assert profile.items() <= given.items()
    of_family = set() if path.stem in FAMILY else {"family", "variants", "heldout_variants"}
    assert given.keys() == Study.model_fields.keys() - of_family
    assert given.get("family", "") == FAMILY.get(path.stem, "")


@pytest.mark.parametrize("path", REPORTED, ids=lambda path: path.stem)
def test_a_notebook_has_one_finding_for_the_index(path):
    cells = nbformat.read(path, as_version=4).cells
    assert [cell.cell_type for cell in cells if "finding" in cell.metadata.get("tags", [])] == ["code"]


# Executed


class Repository:
    """A copy of the repository, in which nothing of the original is written."""

    def __init__(self, root: Path):
        self.root = root
        self.report = root / "reports" / "smoke"
        for folder in ("busi", "notebooks", "params"):
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        smoke = root / "params" / "smoke.yaml"
        profile = yaml.safe_load(smoke.read_text(encoding="utf-8"))
        smoke.write_text(yaml.safe_dump(profile | TINY | {"heldout": TINY_HELDOUT}), encoding="utf-8")
        phantom.draw(root / "data" / "phantom", benign=16, malignant=8, normal=4)
        for backend in ("keras", "tensorflow"):
            (root / "bare" / backend).mkdir(parents=True)
            (root / "bare" / backend / "__init__.py").write_text(f"raise ImportError('no {backend} here')\n")

    def python(self, *arguments, keras=False) -> subprocess.CompletedProcess:
        """Run Python here; without ``keras``, where no Keras backend can be imported."""
        path = str(self.root) if keras else f"{self.root / 'bare'}{os.pathsep}{self.root}"
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.root,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
        )

    def papermill(self, stem: str, *more, keras=False, out="build") -> subprocess.CompletedProcess:
        """Execute a notebook as the Snakefile does, the family's parameters before the profile's."""
        files = [f"params/{name}.yaml" for name in (FAMILY.get(stem), "smoke") if name]
        (self.root / out).mkdir(exist_ok=True)
        return self.python(
            *("-m", "papermill", "--no-progress-bar", "--log-level", "WARNING"),
            *(option for file in files for option in ("-f", file)),
            *(*more, f"notebooks/{stem}.ipynb", f"{out}/{stem}.ipynb"),
            keras=keras,
        )

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

    def metrics(self, method: str) -> dict:
        return self.json(f"published/{RUNS[method]}/metrics.json")

    def json(self, result: str) -> dict:
        return json.loads((self.report / "results" / result).read_text(encoding="utf-8"))

    def runs(self) -> dict[str, int]:
        """The weights of every finished run, and when they were written."""
        files = self.root.glob("runs/smoke/*/*/*-????????/state.weights.h5")
        return {file.relative_to(self.root / "runs" / "smoke").as_posix(): file.stat().st_mtime_ns for file in files}

    def trained(self, protocol: str) -> list[str]:
        """Names of the finished runs of a protocol."""
        return sorted(run.split("/")[1] for run in self.runs() if run.startswith(protocol))

    def csv(self, table: str) -> pd.DataFrame:
        return pd.read_csv(self.report / "tables" / table)


def done(process: subprocess.CompletedProcess) -> None:
    assert process.returncode == 0, process.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Repository:
    """The loss notebook has trained its runs; the others were trained as a study."""
    repository = Repository(tmp_path_factory.mktemp("repository"))
    done(repository.papermill("3_loss", keras=True))
    assert repository.trained("published") == ["baseline", "loss-dice", "loss-kld"]
    assert repository.trained("heldout") == [
        *("baseline", "loss-dice", "loss-kld", "loss-lesion-dice", "loss-lesion-dice+bce")
    ]
    study = """
from busi import config, study
for protocol in config.PROTOCOLS:
    study.every_family(config.read("params/smoke.yaml"), protocol)
"""
    done(repository.python("-c", study, keras=True))
    return repository


@pytest.fixture(scope="module")
def repository(trained) -> Repository:
    """Every notebook executed and its page written; only `KERAS` can import Keras."""
    before = trained.runs()
    for stem in EXECUTED:
        if stem != "3_loss":
            done(trained.papermill(stem, keras=stem in KERAS))
    # `busi page` seven times over, in one process.
    done(trained.python("-c", PAGES, *EXECUTED))
    assert trained.runs() == before
    return trained


def test_eleven_rows_are_nine_runs_with_the_profile_s_size(repository):
    found = sorted(repository.root.glob("reports/smoke/results/published/*/*"))
    assert [str(folder.relative_to(repository.report / "results" / "published")) for folder in found] == sorted(
        set(RUNS.values())
    )
    for folder in found:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
        assert TINY.items() <= config.items()
    assert len(repository.trained("published")) == 9


@pytest.mark.parametrize("stem", FAMILY)
def test_the_csv_tables_hold_the_runs_metrics(repository, stem):
    table = pd.read_csv(repository.report / "tables" / f"table{NUMBER[stem]}.csv")
    assert list(table.columns) == [
        *("method", "published_loss", "published_accuracy", "published_auc", "loss", "accuracy", "auc"),
        *("floor_loss", "floor_accuracy", "floor_auc", "predicts_lesion"),
    ]
    assert list(table.method) == METHODS[stem]
    floors = repository.json("floors.json")
    for row in table.itertuples():
        metrics = repository.metrics(row.method)
        for name in ("loss", "accuracy", "auc"):
            assert getattr(row, name) == pytest.approx(metrics["training"][name], abs=5.1e-7)
        assert row.predicts_lesion == (metrics["still"]["lesion_share"] > 0)
        loss = {"KLD": "kld", "DICE": "dice_loss"}.get(row.method, "bce")
        assert (row.floor_loss, row.floor_accuracy, row.floor_auc) == pytest.approx(
            (floors[loss], floors["accuracy"], floors["auc"]), abs=5.1e-7
        )


@pytest.mark.parametrize("stem", FAMILY)
def test_a_family_s_page_shows_its_runs_and_says_where_each_method_stands(repository, stem):
    table, runs, *_ = repository.tables(stem)
    text = repository.page(stem).main.get_text()
    assert list(table.method) == METHODS[stem]
    for method, loss in zip(table.method, table["our loss"], strict=True):
        training = repository.metrics(method)["training"]
        assert loss == f"{training['loss']:.4f}"
        assert f"{method} ends at loss {loss} (published" in text
    assert len(runs) == len({RUNS[method] for method in METHODS[stem]})
    assert "epochs) ends" not in text  # all of them reached what is planned


def test_every_held_out_variant_is_scored_on_images_it_never_saw(repository):
    table = repository.csv("heldout.csv")
    assert list(table.columns) == [
        *("family", "variant", "dice", "dice_low", "dice_high", "iou", "hd95", "nsd", "precision", "recall", "auc"),
        *("accuracy", "ece", "normals_fpr", "n_images", "n_runs", "parameters", "seconds"),
    ]
    split = pd.read_csv(repository.report / "results" / "split.csv").set_index("name")
    for family in FAMILY.values():
        params = yaml.safe_load((ROOT / "params" / f"{family}.yaml").read_text(encoding="utf-8"))
        rows = table[table.family == family]
        assert list(rows.variant) == [*params["heldout_variants"], *UNTRAINED]
        trained = rows[~rows.variant.isin(UNTRAINED)]
        assert (trained.n_runs == 1).all()
        tested = split[(split.fold0 == "test") & (split.image_class != "normal")]
        assert (trained.n_images == len(tested)).all()
    assert len(repository.trained("heldout")) == 19  # the baseline stands in four families
    scored = pd.read_csv(repository.report / "results" / "heldout" / "loss-kld" / "fold0-seed0" / "per_image.csv")
    assert set(scored.name) == set(split.index[split.fold0 == "test"])
    kld = table[table.variant == "KLD"].iloc[0]
    lesions = scored[scored.image_class != "normal"]
    assert (kld.dice, kld.accuracy) == pytest.approx((lesions.dice.mean(), lesions.accuracy.mean()), abs=2e-6)


def test_every_two_variants_are_compared(repository):
    pairs = repository.csv("pairwise.csv")
    assert pairs.groupby("family", sort=False).size().to_dict() == {
        **{"upsampling": 5 * 4 / 2, "optimization": 7 * 6 / 2, "loss": 5 * 4 / 2, "data": 5 * 4 / 2}
    }
    assert ((pairs.p_holm >= pairs.p) & (pairs.p_holm <= 1)).all()


@pytest.mark.parametrize("stem", FAMILY)
def test_a_family_s_page_ends_in_the_verdict_of_the_summary(repository, stem):
    verdicts = repository.csv("claims.csv")
    row = verdicts[verdicts.claim.str.startswith(f"{NUMBER[stem]}. ")].iloc[0]
    finding = " ".join(repository.page(stem).select_one(".finding").get_text().split())
    assert finding.startswith(f"Claim {NUMBER[stem]} (section ")
    assert f"{row.claim.partition('. ')[2]} {row.verdict.capitalize()}. {row.evidence}" in finding


def test_the_summary_begins_with_the_claims(repository):
    assert repository.csv("claims.csv").columns.tolist() == ["claim", "published", "ours", "verdict", "evidence"]
    claims = repository.tables("6_summary")[0]
    assert [text.partition(".")[0] for text in claims.claim] == ["1", "2", "3", "4", "5"]
    finding = repository.page("6_summary").select_one(".finding").get_text()
    assert finding.strip().startswith("Of the paper's 5 claims, ")


def test_the_summary_lists_each_run_once(repository):
    runs = repository.csv("runs.csv")
    assert len(runs) == 9
    assert len(runs.drop_duplicates(["run", "seed"])) == 9
    adam = runs[runs.run == "optimizer-adam"].iloc[0]
    metrics = repository.metrics("Adam + fixed LR")
    for name in ("loss", "accuracy", "auc", "lesion_share"):
        assert adam[f"training_{name}"] == pytest.approx(metrics["training"][name], abs=5.1e-7)
        assert adam[f"still_{name}"] == pytest.approx(metrics["still"][name], abs=5.1e-7)


def test_the_summary_draws_the_ten_figures_of_the_paper(repository):
    page = repository.page("6_summary")
    captions = [caption.get_text().rstrip(".") for caption in page.find_all("figcaption")]
    assert captions[2:] == [
        "Figure 2: Conv2DTranspose",
        "Figure 3: Adam + fixed LR",
        "Figure 4: SGD + fixed LR",
        "Figure 5: Adam + decaying LR",
        "Figure 6: SGD + decaying LR",
        "Figure 7: KLD",
        "Figure 8: DICE",
        "Figure 9: BCE",
        "Figure 10: Resize+Norm+Std+Aug",
    ]
    network = page.find_all("figure")[1].img["alt"]
    assert network.startswith("U-Net: 296 pixels with 64 filters, 144 pixels with 128 filters")


def test_the_data_s_page_counts_the_images_and_lists_the_floors(repository):
    classes, folds, floors = repository.tables("0_dataset")
    assert classes[["class", "images", "several masks"]].values.tolist() == [
        ["benign", "16", "2"],
        ["malignant", "8", "0"],
        ["normal", "4", "0"],
    ]
    tested = folds[["test, benign", "test, malignant", "test, normal"]].astype(int)
    assert tested.sum().tolist() == [16, 8, 4]
    assert folds.fold.tolist() == ["0", "1", "2", "3", "4"]
    expected = repository.json("floors.json")
    assert dict(floors.values) == {name: f"{value:.4f}" for name, value in expected.items()}
    written = pd.read_csv(repository.report / "tables" / "floors.csv", index_col="floor").value
    assert written.to_dict() == pytest.approx(expected, abs=5.1e-7)


def test_the_index_leads_to_every_page(repository):
    done(repository.busi("index", "smoke"))
    index = repository.page("index")
    links = {link["href"] for link in index.main.find_all("a")}
    assert {f"{stem}.html" for stem in EXECUTED} <= links
    assert {f"tables/table{number}.csv" for number in (1, 2, 3, 4)} <= links
    assert "9 runs have been trained under this profile" in index.main.get_text()


def test_the_gallery_shows_three_cases_of_each_variant_once(repository):
    page = repository.page("gallery")
    headings = [heading.get_text() for heading in page.select(".output h3")]
    assert len(headings) == len(set(headings)) == len(repository.trained("heldout"))
    scored = pd.read_csv(repository.report / "results" / "heldout" / "loss-kld" / "fold0-seed0" / "per_image.csv")
    ranked = scored.dropna(subset="dice").sort_values(["dice", "name"]).name.tolist()
    told = next(image["alt"] for image in page.find_all("img") if image["alt"].startswith("loss: KLD. "))
    assert told.startswith(f"loss: KLD. Best: {ranked[-1]}, Dice ")
    assert f". Worst: {ranked[0]}, Dice " in told


def test_a_gallery_without_permission_shows_no_image_of_the_data(repository):
    done(repository.papermill("gallery", "-p", "show_pixels", False, keras=True, out="hidden"))
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
