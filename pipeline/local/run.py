"""One run of the pipeline on this machine, from finding the data to the verdict."""

import contextlib
import datetime
import enum
import errno
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape

from errors import UserError, masked_traceback
from evaluation.metric_table import METRICS
from models.gan.settings import TrainSettings
from pipeline.beam_errors import explain
from pipeline.local import history
from pipeline.local.console import RunConsole, quiet_terminal, spinner_line
from pipeline.local.errors import RunFailedError, RunStoppedError, UsageError
from pipeline.local.imports import quick_tfx_import
from pipeline.local.json_log import JsonLog
from pipeline.local.lock import locked
from pipeline.local.paths import OutputPaths
from pipeline.local.recovery import repair_damage
from pipeline.local.reports import keep_report
from pipeline.local.retention import collect_after_run
from pipeline.local.window import RunData, find_run_data
from pipeline.nodes import node_names
from pipeline.retraining.records import NOTHING_TO_DO
from pipeline.retraining.textfile import export_metrics
from pipeline.settings.resolution import Resolved
from pipeline.side_work import run_aside
from registry.layout import newest_version, version_dir
from surroundings import require_temporary_folder, use_each_core

_BEAM_NODES = ("MnistExampleGen", "StatisticsGen")
_FULL_DISK = re.compile("disk is full|No space left on device")


class Outcome(enum.IntEnum):
    """How a run ended; the exit status of `local_runner.py run`."""

    PUSHED = 0
    FAILED = 1
    BAD_USAGE = 2
    NOT_BLESSED = 3
    # As a shell says of SIGTERM. The next run resumes the training.
    STOPPED = 143


class Ended(NamedTuple):
    """What came of a run.

    Attributes:
      outcome: how it ended.
      run_id: its id; None where TFX's command line only compiles the pipeline.
      error: what failed; None where nothing did.
      is_new: whether it made a version, and did not find its model served already.
    """

    outcome: Outcome
    run_id: str | None
    error: RunFailedError | None = None
    is_new: bool = False


def run(
    resolved: Resolved,
    *,
    from_node: str | None,
    use_cache: bool,
    verbose: bool,
    data: RunData | None = None,
) -> Ended:
    """Runs the pipeline and shows how it goes.

    Args:
      resolved: the settings.
      from_node: run this node and all that depend on it even where the cache has an answer.
      use_cache: whether the cache is used at all.
      verbose: leave TFX's own log on the terminal.
      data: the digits and the spans, where they have been found before.

    Returns:
      How it ended.

    Raises:
      UserError: when the run cannot start: the output folder cannot be used, there is no node
        `from_node`, the data cannot be read, or there is no place for temporary files.
    """
    require_temporary_folder()
    use_each_core()
    nodes = node_names(resolved.settings)
    if from_node is not None and from_node not in nodes:
        raise UsageError(
            f"there is no node {from_node!r}", "--from", f"name one of {', '.join(nodes)}"
        )
    paths = OutputPaths.of(resolved.settings)
    with locked(paths):
        ended = _run_alone(resolved, paths, from_node, use_cache, verbose, data)
        if resolved.settings.retention.automatic and ended.run_id:
            _clean_up(resolved, paths)
    export_metrics(resolved.settings)
    return ended


def _run_alone(
    resolved: Resolved,
    paths: OutputPaths,
    from_node: str | None,
    use_cache: bool,
    verbose: bool,
    data: RunData | None,
) -> Ended:
    as_json = resolved.settings.log.format == "json"
    screen = Console(quiet=as_json)
    source, window = data or find_run_data(resolved, paths, screen)
    repaired = repair_damage(paths)
    failure = "no log is kept, and the terminal shows all of it"
    log_file = None if verbose else run_aside(failure, lambda: _new_log(paths.logs))
    spans = ", ".join(str(state.span) for state in window.spans)
    screen.print(f"[bold]MNIST GAN[/]  preset {resolved.preset}, span {spans}")
    screen.print(f"  data    {escape(source.description)}", soft_wrap=True, highlight=False)
    screen.print(f"  output  {escape(_short(paths.root))}", soft_wrap=True, highlight=False)
    screen.print(f"  budget  {budget(resolved.settings.train)}", soft_wrap=True, highlight=False)
    for line in filter(None, [*window.notices(), resolved.settings.beam.notice()]):
        screen.print(f"  [yellow]![/] {escape(line)}", soft_wrap=True, highlight=False)
    if log_file:
        screen.print(f"  log     {escape(_short(log_file))}", soft_wrap=True, highlight=False)
    for line in repaired:
        screen.print(f"  [yellow]![/] {escape(line)}", soft_wrap=True, highlight=False)
    with quiet_terminal(log_file) as console:
        console.quiet = as_json
        listener = JsonLog(console.file, window.newest) if as_json else RunConsole(console)
        say = listener.say if isinstance(listener, JsonLog) else _say_nothing
        loading = spinner_line(console, "loading TensorFlow and TFX")
        with loading or contextlib.nullcontext(), quick_tfx_import():
            # Only here, since it takes seconds.
            from pipeline.local.session import Session
        session = Session(
            resolved,
            source=source,
            paths=paths,
            window=window,
            from_node=from_node,
            use_cache=use_cache,
            listener=listener,
        )
        try:
            with listener.listening():
                say("run started", source.description, run=session.run_id, preset=resolved.preset)
                for line in repaired:
                    say("repaired", line, "warning")
                run_id = session.run()
        except UserError:
            raise
        except Exception as error:
            with contextlib.suppress(OSError):  # the disk with the log may be full
                sys.stderr.write(masked_traceback(error))
            failed = _explain(error, resolved)
            failed.log = _short(log_file) if log_file else ""
            say("run failed", str(failed), "error", log=log_file)
            return Ended(Outcome(failed.exit_status), session.run_id, failed)
        if run_id is None:
            return Ended(Outcome.PUSHED, run_id)
        record = history.read_run(paths.database, run_id)
        is_new = bool(history.new_pushes(paths.database, [record]))
        _show_outcome(console, paths, record, is_new=is_new)
        is_served = record.pushed_version or record.unchanged_version
        outcome = Outcome.PUSHED if is_served else Outcome.NOT_BLESSED
        served_already = is_served and not is_new
        say("run ended", NOTHING_TO_DO if served_already else in_words(outcome), log=log_file)
        return Ended(outcome, run_id, is_new=is_new)


