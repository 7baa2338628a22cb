"""The connection: signing in, deadlines, retries, and one error for each way in which it fails."""

import socket
from collections.abc import Iterator
from pathlib import Path

import kfp.client
import pytest
from kfp_stand_in import Fault, Refusal, Request, StandIn, serving

from pipeline.kubeflow.client.cluster import Cluster, ClusterError, RetryPolicy
from pipeline.kubeflow.client.schedule import list_schedules

QUICK = RetryPolicy(connect=5, answer=5, attempts=3, first_pause=0.001)
SECRET = "s3cr3t-t0k3n"


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with serving() as server:
        yield server


# Signing in.


def test_a_token_comes_from_the_environment(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.authorization = f"Bearer {SECRET}"
    monkeypatch.setenv("KF_PIPELINES_TOKEN", f"{SECRET}\n")
    assert list_schedules(Cluster(stand_in.url, retry=QUICK)) == []


def test_a_token_file_is_read_for_each_request(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(path))
    stand_in.authorization = "Bearer first"
    cluster = Cluster(stand_in.url, retry=QUICK)
    path.write_text("second\n")  # as a cluster does before the old one expires
    stand_in.authorization = "Bearer second"
    assert list_schedules(cluster) == []


def test_a_cookie_comes_from_the_environment_or_a_file(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in.cookie = f"authservice_session={SECRET}"
    path = tmp_path / "cookie"
    path.write_text(f"{stand_in.cookie}\n")
    monkeypatch.setenv("KF_PIPELINES_COOKIE_FILE", str(path))
    assert list_schedules(Cluster(stand_in.url, retry=QUICK)) == []
    monkeypatch.setenv("KF_PIPELINES_COOKIE", "authservice_session=other")
    with pytest.raises(ClusterError) as failure:
        Cluster(stand_in.url, retry=QUICK)
    assert failure.value.status == 401


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KF_PIPELINES_TOKEN", f"{SECRET}\n{SECRET}"),
        ("KF_PIPELINES_TOKEN", f"{SECRET}\u20ac"),
        ("KF_PIPELINES_COOKIE", f"a={SECRET}\r\nX-B: c"),
        ("KF_PIPELINES_COOKIE_FILE", "/none/such"),
        ("KF_PIPELINES_SA_TOKEN_PATH", "/none/such"),
    ],
)
def test_a_secret_that_cannot_be_sent_is_refused_and_not_shown(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ClusterError) as failure:
        Cluster(stand_in.url, retry=QUICK)
    assert SECRET not in str(failure.value)
    assert stand_in.requests == []


def test_a_failing_sign_in_with_google_is_an_error(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kfp.client.auth, "LOCAL_KFP_CREDENTIAL", str(tmp_path / "none"))
    monkeypatch.setenv("KF_PIPELINES_IAP_OAUTH2_CLIENT_ID", "client-id")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(ClusterError):
        Cluster(stand_in.url, retry=QUICK)


# The host and the namespace.


def test_the_host_is_the_option_else_that_of_the_environment(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", f"{stand_in.url}/")
    assert Cluster(None, retry=QUICK).host == stand_in.url
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://nowhere.invalid")
    assert Cluster(stand_in.url, retry=QUICK).host == stand_in.url


@pytest.mark.parametrize(
    "host",
    [None, f"http://me:{SECRET}@localhost", "ftp://localhost", "http://", f"http://me:{SECRET}@[::1",
     "http://local host:80"],
)  # fmt: skip
def test_a_host_that_is_no_address_is_refused(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, host: str | None
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterError) as failure:
        Cluster(host, retry=QUICK)
    assert SECRET not in str(failure.value)


def test_an_installation_with_several_users_needs_a_namespace(stand_in: StandIn) -> None:
    stand_in.multi_user = True
    with pytest.raises(ClusterError) as failure:
        Cluster(stand_in.url, retry=QUICK)
    assert "--namespace" in failure.value.fix
    assert list_schedules(Cluster(stand_in.url, "alice", QUICK)) == []
    assert stand_in.requests[-1].query["namespace"] == "alice"


# Failures.


def test_a_closed_port_is_an_error_that_may_pass() -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError) as failure:
            Cluster(host, retry=QUICK)
    assert failure.value.may_pass
    assert failure.value.what == "no connection: Connection refused"
    assert failure.value.where == host


