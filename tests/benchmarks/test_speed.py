"""The speed table, from windows written by hand; that contenders agree, in real ones."""

import pandas as pd
import pytest

from benchmarks import package, reference, speed
from benchmarks.race import CHECK
from benchmarks.speed import BFLOAT16, FLOAT32, PEERS, PRODUCTS, STUDY
from busi.config import RunConfig, StudyError

SPEEDS = {FLOAT32: [2, 4, 3], STUDY: [1, 1, 4], PRODUCTS["float32"]: [10, 10, 20], PEERS[FLOAT32]: [4, 4, 4]}
SPEEDS |= {BFLOAT16: [8, 8, 6], PRODUCTS["bfloat16"]: [20, 20, 20]}


@pytest.fixture
def facts():
    trains = {"loss": 0.70001, "parameters": 5}
    counts = {"loss": 0.7, "flops": 2e9, "parameters": 5}
    product = {"loss": 0.0, "flops": 1e9}
    contenders = {FLOAT32: counts, STUDY: trains, PEERS[FLOAT32]: trains, BFLOAT16: counts | {"loss": 0.75}}
    contenders |= dict.fromkeys(PRODUCTS.values(), product)
    return pd.DataFrame.from_dict(contenders, orient="index")


@pytest.fixture
def table(facts):
    rows = []
    for window in range(3):
        for name, speeds in SPEEDS.items():
            measured = {"images_per_second": speeds[window], "memory_mib": 100 + window}
            rows.append({"contender": name, "window": window} | measured)
    return speed.tabulate(pd.DataFrame(rows), facts).set_index("contender")


def test_median_and_range_of_the_windows(table):
    assert table.loc[FLOAT32, ["images_per_second", "low", "high"]].tolist() == [3, 2, 4]
    assert table.loc[STUDY, ["images_per_second", "low", "high"]].tolist() == [1, 1, 4]
    assert (table.memory_mib == 102).all()
    assert (table.memory_growth_mib == 2).all()


def test_share_is_of_the_product_in_the_same_precision(table):
    assert table.gflops.to_dict() == {
        FLOAT32: 6,
        STUDY: 2,  # reports no operations of its own: those of the package
        PEERS[FLOAT32]: 8,
        BFLOAT16: 16,
        PRODUCTS["float32"]: 10,
        PRODUCTS["bfloat16"]: 20,
    }
    assert table.peak_share[[FLOAT32, STUDY, BFLOAT16]].tolist() == [0.6, 0.2, 0.8]
    assert table.loc[PRODUCTS["float32"], ["images_per_second", "loss"]].isna().all()


def test_speedup_is_relative_to_the_studys_way_on_the_same_network(table):
    fast = table.reset_index().assign(network="fast")
    slow = fast.assign(network="slow", images_per_second=fast.images_per_second.where(fast.contender != STUDY, 2))
    speedup = speed.add_speedup(pd.concat([fast, slow])).set_index(["network", "contender"]).speedup
    assert speedup["fast", FLOAT32] == 3
    assert speedup["slow", FLOAT32] == 1.5
    assert speedup["slow", STUDY] == 1


def test_other_numbers_in_the_same_arithmetic_are_refused(facts):
    speed.check_agreement(facts, "a network")
    facts.loc[STUDY, "loss"] = 0.7002
    with pytest.raises(StudyError, match=r"a network: the mean loss .* 0\.7002"):
        speed.check_agreement(facts, "a network")


def test_other_networks_are_refused(facts):
    facts.loc[BFLOAT16, "parameters"] = 6
    with pytest.raises(StudyError, match="a network: contenders differ in their number of parameters"):
        speed.check_agreement(facts, "a network")


@pytest.mark.parametrize(
    ("flags", "torch", "absent"),
    [([], True, {BFLOAT16, PRODUCTS["bfloat16"], PEERS[BFLOAT16]}), (["amx_bf16"], False, set(PEERS.values()))],
)
def test_only_what_the_machine_has_takes_part(monkeypatch, tmp_path, flags, torch, absent):
    monkeypatch.setattr(speed, "bfloat16_instructions", lambda: flags)
    monkeypatch.setattr(speed, "find_spec", lambda name: torch or None)
    contenders = speed.list_contenders(RunConfig(), tmp_path, tmp_path / "weights.npz")
    names = {contender.name for contender in contenders}
    everyone = {*SPEEDS, *PEERS.values(), "package, one thread", "package, two runs of one thread"}
    assert names == everyone - absent


def test_contenders_named_bfloat16_compute_in_it(monkeypatch, tmp_path):
    monkeypatch.setattr(speed, "bfloat16_instructions", lambda: ["avx512_bf16"])
    for contender in speed.list_contenders(RunConfig(), tmp_path, tmp_path / "weights.npz"):
        options = contender.options
        policy = options["config"].precision if "config" in options else options["precision"]
        assert ("bfloat16" in policy) == ("bfloat16" in contender.name)


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(image_size=204, base_filters=2),
        speed.networks([])["held-out, 16 filters"].model_copy(update={"image_size": 32, "base_filters": 2}),
    ],
    ids=["published", "heldout"],
)
def test_the_package_and_the_studys_way_train_the_same_numbers(config, phantom_dir, tmp_path):
    """Both for real: PNG files on one side, arrays on the other."""
    losses, parameters = [], []
    # The package comes first, and writes the weights that both start from.
    for prepare in (package.prepare, reference.prepare):
        trained = prepare(config, phantom_dir, tmp_path / "weights.npz")
        steps = [trained.step() for _ in range(CHECK // trained.steps)]
        losses.append(steps[-1])
        parameters.append(trained.facts["parameters"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert parameters[1] == parameters[0]
