"""The index of a report, from runs gathered into a repository without data."""

import json
import math
import shutil

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from busi import config, runs, study
from busi.config import ROOT, RunConfig
from busi.report import overview, pages

METRICS = {"loss": 0.3, "accuracy": 0.95, "auc": 0.96, "lesion_share": 0.05}
ENVIRONMENT = {
    **{"python": "3.11.7", "keras": "3.15.1", "backend": "jax", "jax": "0.8.0", "numpy": "2.4.6"},
    **{"processor": "AMD EPYC", "gpus": 0, "cores": 2, "threads": 1},
}
FLOORS = {"accuracy": 0.908252, "auc": 0.907, "dice_loss": 0.0916, "bce": 0.3066, "bce_probability": 0.09, "kld": 0.31}
STEMS = ["0_dataset", "3_loss"]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with parameters, two notebooks and a report that has gathered floors and images."""
    monkeypatch.setattr(config, "ROOT", tmp_path)
    shutil.copytree(ROOT / "params", tmp_path / "params")
    (tmp_path / "notebooks").mkdir()
    for stem in (*reversed(STEMS), "scratch"):
        (tmp_path / "notebooks" / f"{stem}.ipynb").write_text("{}", encoding="utf-8")
    results = tmp_path / "reports" / "laptop" / "results"
    results.mkdir(parents=True)
    (results / "floors.json").write_text(json.dumps(FLOORS), encoding="utf-8")
    pd.DataFrame({"image_class": ["benign"] * 5 + ["malignant", "normal"]}).to_csv(results / "dataset.csv", index=False)
    for stem in STEMS:
        page(tmp_path, stem)
    return tmp_path


def page(repository, stem):
    """A page whose notebook found something."""
    found = new_output("display_data", data={"text/markdown": f"Found by **{stem}**."})
    cells = [
        new_markdown_cell(f"# Title of {stem}"),
        new_code_cell("find()", outputs=[found], execution_count=1, metadata={"tags": ["finding"]}),
    ]
    nbformat.write(new_notebook(cells=cells), repository / f"{stem}.ipynb")
    out = repository / "reports" / "laptop" / f"{stem}.html"
    pages.page(repository / f"{stem}.ipynb", out, profile="laptop", pages=STEMS)


def asked(**overrides):
    return config.read(config.ROOT / "params" / "laptop.yaml", train_missing=False, **overrides)


def gather(accuracy, epochs=75, environment=ENVIRONMENT, lesion_share=0.05, seconds=1800, **settings):
    """A run of the laptop's size in the report."""
    run_config = RunConfig(base_filters=16, precision="mixed_bfloat16", epochs=epochs, **settings)
    store = study.store(asked())
    work = store.work(run_config, "0123456789abcdef")
    work.mkdir(parents=True)
    (work / "history.csv").write_text("epoch,loss\n1,0.3\n", encoding="utf-8")
    (work / runs.STATE).write_bytes(b"weights")
    still = METRICS | {"lesion_share": lesion_share}
    metrics = {"training": METRICS | {"accuracy": accuracy}, "still": still, "images": 6, "seconds": seconds}
    store.gather(store.finish(run_config, "0123456789abcdef", work, metrics, environment))


def index() -> BeautifulSoup:
    return BeautifulSoup(overview.write(asked()).read_text(encoding="utf-8"), "html.parser")


def test_pages_are_the_numbered_notebooks_in_order(repository):
    assert asked().pages == STEMS


def test_only_where_pixels_may_be_shown_is_the_gallery_a_page():
    numbered = ["0_dataset", "1_upsampling", "2_optimization", "3_loss", "4_data", "5_mechanisms", "6_summary"]
    assert asked().pages == numbered
    assert asked(show_pixels=True).pages == [*numbered, "gallery"]


def test_the_index_says_why_there_is_no_gallery_and_how_to_draw_it(repository):
    found = index().main
    assert "Gallery is not in this report: it shows images of the data set" in " ".join(found.get_text().split())
    assert "make gallery PROFILE=laptop DATA=/path/to/Dataset_BUSI_with_GT" in [code.string for code in found("code")]
    shown = BeautifulSoup(overview.write(asked(show_pixels=True)).read_text(encoding="utf-8"), "html.parser")
    assert "not in this report" not in shown.main.get_text()


def test_rows_take_the_mean_over_their_own_runs(repository):
    gather(0.91)  # the baseline
    gather(0.93, loss="kld")
    gather(0.95, seed=1000)  # the BCE row is the baseline's configuration with a seed of its own
    found = overview.rows(study.every_family(asked())).set_index("row").ours
    assert found.dropna().to_dict() == {"Upsampling2D": 0.91, "KLD": 0.93, "BCE": 0.95}
    gather(0.97, loss="kld", seed=1)
    two_seeds = overview.rows(study.every_family(asked(seeds=[0, 1]))).set_index("row").ours
    assert math.isclose(two_seeds["KLD"], 0.95)


