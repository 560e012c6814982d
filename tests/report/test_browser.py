"""Pages in a real browser, with the network off: a small report made here, and the committed pages."""

import contextlib
import io
import itertools
import re
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from IPython.display import HTML
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright
from small_report import (
    REPOSITORY,
    STEMS,
    code_cell,
    make_blind,
    make_study_with_pages,
    read_parameters,
    record_summary,
    shown,
    write_notebook,
)

from busi import display
from busi.report import heldout, index, layout, pages, tables
from busi.results import empty_results

COMMITTED = sorted(REPOSITORY.glob("reports/laptop/*.html"))
LOSSES = pd.DataFrame(
    # Sorted as text, 0.3 would come before -2; the two that are shown as 0.1489 differ.
    {"method": ["DICE", "KLD", "BCE", "MSE"], "loss": [0.14892, -2.0, None, 0.14888], "images": [647, 1000, 96, 9]}
)
TITLE = "Breast ultrasound segmentation: a published study examined"
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.skip("needs Chromium: install it (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """A smoke report: its pages as `busi page` writes them from executed notebooks, and their index."""
    study = tmp_path_factory.mktemp("browser") / "study"
    make_study_with_pages(study)
    notebook = write_notebook(study / "executed.ipynb", *family_cells())
    with contextlib.chdir(study):
        parameters = read_parameters(profile="smoke")
        record_summary(parameters)
        for stem in STEMS:
            pages.write_page(notebook, parameters.report_path / f"{stem}.html", parameters=parameters)
        index.write_index(parameters)
        return parameters.report_path


def family_cells() -> list[NotebookNode]:
    figure, axes = plt.subplots()
    axes.plot([0.31, 0.30])
    drawn = display.figure(figure, caption="Training loss.", alt="A falling curve.")
    table = display.table(LOSSES, caption="Loss by method, after the last epoch of each of the runs that were trained.")
    return [
        code_cell('profile: str = "smoke"', tags=["parameters"]),
        new_markdown_cell("# Which loss?\n\nDoes the *loss* matter?\n\n## The table"),
        code_cell("display.table(losses)", shown(text_html=table.data)),
        *(code_cell("display.table(...)", shown(text_html=each.data)) for each in wide_tables()),
        new_markdown_cell("### Beside it\n\n| row | AUC |\n|---|---|\n| KLD | 0.985 |"),
        code_cell("display.figure(curves)", shown(text_html=drawn.data)),
        code_cell("Markdown(found)", shown(text_html="<p>It does <strong>not</strong>.</p>"), tags=["finding"]),
    ]


def wide_tables() -> list[HTML]:
    """The tables of a family's page with its longest names, as wide as their columns get, and one of words."""
    name = "Resize+Norm+Std+Aug. of the image alone"
    scores = pd.DataFrame(0.65625, index=[0, 1], columns=heldout.COLUMNS).assign(variant=name, n_images=647, n_runs=25)
    scores = scores.assign(parameters=31_000_000, hd95=125.25)
    pairs = pd.DataFrame(0.65625, index=[0, 1], columns=heldout.PAIR_COLUMNS).assign(kind="variants", a=name, b=name)
    table = tables.compare_rows(4, empty_results(), make_blind())
    table = table.assign(loss=0.3, accuracy=0.9, auc=0.9, fates="2 dead, 1 on the plateau", verdict="not reproduced")
    runs = pd.DataFrame(0.65625, index=[0, 1], columns=tables.list_runs(empty_results().runs).columns)
    runs = runs.assign(run="optimizer-adam_momentum-0.0_schedule-exponential_preprocessing-code", fate="plateau")
    scores = scores.assign(interval="0.656 [0.627, 0.685]", minutes=12.5, empty=0.0)
    pairs = pairs.assign(interval="+0.656 [+0.627, +0.685]", p_shown="< 0.001", t_shown="0.0100")
    shown = {"scores": scores, "costs": scores, "pixels": scores, "pairs": pairs, "published": table}
    shown |= {"blind": tables.format_blind(table), "runs": tables.format_runs(runs)}
    folded = [tables.show(name, frame) for name, frame in shown.items()]
    words = pd.DataFrame({"claim": ["KLD is best"], "published": ["KLD has 0.95"], "ours": ["KLD has Dice 0.65"]})
    return [*folded, display.table(words, caption="Words alone.")]


@pytest.fixture
def tab(browser: Browser):
    """A page without a network. The test fails if the page tries to load anything or writes to the console."""
    context = browser.new_context(viewport=WIDE, color_scheme="light")
    context.set_offline(True)
    page, complaints = context.new_page(), []
    page.on("request", lambda request: complaints.append(request.url) if is_remote(request.url) else None)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert complaints == []


def is_remote(url: str) -> bool:
    return not url.startswith(("file:", "data:"))


def violations(page: Page) -> str:
    result = Axe().run(page)
    return result.generate_report() if result.violations_count else ""


def overflow(page: Page) -> int:
    """Return the pixels by which the page itself, not a box in it, would scroll sideways."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def check(page: Page, file: Path) -> None:
    """Check that nothing is wider than the window and axe-core finds no fault, in light and wide, dark and narrow."""
    page.goto(file.as_uri())
    assert (overflow(page), violations(page)) == (0, "")
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(NARROW)
    assert (overflow(page), violations(page)) == (0, "")


@pytest.mark.parametrize("stem", [STEMS[0], "index"])
def test_a_page_is_accessible_in_light_and_dark_wide_and_narrow(tab, report, stem):
    check(tab, report / f"{stem}.html")


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.stem)
def test_a_committed_page_is_accessible_in_light_and_dark_wide_and_narrow(tab, file):
    check(tab, file)
    assert file.stat().st_size <= layout.LIMIT


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.stem)
def test_the_letters_of_figures_are_legible_on_a_telephone(tab, file):
    tab.set_viewport_size(NARROW)
    tab.goto(file.as_uri())
    # A folded figure has no size.
    tab.locator("details").evaluate_all("folds => folds.forEach(fold => fold.open = true)")
    figures = tab.locator("figure img")
    scales = figures.evaluate_all("images => images.map(image => image.clientWidth / image.naturalWidth)")
    # The smallest letters have 9 points, which are 12 pixels where a figure has its own size.
    assert 12 * min(scales) >= 7.5


def test_every_link_of_the_navigation_leads_to_a_page(tab, report):
    tab.goto((report / "index.html").as_uri())
    for name, title in (("3 Loss", "Which loss?"), ("6 Summary", "Which loss?"), ("Overview", TITLE)):
        tab.get_by_role("navigation", name="Pages of this report").get_by_role("link", name=name).click()
        assert tab.get_by_role("heading", level=1).inner_text() == title
    assert "these numbers mean nothing" in tab.get_by_role("banner").inner_text()


def test_one_switch_unfolds_all_code_and_folds_it_again(tab, report):
    tab.goto((report / "3_loss.html").as_uri())
    blocks = tab.locator(".code pre")
    seen = [blocks.nth(place).is_visible() for place in range(blocks.count())]
    assert seen == [False] * len(seen)
    for visible in (True, False):
        tab.get_by_role("switch", name="Show all code").click()
        assert [blocks.nth(place).is_visible() for place in range(blocks.count())] == [visible] * len(seen)
    tab.locator(".code summary").first.click()
    assert [blocks.nth(place).is_visible() for place in range(blocks.count())] == [True, *[False] * (len(seen) - 1)]


@pytest.mark.parametrize(
    ("column", "presses", "order"),
    [
        ("method", 1, ["BCE", "DICE", "KLD", "MSE"]),
        ("loss", 1, ["KLD", "MSE", "DICE", "BCE"]),  # by all digits, not by the four shown; missing ones last
        ("loss", 2, ["DICE", "MSE", "KLD", "BCE"]),
        ("images", 1, ["MSE", "BCE", "DICE", "KLD"]),  # "1,000" is more than "96"
    ],
)
def test_a_heading_sorts_its_table_by_value_with_the_keyboard_too(tab, report, column, presses, order):
    tab.goto((report / "3_loss.html").as_uri())
    table = tab.get_by_role("table", name="Loss by method")
    heading = table.get_by_role("columnheader", name=column)
    heading.get_by_role("button").focus()
    for press in range(presses):
        tab.keyboard.press("Enter")
        tab.wait_for_function(
            "([cell, order]) => cell.ariaSort === order", arg=[heading.element_handle(), ORDERS[press]]
        )
    tab.wait_for_timeout(50)  # the library moves the rows a moment after it marks the heading
    assert table.locator("tbody th").all_inner_texts() == order


ORDERS = ["ascending", "descending"]


def test_a_table_is_copied_as_it_is_sorted(tab, report):
    tab.goto((report / "3_loss.html").as_uri())
    box = tab.locator(".table", has_text="Loss by method")
    box.get_by_role("columnheader", name="images").get_by_role("button").click()
    tab.wait_for_timeout(50)
    assert copied(tab, box) == [
        "method\tloss\timages",
        "MSE\t0.1489\t9",
        "BCE\t–\t96",
        "DICE\t0.1489\t647",
        "KLD\t-2.0000\t1,000",
    ]


def copied(tab: Page, box: Locator) -> list[str]:
    """Return the lines that pasting gives after a press on a table's button."""
    box.get_by_role("button", name="Copy").click()
    box.get_by_role("button", name="Copied").wait_for()
    tab.evaluate("document.body.prepend(document.createElement('textarea'))")
    pasted = tab.get_by_role("textbox")
    pasted.press("Control+V")
    return pasted.input_value().splitlines()


def test_on_a_narrow_screen_texts_are_below_their_headings_and_are_copied_as_a_table(tab, report):
    tab.set_viewport_size(NARROW)
    tab.goto((report / "3_loss.html").as_uri())
    table = tab.get_by_role("table", name="Words alone")
    boxes = [cell.bounding_box() for cell in table.locator("tbody").locator("th, td").all()]
    assert [box["x"] for box in boxes] == [boxes[0]["x"]] * 3
    assert all(above["y"] + above["height"] <= below["y"] for above, below in itertools.pairwise(boxes))
    before = "cell => getComputedStyle(cell, '::before').content"
    assert [cell.evaluate(before) for cell in table.locator("td").all()] == [
        '"published"',
        '"ours"',
    ]
    assert copied(tab, tab.locator(".table", has_text="Words alone"))[:1] == ["claim\tpublished\tours"]


def test_the_index_of_a_telephone_is_short_and_starts_with_question_answer_and_figure(tab, report):
    tab.set_viewport_size(NARROW)
    tab.goto((report / "index.html").as_uri())
    assert tab.evaluate("document.documentElement.scrollHeight") < 5000
    image = tab.locator("main figure img").first
    assert image.bounding_box()["y"] < NARROW["height"]
    # The figure of the telephone, not that of the desk.
    assert image.evaluate("image => image.currentSrc === image.parentElement.querySelector('source').srcset")


def test_question_answer_and_figure_fill_the_first_screen_of_a_desk(tab, report):
    tab.goto((report / "index.html").as_uri())
    box = tab.locator("main figure img").first.bounding_box()
    assert box["y"] + box["height"] < WIDE["height"]


def test_the_index_prints_on_two_pages_without_what_is_folded(tab, report):
    tab.goto((report / "index.html").as_uri())
    pdf = tab.pdf(format="A4")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 2


def test_no_table_of_a_page_is_wider_than_its_column(tab, report):
    tab.goto((report / "3_loss.html").as_uri())
    tab.evaluate("document.querySelectorAll('details.fold').forEach(each => { each.open = true; })")
    widths = "boxes => boxes.map(box => [box.getAttribute('aria-label'), box.scrollWidth - box.clientWidth])"
    boxes = tab.locator(".scroll").evaluate_all(widths)
    assert len(boxes) == 10
    assert [box for box in boxes if box[1] > 0] == []


def test_a_table_of_one_row_has_nothing_to_sort(tab, report):
    tab.goto((report / "3_loss.html").as_uri())
    single = tab.locator(".table", has_text="AUC")
    assert single.get_by_role("button").all_inner_texts() == ["Copy"]


def test_figures_have_no_white_box_on_a_dark_page_and_print_is_light(tab, report):
    tab.goto((report / "3_loss.html").as_uri())
    corner = shown_corner(tab)
    assert (*colours(tab), corner) == ("rgb(255, 255, 255)", "rgb(27, 31, 36)", (255, 255, 255))
    tab.emulate_media(color_scheme="dark")
    corner = shown_corner(tab)
    assert (*colours(tab), corner) == ("rgb(20, 23, 27)", "rgb(227, 230, 234)", (20, 23, 27))
    tab.emulate_media(color_scheme="dark", media="print")
    assert colours(tab) == ("rgb(255, 255, 255)", "rgb(27, 31, 36)")
    assert not tab.get_by_role("navigation").first.is_visible()


def colours(page: Page) -> tuple[str, ...]:
    """Return the colours of the page's background and text."""
    style = page.evaluate_handle("getComputedStyle(document.body)")
    return style.evaluate("style => style.backgroundColor"), style.evaluate("style => style.color")


def shown_corner(page: Page) -> tuple[int, int, int]:
    """Return the colour that the screen shows in the upper right corner of the first figure, where nothing is drawn."""
    screen = Image.open(io.BytesIO(page.locator("figure img").first.screenshot())).convert("RGB")
    return screen.getpixel((screen.width - 3, 3))
