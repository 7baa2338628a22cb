"""What the webhook is told, and that its failures stay its own."""

import dataclasses

import pytest

from pipeline.retraining.webhook import ADDRESS_VARIABLE, RunReport, notify

DONE = RunReport(
    "not blessed", "the data are new", 3, "2026-11-23T09:00:00", 7, 12.25, ["recall"], 60.0
)


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (DONE, "MNIST GAN: not blessed (the data are new), FID 12.250, failed recall"),
        (
            RunReport("nothing to do", "why", quarantined=[2]),
            "MNIST GAN: nothing to do (why), quarantined span 2",
        ),
        (RunReport("failed", "why", error="DataGate: x"), "MNIST GAN: failed (why). DataGate: x"),
    ],
)
def test_the_webhook_is_told_as_slack_reads_it(httpserver, report, text):
    httpserver.expect_request("/hook", method="POST").respond_with_data("ok")
    notify({ADDRESS_VARIABLE: httpserver.url_for("/hook")}, report)
    [(request, _)] = httpserver.log
    assert request.get_json() == dataclasses.asdict(report) | {"text": text}


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
