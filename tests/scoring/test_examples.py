"""Examples in the docstrings of busi.scoring are run, and print what they say."""

import doctest

import pytest

from busi.scoring import floors, metrics, statistics

WITH_EXAMPLE = {
    floors: {"constant_floors"},
    metrics: {"count_pixels", "dice", "keep_largest_component", "pool_pixels", "reliability_curve", "score_image"},
    statistics: {"format_interval", "normals_at_sensitivity"},
}


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning:surface_distance")
@pytest.mark.parametrize("module", WITH_EXAMPLE, ids=lambda module: module.__name__)
def test_every_example_prints_what_it_says(module):
    tests = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert {test.name.removeprefix(f"{module.__name__}.") for test in tests} == WITH_EXAMPLE[module]
    runner = doctest.DocTestRunner()
    for test in tests:
        runner.run(test)
    assert runner.summarize().failed == 0
