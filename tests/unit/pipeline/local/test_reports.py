"""A run's report is kept whole or not at all."""

import pytest

from pipeline.local.history import RunRecord
from pipeline.local.paths import Places
from pipeline.local.reports import keep_report


def test_a_report_that_cannot_be_copied_leaves_nothing(tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("page")
    record = RunRecord(
        "2026-11-23T09:00:00.000001",
        report_uri=str(tmp_path / "report"),
        evaluation_uri=str(tmp_path / "gone"),
    )
    places = Places(tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        keep_report(places, record)
    assert list(places.reports.iterdir()) == []
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "evaluation.json").write_text("{}")
    page = keep_report(places, record)
    assert page is not None
    assert page.read_text() == "page"
