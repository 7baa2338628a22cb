"""The metrics of retraining, as Prometheus reads them, and the alerts on them."""

import datetime
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from mnist.quarantine import quarantine, release
from pipeline.cli.models import show_models
from pipeline.local.paths import OutputPaths
from pipeline.retraining.records import VERIFICATIONS, Pass, add_pass
from pipeline.retraining.textfile import OUTCOMES, export_metrics
from pipeline.retraining.webhook import RunReport
from pipeline.settings.resolution import Resolved, resolve
from registry.layout import MODEL_CARD, version_dir
from registry.records import read_record

ROOT = Path(__file__).parents[4]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
NIGHT = datetime.datetime(2026, 11, 23, 3, tzinfo=datetime.timezone.utc)


@pytest.fixture
def settings(tmp_path: Path) -> Resolved:
    values = {
        "output_dir": str(tmp_path / "out"),
        "data.dir": str(tmp_path / "data"),
        "metrics.textfile": str(tmp_path / "node" / "mnist-gan.prom"),
    }
    options = {key: (value, "the test") for key, value in values.items()}
    return resolve("smoke", environ={}, options=options)


def scrape(settings: Resolved) -> dict[str, float]:
    """What Prometheus' own parser makes of the file; labels are added to names."""
    export_metrics(settings.settings)
    [file] = Path(settings.settings.metrics.textfile or "").parent.iterdir()
    found = {}
    for family in text_string_to_metric_families(file.read_text()):
        assert family.documentation
        for sample in family.samples:
            found[sample.name + "".join(sample.labels.values())] = sample.value
    return {name.removeprefix("mnist_gan_"): value for name, value in found.items()}


def write_pass(settings: Resolved, night: int, outcome: str, **more) -> datetime.datetime:
    """Writes a pass of a minute down and says when it ended."""
    moment = NIGHT + datetime.timedelta(days=night)
    report = RunReport(outcome, "", seconds=60.0, **more)
    add_pass(Path(settings.settings.output_dir), Pass(moment, report))
    return moment + datetime.timedelta(seconds=60)


@pytest.fixture
def served(settings: Resolved, push_graph: Callable[..., int]) -> Path:
    """The folder of a version with a card."""
    card = {"data": {"span": 2}, "metrics": {"fid": {"value": 1.25}}}
    base = OutputPaths.of(settings.settings).versions
    extra = {MODEL_CARD: json.dumps(card).encode()}
    return version_dir(base, push_graph(base, extra_files=extra))


def test_nothing_is_written_unasked(tmp_path):
    options = {"output_dir": (str(tmp_path / "out"), "the test")}
    export_metrics(resolve("smoke", environ={}, options=options).settings)
    assert not list(tmp_path.iterdir())


def test_what_is_not_known_is_left_out(settings):
    assert scrape(settings) == {"spans_quarantined": 0}


def test_the_textfile_says_what_there_is(settings, served, tmp_path):
    for span in (1, 2, 5, 6):
        (tmp_path / "data" / f"span-{span}").mkdir(parents=True)
    good = write_pass(settings, 0, "not blessed", fid=2.5)
    write_pass(settings, 1, "failed")
    last = write_pass(settings, 2, "not started")
    write_pass(settings, 3, "stopped")
    held = str(tmp_path / "out" / "serving" / "quarantine.json")
    quarantine(held, {5: ("fingerprint", "noise"), 6: ("fingerprint", "noise")}, "run")
    release(held, 6)
    pushed = read_record(served).pushed_at
    assert scrape(settings) == {
        "last_pass_timestamp_seconds": last.timestamp(),
        "last_success_timestamp_seconds": good.timestamp(),
        "last_pass_duration_seconds": 60,
        "last_run_fid": 2.5,
        "failed_passes": 2,
        "served_version": int(served.name),
        "served_version_pushed_timestamp_seconds": pushed.timestamp(),
        "served_version_fid": 1.25,
        "served_version_span": 2,
        "spans_quarantined": 1,
        "spans_waiting": 3,  # no run has judged any: 1, 2 and the one that was released
        **{f"last_pass_outcome{outcome}": float(outcome == "stopped") for outcome in OUTCOMES},
    }


