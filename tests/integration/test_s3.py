"""Models and checkpoints on an S3-compatible store, over HTTP, with processes that are killed."""

import json
import multiprocessing
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from s3_children import KEY, filled, killed, save
from tfx import v1 as tfx

import storage
from components.pusher.executor import Executor
from evaluation.baseline import find_baseline
from evaluation.sampling import Generator
from models.gan.checkpoints import CheckpointError, Checkpoints
from models.gan.export import export_generator
from models.gan.networks import build_generator
from models.gan.settings import TrainSettings
from models.gan.warm_start import TrainingLineage, find_warm_start_state, write_final_state
from registry.layout import TRAINING_STATE, list_versions, newest_version, version_address
from registry.push import push as push_model

SMALL = {"generator_channels": (4, 4, 4), "discriminator_channels": (4, 4, 4), "latent_dim": 8}
# Forks of a process that has TensorFlow imported but not started: a second each, not ten.
ASKED = np.arange(100) % 10
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["registry.push", "models.gan.checkpoints"])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two small generators as the Trainer leaves them."""
    folder = tmp_path_factory.mktemp("models")
    paths = [folder / name / "Format-Serving" for name in ("first", "second")]
    for seed, path in enumerate(paths):
        tf.random.set_seed(seed)
        settings = TrainSettings(seed=seed, **SMALL)
        export_generator(build_generator(settings), settings, str(path))
    return paths


def push(model: Path, base: str, tmp_path: Path, *, blessed: bool = True) -> tfx.dsl.Artifact:
    """What the pipeline's Pusher does with a model, as it is on a cluster."""
    types = tfx.types.standard_artifacts
    given, blessing, pushed = types.Model(), types.ModelBlessing(), types.PushedModel()
    given.uri = str(model.parent)
    blessing.uri, pushed.uri = (
        str(tmp_path / name / model.parent.name) for name in ("blessing", "pushed")
    )
    Path(blessing.uri).mkdir(parents=True, exist_ok=True)
    blessing.set_int_custom_property("blessed", int(blessed))
    Executor().Do(
        {"model": [given], "model_blessing": [blessing]},
        {"pushed_model": [pushed]},
        {"push_destination": json.dumps({"filesystem": {"base_directory": base}})},
    )
    return pushed


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_model_is_pushed_compared_with_and_succeeded(models, s3_bucket, tmp_path):
    base = f"{s3_bucket}/serving/mnist_gan"
    generator = Generator(str(models[0]))
    candidate, own = generator.sample(ASKED, 0), {"identity": generator.identity}
    assert find_baseline(base, ASKED, candidate, 0, "fail", **own).status == "none"
    first = push(models[0], base, tmp_path)
    assert first.get_string_custom_property("pushed_destination").startswith(f"{base}/")
    version = int(first.get_string_custom_property("pushed_version"))
    with storage.local_copy(f"{base}/{version}") as folder:
        found = files_of(Path(folder))
        assert {"assets.extra/push.json", "assets.extra/model_card.md"} < set(found)
        assert files_of(models[0]).items() <= found.items()
        np.testing.assert_array_equal(Generator(folder).sample(ASKED, 0).images, candidate.images)
    # The very model is served already, and is not pushed again.
    assert find_baseline(base, ASKED, candidate, 0, "fail", **own).status == "unchanged"
    assert push(models[0], base, tmp_path).get_string_custom_property("pushed_version") == str(
        version
    )
    # Another one is compared with it and comes after it.
    generator = Generator(str(models[1]))
    other, own = generator.sample(ASKED, 0), {"identity": generator.identity}
    baseline = find_baseline(base, ASKED, other, 0, "fail", **own)
    assert (baseline.status, baseline.path) == ("measured", f"{base}/{version}")
    np.testing.assert_array_equal(baseline.samples.images, candidate.images)
    second = int(push(models[1], base, tmp_path).get_string_custom_property("pushed_version"))
    assert second > version
    assert list_versions(base) == [version, second]
    assert find_baseline(base, ASKED, other, 0, "fail", **own).status == "unchanged"


def test_what_is_not_blessed_is_not_pushed(models, s3_bucket, tmp_path):
    pushed = push(models[0], f"{s3_bucket}/serving", tmp_path, blessed=False)
    assert pushed.get_int_custom_property("pushed") == 0
    assert storage.names_in(s3_bucket) == []


def served_state(base: str) -> tuple[int, str]:
    version = newest_version(base)
    return version, f"{version_address(base, version)}/{TRAINING_STATE}"


