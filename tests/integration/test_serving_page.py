"""The server's page in a real browser: each control does what it says, by mouse and by keyboard."""

import base64
import io
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from browser import PHONE, WIDE, contrast, needs_browser, set_window
from PIL import Image
from running_server import RunningServer, start, wait_for
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from models.gan.export import export_generator
from models.gan.networks import build_generator
from models.gan.settings import TrainSettings

pytestmark = [pytest.mark.slow, needs_browser]
# He's weights are large enough for images that differ.
RECIPE = TrainSettings(latent_dim=6, generator_channels=(8, 6, 4), initializer="he")
ROWS = 30
LIMITS = ("--set", f"serve.max_rows={ROWS}", "--set", "serve.timeout_seconds=120")


def predict(server: RunningServer, **inputs: Any) -> dict[str, Any]:
    url = f"{server.url}/v1/models/digits:predict"
    return httpx.post(url, json={"inputs": inputs}, timeout=120).json()["outputs"]


def push(base: Path, recipe: TrainSettings) -> None:
    """Version 5 of a generator that nobody trained, with a card."""
    folder = base / "5"
    export_generator(build_generator(recipe), recipe, str(folder))
    card = {
        "metrics": {"fid": {"value": 0.1461}, "conditional_accuracy": {"value": 0.9964}},
        "settings": {"train": {"conditional": recipe.conditional, "latent": recipe.latent}},
    }
    (folder / "assets.extra" / "model_card.json").write_text(json.dumps(card))


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[dict[bool, RunningServer]]:
    """A server of a conditional generator, by True, and one of another, by False."""
    with ExitStack() as stack:
        running = {}
        for conditional in (True, False):
            base = tmp_path_factory.mktemp("models") / "digits"
            push(base, RECIPE.model_copy(update={"conditional": conditional}))
            running[conditional] = start(base, *LIMITS)
            stack.callback(running[conditional].process.wait)
            stack.callback(running[conditional].process.kill)
        for each in running.values():
            wait_for(each.is_ready)
        yield running


class Page:
    """The page of a server, once it has drawn."""

    def __init__(self, chrome: webdriver.Chrome, address: str) -> None:
        self.chrome = chrome
        chrome.get(address)
        self.until(lambda: self.element("#about").text.startswith("Version 5"))
        self.until(lambda: self.images("draw"))

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(1200):
            if condition():
                return
            time.sleep(0.05)
        raise AssertionError(f"it did not happen; the page says: {self.trouble!r}")

    def element(self, selector: str) -> Any:
        return self.chrome.find_element(By.CSS_SELECTOR, selector)

    def elements(self, selector: str) -> list[Any]:
        return self.chrome.find_elements(By.CSS_SELECTOR, selector)

    def script(self, text: str) -> Any:
        return self.chrome.execute_script(f"return {text}")

    def attributes(self, name: str, attribute: str) -> list[str]:
        where = f"[...document.querySelectorAll('#{name}-images img')]"
        return self.script(f"{where}.map(image => image.{attribute})")

    def images(self, name: str) -> list[bytes]:
        """The files behind the images of a form."""
        return [base64.b64decode(url.split(",", 1)[1]) for url in self.attributes(name, "src")]

    @property
    def trouble(self) -> str:
        return self.element("#trouble").text

    def fill(self, form: str, field: str, value: object) -> None:
        inside = self.element(f"#{form} [name={field}]")
        inside.send_keys(Keys.CONTROL, "a")
        inside.send_keys(str(value))

    def press(self, form: str, text: str) -> None:
        [button] = [b for b in self.elements(f"[data-for={form}] button") if b.text == text]
        button.click()


def drawn(outputs: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(cell["b64"]) for cell in outputs["image_bytes"]]


@pytest.fixture
def page(chrome, servers) -> Iterator[Page]:
    shown = Page(chrome, servers[True].url)
    yield shown
    assert chrome.get_log("browser") == []


def test_digits_seed_and_count(page, servers):
    assert len(page.images("draw")) == ROWS  # it starts with 40, and the server allows 30
    for digit in (3, 8):
        page.element(f"#digits input[value='{digit}']").click()
    page.fill("draw", "count", 5)
    page.fill("draw", "seed", 90)
    expected = predict(servers[True], seed=[90, 91, 92, 93, 94], digit=[3, 8, 3, 8, 3])
    page.until(lambda: page.images("draw") == drawn(expected))
    assert page.attributes("draw", "alt")[:2] == ["a 3, seed 90", "a 8, seed 91"]
    page.element("#another").click()
    page.until(lambda: page.images("draw") not in ([], drawn(expected)))
    assert page.element("#draw [name=seed]").get_property("value") != "90"
    assert "5 images" in page.element("#announcement").get_property("textContent")
    assert "FID 0.146" in page.element("#about").text
    assert "99.6 %" in page.element("#about").text


def test_a_number_in_handwriting(page, servers):
    page.fill("write", "seed", 11)
    page.fill("write", "number", "+1 20-9")
    expected = predict(servers[True], seed=[11, 12, 13, 14], digit=[1, 2, 0, 9])
    page.until(lambda: page.images("write") == drawn(expected))
    assert page.attributes("write", "alt") == ["1", "2", "0", "9"]
    gaps = page.script(
        "[...document.querySelector('#write-images').children].map(i => i.className)"
    )
    assert gaps == ["gap", "", "gap", "", "", "gap", ""]
    page.fill("write", "number", "none")
    page.until(lambda: "at least one digit" in page.trouble)
    page.fill("write", "number", "8")
    page.until(lambda: not page.trouble)


