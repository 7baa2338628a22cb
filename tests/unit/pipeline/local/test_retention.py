"""Retention on a real ML Metadata store and real folders."""

import datetime
import os
import time
from pathlib import Path

import ml_metadata
import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.cli import gc as collect
from pipeline.cli.reports import NoReportError, find_report
from pipeline.local import history
from pipeline.local.paths import Places, UsageError
from pipeline.local.retention import plan, remove
from pipeline.settings.resolution import resolve
from pipeline.settings.sections import Settings


class Folder:
    """An output folder with runs in it, as TFX leaves them."""

    def __init__(self, root: Path) -> None:
        self.places = Places(root)
        self.places.artifacts.mkdir(parents=True)
        config = mlmd.ConnectionConfig()
        config.sqlite.filename_uri = str(self.places.database.file)
        config.sqlite.connection_mode = 3
        self.store = ml_metadata.MetadataStore(config)
        self.types = {
            name: self.store.put_artifact_type(mlmd.ArtifactType(name=name))
            for name in ("Model", "PushedModel")
        }
        self.execution_type = self.store.put_execution_type(mlmd.ExecutionType(name="Node"))
        self.contexts = {
            name: self.store.put_context_type(mlmd.ContextType(name=name))
            for name in ("pipeline_run", "node")
        }
        [self.node] = self.store.put_contexts(
            [mlmd.Context(type_id=self.contexts["node"], name="mnist-gan.Trainer")]
        )

    def run(
        self, days_old: float, *, pushed: int | None = None, reuse: int | None = None, size: int = 9
    ) -> int:
        """Adds a run of one node; returns its artifact, which is `reuse` where it was cached."""
        started = datetime.datetime.now() - datetime.timedelta(days=days_old)
        context = mlmd.Context(type_id=self.contexts["pipeline_run"], name=started.isoformat())
        [run] = self.store.put_contexts([context])
        execution = mlmd.Execution(type_id=self.execution_type, last_known_state=3)
        [number] = self.store.put_executions([execution])
        artifact = reuse or self.artifact(number, pushed, size)
        event = mlmd.Event(artifact_id=artifact, execution_id=number, type=mlmd.Event.OUTPUT)
        self.store.put_events([event])
        self.store.put_attributions_and_associations(
            [], [mlmd.Association(context_id=c, execution_id=number) for c in (run, self.node)]
        )
        return artifact

    def artifact(self, execution: int, pushed: int | None, size: int) -> int:
        folder = self.places.artifacts / "Trainer" / "model" / str(execution)
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"x" * size)
        kind = self.types["Model" if pushed is None else "PushedModel"]
        new = mlmd.Artifact(type_id=kind, uri=str(folder), state=mlmd.Artifact.LIVE)
        if pushed is not None:
            version = self.places.serving / "mnist_gan" / str(pushed)
            version.mkdir(parents=True)
            new.custom_properties["pushed_version"].string_value = str(pushed)
            new.custom_properties["pushed_destination"].string_value = str(version)
        return self.store.put_artifacts([new])[0]

    def files_of(self, artifact: int) -> Path:
        return Path(self.store.get_artifacts_by_id([artifact])[0].uri)

    def gone(self, artifacts: list[int]) -> list[bool]:
        """Whether each is gone: from the disk and, which has to agree, from the cache's sight."""
        states = [
            a.state == mlmd.Artifact.DELETED for a in self.store.get_artifacts_by_id(artifacts)
        ]
        assert states == [not self.files_of(artifact).exists() for artifact in artifacts]
        return states


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "out")


def settings(folder: Folder, *assignments: str) -> Settings:
    options = {"output_dir": (str(folder.places.root), "test")}
    return resolve(
        assignments=[f"retention.{each}" for each in assignments], options=options, environ={}
    ).settings


def clean(folder: Folder, *assignments: str) -> int:
    return remove(folder.places, plan(settings(folder, *assignments), folder.places))


def test_runs_beyond_the_count_lose_their_files_and_keep_their_rows(folder):
    artifacts = [folder.run(days) for days in (5, 4, 3, 2, 1)]
    assert clean(folder, "runs=2") == 27
    assert folder.gone(artifacts) == [True, True, True, False, False]
    assert len(history.read_runs(folder.places.database, 10)) == 5
    assert clean(folder, "runs=2") == 0


def test_the_oldest_go_first_where_bytes_are_bound(folder):
    artifacts = [folder.run(days, size=1_000_000) for days in (4, 3, 2, 1)]
    clean(folder, f"gib={2_500_000 / 2**30}")
    assert folder.gone(artifacts) == [True, True, False, False]


def test_what_a_served_version_was_made_of_stays(folder):
    served = folder.run(9, pushed=100)
    not_served, last_push = folder.run(8, pushed=200), folder.run(7, pushed=300)
    (folder.places.serving / "mnist_gan" / "200").rmdir()
    (folder.places.serving / "mnist_gan" / "300").rmdir()  # to be restored from its run's copy
    newest = folder.run(0)
    clean(folder, "runs=1")
    assert folder.gone([served, not_served, last_push, newest]) == [False, True, False, False]


def test_an_artifact_that_a_kept_run_took_from_the_cache_stays(folder):
    old = folder.run(9)
    other = folder.run(8)
    folder.run(0, reuse=old)
    clean(folder, "runs=1")
    assert folder.gone([old, other]) == [False, True]