def test_a_card_that_was_damaged_by_hand_fails_nothing(settings, served, capsys):
    (served / MODEL_CARD).write_text("{")
    show_models(settings.settings)
    assert served.name in capsys.readouterr().out
    found = scrape(settings)
    assert found["served_version"] == int(served.name)
    assert "served_version_fid" not in found


def test_a_textfile_that_cannot_be_written_fails_nothing(settings, tmp_path, capsys):
    (tmp_path / "node").write_text("a file where the folder should be")
    export_metrics(settings.settings)
    assert "metrics.textfile" in capsys.readouterr().err


def alerts() -> list[dict]:
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    return group["rules"]


def test_alerts_speak_of_metrics_that_there_are(settings, served, tmp_path):
    (tmp_path / "data" / "span-1").mkdir(parents=True)
    write_pass(settings, 0, "pushed", fid=1.0)
    verified = Pass(NIGHT, RunReport("as blessed", "", seconds=60.0, fid=2.5))
    add_pass(tmp_path / "out", verified, VERIFICATIONS)
    known = {f"mnist_gan_{name}" for name in scrape(settings)}
    named = {name for rule in alerts() for name in re.findall(r"mnist_gan_\w+", rule["expr"])}
    assert named
    assert named <= known


def test_the_runbook_knows_each_alert():
    text = (ROOT / "docs" / "operations.md").read_text()
    for rule in alerts():
        assert f"`{rule['alert']}`" in text
        assert rule["annotations"]["description"] == f"docs/operations.md, {rule['alert']}"


DAY = 86_400
# Each series over ten days, a value every 5 minutes from 1970 on, where promtool's clock begins;
# and which alerts there are at their end.
CASES: list[tuple[dict[str, str], set[str]]] = [
    (
        {
            "last_pass_timestamp_seconds": "0+300x2880",
            "served_version": "7x2880",
            "served_version_pushed_timestamp_seconds": "0+300x2880",
            "last_verification_as_blessed": "1x2880",
            "failed_passes": "0x2880",
            "spans_waiting": "0x2880",
            "spans_quarantined": "0x2880",
        },
        set(),
    ),
    ({}, {"MnistGanNoMetrics"}),
    (
        {
            "last_pass_timestamp_seconds": "0x2880",
            "failed_passes": "2x2880",
            "spans_waiting": "1x2880",
            "spans_quarantined": "1x2880",
            "last_verification_as_blessed": "0x2880",
        },
        {
            "MnistGanNotAsBlessed",
            "MnistGanNothingServed",
            "MnistGanNoPass",
            "MnistGanPassesFail",
            "MnistGanSpansWaiting",
            "MnistGanSpansQuarantined",
        },
    ),
    (
        {
            "last_pass_timestamp_seconds": "0+300x2880",
            "served_version": "7x2880",
            "served_version_pushed_timestamp_seconds": f"-{5 * DAY}x2880",
        },
        {"MnistGanNoFreshModel"},
    ),
]


def test_prometheus_takes_the_rules_and_raises_what_it_should(tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool (Debian: apt-get install prometheus)")
    subprocess.run([promtool, "check", "rules", str(ALERTS)], check=True)
    tests = [
        {
            "interval": "5m",
            "input_series": [
                {"series": f'mnist_gan_{name}{{instance="a"}}', "values": values}
                for name, values in series.items()
            ],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": "10d",
                    "exp_samples": [
                        {"labels": f'{{alertname="{name}"}}', "value": 1} for name in raised
                    ],
                }
            ],
        }
        for series, raised in CASES
    ]
    content = {"rule_files": [str(ALERTS)], "evaluation_interval": "1h", "tests": tests}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(content))
    subprocess.run([promtool, "test", "rules", str(tmp_path / "test.yaml")], check=True)


def test_prometheus_takes_the_textfile(settings):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool (Debian: apt-get install prometheus)")
    write_pass(settings, 0, "pushed", fid=1.0)
    export_metrics(settings.settings)
    text = Path(settings.settings.metrics.textfile or "").read_text()
    found = subprocess.run(
        [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")
