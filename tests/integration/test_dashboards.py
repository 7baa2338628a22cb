"""Each expression of the dashboards gives data on metrics of a real server and a real pass."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from running_server import ROOT

DASHBOARDS = ROOT / "deploy" / "grafana"
# What Grafana puts in place of its variables; the interval holds the two scrapes.
VARIABLES = {"$__rate_interval": "4m", "$instance": ".*"}


def expressions(name: str) -> list[str]:
    panels = json.loads((DASHBOARDS / f"{name}.json").read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    for variable, value in VARIABLES.items():
        found = [each.replace(variable, value) for each in found]
    return found


def samples(text: str) -> dict[str, float]:
    """By series, as Prometheus names them after a scrape of the instance `a`."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {**sample.labels, "instance": "a"}
            named = ", ".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
            found[f"{sample.name}{{{named}}}"] = sample.value
    return found


def check(folder: Path, tested: list[str], before: str, after: str) -> subprocess.CompletedProcess:
    """Has promtool evaluate each expression after two scrapes, a minute apart.

    An expression passes if it gives at least one value that is a number.
    """
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool (Debian: apt-get install prometheus)")
    first, second = samples(before), samples(after)
    series = [
        {"series": name, "values": f"{first.get(name, '_')} {value}"}
        for name, value in second.items()
    ]
    questions = [
        {
            "expr": f"count(({expression}) > -Inf) > bool 0",
            "eval_time": "1m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for expression in tested
    ]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": questions}
    (folder / "test.yaml").write_text(yaml.safe_dump({"tests": [test]}))
    command = [promtool, "test", "rules", str(folder / "test.yaml")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def scrapes(server) -> list[str]:
    """What the server answers at /metrics before and after three requests."""
    found = []
    body = {"instances": [{"seed": 1, "digit": 7}]}
    for _ in range(2):
        for _ in range(3):
            httpx.post(f"{server.url}/v1/models/digits:predict", json=body, timeout=60)
        found.append(httpx.get(f"{server.url}/metrics").text)
    return found


def test_the_serving_dashboard_has_data(scrapes, tmp_path):
    found = check(tmp_path, expressions("serving"), *scrapes)
    assert found.returncode == 0, found.stdout + found.stderr


def test_an_expression_without_data_is_found(scrapes, tmp_path):
    wrong = ["mnist_gan_serve_nothing", 'mnist_gan_serve_version{instance="b"}', "0 / vector(0)"]
    for expression in wrong:
        assert check(tmp_path, [expression], *scrapes).returncode == 1, expression


@pytest.mark.slow
def test_the_retraining_dashboard_has_data(span_dir, tmp_path):
    textfile = tmp_path / "mnist-gan.prom"
    command = [
        *(sys.executable, "local_runner.py", "retrain", "--preset", "smoke"),
        *("--data-dir", str(span_dir), "--output-dir", str(tmp_path / "out")),
        *("--set", "train.max_steps=20", "--set", f"metrics.textfile={textfile}"),
    ]
    environment = {name: each for name, each in os.environ.items() if name[:6] != "MNIST_"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    text = textfile.read_text()
    found = check(tmp_path, expressions("retraining"), text, text)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("name", ["serving", "retraining"])
def test_a_dashboard_takes_its_data_source_from_a_variable(name):
    dashboard = json.loads((DASHBOARDS / f"{name}.json").read_text())
    source, instance = dashboard["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    users = [instance, *dashboard["panels"]]
    users += [target for panel in dashboard["panels"] for target in panel["targets"]]
    assert {user["datasource"]["uid"] for user in users} == {"${datasource}"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
