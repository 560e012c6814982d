"""Examples in the docstrings of busi.model are run, and print what they say."""

import doctest
import importlib
import pkgutil

import keras
import pytest

import busi.model

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the examples name TensorFlow's values")

MODULES = [module.name for module in pkgutil.iter_modules(busi.model.__path__, "busi.model.")]
WITH_EXAMPLE = {
    "busi.model.losses": {
        "Dice",
        "KLDivergence",
        "LesionDice",
        "LesionDicePlusCrossentropy",
        "LogitCrossentropy",
        "ProbabilityCrossentropy",
        "StableDice",
        "StableKLDivergence",
        "limit_probability",
        "make_loss",
    },
    "busi.model.metrics": {"LesionShare", "PooledAUC", "published_metrics"},
    "busi.model.optimizers": {"make_optimizer"},
    "busi.model.unet": {"build"},
}


def examples(name):
    """The docstrings of a module that hold an example, by the name of what they describe."""
    tests = doctest.DocTestFinder().find(importlib.import_module(name))
    return {test.name.removeprefix(f"{name}."): test for test in tests if test.examples}


@pytest.mark.parametrize("name", MODULES)
def test_every_example_prints_what_it_says(name):
    runner = doctest.DocTestRunner()
    for test in examples(name).values():
        runner.run(test)
    assert runner.summarize().failed == 0


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_every_loss_metric_and_network_has_an_example(name):
    assert examples(name).keys() == WITH_EXAMPLE[name]
