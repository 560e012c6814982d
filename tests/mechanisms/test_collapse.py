"""The probe on networks of known gradient and known dead filters, and what is said of a sweep."""

import keras
import numpy as np
import pandas as pd
import pytest

from busi.mechanisms import collapse
from busi.model import unet


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
    found = collapse.probe(model, np.full((1, 2, 2, 1), 2, np.float32), np.full((1, 2, 2, 1), 5, np.float32))
    assert found["gradient_norm"] == pytest.approx(4, rel=1e-5)
    assert found["dead_relus"] == 0


def test_filters_that_are_zero_everywhere_are_dead():
    images = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 2, 2, 1)
    # Blocked for all inputs; open for one pixel of one image; open always; blocked at just the largest input.
    found = collapse.probe(rectified(-5, -0.95, 2, -1), images, np.zeros((3, 2, 2, 4), np.float32))
    assert found["dead_relus"] == 0.5


def test_no_gradient_passes_where_all_filters_are_dead():
    images = np.ones((2, 2, 2, 1), np.float32)
    found = collapse.probe(rectified(-5, -5), images, np.ones((2, 2, 2, 2), np.float32))
    assert found == {"gradient_norm": 0.0, "dead_relus": 1.0}


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


def sweep(adam: dict, changes: dict) -> pd.DataFrame:
    """Settings -> (accuracy, AUC) over a floor of 0.9 in accuracy and 0.8 in AUC."""
    rows = [{"setting": f"Adam, {rate:g}", "optimizer": "Adam", "learning_rate": rate} for rate in adam]
    rows += [{"setting": name, "optimizer": None, "learning_rate": 0.01} for name in changes]
    accuracy, auc = zip(*adam.values(), *changes.values(), strict=True)
    frame = pd.DataFrame(rows).assign(accuracy=accuracy, auc=auc, floor_accuracy=0.9, floor_auc=0.8, epochs=3)
    untrained = pd.DataFrame([{"setting": "untrained", "epochs": 0, "dead_relus": 0.05}])
    dead = 1 - 2 * (frame.auc - 0.8)
    return collapse.table(pd.concat([untrained, frame.assign(dead_relus=dead)], ignore_index=True))


def test_what_becomes_of_a_network_is_told_within_a_ten_thousandth():
    found = sweep({0.1: (0.9, 0.80009), 0.01: (0.9001, 0.8002), 0.001: (0.90011, 0.8)}, {})
    assert found.state.tolist()[1:] == ["constant", "plateau", "finds lesions"]
    assert pd.isna(found.state[0])


def test_the_conclusion_lets_adams_rates_decide_on_claim_2():
    adam = {0.1: (0.9, 0.8), 0.01: (0.9, 0.85), 0.001: (0.95, 0.95)}
    text = collapse.conclusion(sweep(adam, {"shuffled": (0.9, 0.9), "standardized images": (0.93, 0.9)}))
    assert text == (
        "Of 5 settings, after 3 epochs, 2 find lesions (Adam, 0.001; standardized images) with 75% of the ReLUs dead; "
        "2 stand on the floor's plateau (AUC to 0.900, no better than background) with 85% of the ReLUs dead; 1 have "
        "collapsed into a constant (Adam, 0.1) with 100% of the ReLUs dead; Adam finds lesions at 0.001 and not at "
        "0.01, 0.1: the rate decides, against claim 2; of 2 single changes to the baseline 1 free it: standardized "
        "images."
    )
    both = collapse.conclusion(sweep({0.01: (0.94, 0.9), 0.001: (0.95, 0.9)}, {}))
    assert both.endswith("Adam finds lesions at every rate tried (0.001, 0.01), as claim 2 has it.")
    none = collapse.conclusion(sweep({0.01: (0.9, 0.9)}, {"shuffled": (0.9, 0.9)}))
    assert "Adam finds lesions at none of the rates tried (0.01), so that claim 2 stays open here" in none
    assert none.endswith("of 1 single changes to the baseline none free it.")
