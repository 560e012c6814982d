"""A report drawn again from what it has gathered: notebooks executed, pages and index written; nothing is trained."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import papermill
import yaml
from nbclient.exceptions import DeadKernelError

from busi import config
from busi.config import StudyError
from busi.report import overview, pages

START_SECONDS = 300
"""How long a kernel may take to start: a busy machine is slow."""

QUIET = ["--log-level=50"]
"""Of a kernel, which warns of every socket it opens on this machine; what fails in a cell is told all the same."""


def report(folder: Path, *, jobs: int = 2) -> Path:
    """Draw the report in ``folder`` again from ``folder/results``: no data, no training, no Keras.

    A gallery, which needs all of these, stays as it is.

    Args:
        folder: ``reports/<profile>``; the profile's parameters are in ``params/<profile>.yaml``.
        jobs: Notebooks executed at once.

    Returns:
        The index.

    Raises:
        StudyError: The folder is none of the study's reports or has no results, or a notebook failed: then no page is
            written.
    """
    parameters = config.ROOT / "params" / f"{folder.resolve().name}.yaml"
    study = config.read(parameters, train_missing=False)
    if folder.resolve() != study.report_path:
        raise StudyError(f"{folder}: not a report of this study; expected {study.report_path}")
    if not (folder / "results").is_dir():
        raise StudyError(f"{folder}: has no results; run the study first: make study PROFILE={study.profile}")
    given = yaml.safe_load(parameters.read_text(encoding="utf-8")) | {"train_missing": False}
    drawn = [stem for stem in study.pages if stem != config.GALLERY]
    # Threads do: each notebook has a kernel, a process of its own.
    with TemporaryDirectory() as executed, ThreadPoolExecutor(jobs) as threads:
        notebooks = list(threads.map(partial(_execute, parameters=given, out=Path(executed)), drawn))
        for stem, notebook in zip(drawn, notebooks, strict=True):
            pages.page(notebook, folder / f"{stem}.html", profile=study.profile, pages=study.pages)
    return overview.write(study)


def _execute(stem: str, parameters: dict, out: Path) -> Path:
    """Execute one notebook into ``out``."""
    source, executed = config.ROOT / "notebooks" / f"{stem}.ipynb", out / f"{stem}.ipynb"
    try:
        papermill.execute_notebook(
            source,
            executed,
            parameters=parameters,
            progress_bar=False,
            start_timeout=START_SECONDS,
            extra_arguments=QUIET,
        )
    except papermill.PapermillExecutionError as error:
        raise StudyError(f"{source}: cell {error.exec_count} failed with {error.ename}: {error.evalue}") from error
    except DeadKernelError as error:
        raise StudyError(f"{source}: its kernel died ({error}); free some memory and try again") from error
    return executed
