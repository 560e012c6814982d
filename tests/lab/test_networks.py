"""Networks from the store: they say of an image what their run was scored on."""

import numpy as np
import pytest
from PIL import Image

from busi.config import Study
from busi.lab import networks
from busi.lab.networks import Case

KLD, RAW = "loss: KLD", "data: No preprocess"


def test_only_variants_with_weights_are_found(laboratory):
    assert list(laboratory.variants) == [KLD, RAW]


@pytest.mark.parametrize("label", [KLD, RAW])
def test_every_held_out_image_has_the_dice_that_its_run_recorded(laboratory, label):
    variant = laboratory.variants[label]
    assert len(variant.per_image) > 5
    for row in variant.per_image.itertuples():
        case = variant.case(row.name, *networks.picture(laboratory.data, row.name))
        assert case.dice == pytest.approx(row.dice, abs=1e-6, nan_ok=True)
        assert case.predicted.mean() == pytest.approx(row.predicted_share, abs=1e-6)


def test_an_image_is_shown_to_a_network_that_it_was_held_out_from(laboratory):
    variant = laboratory.variants[KLD]
    networks_of = {name: variant.network(name) for name in variant.per_image.name}
    assert {network.parts[name] for name, network in networks_of.items()} == {"test"}
    assert len(set(map(id, networks_of.values()))) == 2
    first = variant.network("a file of one's own")
    assert "a file of one's own" not in first.parts
    assert first is networks_of[next(name for name, part in first.parts.items() if part == "test")]


def test_any_image_can_be_given_and_keeps_its_size(laboratory):
    name = laboratory.variants[RAW].per_image.name[0]
    pixels, _ = networks.picture(laboratory.data, name)
    wide = np.asarray(Image.fromarray(pixels).resize((91, 40)))
    case = laboratory.variants[RAW].case("a file of one's own", wide, None, threshold=0.3)
    assert case.probability.shape == (40, 91)
    assert case.threshold == 0.3
    assert np.isnan(case.dice)


def test_dice_by_hand():
    truth = np.array([[True, True, False, False]])
    probability = np.array([[0.9, 0.2, 0.5, 0.1]], np.float32)
    pixels = np.zeros((1, 4), np.uint8)
    assert Case("a", pixels, truth, probability, 0.5).dice == 0.5  # one of two found, one of two right
    assert Case("a", pixels, truth, probability, 0.15).dice == 0.8  # 2 * 2 / (2 + 3)
    assert Case("a", pixels, truth, probability, 0.95).dice == 0
    assert np.isnan(Case("a", pixels, ~truth & truth, probability, 0.5).dice)


def test_where_nothing_is_trained_the_command_is_named():
    phantoms = networks.missing(Study(profile="none", data_dir="phantom"))
    assert phantoms.endswith("run `make study PROFILE=none` in a terminal, then this notebook again.")
    assert "`make study PROFILE=laptop DATA=images`" in networks.missing(Study(profile="laptop", data_dir="images"))


def test_results_that_stand_in_the_way_of_training_are_named():
    told = networks.missing(Study(profile="laptop", data_dir="images"))
    assert "results are in `reports/laptop/results/heldout` count as finished" in told
