"""The report page and the page of `make plots` in a real browser, as they were written."""

import base64
import io
import itertools
import os
import re
import shutil
import sys
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages.render.charts import charts
from stages.render.report import COLUMNS, inlined, sheet
from tests.test_figures import TRAINING, of_predictions, page_of

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium found in PATH")


@pytest.fixture(scope="module")
def browser():
    # In a container that runs as root Chromium's own sandbox cannot be set up.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@contextmanager
def opened(browser, file):
    """A page on a desktop; anything that it loads or complains about fails the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    trouble = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith(("data:", address)) else trouble.append(request.url)
        ),
    )
    address = file.as_uri()
    page.goto(address)
    yield page
    page.close()
    assert trouble == []


@pytest.fixture
def page(browser, finished):
    with opened(browser, finished.path / "reports/index.html") as page:
        yield page


def shown_rows(page) -> list[list[str]]:
    return page.eval_on_selector_all(
        "#table tbody tr",
        "rows => rows.filter(r => !r.hidden).map(r => [...r.cells].map(c => c.textContent))",
    )


@needs_chromium
def test_every_picture_is_there(page, finished):
    page.eval_on_selector_all("img", "all => all.forEach(image => image.loading = 'eager')")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) == 9
    assert min(widths) > 100
    assert len(finished.read("reports/index.html")) < 3 * 2**20


@needs_chromium
def test_table_sorts_by_each_column_in_both_directions(page):
    headers = ["class", "superclass", "top-1", "top-5", "superclass top-1", "precision", "F1"]
    for column, header in enumerate(headers):
        button = page.get_by_role("button", name=header, exact=True)
        for direction in ("ascending", "descending"):
            button.click()
            if button.locator("..").get_attribute("aria-sort") != direction:
                button.click()  # the page comes sorted by top-1
            cells = [row[column] for row in shown_rows(page)]
            keys = [int(cell.split()[0]) if "%" in cell else cell for cell in cells]
            assert len(keys) == 100
            assert keys == sorted(keys, reverse=direction == "descending"), header


@needs_chromium
def test_table_filters_by_class_and_superclass(page, finished):
    first = shown_rows(page)[0]
    page.get_by_label("Class", exact=True).fill(first[0].upper())
    assert first in shown_rows(page)
    assert all(first[0] in row[0] for row in shown_rows(page))
    page.get_by_label("Class", exact=True).fill("")
    page.get_by_label("Superclass", exact=True).select_option(label=first[1])
    assert {row[1] for row in shown_rows(page)} == {first[1]}
    assert len(shown_rows(page)) == 5
    assert page.locator("#found").text_content() == "5 of 100 classes"
    page.get_by_label("Class", exact=True).fill("no such class")
    assert shown_rows(page) == []


@needs_chromium
def test_images_behind_a_cell_and_a_pair_are_shown_and_hidden_with_the_keyboard(page):
    dialog = page.get_by_role("dialog")
    for selector in ("[data-cell]", "[data-pair]"):
        button = page.locator(selector).first
        wanted = int(re.search(r"\d+", button.text_content().split(":")[-1])[0])
        button.focus()
        page.keyboard.press("Enter")
        assert dialog.is_visible()
        items = dialog.get_by_role("listitem").all()
        assert 1 <= len(items) <= wanted
        actual, predicted = re.fullmatch(
            r"(.+), taken for (.+) \(\d+ %\)", items[0].text_content()
        ).groups()
        assert actual != predicted
        assert actual in page.locator("#table").text_content()
        assert items[0].get_by_role("img", name=actual).bounding_box()["width"] == 96
        page.keyboard.press("Escape")
        assert not dialog.is_visible()


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_gallery_with_class_maps_fits_the_page_and_explains_itself(page, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    gallery = page.locator("figure", has=page.get_by_role("heading", name="Most confident errors"))
    text = gallery.locator("p").text_content()
    assert re.search("class activation maps.* orange .* for .* blue .* against", text, re.DOTALL)
    region, image = gallery.get_by_role("region"), gallery.get_by_role("img")
    image.scroll_into_view_if_needed()
    page.wait_for_function(
        "image => image.complete && image.naturalWidth", arg=image.element_handle()
    )
    box = region.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    # Small print stays readable: the picture is not squeezed, its region scrolls.
    assert image.bounding_box()["width"] >= 600
    assert image.evaluate("e => e.naturalHeight > 0.15 * e.naturalWidth")


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone_in_light_and_dark(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("[data-pair]").first.click()
    box = page.get_by_role("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360


@needs_chromium
def test_page_begins_with_what_to_know_and_what_to_try(page):
    """Confusions, confidence and next steps come before the first chart, each with its words."""
    first = page.locator("main > *").all_text_contents()
    titles = ["What it confuses", "Where it is too sure", "What to try next", "What was trained"]
    assert [text for text in first if text in titles] == titles
    assert "Most often confused: " in first[first.index(titles[0]) + 1]
    assert len(first[first.index(titles[1]) + 1]) > 30
    steps = page.locator("ol li code").all_text_contents()
    assert len(steps) >= 2
    assert all(re.match(r"dvc exp run .*-S |python -m tools\.", step) for step in steps)
    assert page.locator("nav a").first.get_attribute("href") == "#short"


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["perfect", "untrained"])
def test_page_of_an_unusual_run_fits_and_has_no_empty_part(
    browser, samples, classes, tmp_path, kind
):
    logits = np.zeros((500, 100), np.float32)
    logits[np.arange(500), samples.fine if kind == "perfect" else 7] = 20
    file = tmp_path / "index.html"
    results = of_predictions(logits, samples, classes)
    file.write_text(page_of(results, list(charts(results, TRAINING)), tmp_path), encoding="utf-8")
    with opened(browser, file) as page:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for width in (360, 1280):
                page.set_viewport_size({"width": width, "height": 740})
                assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not re.search(r"\b0 (images|errors)\b|\bnan\b", page.locator("body").inner_text())
        bare = page.eval_on_selector_all(
            "main h2, main h3:not(dialog h3), main p, main figure, main li",
            "all => all.filter(e => !e.textContent.trim() && !e.querySelector('img')).length",
        )
        assert bare == 0
        columns = page.eval_on_selector_all(
            "#table tbody tr",
            "rows => rows[0].cells.length && [...rows[0].cells].map((_, i) => "
            "rows.some(row => row.cells[i].textContent.trim()))",
        )
        assert all(columns)
        assert len(columns) == (7 if kind == "perfect" else 8)


@needs_chromium
def test_page_is_usable_without_seeing_it(page):
    """Every button and picture has a name, and headings do not skip a level."""
    nameless = page.eval_on_selector_all(
        "button, img, input, select",
        """all => all.filter(e => !(e.ariaLabel || e.alt || e.textContent.trim()
             || e.labels?.[0]?.textContent.trim())).length""",
    )
    assert nameless == 0
    levels = page.eval_on_selector_all("h1, h2, h3", "all => all.map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert page.locator("html").get_attribute("lang") == "en"


def test_sheet_has_the_images_row_by_row():
    images = np.random.default_rng(0).integers(0, 256, (COLUMNS + 2, 3, 4, 4), dtype=np.uint8)
    picture = sheet(images)
    assert picture.shape == (8, 4 * COLUMNS, 3)
    np.testing.assert_array_equal(picture[:4, 8:12], images[2].transpose(1, 2, 0))
    np.testing.assert_array_equal(picture[4:, 4:8], images[COLUMNS + 1].transpose(1, 2, 0))
    assert (picture[4:, 8:] == 0).all()


def test_chart_that_is_larger_than_a_webp_may_be_is_made_smaller(tmp_path):
    """As of 100 errors at 309 pixels per inch; one pixel less and it is kept as it is."""
    for height, expected in ((16384, (32, 16383)), (16383, (32, 16383))):
        Image.new("RGB", (32, height), "white").save(tmp_path / "chart.png")
        url = inlined(tmp_path / "chart.png", photos=True)
        content = base64.b64decode(url.removeprefix("data:image/webp;base64,"))
        assert Image.open(io.BytesIO(content)).size == expected


@needs_chromium
def test_plots_of_dvc_are_drawn_without_a_network(browser, workspace):
    workspace.set_params(figure_dpi="45")
    workspace.run(sys.executable, "-m", "tools.plots", "template.html")
    diff = ["dvc", "plots", "diff", "--html-template", "template.html", "--out", "page", "HEAD"]
    workspace.run(*diff)
    page = browser.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((workspace.path / "page/index.html").as_uri())
    page.wait_for_function("document.querySelectorAll('.vega-embed svg.marks').length == 9")
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    bars = page.locator("svg.marks").nth(3).bounding_box()
    assert bars["height"] > 100 * 10  # a line for each class
    for number, name in ((5, "class_confusion"), (6, "superclass_confusion")):
        plot = page.locator("svg.marks").nth(number)
        cells = len(pd.read_csv(workspace.path / f"reports/{name}.csv"))
        assert plot.locator(".mark-rect.role-mark path").count() == 2 * cells  # in both revisions
    page.close()
