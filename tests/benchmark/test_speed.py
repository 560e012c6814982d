"""The speed table and its goals, on windows written by hand; that contenders agree, on real ones."""

import pandas as pd
import pytest

from busi.benchmark import speed
from busi.benchmark.race import race
from busi.benchmark.speed import BFLOAT16, FLOAT32, PAIR, PEERS, PRODUCTS, STUDY
from busi.config import RunConfig, StudyError

SPEEDS = {FLOAT32: [2, 4, 3], PAIR: [1, 1.4, 2], STUDY: [1, 1, 4], "matrix product": [10, 10, 20]}
SPEEDS |= {BFLOAT16: [8, 8, 6], PRODUCTS["bfloat16"]: [20, 20, 20], PEERS[FLOAT32]: [4, 4, 4]}


@pytest.fixture
def facts():
    package = {"loss": 0.7, "flops": 2e9, "parameters": 5}
    trains = {"loss": 0.70001, "parameters": 5}
    products = {name: {"loss": 0.0, "flops": 1e9} for name in PRODUCTS.values()}
    found = {
        FLOAT32: package,
        STUDY: trains,
        PAIR: package,
        BFLOAT16: package | {"loss": 0.75},
        PEERS[FLOAT32]: trains,
    } | products
    return pd.DataFrame.from_dict(found, orient="index")


@pytest.fixture
def table(facts):
    rows = [
        {"contender": name, "window": window, "images_per_second": of[window], "memory_mib": 100 + window}
        for window in range(3)
        for name, of in SPEEDS.items()
    ]
    return speed.tabulated(pd.DataFrame(rows), facts)


def test_median_and_range_of_the_windows(table):
    of = table.set_index("contender")
    assert of.loc[FLOAT32, ["images_per_second", "low", "high"]].tolist() == [3, 2, 4]
    assert of.loc[STUDY, ["images_per_second", "low", "high"]].tolist() == [1, 1, 4]
    assert (of.memory_mib == 102).all()
    assert (of.memory_growth_mib == 2).all()


def test_share_is_of_the_product_in_the_same_precision(table):
    of = table.set_index("contender")
    assert of.gflops.to_dict() == {
        FLOAT32: 6,
        PAIR: pytest.approx(2.8),
        STUDY: 2,  # counts none of its own: the package's
        PEERS[FLOAT32]: 8,
        BFLOAT16: 16,
        PRODUCTS["float32"]: 10,
        PRODUCTS["bfloat16"]: 20,
    }
    assert of.peak_share[[FLOAT32, STUDY, BFLOAT16]].tolist() == [0.6, 0.2, 0.8]
    assert of.loc[PRODUCTS["float32"], ["images_per_second", "loss"]].isna().all()


def test_other_numbers_in_the_same_arithmetic_stop_the_benchmark(facts):
    speed.agree(facts, "a network")
    facts.loc[STUDY, "loss"] = 0.7002
    with pytest.raises(StudyError, match=r"a network: the mean loss .* 0\.7002"):
        speed.agree(facts, "a network")


def test_other_networks_stop_the_benchmark(facts):
    facts.loc[BFLOAT16, "parameters"] = 6
    with pytest.raises(StudyError, match="a network: contenders differ in parameters"):
        speed.agree(facts, "a network")


def test_what_is_no_convolution_bounds_what_is_left_to_gain():
    profile = pd.DataFrame(
        [("a", "FusedConv2D", 0.5), ("a", "Mul", 0.2), ("a", "Conv2DBackpropInput", 0.3), ("b", "Conv2D", 1.0)],
        columns=["network", "operation", "share"],
    )
    assert speed.ceiling(profile).endswith(": a 80% (1.25 x), b 100% (1.00 x).")


def test_goals_compare_medians(table):
    found = speed.goals(table.assign(network="published, 64 filters"), []).set_index("goal")
    assert found.measured.tolist() == ["3.000 x", "1.400 x", "8.000 x", "0.600", "0.280", "0.750 x", ""]
    assert found.reached.tolist()[:6] == ["yes", "no", "yes", "no", "no", "no"]
    assert found.reached.iloc[6] == "not measured: no PyTorch, bfloat16 on this machine"


def test_goals_say_how_much_of_the_peak_they_ask_for(table):
    """The study's way computes 2 of the 10 units that the product does in float32, of 20 in bfloat16; PyTorch 8."""
    asked = speed.goals(table.assign(network="published, 64 filters"), []).asks_of_peak
    assert asked.tolist()[:6] == pytest.approx([1.5 * 0.2, 1.5 * 0.2, 5 * 0.1, 0.8, 0.8, 0.8])
    assert pd.isna(asked.iloc[6])


@pytest.mark.parametrize(
    ("flags", "verdict"),
    [(["amx_bf16"], "no"), (["avx512_bf16"], "no: set for bf16 matrix units, which this processor lacks")],
)
def test_a_goal_for_matrix_units_says_where_there_are_none(table, flags, verdict):
    table.loc[table.contender == BFLOAT16, "images_per_second"] = 4.9
    found = speed.goals(table.assign(network="published, 64 filters"), flags)
    assert found.reached[2] == verdict


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(image_size=204, base_filters=2),
        speed.networks([])["held-out, 16 filters"].model_copy(update={"image_size": 32, "base_filters": 2}),
    ],
    ids=["published", "heldout"],
)
def test_the_package_and_the_studys_way_train_the_same_numbers(config, phantom_dir, tmp_path):
    """Both for real, each in its process: PNG files on one side, arrays on the other."""
    contenders = speed.contenders(config, phantom_dir, tmp_path / "weights.npz")
    both = [contender for contender in contenders if contender.name in (FLOAT32, STUDY)]
    _, facts = race(both, windows=1, seconds=0.01)
    assert facts.loss[STUDY] == pytest.approx(facts.loss[FLOAT32], rel=1e-5)
    assert facts.parameters[STUDY] == facts.parameters[FLOAT32]
