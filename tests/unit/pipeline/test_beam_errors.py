"""The reason of a failed job, out of what Beam's client raises."""

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from mnist.idx import IdxError
from pipeline.beam_errors import explain
from pipeline.settings.beam import BeamSettings

FLINK = BeamSettings(
    pipeline_args=(
        "--runner=FlinkRunner",
        "--flink_master=http://flink:8081",
        "--environment_type=PROCESS",
    )
)
WORKER = """Error received from SDK harness for instruction 5: Traceback (most recent call last):
  File "/venv/apache_beam/runners/common.py", line 1501, in process
    return self.do_fn_invoker.invoke_process(windowed_value)
  File "/app/mnist/idx.py", line 228, in open_binary
    raise _error(path, wrong, "a file that can be read", remedy) from error
{error}

\tat org.apache.beam.runners.fnexecution.control.FnApiControlClient.handle(A.java:180)
"""
IDX = "mnist.idx.IdxError: /data/a: there is no such file [while running 'Write']; check the path"
FLINK_TRACE = """Pipeline job-1 failed in state FAILED: org.apache.flink.runtime.JobException: \
Recovery is suppressed by NoRestartBackoffTimeStrategy
\tat org.apache.flink.runtime.executiongraph.ExecutionFailureHandler.handleFailure(A.java:180)
Caused by: java.util.concurrent.CompletionException: java.util.concurrent.TimeoutException
\t... 30 more
Caused by: org.apache.flink.runtime.jobmanager.scheduler.{error}
\t... 4 more
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (WORKER.format(error=IDX), "/data/a: there is no such file; check the path"),
        (WORKER.format(error="ValueError: two\nlines"), "ValueError: two"),
        (WORKER.format(error="concurrent.futures._base.CancelledError"), "CancelledError"),
        (
            FLINK_TRACE.format(error="NoResourceAvailableException: Could not acquire"),
            "NoResourceAvailableException: Could not acquire",
        ),
        (FLINK_TRACE.format(error="Outer$InnerException"), "InnerException"),
        # A Java trace around a worker's: Python's says more.
        (
            FLINK_TRACE.format(error="E: failed") + "Caused by: " + WORKER.format(error=IDX),
            "/data/a: there is no such file; check the path",
        ),
        ('<_InactiveRpcError of RPC:\n\tstatus = UNAVAILABLE\n\tdetails = "gone"\n>', "gone"),
        ("first\nsecond", "first"),
        ("", "RuntimeError"),
    ],
)
def test_the_reason_is_one_line(text: str, expected: str) -> None:
    for beam in (BeamSettings(), FLINK):
        assert explain(RuntimeError(text), beam).what == expected


def test_the_last_of_several_exceptions_counts() -> None:
    text = WORKER.format(error="KeyError: 1") + WORKER.format(error="ValueError: 2")
    assert explain(RuntimeError(text), FLINK).what == "ValueError: 2"


def test_an_engines_error_names_the_setting_and_where_to_look() -> None:
    error = RuntimeError("Pipeline job-1 failed in state FAILED: unknown error")
    explained = explain(error, FLINK)
    assert explained.where == "beam.pipeline_args"
    assert "http://flink:8081" in explained.fix
    assert explain(RuntimeError(WORKER.format(error=IDX)), FLINK).fix
    assert not explain(RuntimeError(WORKER.format(error=IDX)), BeamSettings()).where


def test_what_a_worker_of_beam_itself_raises() -> None:
    """In the node's own process, where Beam adds its step to the message."""
    import apache_beam as beam

    def fail(number: int) -> int:
        raise ValueError(f"{number} is wrong")

    settings = BeamSettings()
    pipeline = beam.Pipeline(options=PipelineOptions(settings.arguments()))
    _ = pipeline | beam.Create([3]) | "Step" >> beam.Map(fail)
    with pytest.raises(Exception, match="3 is wrong") as caught:
        pipeline.run()
    assert explain(caught.value, settings).what == "3 is wrong"


def test_an_error_of_ours_stays_as_it_is_without_beams_step() -> None:
    error = IdxError(
        "it is cut short [while running 'Write']", "/data/a", "copy it again", ["row 3"]
    )
    explained = explain(error, FLINK)
    assert explained.args == ("it is cut short", "/data/a", "copy it again", ("row 3",))
