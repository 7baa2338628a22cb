"""The connection: signing in, and one clear message for each way in which it fails."""

import socket
from collections.abc import Iterator
from pathlib import Path

import kfp.client
import pytest
from kfp_stand_in import Fault, StandIn, serving

from pipeline.kubeflow.client.cluster import Cluster, Patience
from pipeline.kubeflow.client.errors import ClusterError
from pipeline.kubeflow.client.schedule import find_schedules, list_recurring_runs

QUICK = Patience(connect=5, answer=5, attempts=3, first_pause=0.001, longest_pause=0.002)
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
    assert list_recurring_runs(Cluster(stand_in.url, patience=QUICK)) == []


def test_a_tokens_file_is_read_anew_for_each_request(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(path))
    stand_in.authorization = "Bearer first"
    cluster = Cluster(stand_in.url, patience=QUICK)
    path.write_text("second\n")  # as a cluster does before the old one expires
    stand_in.authorization = "Bearer second"
    assert list_recurring_runs(cluster) == []
    path.unlink()
    with pytest.raises(ClusterError, match=r"cannot sign in to .*: No such file"):
        list_recurring_runs(cluster)


def test_a_cookie_comes_from_the_environment_or_a_file(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in.cookie = f"authservice_session={SECRET}"
    path = tmp_path / "cookie"
    path.write_text(f"{stand_in.cookie}\n")
    monkeypatch.setenv("KF_PIPELINES_COOKIE_FILE", str(path))
    assert list_recurring_runs(Cluster(stand_in.url, patience=QUICK)) == []
    monkeypatch.setenv("KF_PIPELINES_COOKIE", "authservice_session=other")
    with pytest.raises(ClusterError, match="401"):
        Cluster(stand_in.url, patience=QUICK)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("KF_PIPELINES_TOKEN", f"{SECRET}\n{SECRET}", "KF_PIPELINES_TOKEN is not one line"),
        ("KF_PIPELINES_TOKEN", f"{SECRET}é", "KF_PIPELINES_TOKEN is not one line"),
        ("KF_PIPELINES_COOKIE", f"a={SECRET}\r\nX-B: c", "KF_PIPELINES_COOKIE is not one line"),
        ("KF_PIPELINES_COOKIE_FILE", "/none/such", "KF_PIPELINES_COOKIE_FILE names: No such file"),
        (
            "KF_PIPELINES_SA_TOKEN_PATH",
            "/none/such",
            "KF_PIPELINES_SA_TOKEN_PATH names: No such file",
        ),
    ],
)
def test_a_secret_that_no_request_can_carry_is_refused_and_not_shown(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ClusterError, match=message) as failure:
        Cluster(stand_in.url, patience=QUICK)
    assert SECRET not in str(failure.value)
    assert stand_in.requests == []


def test_googles_sign_in_fails_with_a_clear_message(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kfp.client.auth, "LOCAL_KFP_CREDENTIAL", str(tmp_path / "none"))
    monkeypatch.setenv("KF_PIPELINES_IAP_OAUTH2_CLIENT_ID", "client-id")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(ClusterError, match=r"Google's sign-in failed: .*none\.json"):
        Cluster(stand_in.url, patience=QUICK)


def test_a_damaged_context_of_kfp_is_a_clear_message(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "context.json"
    path.write_text("{")
    monkeypatch.setattr(kfp.client.Client, "_LOCAL_KFP_CONTEXT", str(path))
    with pytest.raises(ClusterError, match=r"are the files in ~/\.config/kfp whole"):
        Cluster(stand_in.url, patience=QUICK)


# Where.


def test_the_host_is_the_options_else_the_environments(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", f"{stand_in.url}/")
    assert Cluster(None, patience=QUICK).host == stand_in.url
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://nowhere.invalid")
    assert Cluster(stand_in.url, patience=QUICK).host == stand_in.url


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (None, r"no host: pass --host or set \$KF_PIPELINES_ENDPOINT"),
        (f"http://me:{SECRET}@localhost", "the host holds a name or password"),
        ("ftp://localhost", "'ftp://localhost' is not a URL"),
        ("http://", "'http://' is not a URL"),
        (f"http://me:{SECRET}@[::1", "the host is not a URL"),
        ("http://local host:80", "is not a URL|no request can be made|cannot reach"),
    ],
)
def test_a_host_that_cannot_be_is_refused(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, host: str | None, message: str
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterError, match=message) as failure:
        Cluster(host, patience=QUICK)
    assert SECRET not in str(failure.value)


