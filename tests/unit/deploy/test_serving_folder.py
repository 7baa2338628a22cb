"""The folder that pushes make is the one that each manifest in deploy/ has its server look in."""

import os
import stat
from pathlib import Path, PurePosixPath

import pytest
import yaml

from registry.push import push
from registry.rollback import roll_back

DEPLOY = Path(__file__).parents[3] / "deploy"
MODEL = "mnist_gan"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A serving root after two pushes, a rollback, and a push that was killed."""
    model, base = tmp_path / "model", tmp_path / "serving" / MODEL
    (model / "variables").mkdir(parents=True)
    (model / "variables" / "variables.data-00000-of-00001").write_bytes(b"weights")
    for graph in (b"first", b"second"):
        (model / "saved_model.pb").write_bytes(graph)
        push(model, base, extra_files={"assets.extra/model_card.json": b"{}"})
    roll_back(base, None, "blurred")
    (base / ".incoming-killed" / "variables").mkdir(parents=True)
    (base / ".incoming-killed" / "saved_model.pb").write_bytes(b"half")
    return tmp_path / "serving"


def aspired(base: Path) -> Path:
    """What TensorFlow Serving loads: the child whose name is the highest number.

    `AspireLatestVersions` in TensorFlow Serving's file_system_storage_path_source.cc.
    """
    numbers = {}
    for name in os.listdir(base):
        try:
            numbers[int(name)] = name
        except ValueError:
            continue
    return base / numbers[max(numbers)]


def seen_from(base: str, mounts: dict[str, Path]) -> Path:
    """The folder of ours behind a path in a container."""
    for target, source in mounts.items():
        if base == target or base.startswith(f"{target}/"):
            return source / PurePosixPath(base).relative_to(target)
    raise AssertionError(f"{base} is not mounted")


def of_compose(root: Path) -> Path:
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["serving"]
    [volume] = service["volumes"]
    default = volume["source"].removeprefix("${SERVING_DIR:-").removesuffix("}")
    assert (DEPLOY / default).resolve() == DEPLOY.parent / "outputs" / "serving" / MODEL
    base = f"/models/{service['environment']['MODEL_NAME']}"  # $MODEL_BASE_PATH is /models
    return seen_from(base, {volume["target"]: root / MODEL})


def of_kubernetes(root: Path) -> Path:
    [deployment, *_] = yaml.safe_load_all((DEPLOY / "serving.yaml").read_text())
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    [claimed] = [v for v in pod["volumes"] if "persistentVolumeClaim" in v]
    [mount] = [m for m in container["volumeMounts"] if m["name"] == claimed["name"]]
    claim = claimed["persistentVolumeClaim"]["claimName"]
    [flag] = [arg for arg in container["args"] if arg.startswith("--model_base_path=")]
    return seen_from(
        flag.split("=")[1], {mount["mountPath"]: in_claim(claim, mount["subPath"], root)}
    )


def of_kserve(root: Path) -> Path:
    service = yaml.safe_load((DEPLOY / "kserve.yaml").read_text())
    uri = service["spec"]["predictor"]["model"]["storageUri"]
    claim, path = uri.removeprefix("pvc://").split("/", 1)
    # ParsePvcURI and CommonStorageInitialization of kserve: the path is mounted at /mnt/models.
    return seen_from("/mnt/models", {"/mnt/models": in_claim(claim, path, root)})


def in_claim(claim: str, path: str, root: Path) -> Path:
    """The folder of ours at a path of the claim that runs on Kubeflow push to, by default."""
    from pipeline.settings.kubeflow import KubeflowSettings

    settings = KubeflowSettings()
    assert claim == settings.volume_claim
    pushed_to = PurePosixPath(settings.serving_root).relative_to(settings.volume_path)
    return root / PurePosixPath(path).relative_to(pushed_to)


@pytest.mark.parametrize("find", [of_compose, of_kubernetes, of_kserve])
def test_each_server_loads_the_version_rolled_back_to(root, find):
    assert find(root) == root / MODEL
    assert (aspired(find(root)) / "saved_model.pb").read_bytes() == b"first"


def test_the_model_has_the_name_that_the_manifests_have():
    from pipeline.settings.resolution import resolve

    assert resolve("default").settings.push.model_name == MODEL


def test_another_user_can_read_every_version(root):
    """The servers run as users of their own."""
    base = root / MODEL
    for folder, _, names in os.walk(aspired(base)):
        assert os.stat(folder).st_mode & stat.S_IROTH
        assert os.stat(folder).st_mode & stat.S_IXOTH
        for name in names:
            assert os.stat(os.path.join(folder, name)).st_mode & stat.S_IROTH


def test_kserves_copy_of_an_object_store_has_the_versions(root, tmp_path, monkeypatch):
    """With KServe's own storage initializer; it does not fit beside TFX."""
    storage = pytest.importorskip("kserve_storage", reason="kserve does not fit beside TFX")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        bucket = boto3.resource("s3").create_bucket(Bucket="models")
        base = root / MODEL
        for path in base.rglob("*"):
            if path.is_file():
                for name in (MODEL, f"{MODEL}-old"):
                    bucket.upload_file(str(path), f"serving/{name}/{path.relative_to(base)}")
        models = tmp_path / "models"
        models.mkdir()
        storage.Storage.download(f"s3://models/serving/{MODEL}/", str(models))
    finally:
        server.stop()
    assert {path.name for path in models.iterdir()} <= set(os.listdir(base))
    assert aspired(models).name == aspired(base).name
    assert (aspired(models) / "saved_model.pb").read_bytes() == b"first"