def test_tls_on_a_plain_port_is_an_error_that_lasts(stand_in: StandIn) -> None:
    with pytest.raises(ClusterError) as failure:
        Cluster(stand_in.url.replace("http", "https"), retry=QUICK)
    assert not failure.value.may_pass
    assert "SSL_CERT_FILE" in failure.value.fix


def test_a_server_that_hangs_is_given_up(stand_in: StandIn) -> None:
    stand_in.faults = iter([Fault("hang")])
    with pytest.raises(ClusterError) as failure:
        Cluster(stand_in.url, retry=RetryPolicy(answer=0.2, attempts=1))
    assert failure.value.may_pass


@pytest.mark.parametrize(
    ("fault", "fix"),
    [
        (Fault("status", status=401), "KF_PIPELINES_TOKEN"),
        (Fault("status", status=403), "--namespace"),
        (Fault("status", status=404), ""),
        (Fault("page"), "KF_PIPELINES_TOKEN"),
    ],
)
def test_a_failure_that_lasts_is_reported_at_once(
    stand_in: StandIn, fault: Fault, fix: str
) -> None:
    cluster = Cluster(stand_in.url, retry=QUICK)
    stand_in.faults = iter([fault])
    with pytest.raises(ClusterError) as failure:
        list_schedules(cluster)
    assert fix in failure.value.fix
    assert "answer-secret" not in str(failure.value)
    assert len(stand_in.requests) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=500),
        Fault("status", status=429),
        Fault("drop"),
        Fault("half", carried_out=True),
        Fault("cut", carried_out=True),
    ],
)
def test_a_request_without_effect_is_repeated(stand_in: StandIn, fault: Fault) -> None:
    cluster = Cluster(stand_in.url, retry=QUICK)
    stand_in.faults = iter([fault, fault])
    assert list_schedules(cluster) == []
    stand_in.faults = iter([fault] * 3)
    with pytest.raises(ClusterError):
        list_schedules(cluster)
    assert len(stand_in.requests) == 1 + 3 + 3


def test_a_spec_that_the_backend_refuses_is_sent_once_and_shown_without_go_stack(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text that release 2.17.0 answers to a component that is not there."""
    why = 'Internal error: processing component name="root": cannot find component ref "x"'
    stack = "github.com/kubeflow/pipelines/backend/src/common/util.Wrap\n\t/go/util/error.go:361"

    def refuse(request: Request) -> None:
        raise Refusal(500, f"{why}\nFailed to compile job\n{stack}")

    cluster = Cluster(stand_in.url, retry=QUICK)
    monkeypatch.setattr(stand_in, "answer", refuse)
    with pytest.raises(ClusterError) as failure:
        cluster.retry(cluster.client.disable_recurring_run, "any")
    assert failure.value.what.endswith(f"{why} Failed to compile job")
    assert len(stand_in.requests) == 2


# Experiments.


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("kind", ["status", "drop", "half"])
@pytest.mark.parametrize("place", [0, 1])
def test_an_experiment_is_created_once_whatever_fails(
    stand_in: StandIn, place: int, kind: str, carried_out: bool
) -> None:
    cluster = Cluster(stand_in.url, retry=QUICK)
    stand_in.faults = iter([*[None] * place, Fault(kind, carried_out, 503)])
    first = cluster.experiment_id("digits")
    assert cluster.experiment_id("digits") == first
    assert [each.display_name for each in stand_in.experiments.values()] == ["digits"]


def test_an_experiment_that_another_process_creates_meanwhile_is_used(stand_in: StandIn) -> None:
    cluster = Cluster(stand_in.url, retry=QUICK)
    stand_in.faults = iter([None, Fault("status", True, 409)])
    assert cluster.experiment_id("digits") in stand_in.experiments
