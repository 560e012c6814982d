"""README.md: its findings are those of the committed results, and its links lead somewhere."""

import json
import re
import shutil

import pytest

from busi import config
from busi.config import ROOT, StudyError
from busi.report import readme

LAPTOP = ROOT / "reports" / "laptop"
DOCUMENTS = ("README.md", "docs/published-protocol.md", "docs/heldout-protocol.md", "docs/reports.md")
FLOORS = {"accuracy": 0.92506, "auc": 0.81234, "dice_loss": 0.0712, "bce": 0.25, "bce_probability": 0.07, "kld": 0.26}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The smoke study in a repository that has gathered floors and no run."""
    monkeypatch.setattr(config, "ROOT", tmp_path)
    shutil.copytree(ROOT / "params", tmp_path / "params")
    results = tmp_path / "reports" / "smoke" / "results"
    results.mkdir(parents=True)
    (results / "floors.json").write_text(json.dumps(FLOORS))
    return config.read(tmp_path / "params" / "smoke.yaml")


def written(folder, text):
    file = folder / "README.md"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_committed_findings_are_those_of_the_committed_results(tmp_path):
    if not (LAPTOP / "results" / "floors.json").is_file():
        pytest.skip("reports/laptop has no results: make study PROFILE=laptop DATA=...")
    committed = (ROOT / "README.md").read_text(encoding="utf-8")
    laptop = config.read(ROOT / "params" / "laptop.yaml", train_missing=False)
    fresh = readme.update(laptop, written(tmp_path, committed)).read_text(encoding="utf-8")
    assert committed == fresh, "README.md is not what reports/laptop/results gives: busi readme"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_inside_the_repository_leads_to_a_file(document):
    file = ROOT / document
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", file.read_text(encoding="utf-8"))
    inside = [link for link in links if not link.startswith("https://")]
    if not (LAPTOP / "index.html").is_file():
        inside = [link for link in inside if not link.startswith("reports/laptop/")]
    assert inside
    assert [link for link in inside if not (file.parent / link).exists()] == []


def test_only_what_stands_between_the_markers_changes(tmp_path, study):
    file = written(tmp_path, "# Title\n\n<!-- findings -->\nold\n<!-- /findings -->\n\nLast line.\n")
    assert readme.update(study, file) == file
    once = file.read_text(encoding="utf-8")
    assert once.startswith("# Title\n\n<!-- findings -->\n")
    assert once.endswith("\n<!-- /findings -->\n\nLast line.\n")
    assert "old" not in once
    assert readme.update(study, file).read_text(encoding="utf-8") == once
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "params", "reports"]


def test_the_findings_are_computed_from_floors_published_rows_and_runs(study):
    sentences = readme.block(study)
    # Of the published accuracies 0.9251 alone rounds to this floor: the baseline, which stands in three tables.
    assert sentences.startswith("1 of the 9 distinct published rows")
    assert "(0.9251): Upsampling2D." in sentences
    assert "Dice loss of that predictor is 0.0712 and its AUC 0.8123; the published row DICE has 0.0916" in sentences
    assert "that a constant probability of lesion reaches is 0.2500." in sentences
    assert "Profile `smoke`: No run has been trained" in sentences
    assert re.search(r"\n\n!\[1 of the 9 [^\]]+\]\(reports/smoke/figures/rows-against-floor\.svg\)$", sentences)


@pytest.mark.parametrize(
    "text",
    [
        "# Title\n",
        "<!-- findings -->\n",
        "<!-- /findings -->\n<!-- findings -->\n",
        "<!-- findings --><!-- findings --><!-- /findings -->",
    ],
)
def test_markers_that_are_missing_swapped_or_doubled_are_refused(tmp_path, study, text):
    file = written(tmp_path, text)
    with pytest.raises(StudyError, match=r"README\.md: expected one line <!-- findings -->"):
        readme.update(study, file)
    assert file.read_text(encoding="utf-8") == text


def test_a_report_without_floors_is_refused_and_nothing_is_written(tmp_path, study):
    text = "<!-- findings -->\nold\n<!-- /findings -->\n"
    file = written(tmp_path, text)
    (study.report_path / "results" / "floors.json").unlink()
    with pytest.raises(StudyError, match=r"floors\.json: not gathered yet"):
        readme.update(study, file)
    assert file.read_text(encoding="utf-8") == text