def test_the_walk(page):
    page.until(lambda: len(page.images("walk")) == 25)
    first = page.images("walk")
    assert len(set(first)) > 10
    slider = page.element("#walk [name=place]")
    for key, place in ((Keys.END, 24), (Keys.ARROW_LEFT, 23), (Keys.HOME, 0)):
        slider.send_keys(key)
        assert (
            page.element("#walk-large").get_property("src") == page.attributes("walk", "src")[place]
        )
    Select(page.element("#walk [name=first]")).select_by_value("7")
    page.fill("walk", "from", 1234)
    page.until(lambda: page.images("walk")[0] != first[0])
    assert page.images("walk")[-1] == first[-1]


def test_a_download_is_one_picture(page, chrome, tmp_path):
    behavior = {"behavior": "allow", "downloadPath": str(tmp_path)}
    chrome.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)
    page.fill("draw", "count", 12)
    page.until(lambda: len(page.images("draw")) == 12)
    page.press("draw", "Download PNG")
    page.until(lambda: [path.name for path in tmp_path.iterdir()] == ["digits-draw.png"])
    sheet = np.asarray(Image.open(tmp_path / "digits-draw.png").convert("L"))
    assert sheet.shape == (2 * 112, 10 * 112)
    for place, image in enumerate(page.images("draw")):
        row, column = (112 * number for number in divmod(place, 10))
        found = sheet[row : row + 112 : 4, column : column + 112 : 4]
        np.testing.assert_array_equal(found, np.asarray(Image.open(io.BytesIO(image))))


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
@pytest.mark.parametrize("form", ["draw", "write", "walk"])
def test_the_curl_line_gives_the_same_images(page, chrome, form):
    rights = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    chrome.execute_cdp_cmd("Browser.grantPermissions", rights)
    page.until(lambda: page.images(form))
    page.press(form, "Copy as curl")
    page.until(lambda: "Copied" in page.element("#announcement").get_property("textContent"))
    line = chrome.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    outputs = json.loads(subprocess.check_output(line, shell=True))["outputs"]
    if form == "walk":
        pixels = np.round((np.clip(outputs["image"], -1, 1) + 1) * 127.5)
        shown = [np.asarray(Image.open(io.BytesIO(png)).convert("L")) for png in page.images(form)]
        np.testing.assert_allclose(
            np.stack(shown), pixels[..., 0], atol=1
        )  # halves round otherwise
    else:
        assert page.images(form) == drawn(outputs)


def test_the_keyboard_alone(page, servers):
    chosen, body = [], page.element("body")
    for _ in range(60):
        body.parent.switch_to.active_element.send_keys(Keys.TAB)
        now = body.parent.switch_to.active_element
        outline = (
            now.find_element(By.XPATH, "following-sibling::span")
            if (now.get_attribute("type") == "checkbox")
            else now
        )
        if now.tag_name == "body":
            break
        assert outline.value_of_css_property("outline-style") == "solid"
        chosen.append(now.get_attribute("name") or now.get_attribute("value") or now.text)
    wanted = {*"0123456789", "count", "seed", "number", "first", "from", "last", "to", "place"}
    assert wanted | {"Another seed", "Download PNG", "Copy as curl"} <= set(chosen)
    page.element("#digits input[value='6']").send_keys(Keys.SPACE)
    page.until(lambda: page.attributes("draw", "alt")[:1] == ["a 6, seed 1"])
    page.fill("draw", "count", f"2{Keys.ENTER}")
    page.until(
        lambda: page.images("draw") == drawn(predict(servers[True], seed=[1, 2], digit=[6, 6]))
    )


def test_what_goes_wrong_is_said_in_words(page, chrome):
    page.fill("draw", "count", 31)
    page.until(lambda: page.trouble.startswith("How many: "))
    page.fill("write", "number", "12")
    page.until(lambda: page.attributes("write", "alt") == ["1", "2"])
    assert page.trouble.startswith("How many: ")  # another form that is right does not clear it
    page.script("window.scrollTo(0, document.body.scrollHeight)")
    top = page.script("document.querySelector('#trouble').getBoundingClientRect().top")
    assert 0 <= top < 100
    page.fill("draw", "count", 3)
    page.until(lambda: not page.trouble)
    page.fill("write", "number", "1" * 31)
    page.until(lambda: f"at most {ROWS}" in page.trouble)
    # The browser notes the refused request, as it should.
    assert all("400" in entry["message"] for entry in chrome.get_log("browser"))


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize(("width", "theme"), [(WIDE, "light"), (PHONE, "dark")])
def test_sizes_and_themes(chrome, servers, width, theme, conditional):
    set_window(chrome, width, theme)
    page = Page(chrome, servers[conditional].url)
    page.until(lambda: page.images("walk"))
    assert page.script("document.documentElement.scrollWidth") <= width
    fetched = page.script("performance.getEntriesByType('resource').map(entry => entry.name)")
    outside = [url for url in fetched if not url.startswith((servers[conditional].url, "data:"))]
    assert outside == []
    for image in page.elements("img"):
        assert image.get_attribute("alt")
    for field in page.elements("input, select"):
        assert field.accessible_name or not field.is_displayed()
    dark = page.script("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)"
    assert dark is (theme == "dark")
    for selector in ("#draw-title", ".soft", "button"):
        assert contrast(chrome, selector) >= 4.5, selector
    for selector in ("#digits", "#write", "#walk [name=first]"):
        assert page.element(selector).is_displayed() is conditional
    assert chrome.get_log("browser") == []


def test_a_server_that_has_gone(chrome, servers):
    page = Page(chrome, servers[False].url)
    servers[False].process.kill()
    servers[False].process.wait()
    page.fill("draw", "seed", 2)
    page.until(lambda: page.trouble == "The server does not answer.")
