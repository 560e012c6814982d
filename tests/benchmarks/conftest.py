"""Fixtures of the benchmarks' tests."""

from pathlib import Path

import pytest


@pytest.fixture
def repository(monkeypatch) -> Path:
    """Return the repository, as the current folder."""
    folder = Path(__file__).parents[2]
    monkeypatch.chdir(folder)
    return folder
