"""The same on a disk and on an S3-compatible store over HTTP.

TensorFlow's file system in memory, which `registry/test_object_store.py` has, is no third: it lists
names twice and appends to what is opened to be written.
"""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

import storage

ROOT = Path(storage.__file__).parent


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a folder that is not there yet."""
    if request.param == "s3":
        return f"{request.getfixturevalue('s3_bucket')}/folder"
    return str(tmp_path / "new")


def test_what_is_written_is_read_listed_and_removed(place):
    assert storage.names_in(place) == []
    assert not storage.exists(f"{place}/a/b.txt")
    storage.remove(f"{place}/a/b.txt")
    storage.write(f"{place}/a/b.txt", b"first")
    storage.write(f"{place}/a/b.txt", b"second")
    storage.write(f"{place}/a/c/d.txt", b"")
    storage.write(f"{place}/ab.txt", bytes(range(256)))
    assert storage.read(f"{place}/a/b.txt") == b"second"
    assert storage.read(f"{place}/a/c/d.txt") == b""
    assert storage.read(f"{place}/ab.txt") == bytes(range(256))
    assert storage.names_in(place) == storage.names_in(f"{place}/") == ["a", "ab.txt"]
    assert storage.names_in(f"{place}/a") == ["b.txt", "c"]
    assert storage.exists(f"{place}/a/c")
    assert storage.is_folder(f"{place}/a/c")
    assert not storage.is_folder(f"{place}/ab.txt")
    assert storage.size(f"{place}/ab.txt") == 256
    assert storage.modified(f"{place}/ab.txt") > 1.5e9
    assert storage.read_if_there(f"{place}/a/b.txt") == b"second"
    assert storage.read_if_there(f"{place}/nothing") is None
    assert storage.read_if_there(f"{place}/a") is None
    with storage.open_binary(f"{place}/ab.txt") as file:
        assert (file.read(2), file.read()) == (b"\0\1", bytes(range(2, 256)))
        file.seek(254)
        assert file.read(9) == b"\xfe\xff"
    storage.remove(f"{place}/ab.txt")
    storage.remove(f"{place}/a/c")
    assert storage.names_in(place) == ["a"]
    assert storage.names_in(f"{place}/a") == ["b.txt"]
    storage.remove(place)
    assert storage.names_in(place) == []


@pytest.mark.parametrize("read", [storage.read, lambda path: storage.open_binary(path).__enter__()])
def test_a_pipe_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe"):
        read(str(tmp_path / "pipe"))
    assert storage.read_if_there(str(tmp_path / "pipe")) is None


def test_a_folder_is_synced_whatever_lies_in_it(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    (tmp_path / "link").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    storage.sync_folder(tmp_path)
    storage.sync_folder(tmp_path / "nothing")


def test_what_another_process_writes_is_seen(place, s3_server):
    """Nothing that was listed once is taken to be so still."""
    import s3fs

    storage.write(f"{place}/a", b"")
    assert storage.names_in(place) == ["a"]
    if place.startswith("s3://"):
        endpoint = s3_server["FSSPEC_S3_ENDPOINT_URL"]
        other = s3fs.S3FileSystem(key="k", secret="s", endpoint_url=endpoint, anon=False)
        other.pipe_file(f"{place}/b", b"")
    else:
        Path(place, "b").touch()
    assert storage.names_in(place) == ["a", "b"]
    assert storage.exists(f"{place}/b")


def test_a_folder_is_written_and_read_with_tensorflow(place):
    variables = tf.train.Checkpoint(value=tf.Variable([1.0, 2.0]))
    with storage.new_folder(f"{place}/one", last="sub/z") as folder:
        variables.write(f"{folder}/state")
        tf.io.gfile.makedirs(f"{folder}/sub")
        with tf.io.gfile.GFile(f"{folder}/sub/z", "w") as file:
            file.write("last")
    assert "state.index" in storage.names_in(f"{place}/one")
    with storage.local_copy(f"{place}/one") as folder:
        assert storage.read(f"{folder}/sub/z") == b"last"
        name = "value/.ATTRIBUTES/VARIABLE_VALUE"
        assert tf.train.load_checkpoint(f"{folder}/state").get_tensor(name).tolist() == [1, 2]


def test_a_large_file_goes_up_and_down(s3_bucket, tmp_path):
    """It comes down in parts."""
    content = os.urandom(1 << 20) * 70
    with storage.new_folder(f"{s3_bucket}/large", last="end") as folder:
        Path(folder, "data").write_bytes(content)
        Path(folder, "end").write_bytes(b"")
    with storage.local_copy(f"{s3_bucket}/large") as folder:
        assert Path(folder, "data").read_bytes() == content


def test_a_folder_whose_block_fails_is_not_there(s3_bucket):
    def write() -> None:
        with storage.new_folder(f"{s3_bucket}/one", last="end") as folder:
            Path(folder, "data").write_bytes(b"1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert storage.names_in(s3_bucket) == []


def test_a_store_that_does_not_answer_is_no_empty_store(monkeypatch):
    """Else the first model would be compared with nothing, and the training started from step 0."""
    for name, value in (("ENDPOINT_URL", "http://127.0.0.1:9"), ("KEY", "k"), ("SECRET", "s")):
        monkeypatch.setenv(f"FSSPEC_S3_{name}", value)
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    calls = (storage.exists, storage.names_in, storage.read, storage.remove)
    for call in calls:
        with pytest.raises(OSError, match=r"s3://bucket/folder.*127\.0\.0\.1:9"):
            call("s3://bucket/folder")


def test_an_address_of_another_scheme_is_refused():
    with pytest.raises(OSError, match="gs://") as caught:
        storage.names_in("http://host/folder")
    assert (caught.value.errno, caught.value.filename) == (
        errno.EPROTONOSUPPORT,
        "http://host/folder",
    )


def test_a_bucket_that_is_not_there_is_no_empty_one(s3_bucket):
    with pytest.raises(FileNotFoundError):
        storage.names_in(f"{s3_bucket}-mistyped/folder")


def test_no_credentials_are_one_clear_error(s3_bucket, monkeypatch, tmp_path):
    for name in ("FSSPEC_S3_KEY", "FSSPEC_S3_SECRET"):
        monkeypatch.delenv(name)
    monkeypatch.setattr("fsspec.config.conf", {})  # what it read from them when it was imported
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(OSError, match=f"{s3_bucket}/a: .*credentials"):
        storage.write(f"{s3_bucket}/a", b"")


def test_a_missing_object_is_not_found(s3_bucket):
    with pytest.raises(FileNotFoundError):
        storage.read(f"{s3_bucket}/nothing")


def test_a_local_path_is_used_without_tensorflow(tmp_path):
    code = """