@pytest.mark.parametrize("place", ["store", "disk"])
def test_a_warm_start_goes_on_from_what_was_blessed_and_pushed(models, s3_bucket, tmp_path, place):
    base = f"{s3_bucket}/serving" if place == "store" else str(tmp_path / "serving")
    variables = {"generator_000": tf.Variable([0.0])}
    for number, model in enumerate(models):
        copied = tmp_path / "trained" / model.parent.name / model.name
        shutil.copytree(model, copied)
        write_final_state(
            str(copied / TRAINING_STATE),
            {"generator_000": tf.Variable([number + 1.0])},
            5,
            TrainingLineage(),
        )
        push(copied, base, tmp_path, blessed=number == 0)
        start = find_warm_start_state("served", served_state(base), variables)
        assert start.version == newest_version(base)
        assert start.values == {"generator_000": np.float32([1.0])}
    push(copied, base, tmp_path)
    assert find_warm_start_state("served", served_state(base), variables).values == {
        "generator_000": np.float32([2.0])
    }


def run_killed(after: int, environment: dict[str, str], function, *arguments) -> bool:
    """Runs it, and says whether it was killed before it had ended."""
    child = CHILDREN.Process(target=killed, args=(after, environment, function, *arguments))
    child.start()
    child.join(120)
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def test_a_push_that_is_killed_shows_no_version(s3_bucket, s3_server, tmp_path):
    """Before each of the files it sends: to a server, to the evaluator and to the next push."""
    base = f"{s3_bucket}/serving"
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "data").write_bytes(bytes(range(256)))
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    served = push_model(tmp_path, base)
    (tmp_path / "saved_model.pb").write_bytes(b"another")
    after = 0
    while run_killed(after, s3_server, push_model, tmp_path, base):
        assert list_versions(base) == [served]
        assert newest_version(base) == served
        after += 1
    # The claim, another one where a killed push has that number, then each file.
    assert after >= len(["claim", "saved_model.pb", "data", "push.json"])
    _, second = list_versions(base)
    with storage.local_copy(f"{base}/{second}") as folder:
        assert files_of(tmp_path).items() <= files_of(Path(folder)).items()
    # The pushes that were killed have left something, which an hour later is removed.
    assert {int(name) for name in storage.names_in(base) if name.isdecimal()} > {served, second}


def restored(root: str) -> int | None:
    variables = filled(-1)
    found = Checkpoints(root, KEY, variables).restore()
    if found is None:
        return None
    assert found[1] == {"seconds": found[0] / 3}
    for variable, expected in zip(variables.values(), filled(found[0]).values(), strict=True):
        np.testing.assert_array_equal(variable, expected)
    return found[0]


def test_checkpoints_are_saved_restored_and_removed(s3_bucket):
    root = f"{s3_bucket}/checkpoints"
    assert restored(root) is None
    for step in (10, 20, 30):
        save(root, step)
        assert restored(root) == step
    assert storage.names_in(f"{root}/{KEY}") == ["0000002-step-0000020", "0000003-step-0000030"]
    Checkpoints(root, KEY, filled(0)).clear()
    assert storage.names_in(root) == []


def test_a_save_that_is_killed_leaves_the_former_checkpoint(s3_bucket, s3_server):
    root = f"{s3_bucket}/checkpoints"
    save(root, 10)
    after = 0
    while run_killed(after, s3_server, save, root, 20):
        assert restored(root) == 10
        after += 1
    assert after == len(["state.index", "state.data", "manifest.json"])
    assert restored(root) == 20


def test_a_checkpoint_that_was_altered_is_passed_over(s3_bucket):
    root = f"{s3_bucket}/checkpoints"
    save(root, 10)
    save(root, 20)
    storage.write(f"{root}/{KEY}/0000002-step-0000020/state.index", b"torn")
    assert restored(root) == 10


def test_a_store_that_cannot_be_reached_ends_the_training(monkeypatch):
    """It does not start again from step 0."""
    for name, value in (("ENDPOINT_URL", "http://127.0.0.1:9"), ("KEY", "k"), ("SECRET", "s")):
        monkeypatch.setenv(f"FSSPEC_S3_{name}", value)
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(CheckpointError, match=r"s3://bucket.*: cannot list the checkpoints"):
        restored("s3://bucket/checkpoints")
    with pytest.raises(CheckpointError, match=r"s3://.*: cannot save the checkpoint of step 1"):
        save("s3://bucket/checkpoints", 1)
