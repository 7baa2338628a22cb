"""The output folder, as the settings name it."""

from pathlib import Path

import pytest

from pipeline.local.errors import UsageError
from pipeline.local.paths import OutputPaths
from pipeline.settings.sections import Settings


def test_a_folder_may_be_made_later(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    assert OutputPaths.of(Settings(output_dir=str(root))).root == root
    assert not root.parent.exists()


@pytest.mark.parametrize("below", ["", "b/c"])
def test_a_file_is_no_output_folder(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError) as caught:
        OutputPaths.of(Settings(output_dir=str(file / below)))
    assert caught.value.where == str(file)
    assert "--output-dir" in caught.value.fix


def test_a_path_that_is_a_pattern_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        OutputPaths.of(Settings(output_dir=str(tmp_path / "run[1]")))
    assert str(tmp_path / "run[1]") in caught.value.where
