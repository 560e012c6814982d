"""Drawing a report again from its results: notebooks are executed, pages and index written, nothing is trained."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import papermill
from bs4 import BeautifulSoup
from nbclient.exceptions import DeadKernelError

from busi import config
from busi.config import Parameters, StudyError
from busi.report import index, pages

_SUMMARY = Path(index.SUMMARY).stem

_START_SECONDS = 300  # a kernel starts slowly on a busy machine

# A kernel warns about every socket that it opens. Errors in a cell are reported at any log level.
_KERNEL_ARGUMENTS = ["--log-level=50"]


def render_report(folder: Path, profile: str = "", *, jobs: int = 2) -> Path:
    """Draw the report in ``folder`` again from ``folder/results``; needs no data, no training and no Keras.

    Without ``profile``, the name of the folder is that of its profile. A gallery is left as it is, because it needs the
    data and the trained networks. Notebooks are executed ``jobs`` at a time.

    Returns:
        The file of the index.

    Raises:
        StudyError: The folder is not a report of this study or has no results, or a notebook failed. No page is
            written then.
    """
    parameters = _read_parameters(folder, profile)
    stems = [stem for stem in parameters.pages if stem != config.GALLERY]
    with TemporaryDirectory() as executed:
        bodies = _draw_bodies(stems, parameters, Path(executed), jobs)
    for stem in stems:
        pages.save_page(bodies[stem], parameters.report_path / f"{stem}.html", parameters)
    return index.write_index(parameters)


def _read_parameters(folder: Path, profile: str) -> Parameters:
    name = folder.resolve().name
    if not profile and not (config.find_study_folder() / "params" / f"{name}.yaml").is_file():
        raise StudyError(
            f"{folder}: no profile is called {name!r}; expected reports/PROFILE, or the profile that the report was "
            "made with: --profile PROFILE"
        )
    report = name if profile and profile != name else ""
    parameters = config.read_profile(profile or name, train_missing=False, report=report)
    expected = parameters.report_path
    if folder.resolve() != expected.resolve():
        raise StudyError(f"{folder}: not a report of this study; expected {expected}")
    if not parameters.results_path.is_dir():
        raise StudyError(f"{folder}: has no results; run the study first: make study PROFILE={parameters.profile}")
    return parameters


def _draw_bodies(stems: list[str], parameters: Parameters, out: Path, jobs: int) -> dict[str, BeautifulSoup]:
    """Execute notebooks into the folder ``out``, and return the content of each page by its stem."""
    execute = partial(_execute, parameters=parameters, out=out)
    # The summary reads the tables that the other notebooks write.
    first = [stem for stem in stems if stem != _SUMMARY]
    last = [stem for stem in stems if stem == _SUMMARY]
    bodies = {}
    # Threads are enough: each notebook runs in a kernel, which is a process of its own.
    with ThreadPoolExecutor(jobs) as threads:
        executed = list(threads.map(execute, first))
        summary = threads.map(execute, last)
        # While the summary keeps one core busy, the other one converts the notebooks that have been executed.
        for stem, notebook in zip([*first, *last], chain(executed, summary), strict=True):
            bodies[stem] = pages.convert_notebook(notebook, parameters)
    return bodies


def _execute(stem: str, parameters: Parameters, out: Path) -> Path:
    """Execute one notebook into the folder ``out``."""
    source = config.find_study_folder() / "notebooks" / f"{stem}.ipynb"
    executed = out / source.name
    # The notebooks read all other parameters from the profile. Kernels start in the current folder; papermill's `cwd`
    # would change it for all threads at once.
    try:
        papermill.execute_notebook(
            source,
            executed,
            parameters={"profile": parameters.profile, "report": parameters.report, "train_missing": False},
            progress_bar=False,
            request_save_on_cell_execute=False,
            start_timeout=_START_SECONDS,
            extra_arguments=_KERNEL_ARGUMENTS,
        )
    except papermill.PapermillExecutionError as error:
        raise StudyError(f"{source}: cell {error.exec_count} failed with {error.ename}: {error.evalue}") from error
    except DeadKernelError as error:
        raise StudyError(f"{source}: its kernel died ({error}); free some memory and try again") from error
    return executed
