"""A report drawn again in a study that has no data, where no Keras backend can be imported."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from small_report import REPOSITORY

from busi.config import StudyError
from busi.report import render

COMMITTED = REPOSITORY / "reports" / "laptop"

TWICE = """
import shutil
from pathlib import Path
from busi.report import render
report = Path("reports/laptop")
render.render_report(report)
shutil.copytree(report, "first")
render.render_report(report)
"""


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """A study in the current folder with parameters and an empty report."""
    folder = tmp_path / "study"
    shutil.copytree(REPOSITORY / "params", folder / "params")
    (folder / "notebooks").mkdir()
    (folder / "reports" / "laptop" / "results").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def write_notebook(study: Path, stem: str, source: str) -> None:
    """Write a notebook with parameters, a title and one more cell."""
    parameters = "profile = None\nreport = None\ntrain_missing = None"
    cells = [
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        new_markdown_cell(f"# {stem}"),
        new_code_cell(source),
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), study / "notebooks" / f"{stem}.ipynb")


def read_files(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".lock"]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_a_report_is_drawn_from_its_results_alone_and_again_to_the_same_bytes(study, tmp_path):
    shutil.copytree(REPOSITORY / "notebooks", study / "notebooks", dirs_exist_ok=True)
    shutil.copytree(COMMITTED / "results", study / "reports" / "laptop" / "results", dirs_exist_ok=True)
    for backend in ("keras", "tensorflow", "jax"):
        (tmp_path / "bare" / backend).mkdir(parents=True)
        (tmp_path / "bare" / backend / "__init__.py").write_text(f"raise ImportError('no {backend} here')\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path / 'bare'}{os.pathsep}{REPOSITORY}"}
    process = subprocess.run([sys.executable, "-c", TWICE], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    report = read_files(study / "reports" / "laptop")
    assert read_files(study / "first") == report
    page = BeautifulSoup(report["3_loss.html"], "html.parser")
    assert [row.th.string for row in page.tbody.find_all("tr")] == ["KLD", "DICE", "BCE"]
    index = BeautifulSoup(report["index.html"], "html.parser")
    assert len(index.select(".pages > li")) == 8
    assert index.main.find("a", href="3_loss.html")
    assert not [name for name, content in report.items() if str(tmp_path).encode() in content]


def test_the_summary_is_executed_after_all_notebooks_whose_tables_it_reads(study, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests"))
    for stem in ("0_slow", "1_quick"):
        seconds = 2 if stem == "0_slow" else 0
        source = f"import time\nfrom pathlib import Path\ntime.sleep({seconds})\nPath('{stem}').touch()"
        write_notebook(study, stem, source)
    source = "\n".join(
        [
            "from pathlib import Path",
            "from small_report import read_parameters, record_summary",
            "assert Path('0_slow').exists() and Path('1_quick').exists()",
            "assert (profile, train_missing) == ('laptop', False)",
            "record_summary(read_parameters())",
        ]
    )
    write_notebook(study, "6_summary", source)
    out = render.render_report(study / "reports" / "laptop")
    soup = BeautifulSoup(out.read_text(encoding="utf-8"), "html.parser")
    assert [entry.a["href"] for entry in soup.select(".pages > li")] == [
        "0_slow.html",
        "1_quick.html",
        "6_summary.html",
    ]


def test_a_notebook_that_fails_is_named_and_no_page_is_written(study):
    write_notebook(study, "0_fine", "1 + 1")
    write_notebook(study, "1_wrong", "profile\nprofil")
    report = study / "reports" / "laptop"
    with pytest.raises(StudyError, match=r"1_wrong\.ipynb: cell 3 failed with NameError: name 'profil' is not defined"):
        render.render_report(report)
    assert [path.name for path in report.iterdir()] == ["results"]


def test_a_folder_that_is_not_a_report_is_refused(study, tmp_path):
    (tmp_path / "laptop").mkdir()
    with pytest.raises(StudyError, match=r"laptop: not a report of this study; expected .*reports/laptop"):
        render.render_report(tmp_path / "laptop")
    with pytest.raises(StudyError, match=r"holiday: no profile is called 'holiday'; expected reports/PROFILE"):
        render.render_report(study / "reports" / "holiday")
    with pytest.raises(
        StudyError, match=r"reports/smoke: has no results; run the study first: make study PROFILE=smoke"
    ):
        render.render_report(study / "reports" / "smoke")


def test_a_report_of_another_name_is_drawn_under_its_profile(study, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests"))
    (study / "reports" / "mine" / "results").mkdir(parents=True)
    source = "\n".join(
        [
            "from small_report import read_parameters, record_summary",
            "assert (profile, report) == ('laptop', 'mine')",
            "record_summary(read_parameters().model_copy(update={'report': report}))",
        ]
    )
    write_notebook(study, "6_summary", source)
    assert render.render_report(study / "reports" / "mine", "laptop") == study / "reports" / "mine" / "index.html"
    assert not (study / "reports" / "laptop" / "index.html").exists()
