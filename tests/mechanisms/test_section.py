"""Sections with and without numbers, their recorded conclusions, and the scores that they share."""

import importlib
from unittest.mock import Mock

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from IPython.display import HTML

from busi import results
from busi.config import RunConfig
from busi.mechanisms import section
from busi.results import NotMeasured


def alt_text(shown: section.Section) -> str:
    return BeautifulSoup(shown.figure.data, "html.parser").img["alt"]


def test_there_is_a_module_for_every_title():
    for name in section.TITLES:
        module = importlib.import_module(f"busi.mechanisms.{name}")
        assert all(callable(getattr(module, part)) for part in ("measure", "tabulate", "draw", "conclude", "show"))


@pytest.mark.parametrize("name", section.TITLES)
def test_a_section_without_results_says_so_and_writes_no_table(nothing_measured, name):
    results.record_finding(nothing_measured, "mechanisms", **{name: "An earlier conclusion."})
    shown = importlib.import_module(f"busi.mechanisms.{name}").show(nothing_measured)
    assert shown.conclusion == "Not run yet."
    assert alt_text(shown) == "Not run yet."
    assert "Not run yet." in shown.table.data
    assert not nothing_measured.tables_path.exists()
    assert results.read_findings(nothing_measured)["mechanisms"] == {name: "Not run yet."}


def test_a_section_with_results_records_its_conclusion_and_shows_it_to_those_who_cannot_see(nothing_measured):
    @section.presents("flips")
    def show(parameters):
        table = pd.DataFrame({"position": ["side"], "wrong": [0.125]})
        return section.compose(section._draw_not_run(), table, "Wrong.", caption="A figure.", table_caption="A table.")

    shown = show(nothing_measured)
    assert (shown.conclusion, alt_text(shown)) == ("Wrong.", "Wrong.")
    assert "A figure." in shown.figure.data
    assert "0.1250" in shown.table.data
    assert results.read_findings(nothing_measured)["mechanisms"] == {"flips": "Wrong."}


def test_other_errors_are_not_taken_for_missing_numbers(nothing_measured):
    show = section.presents("flips")(Mock(__name__="show", side_effect=ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        show(nothing_measured)


def test_conclusions_are_collected_in_order_and_missing_ones_are_named(nothing_measured):
    results.record_finding(nothing_measured, "mechanisms", ladder="Up and down.", floors="Deep.")
    collected = section.collect_conclusions(nothing_measured)
    assert collected.section.tolist() == list(section.TITLES.values())
    assert collected.conclusion.tolist() == ["Deep.", *["Not run yet."] * 6, "Up and down."]


def test_sections_are_listed_with_their_titles():
    shown = {name: section.Section(HTML(""), HTML(""), f"{name}.") for name in ("ladder", "floors")}
    assert section.list_sections(shown) == "- **The ladder.** ladder.\n- **Floors.** floors."


def test_the_size_of_a_run_tells_that_heldout_epochs_are_a_limit():
    assert section.describe_size(RunConfig(epochs=1)) == "300 pixels, 64 filters, 1 epoch"
    heldout = RunConfig(protocol="heldout", image_size=64, base_filters=8, epochs=40)
    assert section.describe_size(heldout) == "64 pixels, 8 filters, at most 40 epochs"


def test_variants_are_scored_without_normals(make_results):
    trained = make_results({"one": {"a": (0, 0.2), "b": (1, 0.6)}})
    table = section.score_variants(trained)
    assert list(table) == ["variant", "dice", "low", "high", "n_images", "epochs"]
    assert table.variant.tolist() == ["one"]
    assert table.loc[0, ["dice", "low", "high", "n_images", "epochs"]].tolist() == pytest.approx([0.4, 0.2, 0.6, 2, 7])


def test_a_variant_without_a_run_counts_as_not_measured(make_results):
    trained = make_results({"one": {"a": (0, 0.2)}})
    assert section.tested_lesions(trained, "one").name.tolist() == ["a"]
    with pytest.raises(NotMeasured, match="two: not trained yet"):
        section.tested_lesions(trained, "two")


def test_an_image_without_a_dice_is_left_out_of_the_mean():
    images = pd.DataFrame({"dice": [0.2, None, 0.6], "group": [0, 1, 2]})
    assert section.average_dice(images)["dice"] == pytest.approx(0.4)
    assert section.average_dice(images[1:2]) == {}
