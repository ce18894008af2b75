"""tools/site.py: pages made of notebooks, and the whole site in a browser."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from nbformat import v4

from tools import site

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def test_a_page_folds_its_code_and_describes_its_figures():
    badge = "[![Open in Colab](badge.svg)](https://colab.example/x)"
    drawn, slid = (v4.new_output("display_data", {"image/png": ""}) for _ in range(2))
    drawn.metadata = {"image/png": {"alt": "gradient; size against token"}}
    cells = [
        v4.new_markdown_cell(f"{badge}\n\n# Question 1"),
        v4.new_code_cell("plot()", outputs=[drawn]),
        v4.new_markdown_cell("## The proof\n\n**It stops.** More."),
        v4.new_code_cell("slide()", outputs=[slid, drawn]),
    ]
    page = site.page(v4.new_notebook(cells=cells))
    assert page.cells[0].source.startswith("[Open in Colab](https://colab.example/x)")
    code = [page.cells[i] for i in (1, 3, 4)]
    tags = [cell.metadata["tags"] for cell in code]
    assert tags == [["hide-input"], ["hide-input"], ["remove-input"]]
    assert [len(cell.outputs) for cell in code] == [1, 1, 1]
    plot, slide, again = (cell.metadata["mystnb"]["image"]["alt"] for cell in code)
    assert plot == again == "gradient; size against token"
    assert slide == "figure of the section The proof"


@pytest.fixture(scope="module")
def pages():
    if not CHROMIUM:
        pytest.skip("there is no Chromium")
    # Not in this process, where the warnings of Sphinx's packages are errors.
    subprocess.run([sys.executable, "-m", "tools.site"], cwd=site.ROOT, check=True)
    folder = site.ROOT / "build" / "site"
    paths = [folder / "index.html", *sorted(folder.glob("q*_*/*.html"))]
    paths += [(folder / name).with_suffix(".html") for name in site.TEXTS]
    return {path.relative_to(folder).as_posix(): path for path in paths}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = running.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser, path, width=1280, scheme="light"):
    """Opens a page and gives it with what went wrong."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page, wrong = context.new_page(), []
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(request.url))
    page.goto(path.as_uri(), wait_until="load")
    page.wait_for_function("!window.MathJax || MathJax.startup?.promise")
    page.evaluate("window.MathJax && MathJax.startup.promise")
    yield page, wrong
    context.close()


@pytest.mark.publish
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_loads_whole_from_the_file_system(browser, pages, width, scheme):
    assert len(pages) == 1 + len(site.find_notebooks()) + len(site.TEXTS)
    for name, path in pages.items():
        with opened(browser, path, width, scheme) as (page, wrong):
            assert wrong == [], name
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            images = page.evaluate(
                "[...document.images].map(i => [i.src, i.alt, i.naturalWidth])"
            )
            assert images or name == "docs/checklist.html", name
            assert all(alt and width for _, alt, width in images), (name, images)
            described = [alt for source, alt, _ in images if "/_images/" in source]
            assert len(set(described)) == len(described), (name, described)
            assert page.evaluate("document.documentElement.dataset.theme") == scheme
            formulas = page.locator(".math").count()
            assert formulas or name == "index.html", name
            assert page.locator("mjx-container").count() >= formulas, name
            assert page.locator("mjx-merror").count() == 0, name


@pytest.mark.publish
def test_no_link_inside_the_site_is_broken(browser, pages):
    broken = []
    for name, path in pages.items():
        with opened(browser, path) as (page, _):
            links = page.evaluate("[...document.links].map(link => link.href)")
        for link in filter(lambda link: link.startswith("file:"), links):
            address, anchor = urldefrag(link)
            target = unquote(address.removeprefix("file://").partition("?")[0])
            try:
                text = Path(target).read_text("utf-8")
            except (FileNotFoundError, IsADirectoryError):
                text = None
            if text is None or (anchor and f'id="{unquote(anchor)}"' not in text):
                broken.append((name, link))
    assert broken == []


@pytest.mark.publish
def test_code_is_folded_and_opens_with_the_keyboard(browser, pages):
    name = next(name for name in pages if name != "index.html")
    with opened(browser, pages[name]) as (page, _):
        folds = page.locator("details.hide, details.toggle-details")
        assert folds.count() > 5
        assert page.evaluate("document.querySelectorAll('details[open]').length") == 0
        folds.first.locator("summary").focus()
        page.keyboard.press("Enter")
        assert folds.first.get_attribute("open") is not None


@pytest.mark.publish
def test_a_question_is_reached_from_the_menu_of_a_phone(browser, pages):
    with opened(browser, pages["index.html"], width=390) as (page, _):
        link = page.locator("dialog a[href^='q1_']")
        assert link.count() == 0
        page.locator(".primary-toggle:visible").first.click()
        link.first.click()
        page.wait_for_url("**/q1_tbptt/*.html")


@pytest.mark.publish
def test_a_question_is_reached_with_the_keyboard_alone(browser, pages):
    with opened(browser, pages["index.html"]) as (page, _):
        for _ in range(60):
            page.keyboard.press("Tab")
            href = page.evaluate("document.activeElement.getAttribute('href') || ''")
            if href.startswith("q1_"):
                break
        assert href.startswith("q1_")
        page.keyboard.press("Enter")
        page.wait_for_url("**/q1_tbptt/*.html")
