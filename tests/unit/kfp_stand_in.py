"""A stand-in for the v2beta1 API of Kubeflow Pipelines, over HTTP on loopback, with faults.

It keeps experiments, runs and recurring runs as `kfp_server_api` models, answers with their JSON,
and remembers every request and, after every change, which recurring runs are enabled.
"""

import contextlib
import datetime
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock
from urllib.parse import parse_qs, unquote_plus, urlsplit

import kfp.client
import kfp_server_api as api

# A pipeline that the backend takes.
SPEC = """
schemaVersion: 2.1.0
sdkVersion: tfx-1.16.0
pipelineInfo: {name: digits}
deploymentSpec:
  executors:
    exec-say: {container: {image: busybox:1, command: [echo], args: [hello]}}
components:
  comp-say: {executorLabel: exec-say}
root:
  inputDefinitions:
    parameters:
      span: {parameterType: NUMBER_INTEGER, defaultValue: -1.0}
      data: {parameterType: STRING}
  dag:
    tasks:
      Say: {taskInfo: {name: Say}, componentRef: {name: comp-say}}
      Train: {taskInfo: {name: Train}, componentRef: {name: comp-say}, dependentTasks: [Say]}
"""

_BASE = "/apis/v2beta1/"
_JSON = api.ApiClient()


class Request(NamedTuple):
    """A request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


class Refusal(Exception):
    """An answer other than 200, in the form of the backend's gRPC gateway."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Fault(NamedTuple):
    """What goes wrong with one request.

    Attributes:
      kind: "status" (an error answer), "drop" (no answer), "half" (the connection ends after half
        of one), "cut" (half of one, sent as if it were whole), "page" (HTML), "hang" (an answer
        that comes too late).
      carried_out: whether the request has its effect before that; None with "hang": after it.
      status: of "status".
    """

    kind: str
    carried_out: bool | None = False
    status: int = 500


