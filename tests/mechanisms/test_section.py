"""Sections with and without numbers, their recorded conclusions, and the scores that they share."""

import importlib
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from IPython.display import HTML

from busi import results
from busi.config import RunConfig
from busi.dataset.arrays import Arrays, two_channels
from busi.dataset.parts import Parts
from busi.dataset.preprocessing import Scaling
from busi.mechanisms import section
from busi.results import NotMeasured, Results, empty_results
from busi.runs import Predictions
from busi.study import find_group


@pytest.mark.parametrize("name", section.TITLES)
def test_a_section_without_results_says_so_and_writes_no_table(nothing_measured, name):
    results.record_finding(nothing_measured, "mechanisms", **{name: "An earlier conclusion."})
    shown = importlib.import_module(f"busi.mechanisms.{name}").show(nothing_measured)
    assert shown.conclusion == "Not run yet."
    assert shown.figure.data == shown.table.data == ""
    assert not nothing_measured.tables_path.exists()
    assert results.read_findings(nothing_measured)["mechanisms"] == {name: "Not run yet."}


def test_a_section_with_results_records_its_conclusion_and_shows_it_to_those_who_cannot_see(nothing_measured):
    @section.presents("flips")
    def show(parameters):
        table = pd.DataFrame({"position": ["side"], "wrong": [0.125]})
        return section.compose(plt.figure(), table, "Wrong.", caption="A figure.", table_caption="A table.")

    shown = show(nothing_measured)
    figure = BeautifulSoup(shown.figure.data, "html.parser")
    assert (shown.conclusion, figure.img["alt"]) == ("Wrong.", "Wrong.")
    assert "A figure." in shown.figure.data
    assert "0.1250" in shown.table.data
    assert results.read_findings(nothing_measured)["mechanisms"] == {"flips": "Wrong."}


@pytest.mark.parametrize(
    ("trained", "told"),
    [(0, ""), (1, " Provisional: 1 of 2 planned runs has been trained."), (2, "")],
)
def test_a_conclusion_says_how_many_of_its_runs_are_there_while_some_are_missing(
    nothing_measured, monkeypatch, trained, told
):
    """Without a run of its own, a section tells what needs none."""
    planned = find_group(nothing_measured, "mechanisms/collapse").configs
    # A run of an earlier plan does not count.
    labels = ["published/another", *[config.label for config in planned[:trained]]]
    trained_so_far = replace(empty_results(), runs=pd.DataFrame({"run": labels}))
    monkeypatch.setattr(section, "load_results", lambda *arguments: trained_so_far)
    show = section.presents("collapse")(lambda parameters: section.Section(HTML(""), HTML(""), "Fates."))
    assert show(nothing_measured).conclusion == f"Fates.{told}"


