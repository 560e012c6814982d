"""What notebook 5 shows: figures of the numbers they are given, sections with and without results."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from busi import config
from busi.config import Study
from busi.mechanisms import checkerboards, collapse, flips
from busi.report import mechanisms, tables

FLOORS = pd.DataFrame(
    {
        "metric": ["accuracy", "AUC, both channels", "AUC, lesion channel", "Dice loss", "BCE", "KLD"],
        "formula": ["1 − s", "1 − s", "1/2", "s", "entropy", "entropy"],
        "from_share": [0.907, 0.907, 0.5, 0.093, 0.3095, 0.3095],
        "exact": [0.90825, 0.90696, 0.5, 0.09163, 0.30656, 0.309],
    }
)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    """A report that nothing has been gathered for."""
    (tmp_path / "params").symlink_to(config.ROOT / "params")
    monkeypatch.setattr(config, "ROOT", tmp_path)
    return Study(train_missing=False, heldout={"image_size": 32, "base_filters": 2, "epochs": 3})


def gather(study: Study, name: str, frame: pd.DataFrame) -> None:
    folder = study.report_path / "results" / "mechanisms"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.csv").write_text("# key of a test\n" + frame.to_csv(index=False), encoding="utf-8")


# Sections


def test_without_results_every_section_says_so_and_writes_no_table(study):
    sections = {title: section(study) for title, section in mechanisms.SECTIONS.items()}
    assert len(sections) == 8
    for section in sections.values():
        assert section.conclusion == "Not run yet."
        assert BeautifulSoup(section.figure.data, "html.parser").img["alt"] == "Not run yet."
        assert "Not run yet." in section.table.data
    assert not (study.report_path / "tables" / "mechanisms_floors.csv").exists()


def test_the_floors_section_shows_six_published_rows_on_the_floor(study):
    gather(study, "floors", FLOORS)
    section = mechanisms.floors(study)
    assert "6 of the 9 published rows have that accuracy" in section.conclusion
    assert BeautifulSoup(section.figure.data, "html.parser").img["alt"] == section.conclusion
    written = pd.read_csv(study.report_path / "tables" / "mechanisms_floors.csv")
    assert written.exact.tolist() == FLOORS.exact.tolist()


def test_the_label_noise_is_summed_up_from_the_gathered_images(study):
    offset = np.linspace(0, 0.9, 10)
    gather(study, "flips", pd.DataFrame({"offset": offset, "wrong": 0.1, "missed": offset}))
    section = mechanisms.flipped(study)
    assert "10.0% of its pixels and 45% of its lesion" in section.conclusion
    written = pd.read_csv(study.report_path / "tables" / "mechanisms_flips.csv")
    assert written.expected.tolist() == pytest.approx([0.05] * 6)
    assert list(written.position) == [*flips.BANDS, "all"]


def test_the_summary_lists_every_conclusion_and_begins_with_the_last(study):
    sections = {title: section(study) for title, section in mechanisms.SECTIONS.items()}
    last = mechanisms.Section("Up and down.", sections["Floors"].figure, sections["Floors"].table)
    text = mechanisms.summary(study, sections | {"The ladder": last})
    assert text.startswith("Up and down.\n\n1. **Floors.** Not run yet.\n")
    assert text.endswith("8. **The ladder.** Up and down.")
    written = pd.read_csv(study.report_path / "tables" / "mechanisms_conclusions.csv")
    assert written.conclusion.tolist() == ["Not run yet."] * 7 + ["Up and down."]


# Figures


def test_rows_stand_against_the_floor_of_their_own_loss():
    fig = mechanisms.rows_against_floors(tables.distinct_rows(), FLOORS.set_index("metric").exact)
    accuracy, auc, loss = fig.axes
    assert [ax.lines[0].get_xdata()[0] for ax in fig.axes] == [0.90825, 0.90696, 0]
    over = dict(zip([label.get_text() for label in accuracy.get_yticklabels()], loss.lines[1].get_xdata(), strict=True))
    assert over["DICE"] == pytest.approx(0.0916 - 0.09163)
    assert over["KLD"] == pytest.approx(0.1489 - 0.309)
    assert over["BCE"] == pytest.approx(0.2269 - 0.30656)
    assert len(auc.lines[1].get_xdata()) == 9


def sweep() -> pd.DataFrame:
    rows = [("Adam", 0.1, 0.9, 0.8), ("Adam", 0.001, 0.95, 0.9), ("SGD", 0.01, 0.9, 0.9)]
    frame = pd.DataFrame(rows, columns=["optimizer", "learning_rate", "accuracy", "auc"]).assign(
        setting="s", first_loss=[0.4, 0.2, 0.3], gradient_norm=1.0, dead_relus=[0.9, 0.1, 0.5]
    )
    untrained = pd.DataFrame([{"setting": "untrained", "gradient_norm": 2.0, "dead_relus": 0.05}])
    return collapse.table(pd.concat([untrained, frame.assign(floor_accuracy=0.9, floor_auc=0.8)], ignore_index=True))


def test_markers_tell_what_became_of_a_network_and_a_line_runs_over_the_rates():
    loss, _, dead = mechanisms.sweep(sweep()).axes
    adam = loss.lines[0]
    assert adam.get_xydata().tolist() == [[0.001, 0.2], [0.1, 0.4]]
    finds, plateau, constant = loss.lines[1:4]
    assert [line.get_xdata().tolist() for line in (finds, plateau, constant)] == [[0.001], [], [0.1]]
    assert (finds.get_markerfacecolor(), constant.get_markerfacecolor()) == (adam.get_color(), "white")
    assert constant.get_marker() == "X"
    assert [line.get_ydata()[0] for line in dead.lines if line.get_label() == "untrained"] == [0.05]
    assert "untrained" not in [line.get_label() for line in loss.lines]  # no loss before training


def test_trajectories_are_drawn_by_step():
    rows = pd.DataFrame({"step": [1, 2, 4], "distance": [1e-7, 1e-6, 0.5]}).assign(
        loss="KLD", precision="float64", targets="one-hot"
    )
    line = mechanisms.trajectories(rows).axes[0].lines[0]
    assert line.get_label() == "KLD, float64, one-hot"
    assert line.get_xydata().tolist() == [[1, 1e-7], [2, 1e-6], [4, 0.5]]


def test_bars_stand_for_the_segmenter_and_the_background():
    table = pd.DataFrame({"images": ["all", "benign"], "accuracy": [0.8, 0.86], "background": [0.907, 0.93]})
    heights = [bar.get_height() for bar in mechanisms.ceilings(table).axes[0].patches]
    assert heights == [0.8, 0.86, 0.907, 0.93]


def spectrum(trained) -> pd.DataFrame:
    rows = [
        {"upsampling": way, "stage": stage, "size": 8, "noise": 0.24, "untrained": value, "trained": trained}
        for way, value in (("nearest", 0.0), ("transposed", 0.4))
        for stage in checkerboards.STAGES.values()
    ]
    return pd.DataFrame(rows)


def test_no_power_is_drawn_at_the_foot_of_the_axis_and_missing_runs_are_named():
    before, after = mechanisms.spectra(spectrum(np.nan)).axes
    assert before.lines[0].get_ydata().tolist() == [1e-6] * 3
    assert before.lines[1].get_ydata().tolist() == [0.4] * 3
    assert after.get_title(loc="left") == "Trained: not run yet"
    assert mechanisms.spectra(spectrum(0.1)).axes[1].get_title(loc="left") == "Trained"


def test_only_scored_rows_of_the_leak_are_drawn():
    table = pd.DataFrame(
        {
            "split": ["grouped", "random"],
            "images": ["all", "all"],
            "dice": [None, 0.6],
            "low": [None, 0.55],
            "high": [None, 0.7],
            "n_scored": [0, 129],
        }
    )
    ax = mechanisms.twins(table).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["random: all (129)"]
    ends = ax.containers[0].lines[2][0].get_segments()[0][:, 0]
    assert ends.tolist() == pytest.approx([0.55, 0.7])


def test_the_waterfall_hangs_each_change_from_the_rung_before():
    table = pd.DataFrame({"rung": ["rebuilt", "learns", "aligned"]})
    for score, values in {
        "accuracy": [0.9, 0.95, np.nan],
        "auc": [0.9, 0.97, np.nan],
        "dice": [0.0, 0.5, np.nan],
    }.items():
        change = [np.nan, values[1] - values[0], np.nan]
        table = table.assign(
            **{score: values, f"{score}_change": change, f"floor_{score}": 0.9},
            **{f"{score}_low": np.subtract(change, 0.01), f"{score}_high": np.add(change, 0.02)},
        )
    fig = mechanisms.waterfall(table, {"accuracy": 0.9251, "auc": 0.9728})
    accuracy, _, dice = fig.axes
    bars = [(bar.get_y(), bar.get_height()) for bar in dice.patches]
    assert bars[1] == (0.0, 0.5)
    assert accuracy.lines[0].get_xydata().tolist() == [[0, 0.9251]]
    assert all(line.get_marker() != "*" for line in dice.lines)  # the paper gives no Dice
    assert [label.get_text() for label in dice.get_xticklabels()] == ["published", "rebuilt", "learns", "aligned"]