import sys, storage
path = sys.argv[1] + "/new/file"
storage.write(path, b"content")
assert storage.exists(path) and storage.names_in(sys.argv[1]) == ["new"]
assert storage.read(path) == b"content"
with storage.open_binary(path) as file:
    assert file.read() == b"content"
storage.remove(path)
others = {"tensorflow", "s3fs", "components", "models", "pipeline", "registry", "serving"}
sys.exit(bool(others & set(sys.modules)))
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)


def test_a_file_that_cannot_be_written_whole_leaves_the_former(tmp_path):
    """A quota of the process stands for the disk: writing beyond it fails as ENOSPC would."""
    code = """
import resource, signal, sys, storage
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    storage.write(sys.argv[1], bytes(10_001))
except OSError:
    sys.exit(3)
"""
    path = tmp_path / "file"
    storage.write(str(path), b"former")
    command = [sys.executable, "-c", code, str(path)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 3
    assert path.read_bytes() == b"former"
    assert os.listdir(tmp_path) == ["file"]


def test_a_block_that_fails_leaves_the_former_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"former")

    def write() -> None:
        with storage.atomic_file(path) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert path.read_bytes() == b"former"
    assert os.listdir(tmp_path) == ["file"]


def test_links_are_removed_and_what_they_lead_to_is_not(tmp_path):
    (tmp_path / "folder").mkdir()
    for name, target in {"link": "folder", "loop": "loop", "dangling": "nothing"}.items():
        (tmp_path / name).symlink_to(target)
        assert storage.exists(str(tmp_path / name)) == (name == "link")
        storage.remove(str(tmp_path / name))
    assert os.listdir(tmp_path) == ["folder"]


def test_a_folder_that_may_not_be_read_is_no_empty_one(tmp_path, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os, "listdir", refuse)
    for call in (storage.exists, storage.is_folder, storage.names_in):
        with pytest.raises(PermissionError):
            call(str(tmp_path))


def test_errors_of_tensorflow_are_errors_of_the_operating_system():
    with pytest.raises(FileNotFoundError, match="ram://nowhere/file"):
        storage.read("ram://nowhere/file")
    assert storage.read_if_there("ram://nowhere/file") is None
    with pytest.raises(OSError, match="unknown://bucket"):
        storage.read("unknown://bucket/file")