def test_other_errors_are_not_taken_for_missing_numbers(nothing_measured):
    show = section.presents("flips")(Mock(__name__="show", side_effect=ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        show(nothing_measured)


def test_conclusions_are_collected_in_order_and_missing_ones_are_named(nothing_measured):
    results.record_finding(nothing_measured, "mechanisms", peers="Up and down.", floors="Deep.")
    collected = section.collect_conclusions(nothing_measured)
    assert collected.section.tolist() == list(section.TITLES.values())
    others = ["Not run yet."] * (len(section.TITLES) - 2)
    assert collected.conclusion.tolist() == ["Deep.", *others, "Up and down."]


def test_the_size_of_a_run_tells_that_heldout_epochs_are_a_limit():
    assert section.describe_size(RunConfig(epochs=1)) == "300 pixels, 64 filters, 1 epoch"
    heldout = RunConfig(protocol="heldout", image_size=64, base_filters=8, epochs=40)
    assert section.describe_size(heldout) == "64 pixels, 8 filters, at most 40 epochs"


def trained_from(*draws: tuple[int, int], protocol: str = "published") -> Results:
    """Return one run of one variant for each fold and seed."""
    config = RunConfig(protocol=protocol, image_size=64, base_filters=8, epochs=10, padding="same").model_dump_json()
    runs = pd.DataFrame([{"variant": "one", "fold": fold, "seed": seed, "config": config} for fold, seed in draws])
    return replace(empty_results(), runs=runs)


@pytest.mark.parametrize(
    ("draws", "number"),
    [
        ([(0, 0)], "1 seed"),
        ([(0, 0), (0, 1), (0, 2)], "3 seeds"),
        ([(0, 0), (1, 1)], "1 seed in each of 2 folds"),
        ([(0, 0), (0, 5), (1, 1)], "1 to 2 seeds in each of 2 folds"),
    ],
)
def test_the_number_of_runs_behind_a_sentence_is_told(draws, number):
    assert section.describe_runs(trained_from(*draws)) == f"64 pixels, 8 filters, 10 epochs, {number}"
    # Published runs hold nothing out; of the others, a single fold is told, because it says nothing about other images.
    in_fold = number if "folds" in number else f"{number} in one fold"
    held_out = section.describe_runs(trained_from(*draws, protocol="heldout"))
    assert held_out == f"64 pixels, 8 filters, at most 10 epochs, {in_fold}"


def test_variants_are_scored_over_images_and_seeds():
    rows = [("one", 0, "a", 0, 0.2), ("one", 1, "a", 0, 0.4), ("one", 0, "b", 1, 0.6), ("one", 1, "b", 1, 0.8)]
    images = pd.DataFrame(rows, columns=["variant", "seed", "name", "group", "dice"]).assign(
        fold=0, marked=[0.1, 0.1, 0.3, 0.3]
    )
    # Without a Dice, an image counts in everything else.
    unseen = pd.DataFrame({"variant": "two", "seed": 0, "fold": 0, "name": ["a"], "group": 0, "marked": 0.5})
    table = section.score_variants(pd.concat([images, unseen]), "marked")
    assert list(table) == ["variant", "n_images", "n_dice", "dice", "low", "high", "marked"]
    assert table.loc[0, ["n_images", "n_dice", "dice", "marked"]].tolist() == pytest.approx([2, 2, 0.5, 0.2])
    # Images alone would end at 0.3 and 0.7; the seeds are 0.2 apart.
    assert table.low[0] < 0.3 and table.high[0] > 0.7
    assert table.loc[1, ["n_images", "n_dice", "marked"]].tolist() == [1, 0, 0.5] and np.isnan(table.dice[1])


@pytest.fixture
def three_images(monkeypatch) -> Arrays:
    """Makes two lesion images and a normal one the images of every part; the target "squeezed" is another one."""
    lesions = np.zeros((3, 2, 2))
    lesions[0, 0] = 1
    lesions[1, :, 1] = 1
    arrays = Arrays(np.array(["a", "b", "n"]), np.zeros((3, 2, 2, 1)), two_channels(lesions, "complement"))

    def load(config, catalog):
        turned = replace(arrays, targets=arrays.targets[..., ::-1]) if config.target == "squeezed" else arrays
        return Parts(turned[:2], turned[:2], turned, Scaling())

    monkeypatch.setattr(section, "load_parts", load)
    return arrays


def test_answers_are_paired_with_the_target_of_the_same_name(three_images):
    catalog = SimpleNamespace(lesions=pd.DataFrame({"name": ["a", "b"]}))
    answers = Predictions(three_images.names[::-1], three_images.targets[::-1, ..., 0])
    run = SimpleNamespace(config=RunConfig(target="aligned"), predictions={"test": answers})
    pairs = list(section.pair_answers(run, "test", catalog, "aligned"))
    assert [name for name, _, _ in pairs] == ["b", "a"]  # the normal image is left out
    assert all((target[..., 0] == probability).all() for _, target, probability in pairs)
    squeezed = section.pair_answers(run, "test", catalog, "squeezed")
    assert all((target[..., 1] == probability).all() for _, target, probability in squeezed)


def test_a_variant_without_a_run_counts_as_not_measured(make_results):
    trained = make_results({"one": {"a": (0, 0.2)}})
    assert section.tested_lesions(trained, "one").name.tolist() == ["a"]
    with pytest.raises(NotMeasured, match="two: not trained yet"):
        section.tested_lesions(trained, "two")