class StandIn:
    """The server's state; see the module."""

    def __init__(self) -> None:
        self.url = ""
        self.experiments: dict[str, Any] = {}
        self.runs: dict[str, Any] = {}
        self.recurring_runs: dict[str, Any] = {}
        self.logs: dict[str, str] = {}  # by the id of a pod
        self.requests: list[Request] = []
        self.history: list[dict[str, list[str]]] = []
        self.faults: Iterator[Fault | None] = iter(())
        self.changed: Callable[[Request], None] = lambda request: None
        self.authorization: str | None = None
        self.cookie: str | None = None
        self.multi_user = False
        self.page_limit = 100
        self.hang_seconds = 0.5
        self.late = threading.Event()
        self._lock = threading.Lock()
        self._clock = datetime.datetime(2026, 11, 23, 9, tzinfo=datetime.timezone.utc)

    # What tests ask.

    def enabled(self, name: str) -> list[str]:
        """Ids of the enabled recurring runs of a name."""
        return [
            each.recurring_run_id
            for each in self.recurring_runs.values()
            if each.display_name == name and each.status == "ENABLED"
        ]

    def named(self, name: str) -> list[Any]:
        """Recurring runs of a name."""
        return [each for each in self.recurring_runs.values() if each.display_name == name]

    def changes(self) -> list[tuple[str, str]]:
        """Method and path, below the API's, of the requests that change something."""
        return [
            (each.method, each.path.removeprefix(_BASE))
            for each in self.requests
            if each.method != "GET"
        ]

    # What the API does.

    def answer(self, request: Request) -> Any:
        """Carries out a request; returns the model of its answer."""
        if not request.path.startswith(_BASE):
            raise Refusal(404, "Not Found")
        kind, _, rest = request.path.removeprefix(_BASE).partition("/")
        name, _, verb = rest.partition(":")
        with self._lock:
            match request.method, kind, name, verb:
                case "GET", "healthz", "", "":
                    return api.V2beta1GetHealthzResponse(multi_user=self.multi_user)
                case "GET", "experiments" | "runs" | "recurringruns", "", "":
                    return self._list(kind, request.query)
                case "POST", "runs", _, "terminate":
                    self._get(self.runs, name).state = "CANCELING"
                    return {}
                case "GET", "runs", _, "":
                    return self._get(self.runs, name)
                case "POST", "experiments", "", "":
                    return self._create_experiment(_model(request.body, "V2beta1Experiment"))
                case "POST", "runs", "", "":
                    return self._create_run(_model(request.body, "V2beta1Run"))
                case "POST", "recurringruns", "", "":
                    return self._create_recurring(_model(request.body, "V2beta1RecurringRun"))
                case "POST", "recurringruns", _, "enable" | "disable":
                    self._get(self.recurring_runs, name).status = f"{verb}d".upper()
                    return {}
                case "DELETE", "recurringruns", _, "":
                    self._get(self.recurring_runs, name)
                    del self.recurring_runs[name]
                    return {}
        raise Refusal(501, f"the stand-in does not know {request.method} {request.path}")

    def remember(self, request: Request) -> None:
        """Notes what is enabled after a change."""
        if request.method != "GET":
            names = {each.display_name for each in list(self.recurring_runs.values())}
            self.history.append({name: self.enabled(name) for name in names})
            self.changed(request)

    def _now(self) -> datetime.datetime:
        self._clock += datetime.timedelta(seconds=1)
        return self._clock

    def _get(self, kept: dict[str, Any], name: str) -> Any:
        if name not in kept:
            raise Refusal(404, f"ResourceNotFoundError: {name} not found")
        return kept[name]

    def _list(self, kind: str, query: dict[str, str]) -> Any:
        kept, answer, field = {
            "experiments": (self.experiments, api.V2beta1ListExperimentsResponse, "experiments"),
            "runs": (self.runs, api.V2beta1ListRunsResponse, "runs"),
            "recurringruns": (
                self.recurring_runs,
                api.V2beta1ListRecurringRunsResponse,
                "recurring_runs",
            ),
        }[kind]
        namespace = query.get("namespace", "")
        if self.multi_user and not namespace:
            raise Refusal(
                400, "Invalid input error: a namespace cannot be empty in multi-user mode"
            )
        entries = [
            each
            for each in kept.values()
            if _passes(each, query.get("filter"))
            and namespace in ("", getattr(each, "namespace", ""))
        ]
        if query.get("sort_by") == "created_at desc":
            entries.sort(key=lambda each: each.created_at, reverse=True)
        first = int(query.get("page_token") or 0)
        last = first + min(int(query.get("page_size") or 10), self.page_limit)
        return answer(
            **{field: entries[first:last] or None},
            total_size=len(entries),
            next_page_token=str(last) if last < len(entries) else None,
        )

    def _create_experiment(self, experiment: Any) -> Any:
        if any(each.display_name == experiment.display_name for each in self.experiments.values()):
            raise Refusal(409, f"AlreadyExistError: experiment {experiment.display_name}")
        experiment.experiment_id = str(uuid.uuid4())
        experiment.created_at = self._now()
        self.experiments[experiment.experiment_id] = experiment
        return experiment

    def _create_run(self, run: Any) -> Any:
        self._get(self.experiments, run.experiment_id)
        run.run_id, run.created_at, run.state = str(uuid.uuid4()), self._now(), "PENDING"
        self.runs[run.run_id] = run
        return run

    def _create_recurring(self, recurring: Any) -> Any:
        experiment = self._get(self.experiments, recurring.experiment_id)
        if not recurring.display_name or not 1 <= int(recurring.max_concurrency) <= 10:
            raise Refusal(400, "Invalid input error: Max concurrency of a recurring run")
        if "bad" in (recurring.runtime_config.pipeline_root or ""):
            raise Refusal(400, "Invalid input error: this root is refused here")
        recurring.recurring_run_id = str(uuid.uuid4())
        recurring.created_at = self._now()
        recurring.namespace = experiment.namespace
        recurring.status = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[recurring.mode]
        self.recurring_runs[recurring.recurring_run_id] = recurring
        return recurring


