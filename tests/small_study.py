"""What many tests share besides fixtures: an empty study, calls that are refused, a process that is killed."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from busi.config import StudyError


def numbers(text: str) -> list[str]:
    """Return the numbers of a text in their order, as they are written."""
    return re.findall(r"[-+]?\d[\d,.]*\d|\d", text)


class Killed(BaseException):
    """Stands for the end of a process: nothing in the package may catch it."""


def make_study(folder: Path) -> Path:
    """Make ``folder`` a study without parameters and notebooks and return it."""
    for name in ("params", "notebooks"):
        (folder / name).mkdir(parents=True)
    return folder


def refusal(function: Callable, *arguments, **keywords) -> str:
    """Return the message of the StudyError that a call raises."""
    with pytest.raises(StudyError) as caught:
        function(*arguments, **keywords)
    return str(caught.value)