def test_what_killed_runs_left_goes_but_the_last_one_s(folder):
    killed, last = folder.run(2), folder.run(1)
    for number in (killed, last):
        [artifact] = folder.store.get_artifacts_by_id([number])
        artifact.state = mlmd.Artifact.PENDING
        folder.store.put_artifacts([artifact])
    nameless = folder.places.artifacts / "Pusher" / "pushed_model" / "4711"
    temporary = folder.places.artifacts / "Trainer" / ".system" / "executor_execution" / "7"
    push = folder.places.serving / "mnist_gan" / ".incoming-abc"
    for path in (nameless, temporary, push):
        path.mkdir(parents=True)
    clean(folder)
    left = [path.exists() for path in (nameless, temporary, push)]
    assert left == [False, False, False]
    assert [folder.files_of(number).exists() for number in (killed, last)] == [False, True]


def test_links_lead_nowhere(folder, tmp_path):
    folder.run(0)
    outside = tmp_path / "precious"
    (outside / "model" / "99").mkdir(parents=True)
    (outside / "model" / "99" / "file").write_text("x")
    (folder.places.artifacts / "Other").symlink_to(outside)
    within = folder.places.artifacts / "Trainer" / "model" / "98"
    within.symlink_to(outside)
    clean(folder)
    assert (outside / "model" / "99" / "file").exists()
    assert not within.is_symlink()


def test_a_damaged_database_stops_it_before_anything_is_removed(folder):
    artifacts = [folder.run(days) for days in (2, 1)]
    paths = [folder.files_of(artifact) for artifact in artifacts]
    log = folder.places.logs / "a.log"
    log.parent.mkdir()
    log.touch()
    os.utime(log, (0, 0))
    database = folder.places.database.file
    database.write_bytes(database.read_bytes()[:4096] + b"\xff" * 8192)
    with pytest.raises(UsageError):
        clean(folder, "runs=1", "reports=1")
    assert all(path.exists() for path in [*paths, log])


def test_another_database_stops_it(folder, tmp_path):
    folder.run(0)
    stranger = Folder(tmp_path / "other")
    folder.places.database.file.write_bytes(stranger.places.database.file.read_bytes())
    with pytest.raises(UsageError):
        plan(settings(folder), folder.places)


def test_an_output_folder_that_was_moved_keeps_its_artifacts(folder, tmp_path):
    folder.run(0)
    moved = Places(tmp_path / "moved")
    folder.places.root.rename(moved.root)
    options = {"output_dir": (str(moved.root), "test")}
    assert plan(resolve(options=options, environ={}).settings, moved) == []


def test_checkpoints_go_by_age_and_reports_and_logs_by_number(folder):
    places, day = folder.places, 86_400
    for age in (1, 6, 8):
        path = places.checkpoints / f"key{age}" / "state"
        path.parent.mkdir(parents=True)
        path.touch()
        for each in (path, path.parent):
            os.utime(each, (time.time() - age * day,) * 2)
    for name in ("2026-01-01", "2026-01-02", "2026-01-03"):
        (places.reports / name).mkdir(parents=True)
        places.logs.mkdir(exist_ok=True)
        (places.logs / f"{name}.log").touch()
    clean(folder, "reports=2")
    assert sorted(path.name for path in places.checkpoints.iterdir()) == ["key1", "key6"]
    kept = ["2026-01-02", "2026-01-03"]
    assert sorted(path.name for path in places.reports.iterdir()) == kept
    assert sorted(path.stem for path in places.logs.iterdir()) == kept
    clean(folder, "reports=null")
    assert sorted(path.name for path in places.reports.iterdir()) == kept


def test_the_newest_checkpoint_is_never_too_old(folder):
    state = folder.places.checkpoints / "key" / "state"
    state.parent.mkdir(parents=True)
    state.touch()
    for path in (state, state.parent):
        os.utime(path, (0, 0))
    assert clean(folder) == 0
    assert state.exists()


def test_by_default_nothing_that_each_pass_leaves_grows_without_end():
    settings = resolve(environ={}).settings
    kept = settings.retention
    # What a version that is there was made of stays, so the versions are to be bounded too.
    assert None not in (settings.push.keep_versions, kept.runs, kept.reports)
    assert kept.automatic


def test_a_dry_run_says_what_and_how_much_and_removes_nothing(folder, capsys):
    artifacts = [folder.run(days, size=2048) for days in (3, 2, 1)]
    collect.collect(settings(folder, "runs=1"), dry_run=True)
    assert "4.0 KiB" in capsys.readouterr().out
    assert folder.gone(artifacts) == [False, False, False]
    collect.collect(settings(folder, "runs=1"), dry_run=False)
    assert folder.gone(artifacts) == [True, True, False]


def test_a_report_that_was_removed_is_said_to_be(folder):
    kind = folder.store.put_artifact_type(mlmd.ArtifactType(name="components.EvaluationReport"))
    folder.types["Model"] = kind
    folder.run(3)
    newest = folder.places.reports / "2099-01-01T00-00-00"
    newest.mkdir(parents=True)
    (newest / "report.html").touch()
    [record] = history.read_runs(folder.places.database, 1)
    with pytest.raises(NoReportError):
        find_report(settings(folder), record.run_id)
