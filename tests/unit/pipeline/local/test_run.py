"""What a run shows."""

from pathlib import Path

import pytest

from pipeline.local.run import _short


def test_a_path_is_shown_from_the_working_directory_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "working"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert _short(folder / "outputs") == "outputs"
    assert _short(tmp_path / "outputs") == str(tmp_path / "outputs")
    folder.rmdir()
    assert _short(folder / "outputs") == str(folder / "outputs")
