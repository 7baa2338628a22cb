"""Files beside a version that others wrote, or that an earlier release left."""

import json

import pytest

from registry.history import Event, add_event, now, read_history
from registry.layout import DATA_STATISTICS, MODEL_CARD, STATISTICS_FILES
from registry.model_card import card_files
from registry.records import (
    ModelCard,
    data_fingerprints,
    read_card,
    read_statistics,
    statistics_files,
)

NO_DOCUMENTS = [b"", b"{", b"null", b"[]", b"5", b'"text"', b"[" * 100_000, b"\xff\xfe"]


def write(folder, path, content) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        *NO_DOCUMENTS,
        b'{"metrics": []}',
        b'{"metrics": {"fid": 5}}',
        b'{"metrics": {"fid": {"value": "1"}}}',
        b'{"data": {"span": "3"}}',
        b'{"data": [1]}',
        b'{"settings": {"train": []}}',
    ],
)
def test_a_card_that_does_not_fit_is_an_empty_one(tmp_path, content):
    assert read_card(tmp_path) == ModelCard()
    write(tmp_path, MODEL_CARD, content)
    assert read_card(tmp_path) == ModelCard()


def test_a_card_says_what_the_evaluation_said(tmp_path):
    about = {"created": "today", "data": {"span": 3, "fingerprint": "f", "counts": {}}}
    fid = {"title": "FID", "direction": "lower", "unit": ""}
    metrics = {"fid": {**fid, "value": 1.5, "interval": [1, 2], "floor": None}}
    evaluation = {
        "about": {**about, "train": {"seed": 1}, "evaluation": {"fid_samples": 10}},
        "metrics": metrics,
        "samples": 10,
    }
    for path, content in card_files(evaluation).items():
        write(tmp_path, path, content)
    card = read_card(tmp_path)
    assert (card.metric("fid"), card.metric("kid")) == (1.5, None)
    assert (card.data.span, card.data.fingerprint) == (3, "f")
    assert card.settings["train"] == {"seed": 1}
    write(tmp_path, MODEL_CARD, card_files(None)[MODEL_CARD])
    assert read_card(tmp_path).metric("fid") is None


@pytest.mark.parametrize("content", [*NO_DOCUMENTS, b'{"spans": [1]}', b'{"spans": null}'])
def test_statistics_that_do_not_say_whose_they_are(tmp_path, content):
    write(tmp_path, f"{DATA_STATISTICS}/data.json", content)
    assert data_fingerprints(tmp_path) is None
    assert read_statistics(tmp_path) is None


def test_statistics_are_read_as_they_were_pushed(tmp_path):
    spans = json.dumps({"spans": [{"span": 1, "fingerprint": "a"}]}).encode()
    contents = dict(zip(STATISTICS_FILES, (b"statistics", b"means", spans), strict=True))
    for path, content in statistics_files(contents).items():
        write(tmp_path, path, content)
    assert read_statistics(tmp_path) == contents
    assert data_fingerprints(tmp_path) == ["a"]


EVENT = Event(event="retire", at=now(), version=7, reason="old")


@pytest.mark.parametrize(
    "line",
    [
        *NO_DOCUMENTS,
        b'{"at": "2026-11-2',
        b'{"event": "other", "at": "2026-11-23T00:00:00Z", "version": 1, "reason": ""}',
        b'{"event": "retire", "at": "2026-11-23T00:00:00", "version": 1, "reason": ""}',
        b'{"event": "retire", "at": "2026-11-23T00:00:00Z", "version": "1", "reason": ""}',
    ],
)
def test_a_line_of_the_history_that_is_no_event_is_left_out(tmp_path, line):
    add_event(tmp_path, EVENT)
    with open(tmp_path / ".history.jsonl", "ab") as file:
        file.write(line)
    assert read_history(tmp_path) == [EVENT]
    # Nor is the event that comes after it lost.
    add_event(tmp_path, EVENT)
    assert read_history(tmp_path) == [EVENT, EVENT]
