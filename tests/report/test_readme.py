"""The findings in README.md are those of the committed report, and nothing else in it is touched."""

import re
from pathlib import Path

import pytest
from small_report import REPOSITORY, make_study_with_pages, read_parameters, record_summary

from busi import config
from busi.config import StudyError
from busi.report import readme

LAPTOP = REPOSITORY / "reports" / "laptop"
MARKED = "# Title\n\n<!-- findings -->\nold\n<!-- /findings -->\n\nLast line.\n"


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """A study in the current folder whose summary notebook has been run."""
    folder = tmp_path / "study"
    make_study_with_pages(folder)
    monkeypatch.chdir(folder)
    record_summary(read_parameters())
    return folder


def write_readme(folder: Path, text: str = MARKED) -> Path:
    file = folder / "README.md"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_committed_findings_are_those_of_the_committed_report(tmp_path, monkeypatch):
    if not (LAPTOP / "findings.json").is_file():
        pytest.skip("reports/laptop has no findings: make report PROFILE=laptop")
    monkeypatch.chdir(REPOSITORY)
    committed = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    laptop = config.read_profile("laptop", train_missing=False)
    fresh = readme.update_readme(laptop, write_readme(tmp_path, committed)).read_text(encoding="utf-8")
    assert committed == fresh, "README.md is not what reports/laptop/findings.json gives: run busi readme"


def test_only_the_text_between_the_markers_changes(study):
    file = write_readme(study)
    assert readme.update_readme(read_parameters(), file) == file
    once = file.read_text(encoding="utf-8")
    assert once.startswith("# Title\n\n<!-- findings -->\n- **Six of nine** rows.")
    assert once.endswith("\n<!-- /findings -->\n\nLast line.\n")
    assert "old" not in once
    readme.update_readme(read_parameters(), file)
    assert file.read_text(encoding="utf-8") == once
    assert not list(study.glob("*.part"))


def test_findings_claims_and_progress_are_those_that_the_summary_notebook_has_recorded(study):
    parameters = read_parameters()
    text = readme.compose_findings(parameters)
    findings, _, claims, figure, _, progress = text.split("\n\n")
    told = ["**Six of nine** rows.", "None of five claims.", "**Dice** is 0.5."]
    told.append("Profile `laptop`: 9 runs have been trained under this profile, for 75 epochs.")
    assert findings.split("\n") == [f"- {sentence}" for sentence in told]
    verdicts = re.findall(r"claim (\d), ([a-z ]+)\)", claims)
    assert verdicts == [*zip("12345", ["not upheld", "upheld", "undecided", "not upheld", "not upheld"], strict=True)]
    # Only the first claim has been judged at a second size.
    assert re.findall("At 128 pixels, ([a-z]+): ([^.]+)", claims) == [("upheld", "KLD minus DICE: +0")]
    assert figure == (
        "![6 of the 9 distinct published rows have the accuracy of background (0.9083): DICE & BCE.]"
        "(reports/laptop/figures/rows-against-blind.svg)"
    )
    assert re.split(r"\s*\|\s*", progress.splitlines()[-1])[1:-1] == ["published rows", "9", "27"]


@pytest.mark.parametrize(
    "text",
    [
        "# Title\n",
        "<!-- findings -->\n",
        "<!-- /findings -->\n<!-- findings -->\n",
        "<!-- findings --><!-- findings --><!-- /findings -->",
    ],
)
def test_markers_that_are_missing_swapped_or_doubled_are_refused(study, text):
    file = write_readme(study, text)
    with pytest.raises(StudyError, match=r"README\.md: expected one line <!-- findings -->"):
        readme.update_readme(read_parameters(), file)
    assert file.read_text(encoding="utf-8") == text


def test_a_report_without_findings_is_refused_and_nothing_is_written(study):
    file = write_readme(study)
    (read_parameters().report_path / "findings.json").unlink()
    with pytest.raises(StudyError, match=r"findings\.json: no summary yet; notebooks/6_summary\.ipynb writes it"):
        readme.update_readme(read_parameters(), file)
    assert file.read_text(encoding="utf-8") == MARKED
