"""When a pass of retraining has a reason, and what it tells."""

import dataclasses
import json
from pathlib import Path

import pytest

from components.pusher.versions import push_files
from pipeline.config import Resolved, resolve
from pipeline.local.places import UsageError
from pipeline.local.retrain import retrain
from pipeline.local.run import Outcome
from pipeline.webhook import ADDRESS_VARIABLE, RunReport, notify

DONE = RunReport(
    "not blessed", "the data are new", 3, "2026-11-23T09:00:00", 7, 12.25, ["recall"], 60.0
)


@pytest.fixture
def settings(tmp_path: Path, span_dir: Path) -> Resolved:
    options = {
        "output_dir": (str(tmp_path / "out"), "the test"),
        "data.dir": (str(span_dir), "the test"),
    }
    return resolve("smoke", environ={}, assignments=(), options=options)


@pytest.fixture
def served(settings: Resolved, tmp_path: Path) -> int:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"graph")
    return push_files(str(tmp_path / "model"), str(tmp_path / "out" / "serving" / "mnist_gan"))


def test_a_young_model_is_no_reason(settings, served):
    outcome, done = retrain(settings, "age:1h", verbose=False)
    assert outcome == Outcome.PUSHED
    assert dataclasses.replace(done, reason="", seconds=0.0) == RunReport(
        "nothing to do", "", 1, None, served, None, [], 0.0
    )
    assert str(served) in done.reason
    assert json.loads(done.as_json())["version"] == served
    assert "\n" not in done.as_json()


@pytest.mark.parametrize("condition", ["age:7", "age:x", "weekly", "", "age:7d "])
def test_an_unknown_condition_is_refused(settings, condition):
    with pytest.raises(UsageError, match=r"expected new-data, age:<N>d"):
        retrain(settings, condition, verbose=False)


def test_the_webhook_is_told_as_slack_reads_it(httpserver):
    httpserver.expect_request("/hook", method="POST").respond_with_data("ok")
    notify({ADDRESS_VARIABLE: httpserver.url_for("/hook")}, DONE)
    [(request, _)] = httpserver.log
    said = request.get_json()
    assert said["text"] == ("MNIST GAN: not blessed (the data are new), FID 12.250, failed recall")
    assert {name: said[name] for name in dataclasses.asdict(DONE)} == dataclasses.asdict(DONE)


def test_a_webhook_that_fails_at_first_is_told(httpserver):
    httpserver.expect_ordered_request("/hook").respond_with_data("", status=500)
    httpserver.expect_ordered_request("/hook").respond_with_data("ok")
    notify({ADDRESS_VARIABLE: httpserver.url_for("/hook")}, DONE)
    assert [response.status_code for _, response in httpserver.log] == [500, 200]


def test_a_webhook_that_is_down_fails_no_pass_and_is_not_named(capsys):
    notify({ADDRESS_VARIABLE: "http://127.0.0.1:9/secret"}, DONE)
    said = capsys.readouterr().out
    assert ADDRESS_VARIABLE in said
    assert "secret" not in said
