"""The probe on networks of known gradient and known dead filters, and what is said of a sweep."""

import keras
import numpy as np
import pandas as pd
import pytest

from busi import results
from busi.config import RunConfig
from busi.mechanisms import collapse
from busi.model import unet
from busi.results import Results
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
    model = unet.build(16, 2, padding="same")
    names = [layer.name for layer in model.layers if layer.name.endswith(("conv1", "conv2"))]
    assert len(names) == 18
    for name in names:  # dead by their biases
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([kernel, bias - 100])
    model.compile(loss=keras.losses.CategoricalCrossentropy())
    targets = np.tile(np.float32([1, 0]), (1, 16, 16, 1))
    assert collapse.probe(model, np.ones((1, 16, 16, 1), np.float32), targets)["dead_relus"] == 1


def sweep(adam: dict, changes: dict) -> tuple[Results, pd.DataFrame]:
    """Make runs and probes of settings -> (accuracy, AUC), over a floor of 0.9 in accuracy and 0.8 in AUC."""
    runs, epochs = [], []
    probes = [{"setting": "untrained", "gradient_norm": 2.0, "dead_relus": 0.05}]
    settings = {f"Adam, {rate:g}": (rate, scores) for rate, scores in adam.items()}
    settings |= {name: (0.01, scores) for name, scores in changes.items()}
    for setting, (rate, (accuracy, auc)) in settings.items():
        config = RunConfig(optimizer="adam", momentum=0.0, learning_rate=rate, epochs=3)
        head = {"variant": setting, "run": setting}
        scores = {"still_accuracy": accuracy, "still_auc": auc, "still_lesion_share": 0.1}
        runs.append(head | {"key": setting, "config": config.model_dump_json(), "planned_epochs": 3} | scores)
        epochs += [head | {"loss": loss} for loss in (0.5, 0.4, 0.3)]
        probe = {"setting": setting, "gradient_norm": 1.0, "dead_relus": 1 - 2 * (auc - 0.8)}
        probes.append(probe | {"floor_accuracy": 0.9, "floor_auc": 0.8})
    nothing = pd.DataFrame(columns=["variant", "run"])
    return Results(pd.DataFrame(runs), pd.DataFrame(epochs), nothing, nothing), pd.DataFrame(probes)


def test_the_table_joins_runs_and_probes_after_the_untrained_baseline():
    table = collapse.tabulate(*sweep({0.1: (0.9, 0.85)}, {"shuffled": (0.95, 0.9)}))
    assert table.setting.tolist() == ["untrained", "Adam, 0.1", "shuffled"]
    assert table.epochs.tolist() == [0, 3, 3]
    assert table.optimizer.tolist()[1] == "Adam"
    assert table.optimizer.isna().tolist() == [True, False, True]
    assert table.loc[1, ["first_loss", "loss", "learning_rate"]].tolist() == [0.5, 0.3, 0.1]
    assert table.dead_relus.tolist() == pytest.approx([0.05, 0.9, 0.8])


def test_the_state_of_a_network_is_told_within_a_ten_thousandth():
    table = collapse.tabulate(*sweep({0.1: (0.9, 0.80009), 0.01: (0.9001, 0.8002), 0.001: (0.90011, 0.8)}, {}))
    assert table.state.tolist()[1:] == ["constant", "plateau", "finds lesions"]
    assert pd.isna(table.state[0])


def conclude(adam: dict, changes: dict) -> str:
    return collapse.conclude(collapse.tabulate(*sweep(adam, changes)))


def test_the_conclusion_lets_adams_rates_decide_on_claim_2():
    adam = {0.1: (0.9, 0.8), 0.01: (0.9, 0.85), 0.001: (0.95, 0.95)}
    assert conclude(adam, {"shuffled": (0.9, 0.9), "standardized images": (0.93, 0.9)}) == (
        "Of 5 settings, after 3 epochs, 2 find lesions (Adam, 0.001; standardized images) with 75% of the ReLUs dead; "
        "2 stand on the floor's plateau (AUC to 0.900, no better than background) with 85% of the ReLUs dead; 1 have "
        "collapsed into a constant (Adam, 0.1) with 100% of the ReLUs dead; Adam finds lesions at 0.001 and not at "
        "0.01, 0.1: the rate decides, against claim 2; of 2 single changes to the baseline 1 free it: standardized "
        "images."
    )
    both = conclude({0.01: (0.94, 0.9), 0.001: (0.95, 0.9)}, {})
    assert both.endswith("Adam finds lesions at every rate tried (0.001, 0.01), as claim 2 has it.")
    none = conclude({0.01: (0.9, 0.9)}, {"shuffled": (0.9, 0.9)})
    assert "Adam finds lesions at none of the rates tried (0.01), so that claim 2 stays open here" in none
    assert none.endswith("of 1 single changes to the baseline none free it.")


def test_lines_run_over_the_rates_and_markers_tell_the_states():
    table = collapse.tabulate(*sweep({0.1: (0.9, 0.8), 0.001: (0.95, 0.9)}, {"shuffled": (0.9, 0.9)}))
    loss, _, dead = collapse.draw(table.assign(first_loss=[np.nan, 0.4, 0.2, 0.3])).axes
    assert loss.lines[0].get_xydata().tolist() == [[0.001, 0.2], [0.1, 0.4]]  # changed baselines are left out
    points = loss.collections[0]
    assert points.get_offsets().tolist() == [[0.1, 0.4], [0.001, 0.2]]
    vertices = [len(path.vertices) for path in points.get_paths()]
    assert vertices[0] != vertices[1]  # a cross for the constant, a circle for the network that finds lesions
    assert [line.get_ydata()[0] for line in dead.lines if line.get_label() == "untrained"] == [0.05]
    assert "untrained" not in [line.get_label() for line in loss.lines]  # no loss before training


def test_the_section_writes_its_table(nothing_measured, write_measured, monkeypatch):
    trained, probes = sweep({0.1: (0.9, 0.8), 0.001: (0.95, 0.9)}, {"shuffled": (0.9, 0.9)})
    write_measured("mechanisms/collapse_probe", probes)
    monkeypatch.setattr(collapse, "load_results", lambda *arguments: trained)
    shown = collapse.show(nothing_measured)
    assert "Of 3 settings" in shown.conclusion
    assert "32 pixels, 2 filters, 1 epoch" in shown.figure.data
    written = results.read_table(nothing_measured, "mechanisms_collapse")
    assert written.state.tolist()[1:] == ["constant", "finds lesions", "plateau"]


def test_the_sweep_keeps_the_published_protocol_except_for_padding_and_what_a_label_says(laptop):
    variants = find_group(laptop, "mechanisms/collapse").variants
    size = {"image_size": 64, "base_filters": 8, "epochs": 10, "padding": "same"}
    assert variants["SGD + momentum, 0.01"] == [RunConfig(**size)]
    assert variants["Adam, 0.001"] == [RunConfig(**size, optimizer="adam", momentum=0.0, learning_rate=0.001)]
    for label, (run,) in variants.items():
        optimizer, _, rate = label.partition(", ")
        if optimizer in ("SGD", "SGD + momentum", "Adam"):
            assert run.learning_rate == float(rate)
            assert (run.optimizer, run.momentum > 0) == (optimizer.split()[0].lower(), optimizer == "SGD + momentum")
        else:  # one thing changed
            assert len(run.model_dump().items() - RunConfig(**size).model_dump().items()) == 1
