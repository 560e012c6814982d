"""The probe on networks of known gradient and known dead filters, and what is said of a sweep."""

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest

from busi import results
from busi.config import RunConfig
from busi.mechanisms import collapse, section
from busi.model import unet
from busi.results import Results, empty_results
from busi.scoring import fates
from busi.study import find_group


def rectified(*biases: float) -> keras.Model:
    """A filter for each bias, which passes or blocks inputs between -1 and 1."""
    inputs = keras.Input((2, 2, 1))
    layer = keras.layers.Conv2D(len(biases), 1, activation="relu")
    model = keras.Model(inputs, layer(inputs))
    model.set_weights([np.ones((1, 1, 1, len(biases)), np.float32), np.array(biases, np.float32)])
    model.compile(loss="mse")
    return model


def test_the_gradient_of_a_single_weight_by_hand():
    # d/dw of (w x - y) ** 2 at w = 3, x = 2, y = 5 is 2 (6 - 5) 2; the ReLU is open.
    inputs = keras.Input((2, 2, 1))
    body = keras.layers.Conv2D(1, 1, use_bias=False, activation="relu")(inputs)
    model = keras.Model(inputs, body)
    model.set_weights([np.full((1, 1, 1, 1), 3, np.float32)])
    model.compile(loss="mse")
    measured = collapse.probe(model, np.full((1, 2, 2, 1), 2, np.float32), np.full((1, 2, 2, 1), 5, np.float32))
    assert measured["gradient_norm"] == pytest.approx(4, rel=1e-5)
    assert measured["dead_relus"] == 0


def test_filters_that_are_zero_everywhere_are_dead():
    images = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 2, 2, 1)
    # Blocked for all inputs; open for one pixel of one image; open always; blocked at just the largest input.
    measured = collapse.probe(rectified(-5, -0.95, 2, -1), images, np.zeros((3, 2, 2, 4), np.float32))
    assert measured["dead_relus"] == 0.5


def test_no_gradient_passes_where_all_filters_are_dead():
    images = np.ones((2, 2, 2, 1), np.float32)
    measured = collapse.probe(rectified(-5, -5), images, np.ones((2, 2, 2, 2), np.float32))
    assert measured == {"gradient_norm": 0.0, "dead_relus": 1.0}


def test_every_relu_of_the_network_is_looked_at():
    keras.utils.set_random_seed(0)
    model = unet.build(RunConfig(image_size=16, base_filters=2, padding="same"))
    names = [layer.name for layer in model.layers if layer.name.endswith(("conv1", "conv2"))]
    assert len(names) == 18
    for name in names:  # dead by their biases
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([kernel, bias - 100])
    model.compile(loss=keras.losses.CategoricalCrossentropy())
    targets = np.tile(np.float32([1, 0]), (1, 16, 16, 1))
    assert collapse.probe(model, np.ones((1, 16, 16, 1), np.float32), targets)["dead_relus"] == 1


FATES = {"learned": 0.5, "falling": 0.3, "plateau": 0.0, "dead": 0.0, "diverged": 0.0}
"""Fate -> Dice of the weights held still."""


def sweep(settings: dict[str, list[str]]) -> tuple[Results, pd.DataFrame]:
    """Make runs and probes from: setting -> fates of its seeds. All runs have the accuracy of the floor."""
    runs, probes = [], []
    for setting, seeds in settings.items():
        size = {"image_size": 64, "base_filters": 8, "epochs": 3, "padding": "same"}
        config = RunConfig(**size, batch_size=8 if setting == "batches of 8" else 1)
        for seed, fate in enumerate(seeds):
            head = {"variant": setting, "run": f"{setting} {seed}", "fold": 0, "seed": seed}
            scores = {"fate": fate, "dice": FATES[fate], "still_accuracy": 0.908, "still_loss": 0.3, "still_auc": 0.92}
            planned = {"key": "0", "config": config.model_dump_json(), "images": 20, "epochs": 3}
            runs.append(head | planned | scores | {"still_lesion_share": 0.1})
            probe = {"gradient_norm": 1.0, "dead_relus": 0.9 if fate == "dead" else 0.1}
            probes.append(head | probe | {"untrained_gradient_norm": 2.0, "untrained_dead_relus": 0.05})
    return replace(empty_results(), runs=pd.DataFrame(runs)), pd.DataFrame(probes)


def test_runs_are_told_apart_by_their_fate_where_accuracy_is_the_same():
    table = collapse.tabulate(*sweep({"Adam, 0.1": list(FATES), "shuffled": ["learned"]}))
    assert table.fate.tolist() == [*FATES, "learned"]
    assert table.setting.tolist() == ["Adam, 0.1"] * 5 + ["shuffled"]
    assert table.optimizer.tolist()[::5] == ["Adam", pytest.approx(np.nan, nan_ok=True)]
    assert table.learning_rate.tolist()[::5] == [0.1, pytest.approx(np.nan, nan_ok=True)]
    assert set(collapse.MARKERS) == set(fates.FATES)


