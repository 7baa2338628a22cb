"""What `local_runner.py serve` says of a folder before it loads anything."""

from pathlib import Path

import pytest

from serving.server import ServeError, serve
from serving.settings import ServeSettings


def test_a_folder_that_may_not_be_read_is_said(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ServeError, match="cannot be looked into: Permission denied"):
        serve(tmp_path, ServeSettings(), host="127.0.0.1", port=0)