def budget(train: TrainSettings) -> str:
    """What a run takes; the other nodes were measured with the presets smoke and default."""
    seconds = None if train.max_seconds is None else f"{train.max_seconds:g} s"
    steps = None if train.max_steps is None else f"{train.max_steps:,} steps"
    most = " or ".join(filter(None, (seconds, steps)))
    return (
        f"at most {most} of training, and a minute or two on two cores for the other nodes; "
        "a generator that passes its checks is pushed, and each run leaves a report"
    )


def _say_nothing(event: str, message: str, level: str = "info", **more: object) -> None:
    """In place of `JsonLog.say` where the terminal's lines are for people."""


def _clean_up(resolved: Resolved, paths: OutputPaths) -> None:
    """Removes what retention does not keep."""
    failure = "retention removed nothing or not all"
    # In this thread, so that nothing is removed once the lock is released.
    done = run_aside(failure, lambda: collect_after_run(resolved.settings, paths), seconds=None)
    if done and resolved.settings.log.format == "text":
        Console().print(f"  {escape(done)}", soft_wrap=True, highlight=False)


def _new_log(directory: Path) -> Path:
    now = datetime.datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    path = directory / f"{now}.log"
    directory.mkdir(exist_ok=True)
    path.touch()
    return path


def _short(path: Path) -> str:
    """Relative to the working directory if the path is in it; a removed one holds nothing."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):
        return str(path)


def _explain(error: Exception, resolved: Resolved) -> RunFailedError:
    """Says why a run failed; a full disk shows in many ways, and hides others."""
    from models.gan.training import InterruptedTrainingError
    from pipeline.local.runner import NodeFailedError

    is_node = isinstance(error, NodeFailedError)
    at = str(error) if is_node else f"unexpected {type(error).__name__}"
    cause = error.__cause__ if is_node else error
    reason = explain(cause, resolved.settings.beam) if cause and at in _BEAM_NODES else cause
    where, fix = "", ""
    findings: tuple[str, ...] = ()
    if _is_full_disk(cause):
        what, fix = "the disk is full", "free some space; the next run resumes where this one ended"
    elif isinstance(reason, UserError):
        what, where, fix, findings = reason.what, reason.where, reason.fix, reason.findings
    else:
        what = str(cause).strip().partition("\n")[0] or type(cause).__name__
    kind = RunStoppedError if isinstance(cause, InterruptedTrainingError) else RunFailedError
    return kind(f"{at}: {what}", where, fix, findings)


def _is_full_disk(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or _FULL_DISK.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def in_words(outcome: Outcome) -> str:
    """As the log and the record of passes call it."""
    return outcome.name.lower().replace("_", " ")


def _show_outcome(
    console: Console, paths: OutputPaths, record: history.RunRecord, *, is_new: bool
) -> None:
    """Shows what came of a run that went through; `is_new`: it made the version that it names."""
    console.print()
    if record.pushed_destination:
        version = Path(record.pushed_destination)
        if not is_new:
            served = newest_version(version.parent)
            version = version if served is None else version_dir(version.parent, served)
        verdict = "Pushed" if is_new else "Nothing new to push; served is"
        console.print(f"[bold green]{verdict}[/] {escape(_short(version))}", soft_wrap=True)
    elif record.not_pushed_because:
        console.print(
            f"[bold yellow]Not pushed:[/] {escape(record.not_pushed_because)}", soft_wrap=True
        )
    else:
        console.print("[bold yellow]Not blessed, so not pushed[/]")
        for reason in filter(None, record.failed_bounds.split("; ")):
            console.print(f"  [yellow]✗[/] {escape(reason)}", soft_wrap=True, highlight=False)
    if record.baseline and (is_new or not record.pushed_version):
        console.print(f"  {escape(record.baseline)}", soft_wrap=True, highlight=False)
    for line in metric_lines(record.metrics):
        console.print(f"  {line}", soft_wrap=True, highlight=False)
    page = run_aside(
        "no report is kept",
        lambda: keep_report(paths, record),
        say=lambda line: console.print(f"  [yellow]![/] {escape(line)}", soft_wrap=True),
    )
    if page:
        console.print(f"  report  {escape(_short(page))}", soft_wrap=True, highlight=False)


def metric_lines(metrics: Mapping[str, float]) -> Iterator[str]:
    """Yields the main metrics, each with its interval and its floor, in words.

    Args:
      metrics: as the evaluation's artifact has them, intervals and floors under names of their own.
    """
    for name in ("fid", "test_fid"):
        if name in metrics:
            low, high = metrics[f"{name}_low"], metrics[f"{name}_high"]
            yield (
                f"{METRICS[name].title} {metrics[name]:.3f} ({low:.3f} to {high:.3f}), "
                f"{metrics[f'{name}_ratio']:.2f} times the {metrics[f'{name}_floor']:.3f} of real "
                "images"
            )
    if "conditional_accuracy" in metrics:
        title = METRICS["conditional_accuracy"].title
        yield f"{title} {metrics['conditional_accuracy']:.1%}"
