"""Programs that others wrote read a served PNG and the mark in it."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from browser import needs_browser

from models.gan.image_mark import SOURCE_TYPE


def needs(program: str, package: str) -> pytest.MarkDecorator:
    reason = f"needs {program} (Debian: {package})"
    return pytest.mark.skipif(shutil.which(program) is None, reason=reason)


@pytest.fixture
def seven(server, tmp_path) -> Path:
    """A served image."""
    url = f"{server.url}/v1/models/digits:predict"
    answer = httpx.post(url, json={"instances": [{"seed": 3, "digit": 7}]}, timeout=60)
    [row] = answer.json()["predictions"]
    path = tmp_path / "seven.png"
    path.write_bytes(base64.b64decode(row["image_bytes"]["b64"]))
    return path


@needs("exiftool", "libimage-exiftool-perl")
def test_exiftool_shows_the_source_type(seven):
    command = ["exiftool", "-n", "-json", "-G1", str(seven)]
    [found] = json.loads(subprocess.check_output(command))
    assert found["XMP-iptcExt:DigitalSourceType"] == SOURCE_TYPE
    assert found["PNG:Software"] == "mnist-gan-tfx"
    assert int(found["PNG:Seed"]) == 3
    assert int(found["PNG:Digit"]) == 7
    assert "ExifTool:Warning" not in found


@needs("pngcheck", "pngcheck")
def test_pngcheck_finds_no_fault(seven):
    found = subprocess.check_output(["pngcheck", "-v", str(seven)], text=True)
    assert "No errors detected" in found


@pytest.mark.slow
@needs_browser
def test_chromium_shows_the_image(seven, chrome):
    chrome.get(seven.as_uri())
    script = "const image = document.images[0]; return [image.naturalWidth, image.naturalHeight]"
    assert chrome.execute_script(script) == [28, 28]
