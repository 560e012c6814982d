"""The frame of a page: navigation, contents, tables, scripts, size."""

import base64
import hashlib
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from busi.config import StudyError
from busi.report import layout

STEMS = ["0_dataset", "3_loss", "6_summary"]


def write(folder: Path, content: str = "", profile: str = "laptop") -> BeautifulSoup:
    """Write a page with a title and ``content``, and read it again."""
    out = folder / "report" / "3_loss.html"
    body = BeautifulSoup(f"<h1>Which loss?</h1>{content}", "html.parser")
    layout.write_html(out, body, profile=profile, pages=STEMS)
    return BeautifulSoup(out.read_text(encoding="utf-8"), "html.parser")


@pytest.mark.parametrize("profile", ["smoke", "laptop"])
def test_the_window_is_titled_with_page_and_profile(tmp_path, profile):
    soup = write(tmp_path, profile=profile)
    assert soup.title.string == f"Which loss? · BUSI study, {profile}"
    assert soup.html["lang"] == "en"


def test_only_a_smoke_report_says_that_its_numbers_mean_nothing(tmp_path):
    assert "these numbers mean nothing" in write(tmp_path, profile="smoke").header.get_text()
    assert "these numbers mean nothing" not in write(tmp_path, profile="laptop").get_text()


def test_the_foot_of_a_page_says_how_to_run_its_notebook_again(tmp_path):
    command = " ".join(write(tmp_path).footer.select("code")[-1].get_text().split())
    assert command == ".venv/bin/papermill notebooks/3_loss.ipynb out.ipynb -p profile laptop -p train_missing False"
    layout.write_html(
        tmp_path / "index.html", BeautifulSoup("<h1>All</h1>", "html.parser"), profile="smoke", pages=STEMS
    )
    assert "<footer>" not in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_only_the_page_s_own_scripts_may_run(tmp_path):
    soup = write(tmp_path)
    digests = []
    for tag in soup.select("script"):
        digest = hashlib.sha256(tag.string.encode()).digest()
        digests.append(f"'sha256-{base64.b64encode(digest).decode()}'")
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert re.findall("script-src (.*)", policy) == [" ".join(digests)]
    assert len(digests) == 2


def test_the_navigation_leads_to_every_page_and_marks_the_current_one(tmp_path):
    entries = write(tmp_path).header.find_all("a")
    assert [(a["href"], a.string) for a in entries] == [
        ("index.html", "Overview"),
        ("0_dataset.html", "0 Dataset"),
        ("3_loss.html", "3 Loss"),
        ("6_summary.html", "6 Summary"),
    ]
    assert [a["href"] for a in entries if a.get("aria-current") == "page"] == ["3_loss.html"]


def test_the_contents_lead_to_each_heading_even_if_two_have_the_same_text(tmp_path):
    soup = write(tmp_path, "<h2>Table 3</h2><h2>Table 3</h2><h3>What it <em>means</em></h3><h2>…</h2><h2>Content</h2>")
    entries = soup.aside.find_all("a")
    assert [a["href"] for a in entries] == ["#table-3", "#table-3-2", "#what-it-means", "#section", "#content-2"]
    assert [a.parent["class"] for a in entries] == [[f"level-{level}"] for level in (2, 2, 3, 2, 2)]
    assert [soup.select_one(a["href"]).get_text() for a in entries[:3]] == ["Table 3", "Table 3", "What it means"]


def test_every_table_scrolls_in_one_box_and_can_be_copied(tmp_path):
    boxed = '<div class="scroll"><table><tr><td>1</td></tr></table></div>'
    soup = write(tmp_path, f"<table><tr><td>1</td></tr></table>{boxed}")
    assert len(soup.find_all("table")) == 2
    for table in soup.find_all("table"):
        assert len(table.find_parents(class_="scroll")) == 1
        buttons = table.find_parent(class_="table").select("button.copy")
        assert [button.string for button in buttons] == ["Copy"]


def test_a_table_is_sortable_if_it_has_several_rows(tmp_path):
    head = '<thead><tr><th class="number">our <em>loss</em></th></tr></thead>'
    row = "<tr><td>1</td></tr>"
    tables = [f'<table class="wide">{head}<tbody>{row * rows}</tbody></table>' for rows in (1, 2)]
    single, several = write(tmp_path, "".join(tables)).find_all("table")
    assert single["class"] == ["wide"]
    assert single.find("button") is None
    assert several["class"] == ["wide", "sortable", "asc", "n-last"]
    assert str(several.th) == '<th class="number"><button class="sort" type="button">our <em>loss</em></button></th>'


def test_the_keyboard_reaches_preformatted_text_but_not_code_which_is_wrapped(tmp_path):
    soup = write(tmp_path, '<pre>BCE = KLD</pre><div class="highlight"><pre>train()</pre></div>')
    assert [block.get("tabindex") for block in soup.main.select("pre")] == ["0", None]


def test_a_page_over_the_limit_is_refused_and_the_old_one_stays(tmp_path):
    write(tmp_path, "<p>old</p>")
    with pytest.raises(StudyError, match=r"3_loss\.html: would have 2,0\d\d,\d{3} bytes, the limit is 2,000,000; show"):
        write(tmp_path, "A" * layout.LIMIT)
    assert [file.name for file in (tmp_path / "report").iterdir()] == ["3_loss.html"]
    assert "<p>old</p>" in (tmp_path / "report" / "3_loss.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("**KLD** is\n*BCE* here.", "KLD is BCE here."),
        ("`a_b` & [Distill](https://distill.pub) < 1", "a_b & Distill < 1"),
    ],
)
def test_plain_text_has_no_markup(markdown, text):
    assert layout.plain_text(markdown) == text
