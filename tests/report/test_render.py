"""A report drawn again in a copy of the repository where no Keras backend can be imported and there are no data."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from busi import config
from busi.config import ROOT, StudyError
from busi.report import render

COMMITTED = ROOT / "reports" / "laptop"


@pytest.fixture
def repository(tmp_path) -> Path:
    """Code, parameters, the committed results, and one notebook."""
    for folder in ("busi", "params"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(COMMITTED / "results", tmp_path / "reports" / "laptop" / "results")
    (tmp_path / "notebooks").mkdir()
    for backend in ("keras", "tensorflow", "jax"):
        (tmp_path / "bare" / backend).mkdir(parents=True)
        (tmp_path / "bare" / backend / "__init__.py").write_text(f"raise ImportError('no {backend} here')\n")
    return tmp_path


TWICE = """
import shutil
from pathlib import Path
from busi.report import render
report = Path("reports/laptop")
render.report(report)
shutil.copytree(report, "first")
render.report(report)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_report_is_drawn_from_its_results_alone_and_again_to_the_same_bytes(repository):
    shutil.copy(ROOT / "notebooks" / "3_loss.ipynb", repository / "notebooks")
    environment = os.environ | {"PYTHONPATH": f"{repository / 'bare'}{os.pathsep}{repository}"}
    process = subprocess.run(
        [sys.executable, "-c", TWICE], cwd=repository, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    report = contents(repository / "reports" / "laptop")
    assert contents(repository / "first") == report
    page = BeautifulSoup(report["3_loss.html"], "html.parser")
    assert [row.th.string for row in page.tbody.find_all("tr")] == ["KLD", "DICE", "BCE"]
    assert BeautifulSoup(report["index.html"], "html.parser").main.find("a", href="3_loss.html")
    assert not [name for name, content in report.items() if str(repository).encode() in content]


def test_a_notebook_that_fails_is_named_and_no_page_is_written(repository, monkeypatch):
    monkeypatch.setattr(config, "ROOT", repository)
    for stem, source in (("0_fine", "1 + 1"), ("1_wrong", "profile\nprofil")):
        cells = [new_code_cell("profile = ''", metadata={"tags": ["parameters"]}), new_markdown_cell(f"# {stem}")]
        cells.append(new_code_cell(source))
        kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
        nbformat.write(new_notebook(cells=cells, metadata=kernel), repository / "notebooks" / f"{stem}.ipynb")
    report = repository / "reports" / "laptop"
    with pytest.raises(StudyError, match=r"1_wrong\.ipynb: cell 3 failed with NameError: name 'profil' is not defined"):
        render.report(report)
    assert [path.name for path in report.iterdir()] == ["results"]


def test_a_folder_that_is_no_report_is_refused(tmp_path):
    (tmp_path / "laptop").mkdir()
    with pytest.raises(StudyError, match=r"laptop: not a report of this study; expected .*reports/laptop"):
        render.report(tmp_path / "laptop")
    with pytest.raises(StudyError, match=r"params/holiday\.yaml: no such parameter file"):
        render.report(tmp_path / "holiday")