def test_batches_make_fewer_steps():
    table = collapse.tabulate(*sweep({"SGD, 0.1": ["learned"], "batches of 8": ["plateau"]}))
    assert table.steps.tolist() == [60, 6]  # 2 batches of 8 in 20 images, 3 epochs
    assert "The setting batches of 8 has 6 steps instead of 60." in collapse.conclude(table, "64 pixels")


def test_settings_are_summarized_over_their_seeds():
    table = collapse.summarize(collapse.tabulate(*sweep({"Adam, 0.1": ["dead", "learned", "learned"]})))
    assert table.fates.tolist() == ["2 learned, 1 dead"]
    assert table.loc[0, ["dice", "dead_relus"]].tolist() == pytest.approx([1 / 3, 1.1 / 3])


def conclude(settings: dict[str, list[str]]) -> str:
    return collapse.conclude(collapse.tabulate(*sweep(settings)), "64 pixels, 2 seeds")


def test_the_conclusion_counts_the_rates_at_which_every_seed_learns():
    rates = {"Adam, 0.1": ["dead", "dead"], "Adam, 0.001": ["learned", "learned"], "Adam, 0.01": ["learned", "dead"]}
    text = conclude({"SGD, 0.1": ["plateau", "falling"]} | rates)
    assert "8 runs: 3 learned, 1 falling, 1 plateau, 3 dead." in text
    assert "Adam, 0.001 (2 of 2); Adam, 0.01 (1 of 2)." in text
    assert "Adam 90% to 90%" in text
    assert "SGD 0 of 1, Adam 1 of 3; too few to say" in text
    assert "rescue" not in text
    # The first setting is the baseline, of which others are changes.
    learned = conclude({"SGD, 0.1": ["learned", "learned"]} | rates)
    assert "the baseline learned in all of its 2 runs" in learned
    assert "the baseline learned" not in conclude({"SGD, 0.1": ["learned", "dead"]} | rates)
    assert "learned by no setting" in conclude({"Adam, 0.1": ["plateau"]})


def test_lines_run_over_the_rates_and_markers_tell_the_fates():
    settings = {"Adam, 0.1": ["dead", "learned"], "Adam, 0.001": ["learned"], "shuffled": ["learned"]}
    fig = collapse.draw(collapse.tabulate(*sweep(settings)))
    dice, _, dead = fig.axes
    assert fig.get_suptitle() == "2 of 3 runs at these learning rates learned"
    # The mean of both seeds; changed baselines are left out.
    assert dice.lines[0].get_xydata().tolist() == [[0.001, 0.5], [0.1, 0.25]]
    points = dice.collections[0]
    assert points.get_offsets().tolist() == [[0.1, 0.0], [0.1, 0.5], [0.001, 0.5]]
    vertices = [len(path.vertices) for path in points.get_paths()]
    assert vertices[0] != vertices[1] == vertices[2]  # a cross for the dead, circles for those that learned
    assert [line.get_ydata()[0] for line in dead.lines if line.get_label() == "untrained"] == [0.05]
    assert "untrained" not in [line.get_label() for line in dice.lines]


def test_the_section_writes_its_table(nothing_measured, write_measured, monkeypatch):
    trained, probes = sweep({"Adam, 0.1": ["dead"], "Adam, 0.001": ["learned"], "shuffled": ["plateau"]})
    write_measured("mechanisms/collapse_probe", probes)
    monkeypatch.setattr(section, "load_results", lambda *arguments: trained)
    shown = collapse.show(nothing_measured)
    assert "Size: 64 pixels, 8 filters, 3 epochs, 1 seed." in shown.conclusion
    assert "64 pixels, 8 filters, 3 epochs, 1 seed" in shown.figure.data
    written = results.read_table(nothing_measured, "mechanisms_collapse")
    assert written.fate.tolist() == ["dead", "learned", "plateau"]


def test_the_sweep_keeps_the_published_protocol_except_for_padding_and_what_a_label_says(laptop):
    variants = find_group(laptop, "mechanisms/collapse").variants
    size = {"image_size": 64, "base_filters": 8, "epochs": 10, "padding": "same"}
    assert variants["SGD + momentum, 0.01"][0] == RunConfig(**size)
    assert variants["Adam, 0.001"][0] == RunConfig(**size, optimizer="adam", momentum=0.0, learning_rate=0.001)
    for label, (run, *others) in variants.items():
        assert [other.seed for other in others] == [1, 2]
        optimizer, _, rate = label.partition(", ")
        if optimizer in ("SGD", "SGD + momentum", "Adam"):
            assert run.learning_rate == float(rate)
            assert (run.optimizer, run.momentum > 0) == (optimizer.split()[0].lower(), optimizer == "SGD + momentum")
        else:  # one thing changed
            assert len(run.model_dump().items() - RunConfig(**size).model_dump().items()) == 1
