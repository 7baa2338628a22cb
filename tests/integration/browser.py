"""A real browser, its window, and the contrast of what it shows."""

import re
import shutil

import numpy as np
import pytest
from selenium import webdriver

PROGRAMS = [shutil.which("chromium") or "", shutil.which("chromedriver") or ""]
needs_browser = pytest.mark.skipif(
    not all(PROGRAMS), reason="needs chromium and chromedriver (Debian: chromium-driver)"
)
WIDE, PHONE = 1280, 390


def set_window(chrome: webdriver.Chrome, width: int, theme: str) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def contrast(chrome: webdriver.Chrome, selector: str) -> float:
    """Between an element's text and what it lies on, as WCAG 2 defines it."""
    colors = chrome.execute_script(
        """let element = document.querySelector(arguments[0]);
        const color = getComputedStyle(element).color;
        const behind = e => getComputedStyle(e).backgroundColor;
        while (behind(element) === "rgba(0, 0, 0, 0)") element = element.parentElement;
        return [color, behind(element)];""",
        selector,
    )
    values = np.array([[int(part) for part in re.findall(r"\d+", each)[:3]] for each in colors])
    linear = values / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return (light + 0.05) / (dark + 0.05)
