"""The report in a real browser: it says what was decided, shows what it should, and fits."""

from pathlib import Path

import numpy as np
import pytest
from browser import PHONE, WIDE, contrast, needs_browser, set_window
from evaluating import Run, blurred, export
from selenium import webdriver
from selenium.webdriver.common.by import By

from evaluation.report.render import (
    interval,
    number,
    render_comparison,
    render_report,
)

pytestmark = needs_browser


@pytest.fixture
def show(chrome, tmp_path):
    """A function that opens a page in some width and theme, and checks what every page keeps."""

    def opened(page: str, width: int = WIDE, theme: str = "light") -> webdriver.Chrome:
        path = tmp_path / "page.html"
        path.write_text(page)
        set_window(chrome, width, theme)
        chrome.get(path.as_uri())
        assert chrome.get_log("browser") == []
        assert_sound(chrome)
        return chrome

    return opened


def assert_sound(browser: webdriver.Chrome) -> None:
    """Nothing is fetched, every image is there with words for it, nothing hangs over."""
    fetched = "return performance.getEntriesByType('resource').map(e => e.name)"
    assert [name for name in browser.execute_script(fetched) if not name.startswith("data:")] == []
    assert browser.execute_script("return document.scripts.length") == 0
    for image in browser.find_elements(By.TAG_NAME, "img"):
        assert int(image.get_property("naturalWidth")) > 100
        assert image.get_attribute("alt")
    for drawing in browser.find_elements(By.TAG_NAME, "svg"):
        assert drawing.size["height"] > 100
        assert drawing.find_element(By.XPATH, "..").get_attribute("aria-label")
    root = "return document.documentElement."
    width = browser.execute_script(root + "clientWidth")
    assert browser.execute_script(root + "scrollWidth") <= width
    ids = browser.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def page_of(run: Run) -> str:
    return (Path(run.report.uri) / "report.html").read_text()


@pytest.mark.parametrize(("width", "theme"), [(WIDE, "light"), (PHONE, "dark")])
def test_a_blessed_generator(execute, pools, show, width, theme):
    run = execute(pools["first"][0])
    browser = show(page_of(run), width, theme)
    assert browser.find_element(By.ID, "verdict").text == "Blessed"
    assert "Blessed" in browser.title
    assert "✗" not in browser.find_element(By.TAG_NAME, "body").text
    assert "test split" not in page_of(run)  # these data have none
    assert len(browser.find_elements(By.TAG_NAME, "img")) == 3
    assert len(browser.find_elements(By.TAG_NAME, "svg")) == 3
    assert len(browser.find_elements(By.CSS_SELECTOR, ".confusion tbody tr")) == 10
    for selector in ("#verdict", ".soft", "small", "p"):
        assert contrast(browser, selector) >= 4.5, selector


def test_a_rejected_generator_beside_the_one_being_served(execute, pools, show, tmp_path):
    export(pools["first"][0], tmp_path / "serving" / "10")
    run = execute(blurred(pools["second"][0]))
    for width in (WIDE, PHONE):
        browser = show(page_of(run), width)
        assert browser.find_element(By.ID, "verdict").text == "Not blessed"
        printed = [item.text for item in browser.find_elements(By.CSS_SELECTOR, "header li")]
        assert printed == run.content["verdict"]["reasons"]
        assert len(browser.find_elements(By.TAG_NAME, "img")) == 4
        row = browser.find_element(By.XPATH, "//tr[@id='metric-sharpness_difference']")
        assert "✗ failed" in row.text
        fid = run.content["metrics"]["fid"]
        cells = browser.find_elements(By.XPATH, "//tr[@id='metric-fid']/td")
        for cell, measured in zip(cells[2:4], (fid["baseline"], fid["difference"]), strict=True):
            assert cell.text == f"{number(measured['value'])}\n{interval(measured['interval'])}"
        assert "version 10" in browser.find_element(By.TAG_NAME, "body").text


def test_what_needs_room_can_be_scrolled_with_the_keyboard(execute, pools, show):
    browser = show(page_of(execute(pools["first"][0])), PHONE)
    wide = browser.execute_script(
        "return [...document.querySelectorAll('*')]"
        ".filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0"
        " && getComputedStyle(e).overflowX == 'auto').map(e => e.tabIndex)"
    )
    assert wide
    assert set(wide) == {0}
    summary = browser.find_element(By.TAG_NAME, "summary")
    summary.send_keys(" ")
    assert browser.find_element(By.TAG_NAME, "details").get_property("open")
    command, settings = browser.find_elements(By.TAG_NAME, "pre")
    assert (command.get_property("tabIndex"), settings.get_property("tabIndex")) == (0, 0)
    assert "--set evaluation.samples=1000" in command.text
    assert "evaluation.thresholds.fid_ratio: 10.0" in settings.text
    # Wide enough to be read as lines.
    for value in browser.find_elements(By.CSS_SELECTOR, "details dd"):
        assert value.size["width"] > 150
    assert_sound(browser)


def test_what_comes_from_outside_is_text(execute, pools, show):
    run = execute(pools["first"][0])
    with np.load(Path(run.evaluation.uri) / "samples.npz") as arrays:
        images = dict(arrays)
    hostile = "<script>document.title = 'taken'</script>&amp;"
    run.content["about"]["data"]["source"] = hostile
    browser = show(render_report(run.content, images, [], [hostile], hostile))
    text = browser.find_element(By.TAG_NAME, "body").text
    assert text.count(hostile) == 2


def test_runs_beside_each_other(execute, pools, show):
    runs = [execute(pools[name][0]).content for name in ("first", "second")]
    runs.append(execute(255 - pools["first"][0]).content)
    names = [f"2026-11-2{number} 09:30:00" for number in range(3)]
    for width in (WIDE, PHONE):
        browser = show(render_comparison(list(zip(names, runs, strict=True))), width)
        heads = [head.text for head in browser.find_elements(By.CSS_SELECTOR, "thead th")]
        assert heads[3].endswith("not blessed")
        row = browser.find_element(By.XPATH, "//tr[th[@title='fid']]").text
        for run in runs:
            assert number(run["metrics"]["fid"]["value"]) in row
