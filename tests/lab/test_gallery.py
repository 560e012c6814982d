"""The gallery chooses the right cases, loads no network, and says what the numbers say."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib.colors import same_color

from busi.lab import gallery, networks
from busi.report import figures

KLD, RAW = "loss: KLD", "data: No preprocess"


@pytest.mark.parametrize("label", [KLD, RAW])
def test_the_best_the_median_and_the_worst_held_out_lesion(laboratory, label):
    variant = laboratory.variants[label]
    cases = gallery.choose_cases(variant)
    scores = variant.scores[variant.scores.image_class != "normal"].dice.sort_values().tolist()
    lower_median = scores[len(scores) // 2 - (len(scores) % 2 == 0)]
    assert [cases[rank].dice for rank in ("best", "median", "worst")] == pytest.approx(
        [scores[-1], lower_median, scores[0]], abs=1e-6
    )
    for case in cases.values():
        assert case.name in variant.find_run(case.name).predictions["test"].names


def test_each_variant_s_cases_are_under_its_heading(laboratory):
    page = BeautifulSoup(gallery.show_cases(laboratory.variants).data, "html.parser")
    assert [heading.get_text() for heading in page.select("h3")] == [KLD, RAW]
    for figure, variant in zip(page.select("figure"), laboratory.variants.values(), strict=True):
        best, median, worst = gallery.choose_cases(variant).values()
        assert figure.figcaption.string == (
            f"Best: {best.name}, {best.description}. Median: {median.name}, {median.description}. "
            f"Worst: {worst.name}, {worst.description}."
        )


def test_the_gallery_loads_no_network(laboratory, monkeypatch):
    def refuse(run):
        raise AssertionError(f"{run.folder} was loaded")

    monkeypatch.setattr(networks, "load_model", refuse)
    gallery.show_cases(laboratory.variants)
    gallery.average_dice(laboratory.variants)


def test_importing_the_gallery_imports_no_keras():
    code = "import sys, busi.lab.gallery; sys.exit(bool({'keras', 'tensorflow', 'jax'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_outlines_follow_the_true_and_the_predicted_pixels():
    truth, probability = np.zeros((20, 30), bool), np.full((20, 30), 0.1, np.float32)
    truth[2:6, 3:9] = True
    probability[10:18, 12:26] = 0.4
    case = networks.Case("a", np.arange(600, dtype=np.uint8).reshape(20, 30), truth, probability, 0.3)
    figure = figures.cases({"worst": case})
    upper, lower = figure.axes[:2]
    assert upper.get_title(loc="left") == "worst"
    np.testing.assert_array_equal(upper.images[0].get_array(), case.pixels)
    np.testing.assert_array_equal(lower.images[0].get_array(), probability)
    marked, predicted = [2.5, 1.5, 8.5, 5.5], [11.5, 9.5, 25.5, 17.5]  # x, y of the first corner, then of the last
    for ax, boxes in ((upper, [marked, predicted]), (lower, [marked])):
        drawn = [outline.get_paths()[0].get_extents().extents for outline in ax.collections]
        np.testing.assert_allclose(drawn, boxes)
    colors = [outline.get_edgecolor()[0] for outline in upper.collections]
    assert same_color(colors[0], figures.TRUE_OUTLINE["color"])
    assert same_color(colors[1], figures.PREDICTED_OUTLINE["color"])
    plt.close(figure)


def test_a_variant_that_families_share_is_shown_once(laboratory):
    variants = laboratory.variants
    shared = networks.Variant(tuple(variants[KLD].runs), laboratory.catalog)
    distinct = gallery.drop_repeated({"upsampling: Nearest": variants[KLD], "data: All": variants[RAW], "BCE": shared})
    assert distinct == {"upsampling: Nearest": variants[KLD], "data: All": variants[RAW]}


def test_a_lesion_s_dice_is_the_mean_over_the_variants_that_held_it_out(laboratory):
    lesions = gallery.average_dice(laboratory.variants).set_index("name").dice
    kld, raw = (laboratory.variants[label].scores.set_index("name").dice for label in (KLD, RAW))
    both = raw.dropna().index.intersection(kld.index)
    assert len(both) and set(lesions.index) == set(kld.dropna().index) | set(raw.dropna().index)
    np.testing.assert_allclose(lesions[both], (kld[both] + raw[both]) / 2)
    alone = kld.dropna().index.difference(raw.index)
    assert len(alone)
    np.testing.assert_allclose(lesions[alone], kld[alone])


def test_the_conclusion_follows_the_numbers():
    lesions = pd.DataFrame(
        {
            "image_class": ["benign", "benign", "malignant", "malignant", "malignant", "benign"],
            "name": list("abcdef"),
            "group": range(6),
            "lesion_share": [0.01, 0.02, 0.05, 0.06, 0.2, 0.3],
            "dice": [0.1, 0.3, 0.6, 0.8, 0.9, 0.7],
        }
    )
    conclusion = gallery.conclude(lesions)
    assert "by class: benign 0.367 (3), malignant 0.767 (3). " in conclusion
    assert "by size of the lesion: small 0.200 (2), medium 0.700 (2), large 0.800 (2). " in conclusion
    assert "The hardest of 6 lesion images is a: mean Dice 0.100." in conclusion
