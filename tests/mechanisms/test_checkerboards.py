"""Power at the Nyquist frequency of patterns made by hand, and of the layers that are under study."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

from busi.mechanisms import checkerboards

ROWS, COLUMNS = np.mgrid[:8, :8]


def maps(*planes: np.ndarray) -> np.ndarray:
    return np.stack(planes, axis=-1)[None].astype(np.float32)


@pytest.mark.parametrize(
    "pattern", [(-1.0) ** (ROWS + COLUMNS), (-1.0) ** COLUMNS, (-1.0) ** ROWS, 3 + 0.1 * (ROWS % 2) * (COLUMNS % 2)]
)
def test_what_repeats_every_two_pixels_has_all_its_power_there(pattern):
    assert checkerboards.nyquist(maps(pattern)) == pytest.approx(1, abs=1e-9)


def test_a_slow_wave_has_none_and_a_sum_has_its_part():
    wave = np.cos(2 * np.pi * COLUMNS / 8)  # power 1/2
    board = (-1.0) ** (ROWS + COLUMNS)  # power 1
    assert checkerboards.nyquist(maps(wave)) == pytest.approx(0, abs=1e-9)
    assert checkerboards.nyquist(maps(wave + board)) == pytest.approx(2 / 3, abs=1e-6)
    assert checkerboards.nyquist(maps(wave, board)) == pytest.approx(1 / 2, abs=1e-6)


def test_flat_maps_are_left_out():
    assert checkerboards.nyquist(maps(np.ones((8, 8)), (-1.0) ** ROWS)) == pytest.approx(1)
    assert np.isnan(checkerboards.nyquist(maps(np.ones((8, 8)))))


def test_white_noise_has_the_share_of_frequencies():
    noise = np.random.default_rng(0).normal(size=(400, 8, 8, 1))
    assert checkerboards.of_noise(8, 8) == 15 / 63
    assert checkerboards.nyquist(noise) == pytest.approx(15 / 63, abs=0.01)


def test_repetition_leaves_nothing_there_and_a_fresh_transposed_convolution_much():
    keras.utils.set_random_seed(0)
    smooth = maps(np.cos(2 * np.pi * COLUMNS / 8) + np.sin(2 * np.pi * ROWS / 8))
    found = {
        name: checkerboards.nyquist(keras.ops.convert_to_numpy(layer(smooth)))
        for name, layer in {
            "nearest": layers.UpSampling2D(),
            "bilinear": layers.UpSampling2D(interpolation="bilinear"),
            "transposed": layers.Conv2DTranspose(16, 2, strides=2),
        }.items()
    }
    assert found["nearest"] < 1e-9
    assert found["bilinear"] < 1e-3
    assert found["transposed"] > 0.05


def rows(transposed: tuple[float, float | None]) -> pd.DataFrame:
    head = {"size": 8, "noise": 0.24, "seed": 0}
    found = []
    for way, (before, after) in {"nearest": (0.0, 0.02), "transposed": transposed}.items():
        for stage in ("first upsampling", "output"):
            found.append(head | {"upsampling": way, "stage": stage, "trained": False, "nyquist": before})
            found.append(head | {"upsampling": way, "stage": stage, "trained": False, "nyquist": before, "seed": 1})
            if after is not None:
                found.append(head | {"upsampling": way, "stage": stage, "trained": True, "nyquist": after})
    return pd.DataFrame(found)


def test_the_table_takes_the_mean_over_initialisations():
    drawn = rows((0.4, 0.1))
    drawn.loc[(drawn.upsampling == "transposed") & (drawn.seed == 1), "nyquist"] = 0.6
    found = checkerboards.table(drawn).set_index(["upsampling", "stage"])
    assert found.loc[("transposed", "output"), ["untrained", "trained"]].tolist() == pytest.approx([0.5, 0.1])


@pytest.mark.parametrize(
    ("transposed", "verdict"),
    [
        ((0.4, 0.1), "has it the wrong way round."),
        ((0.4, 0.01), "training takes the pattern that transposed convolution starts with out of the output again"),
        ((0.0, 0.01), "is not contradicted here."),
    ],
)
def test_the_conclusion_judges_the_reason_of_claim_1(transposed, verdict):
    text = checkerboards.conclusion(checkerboards.table(rows(transposed)))
    assert f"holds 0.00% (nearest), {transposed[0]:.2%} (transposed) of the power" in text
    assert verdict in text


def test_untrained_networks_alone_are_said_to_be_that():
    text = checkerboards.conclusion(checkerboards.table(rows((0.4, None)).query("not trained")))
    assert "trained networks have not been run yet" in text
