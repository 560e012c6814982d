"""What many tests share besides fixtures: an empty study, finished runs, files and numbers read, calls refused."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi.config import RunConfig, StudyError
from busi.dataset.catalog import read_grey
from busi.runs import BEST, STATE, Predictions, Run, Store


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


def finish_run(
    store: Store,
    config: RunConfig,
    predictions: dict[str, Predictions],
    outcome: dict,
    history: dict[str, list],
    environment: dict | None = None,
) -> Run:
    """Put a run into the store as training does, with made-up numbers and weights of a few bytes.

    Args:
        store: The store.
        config: The run.
        predictions: Part -> the predictions for its images.
        outcome: As `Run.outcome`, without the scaling if images are left as they are.
        history: Column -> its value in each epoch.
        environment: As `Run.environment`.
    """
    work = store.work(config)
    work.mkdir(parents=True)
    pd.DataFrame(history).to_csv(work / "history.csv", index=False)
    for name in (STATE, BEST) if config.protocol == "heldout" else (STATE,):
        (work / name).write_bytes(name.encode())
    arrays = {}
    for part, (names, probability) in predictions.items():
        arrays |= {f"{part}_names": np.array(names, dtype=str), f"{part}_probability": probability}
    np.savez_compressed(work / "predictions.npz", **arrays)
    outcome = {"scaling": {"mean": 0.0, "deviation": 1.0}} | outcome
    return store.finish(config, work, outcome, environment or {"python": "3"})


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file in a folder but locks, by its path inside the folder."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".lock"]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def jpeg(pixels: np.ndarray, quality: int = 30) -> np.ndarray:
    """Return grey pixels as JPEG leaves them; at a low quality with blocks and ringing."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return read_grey(file)


def refusal(function: Callable, *arguments, **keywords) -> str:
    """Return the message of the StudyError that a call raises."""
    with pytest.raises(StudyError) as caught:
        function(*arguments, **keywords)
    return str(caught.value)
