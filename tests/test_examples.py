"""Examples in docstrings are run, and print what they say."""

import doctest
import importlib
import pkgutil

import keras
import pytest

import busi
from busi.model import losses, metrics, unet

MODULES = [module.name for module in pkgutil.walk_packages(busi.__path__, "busi.") if not module.ispkg]

DESCRIBED = (*losses.LOSSES.values(), *losses.PUBLISHED.values(), losses.LogitCrossentropy, metrics.PooledAUC)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the examples name TensorFlow's values")
@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning:surface_distance")
@pytest.mark.parametrize("name", MODULES)
def test_every_example_prints_what_it_says(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("described", [*DESCRIBED, metrics.LesionShare, unet.build], ids=lambda each: each.__name__)
def test_every_loss_metric_and_network_has_an_example(described):
    assert ">>>" in described.__doc__