def _model(body: Any, name: str) -> Any:
    return _JSON.deserialize(SimpleNamespace(data=json.dumps(body)), name)


def _passes(entry: Any, text: str | None) -> bool:
    """EQUALS on texts, as the backend does: decoded once more, and without regard to case."""
    predicates = json.loads(unquote_plus(text))["predicates"] if text else []
    for each in predicates:
        assert each["operation"] in ("EQUALS", 1)  # 1 is what kfp itself sends
        if str(getattr(entry, each["key"])).lower() != each["stringValue"].lower():
            return False
    return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for a delayed ACK
    server: "_Server"

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_DELETE = do_GET

    def log_message(self, *arguments: Any) -> None:
        pass

    def _handle(self) -> None:
        stand_in = self.server.stand_in
        request = self._read()
        stand_in.requests.append(request)
        fault = next(stand_in.faults, None)
        if request.path.startswith("/apis/v1alpha1/") and request.path.endswith("/log"):
            log = stand_in.logs.get(request.path.split("/")[-2])
            missing = b'{"error_message":"Failed to read logs","error_details":"no such file"}'
            self._send(200, missing if log is None else log.encode(), kind="text/plain")
            return
        if fault is None:
            self._send(*self._carry_out(request))
            return
        status, content = 200, b"{}"
        if fault.carried_out:
            status, content = self._carry_out(request)
        match fault.kind:
            case "status":
                self._send(fault.status, _error(fault.status, "injected"))
            case "drop":
                self.close_connection = True
            case "half":
                self._send(status, content[: len(content) // 2], declared=len(content))
            case "cut":
                self._send(status, content[: len(content) // 2])
            case "page":
                self._send(200, b"<html>Sign in</html>", kind="text/html")
            case "hang":
                time.sleep(stand_in.hang_seconds)
                if fault.carried_out is None:
                    self._carry_out(request)
                    stand_in.late.set()
                self.close_connection = True

    def _read(self) -> Request:
        parts = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return Request(
            self.command,
            parts.path,
            {name: values[0] for name, values in parse_qs(parts.query).items()},
            json.loads(content) if content else None,
            {name.lower(): value for name, value in self.headers.items()},
        )

    def _carry_out(self, request: Request) -> tuple[int, bytes]:
        stand_in = self.server.stand_in
        try:
            for name in ("authorization", "cookie"):
                expected = getattr(stand_in, name)
                if expected is not None and request.headers.get(name) != expected:
                    raise Refusal(401, "Unauthenticated")
            answer = stand_in.answer(request)
        except Refusal as refusal:
            return refusal.status, _error(refusal.status, str(refusal))
        stand_in.remember(request)
        return 200, json.dumps(_JSON.sanitize_for_serialization(answer)).encode()

    def _send(
        self,
        status: int,
        content: bytes,
        declared: int | None = None,
        kind: str = "application/json",
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) if declared is None else declared))
        self.send_header("Set-Cookie", "answer-secret=1")
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = declared is not None


def _error(status: int, message: str) -> bytes:
    return json.dumps({"error": message, "code": status, "message": message}).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    stand_in: StandIn

    def handle_error(self, *arguments: Any) -> None:
        pass  # a client that was killed


@contextlib.contextmanager
def serving() -> Iterator[StandIn]:
    """A stand-in on a free port of loopback, with the user's own sign-in out of sight."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.stand_in = StandIn()
    server.stand_in.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    own = {
        name: value for name, value in os.environ.items() if not name.startswith("KF_PIPELINES_")
    } | {"KUBECONFIG": os.devnull}
    try:
        with (
            mock.patch.dict(os.environ, own, clear=True),
            mock.patch.object(kfp.client.Client, "_LOCAL_KFP_CONTEXT", os.devnull + "/none"),
        ):
            yield server.stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