def test_an_installation_of_several_users_wants_a_namespace(stand_in: StandIn) -> None:
    stand_in.multi_user = True
    with pytest.raises(ClusterError, match="pass --namespace"):
        Cluster(stand_in.url, patience=QUICK)
    assert list_recurring_runs(Cluster(stand_in.url, "alice", QUICK)) == []
    assert stand_in.requests[-1].query["namespace"] == "alice"


def test_a_path_without_the_api_is_a_clear_message(stand_in: StandIn) -> None:
    with pytest.raises(ClusterError, match=r"404 Not Found: Not Found\. Is the API below another"):
        Cluster(f"{stand_in.url}/hub", patience=QUICK)


# Failures.


def test_a_closed_port_is_a_clear_message(stand_in: StandIn) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError, match=rf"cannot reach {host}: .*Connection refused\. Is"):
            Cluster(host, patience=QUICK)


def test_speaking_tls_to_a_plain_port_is_a_clear_message(stand_in: StandIn) -> None:
    with pytest.raises(ClusterError, match="no secure connection to https://"):
        Cluster(stand_in.url.replace("http", "https"), patience=QUICK)


def test_a_server_that_hangs_is_given_up(stand_in: StandIn) -> None:
    stand_in.faults = iter([Fault("hang")])
    with pytest.raises(ClusterError, match=r"no answer within 0\.2 s"):
        Cluster(stand_in.url, patience=Patience(answer=0.2))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("status", status=401), "answered 401 Unauthorized: injected. Sign in with a token"),
        (Fault("status", status=403), r"answered 403 .* Is the namespace \(none given\) yours"),
        (Fault("status", status=404), "answered 404 Not Found: injected"),
        (Fault("page"), "answers with a page, not with the API"),
    ],
)
def test_a_failure_that_lasts_is_told_at_once(
    stand_in: StandIn, fault: Fault, message: str
) -> None:
    cluster = Cluster(stand_in.url, patience=QUICK)
    stand_in.faults = iter([fault])
    with pytest.raises(ClusterError, match=message) as failure:
        find_schedules(cluster, "nightly")
    assert "answer-secret" not in str(failure.value)
    assert len(stand_in.requests) == 2


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("status", status=500), "answered 500 Internal Server Error: injected"),
        (Fault("status", status=429), "answered 429"),
        (Fault("drop"), "the connection ended before the answer did"),
        (Fault("half", carried_out=True), "the connection ended before the answer did"),
        (Fault("cut", carried_out=True), "is not understood: it is not whole"),
    ],
)
def test_a_failure_that_may_pass_is_waited_for(
    stand_in: StandIn, fault: Fault, message: str
) -> None:
    cluster = Cluster(stand_in.url, patience=QUICK)
    stand_in.faults = iter([fault, fault])
    assert find_schedules(cluster, "nightly") == []
    stand_in.faults = iter([fault] * 3)
    with pytest.raises(ClusterError, match=message):
        find_schedules(cluster, "nightly")
    assert len(stand_in.requests) == 1 + 3 + 3


@pytest.mark.filterwarnings("ignore")
def test_half_an_answer_is_an_empty_list_to_kfp_alone(stand_in: StandIn) -> None:
    cluster = Cluster(stand_in.url, patience=Patience(attempts=1))
    cluster.experiment_id("digits")
    alone = kfp.client.Client(stand_in.url)
    for fault in (Fault("cut", carried_out=True), Fault("page")):
        stand_in.faults = iter([fault, fault])
        assert alone.list_experiments().experiments is None
        with pytest.raises(ClusterError):
            cluster.experiment_id("digits")


# Experiments.


def test_an_experiment_is_made_once(stand_in: StandIn) -> None:
    cluster = Cluster(stand_in.url, patience=QUICK)
    first = cluster.experiment_id("digits")
    assert cluster.experiment_id("digits") == first
    assert [each.display_name for each in stand_in.experiments.values()] == ["digits"]


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("kind", ["status", "drop", "half", "cut"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_experiment_is_made_once_whatever_fails(
    stand_in: StandIn, place: int, kind: str, carried_out: bool
) -> None:
    cluster = Cluster(stand_in.url, patience=QUICK)
    stand_in.faults = iter([*[None] * place, Fault(kind, carried_out)])
    cluster.experiment_id("digits")
    assert [each.display_name for each in stand_in.experiments.values()] == ["digits"]


def test_an_experiment_that_somebody_else_has_just_made_is_taken(stand_in: StandIn) -> None:
    cluster = Cluster(stand_in.url, patience=QUICK)
    stand_in.faults = iter([None, Fault("status", True, 409)])
    assert cluster.experiment_id("digits") in stand_in.experiments