def test_the_index_says_what_was_found_in_the_gathered_runs(repository):
    gather(0.9083, loss="dice")
    gather(0.95, loss="kld", epochs=20)
    gather(0.9082, optimizer="adam", momentum=0.0)
    text = " ".join(index().main.get_text().split())
    assert "6 of the 9 distinct published rows have" in text
    assert "Rebuilt, 2 of the 3 rows run so far do." in text
    assert "of the 75 epochs planned: loss-kld seed 0 after 20." in text


def test_the_index_leads_to_the_pages_with_their_findings(repository):
    gather(0.95)
    main = index().main
    for stem in STEMS:
        assert main.find("a", href=f"{stem}.html").get_text() == f"Title of {stem}"
        assert f"Found by {stem}." in main.get_text()


def test_the_index_tells_the_size_and_how_to_make_the_report(repository):
    gather(0.95)
    text = " ".join(index().main.get_text().split())
    for words in (
        "7, of which 6 with a lesion are trained on",
        "300² and 116² pixels",
        "16 to 256 filters (published: 64 to 1024)",
        "75 (published: 75), batches of one image",
        "mixed_bfloat16",
        "busi render reports/laptop",
        "make study PROFILE=laptop DATA=/path/to/Dataset_BUSI_with_GT",
    ):
        assert words in text


def test_the_index_counts_the_networks_that_see_a_lesion(repository):
    assert "Networks trained here" not in index().main.get_text()
    gather(0.9083, loss="dice", lesion_share=0.0)
    assert "weights are held still: none of 1." in " ".join(index().main.get_text().split())
    gather(0.95, lesion_share=1e-9)  # the baseline stands in three tables and counts once
    text = " ".join(index().main.get_text().split())
    assert "its AUC 0.9070; the published row DICE has 0.0916 and 0.9070" in text
    assert "weights are held still: 1 of 2." in text


def test_the_index_tells_when_and_on_what_the_runs_were_trained(repository):
    gather(0.95, environment=ENVIRONMENT | {"finished": "2026-03-04"})
    gather(0.95, loss="kld", environment=ENVIRONMENT | {"finished": "2026-02-28"})
    gather(0.95, loss="dice", environment=ENVIRONMENT | {"gpus": 1, "threads": 2}, seconds=5400)
    found = {dt.string: dt.find_next("dd").string for dt in index().main.find_all("dt")}
    assert found["Trained"] == "2026-02-28 to 2026-03-04"
    assert found["Training time"] == "2.5 hours in 3 runs"
    assert set(found["Machine"].split("; ")) == {
        "AMD EPYC, 2 cores (1 used by a run), no GPUs",
        "AMD EPYC, 2 cores (2 used by a run), 1 GPU",
    }
    assert found["Software"] == "Python 3.11.7, Keras 3.15.1 on jax 0.8.0, NumPy 2.4.6"


def test_the_index_counts_runs_of_training_code_that_has_changed_meaning_since(repository, monkeypatch):
    gather(0.95)
    assert "Training code" not in [dt.string for dt in index().main.find_all("dt")]
    monkeypatch.setitem(runs.TRAINING_VERSION, ("published", "mixed_bfloat16"), 100)
    gather(0.95, loss="kld")
    [found] = [dt.find_next("dd").string for dt in index().main.find_all("dt") if dt.string == "Training code"]
    assert found == "1 of 2 runs by an earlier version, whose numbers differ"


def test_the_index_names_no_day_where_none_was_recorded(repository):
    gather(0.95)
    assert "Trained" not in [dt.string for dt in index().main.find_all("dt")]


def test_the_index_is_the_same_bytes_every_time(repository):
    gather(0.95)
    first, second = (overview.write(asked()).read_bytes() for _ in range(2))
    assert first == second


def test_the_picture_of_the_index_is_the_same_bytes_every_time(repository):
    gather(0.95)
    picture = repository / "reports" / "laptop" / "figures" / "rows-against-floor.svg"
    index()
    first = picture.read_bytes()
    image = index().main.find("img")
    assert picture.read_bytes() == first
    assert image["alt"].startswith("6 of the 9 distinct published rows")


def test_without_a_run_the_index_has_the_published_rows_alone(repository):
    text = index().main.get_text()
    assert "6 of the 9 distinct published rows" in text
    assert "Rebuilt" not in text


def test_a_page_that_is_not_there_is_named_and_not_led_to(repository):
    (repository / "reports" / "laptop" / "3_loss.html").unlink()
    found = index()
    assert "3 Loss is not in this report: it has not been drawn." in found.main.get_text()
    assert [a["href"] for a in found.header.find_all("a")] == ["index.html", "0_dataset.html"]
