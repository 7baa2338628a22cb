"""The metadata store's errors, as a user reads them."""

from pathlib import Path

import pytest

from pipeline.local.metadata import Database, DatabaseError


def test_a_file_that_is_no_database_is_named_without_the_sql(tmp_path: Path) -> None:
    file = tmp_path / "metadata.sqlite"
    file.write_text("junk")
    with pytest.raises(DatabaseError) as caught:
        Database(file).open()
    assert caught.value.what.endswith(": file is not a database")
    assert caught.value.where == str(file)
    assert "local_runner.py run" in caught.value.fix
