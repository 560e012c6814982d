"""Windows taken in turn by real processes, and a referee's arithmetic on a clock of our own."""

import itertools
from pathlib import Path

import pytest

from busi.benchmark import race as module
from busi.benchmark.race import CHECK, Contender, Referee, race
from busi.config import StudyError


@pytest.fixture(autouse=True)
def sleeper_is_found(monkeypatch):
    """By the contenders' processes, which inherit the path."""
    monkeypatch.syspath_prepend(Path(__file__).parent)


def sleeper(name, tmp_path, *, copies=1, **options):
    return Contender(name, "sleeper", {"name": name, "diary": tmp_path / "diary"} | options, copies=copies)


class Pipe:
    """Gives out windows and keeps what it is sent."""

    def __init__(self, *windows):
        self.windows, self.sent = list(windows), []

    def send(self, message):
        self.sent.append(message)

    def recv(self):
        return self.windows.pop(0)


def test_speed_is_of_the_steps_inside_a_window(monkeypatch):
    """Steps of half a second, three images each; between windows an hour passes."""
    clock = itertools.count(step=0.5)
    pipe = Pipe(1.2, 2.0, 0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    referee = Referee(pipe)
    answers = [referee.wants_more(3, 0.25, flops=7) for _ in range(CHECK)]
    assert pipe.sent == [{"loss": 0.25, "flops": 7}]
    # Three steps until 1.2 s have passed, then four until 2.0 s have.
    answers += [referee.wants_more(3, 0.0) for _ in range(3)]
    clock = itertools.count(3600, step=0.5)
    referee._start = next(clock)
    answers += [referee.wants_more(3, 0.0) for _ in range(4)]
    assert [speed for speed, _ in pipe.sent[1:]] == [6.0, 6.0]
    assert answers == [True] * (CHECK + 3 + 3) + [False]


def test_steps_taken_together_count_each(monkeypatch):
    """Four steps a call, of three images each; half a second passes between calls."""
    clock = itertools.count(step=0.5)
    pipe = Pipe(1.2, 0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    referee = Referee(pipe)
    answers = [referee.wants_more(3, 0.25, steps=4) for _ in range(CHECK // 4 + 3)]
    assert answers == [True] * (CHECK // 4 + 2) + [False]
    assert pipe.sent[0] == {"loss": 0.25}
    assert pipe.sent[1][0] == 3 * 12 / 1.5


def test_contenders_take_turns(tmp_path):
    first, second = sleeper("a", tmp_path), sleeper("b", tmp_path)
    rows, facts = race([first, second], windows=3, seconds=0.02)
    assert rows.contender.tolist() == ["a", "b"] * 3
    assert rows.window.tolist() == [0, 0, 1, 1, 2, 2]
    assert facts.loss.to_dict() == {"a": 0.5, "b": 0.5}
    # The first steps, then a window each in turn: no step falls into another's window.
    diary = (tmp_path / "diary").read_text()
    assert diary.startswith("a" * CHECK + "b" * CHECK)
    assert "".join(name for name, _ in itertools.groupby(diary)) == "ab" * 4


def test_memory_is_each_contenders_own_and_copies_add_up(tmp_path):
    contenders = [sleeper("small", tmp_path), sleeper("large", tmp_path, mib=200)]
    rows, _ = race([*contenders, sleeper("two", tmp_path, mib=200, copies=2)], windows=1, seconds=0.01)
    small, large, two = rows.memory_mib
    assert large - small == pytest.approx(200, abs=10)
    assert two == pytest.approx(2 * large, abs=20)


def test_no_window_begins_before_the_contenders_are_found_ready(tmp_path):
    def refuse(facts):
        raise StudyError(f"losses {facts.loss.tolist()}")

    with pytest.raises(StudyError, match=r"losses \[0\.5, 0\.5\]"):
        race([sleeper("a", tmp_path), sleeper("b", tmp_path)], windows=1, seconds=0.01, ready=refuse)
    assert (tmp_path / "diary").read_text() == "a" * CHECK + "b" * CHECK


def test_a_contender_that_dies_is_named(tmp_path):
    with pytest.raises(StudyError, match="contender 'broken': ended early with exit code 3"):
        race([sleeper("whole", tmp_path), sleeper("broken", tmp_path, fails=True)], windows=1, seconds=0.01)
