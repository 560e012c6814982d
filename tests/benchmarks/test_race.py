"""Windows taken in turn by real processes, and the speed of one window on a clock of our own."""

import itertools
from pathlib import Path

import pytest

from benchmarks import race as module
from benchmarks.race import CHECK, Contender, Training, race, run_window
from busi.config import StudyError


@pytest.fixture(autouse=True)
def sleeper_is_found(monkeypatch):
    """Let the contenders' processes, which inherit the path, find sleeper.py."""
    monkeypatch.syspath_prepend(Path(__file__).parent)


def sleeper(name, tmp_path, *, copies=1, **options):
    return Contender(name, "sleeper", {"letter": name, "diary": tmp_path / "diary"} | options, copies=copies)


@pytest.mark.parametrize(("steps", "speed"), [(1, 3 * 3 / 1.5), (4, 3 * 4 * 3 / 1.5)])
def test_speed_counts_whole_steps_and_the_time_that_they_take(monkeypatch, steps, speed):
    """Half a second per call, three images per step: the window of 1.2 s ends after the third call."""
    clock = itertools.count(step=0.5)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    calls = []
    training = Training(lambda: calls.append("step"), images=3, steps=steps)
    assert run_window(training, 1.2) == speed
    assert len(calls) == 3


def test_contenders_take_turns(tmp_path):
    windows, facts = race([sleeper("a", tmp_path), sleeper("b", tmp_path)], windows=3, seconds=0.02)
    assert windows.contender.tolist() == ["a", "b"] * 3
    assert windows.window.tolist() == [0, 0, 1, 1, 2, 2]
    # Two images in a step, which sleeps for a thousandth of a second at least.
    assert (windows.images_per_second <= 2000).all()
    assert facts.loss.to_dict() == {"a": 0.5, "b": 0.5}
    # The first steps, then a window each in turn: no step falls into another contender's window.
    diary = (tmp_path / "diary").read_text()
    assert diary.startswith("a" * CHECK + "b" * CHECK)
    assert "".join(letter for letter, _ in itertools.groupby(diary)) == "ab" * 4


def test_memory_is_each_contenders_own_and_copies_add_up(tmp_path):
    contenders = [sleeper("s", tmp_path), sleeper("l", tmp_path, mib=200), sleeper("t", tmp_path, mib=200, copies=2)]
    windows, facts = race(contenders, windows=1, seconds=0.01)
    small, large, two = windows.memory_mib
    assert large - small == pytest.approx(200, abs=10)
    assert two == pytest.approx(2 * large, abs=20)
    assert facts.parameters.tolist() == [0, 200 * 2**20, 200 * 2**20]


def test_threads_are_set_before_the_contender_is_prepared(tmp_path, monkeypatch):
    (tmp_path / "asks.py").write_text(
        "import os\n"
        "from benchmarks.race import Training\n"
        "threads = os.environ['OMP_NUM_THREADS']\n"
        "def prepare():\n"
        "    return Training(lambda: 0.0, images=1, facts={'threads': int(threads)})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    _, facts = race([Contender("asks", "asks", {}, threads=3)], windows=1, seconds=0.001)
    assert facts.threads["asks"] == 3


def test_a_contender_that_dies_is_named_and_the_others_are_ended(tmp_path):
    with pytest.raises(StudyError, match="contender 'broken': ended early with exit code 3"):
        race([sleeper("whole", tmp_path), sleeper("broken", tmp_path, fails=True)], windows=1, seconds=0.01)
    assert not module.multiprocessing.active_children()
