"""Power at the Nyquist frequency of patterns made by hand, and of the layers that are under study."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

from busi import results
from busi.mechanisms import checkerboards
from busi.study import find_group

ROWS, COLUMNS = np.mgrid[:8, :8]


def maps(*planes: np.ndarray) -> np.ndarray:
    return np.stack(planes, axis=-1)[None].astype(np.float32)


@pytest.mark.parametrize(
    "pattern", [(-1.0) ** (ROWS + COLUMNS), (-1.0) ** COLUMNS, (-1.0) ** ROWS, 3 + 0.1 * (ROWS % 2) * (COLUMNS % 2)]
)
def test_what_repeats_every_two_pixels_has_all_its_power_there(pattern):
    assert checkerboards.nyquist_share(maps(pattern)) == pytest.approx(1, abs=1e-9)


def test_a_slow_wave_has_none_and_a_sum_has_its_part():
    wave = np.cos(2 * np.pi * COLUMNS / 8)  # power 1/2
    board = (-1.0) ** (ROWS + COLUMNS)  # power 1
    assert checkerboards.nyquist_share(maps(wave)) == pytest.approx(0, abs=1e-9)
    assert checkerboards.nyquist_share(maps(wave + board)) == pytest.approx(2 / 3, abs=1e-6)
    assert checkerboards.nyquist_share(maps(wave, board)) == pytest.approx(1 / 2, abs=1e-6)


def test_flat_maps_are_left_out():
    assert checkerboards.nyquist_share(maps(np.ones((8, 8)), (-1.0) ** ROWS)) == pytest.approx(1)
    assert np.isnan(checkerboards.nyquist_share(maps(np.ones((8, 8)))))


def test_white_noise_has_the_share_of_frequencies():
    noise = np.random.default_rng(0).normal(size=(400, 8, 8, 1))
    assert checkerboards.expected_of_noise(8, 8) == 15 / 63
    assert checkerboards.nyquist_share(noise) == pytest.approx(15 / 63, abs=0.01)


def test_repetition_leaves_nothing_there_and_a_fresh_transposed_convolution_much():
    keras.utils.set_random_seed(0)
    smooth = maps(np.cos(2 * np.pi * COLUMNS / 8) + np.sin(2 * np.pi * ROWS / 8))
    ways = {
        "nearest": layers.UpSampling2D(),
        "bilinear": layers.UpSampling2D(interpolation="bilinear"),
        "transposed": layers.Conv2DTranspose(16, 2, strides=2),
    }
    shares = {}
    for name, layer in ways.items():
        shares[name] = checkerboards.nyquist_share(keras.ops.convert_to_numpy(layer(smooth)))
    assert shares["nearest"] < 1e-9
    assert shares["bilinear"] < 1e-3
    assert shares["transposed"] > 0.05


def rows(transposed: tuple[float, float]) -> pd.DataFrame:
    """Return shares of power before and after training; those of transposed convolution are given."""
    head = {"size": 8, "noise": 0.24, "seed": 0}
    shares = []
    for way, (before, after) in {"nearest": (0.0, 0.02), "transposed": transposed}.items():
        for stage in ("first upsampling", "output"):
            shares.append(head | {"upsampling": way, "stage": stage, "trained": False, "nyquist": before})
            shares.append(head | {"upsampling": way, "stage": stage, "trained": False, "nyquist": before, "seed": 1})
            shares.append(head | {"upsampling": way, "stage": stage, "trained": True, "nyquist": after})
    return pd.DataFrame(shares)


def test_the_table_takes_the_mean_over_initialisations():
    drawn = rows((0.4, 0.1))
    is_second = (drawn.upsampling == "transposed") & (drawn.seed == 1) & ~drawn.trained
    drawn.loc[is_second, "nyquist"] = 0.6
    table = checkerboards.tabulate(drawn).set_index(["upsampling", "stage"])
    assert table.loc[("transposed", "output"), ["untrained", "trained"]].tolist() == pytest.approx([0.5, 0.1])


@pytest.mark.parametrize(
    ("transposed", "verdict"),
    [
        ((0.4, 0.1), "has it the wrong way round."),
        ((0.4, 0.01), "training takes the pattern that transposed convolution starts with out of the output again"),
        ((0.0, 0.01), "is not contradicted here."),
    ],
)
def test_the_conclusion_judges_the_reason_of_claim_1(transposed, verdict):
    text = checkerboards.conclude(checkerboards.tabulate(rows(transposed)))
    assert f"holds 0.00% (nearest), {transposed[0]:.2%} (transposed) of the power" in text
    assert verdict in text


def test_the_section_reads_what_was_measured_and_writes_its_table(nothing_measured, write_measured):
    write_measured("mechanisms/checkerboards", rows((0.4, 0.1)))
    shown = checkerboards.show(nothing_measured)
    assert "has it the wrong way round." in shown.conclusion
    written = results.read_table(nothing_measured, "mechanisms_checkerboards")
    assert list(written) == ["upsampling", "stage", "size", "noise", "untrained", "trained"]
    assert written.trained.tolist() == [0.02, 0.02, 0.1, 0.1]


def test_no_power_is_drawn_at_the_bottom_of_the_axis():
    before, after = checkerboards.draw(checkerboards.tabulate(rows((0.4, 0.1)))).axes
    assert before.lines[0].get_ydata().tolist() == [1e-6] * 2
    assert before.lines[1].get_ydata().tolist() == [0.4] * 2
    assert after.lines[1].get_ydata() == pytest.approx([0.1] * 2)
    assert [ax.get_title(loc="left") for ax in (before, after)] == ["Untrained", "Trained"]


def test_the_runs_are_those_of_the_family_upsampling(laptop):
    family = find_group(laptop, "heldout/upsampling").configs
    assert all(run in family for run in find_group(laptop, "mechanisms/checkerboards").configs)
