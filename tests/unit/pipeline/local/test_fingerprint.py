"""Which edits make a node run again."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from pipeline.local import fingerprint

SOURCES = {
    "mnist/__init__.py": "",
    "models/__init__.py": "",
    "models/gan/__init__.py": "",
    "models/gan/run_fn.py": (
        "import os, numpy\n"
        "from models.gan.training import train\n"
        "from models.gan import losses as used\n"
        "def later():\n    import mnist.records\n"
    ),
    "models/gan/training.py": "from .networks import *\nfrom . import cycle\nfrom .. import top",
    "models/gan/losses.py": "from ..metrics.frechet import distance\n",
    "models/gan/networks.py": "build = 1\n",
    "models/gan/cycle.py": "from models.gan import cycle, training\nimport models.gan.run_fn\n",
    "models/gan/unused.py": "from models.gan import run_fn\n",
    "models/top.py": "",
    "mnist/records.py": "",
    "models/metrics/__init__.py": "from .labels import agreement\n",
    "models/metrics/frechet.py": "",
    "models/metrics/labels.py": "",
    "components/__init__.py": "",
    "pipeline/__init__.py": "",
    "numpy.py": "",
    "training.py": "",
    "networks.py": "",
}
USED = {
    "mnist/__init__.py",
    "models/__init__.py",
    "models/gan/__init__.py",
    "models/gan/run_fn.py",
    "models/gan/training.py",
    "models/gan/losses.py",
    "models/gan/networks.py",
    "models/gan/cycle.py",
    "models/top.py",
    "mnist/records.py",
    "models/metrics/__init__.py",
    "models/metrics/frechet.py",
    "models/metrics/labels.py",
}


def write(root: Path, names: Iterable[str] = SOURCES) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SOURCES[name])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    write(root)
    monkeypatch.setattr(fingerprint, "ROOT", root)
    return root


def run_fn_fingerprint() -> str:
    return fingerprint.source_fingerprint("models.gan.run_fn")


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_an_edit_counts_when_the_file_is_imported(project: Path, name: str) -> None:
    before = run_fn_fingerprint()
    (project / name).write_text(SOURCES[name] + "\n# edited\n")
    assert (run_fn_fingerprint() != before) is (name in USED)
    (project / name).write_text(SOURCES[name])
    assert run_fn_fingerprint() == before


def test_a_file_that_goes_or_comes(project: Path) -> None:
    before = run_fn_fingerprint()
    (project / "models/gan/networks.py").rename(project / "models/gan/network.py")
    assert run_fn_fingerprint() != before
    (project / "models/gan/unused.py").unlink()
    (project / "models/gan/network.py").rename(project / "models/gan/networks.py")
    assert run_fn_fingerprint() == before


def test_a_module_becomes_a_package(project: Path) -> None:
    before = run_fn_fingerprint()
    (project / "models/gan/networks").mkdir()
    (project / "models/gan/networks.py").rename(project / "models/gan/networks/__init__.py")
    (project / "models/gan/networks/inner.py").write_text("")
    first = run_fn_fingerprint()
    assert first == before, "the same name and the same content"
    (project / "models/gan/networks/__init__.py").write_text("from .inner import *\n")
    second = run_fn_fingerprint()
    (project / "models/gan/networks/inner.py").write_text("x = 1\n")
    assert len({first, second, run_fn_fingerprint()}) == 3


def test_content_that_moves_to_the_next_file(project: Path) -> None:
    """Side by side in the order of names, so that the contents in a row are the same."""
    (project / "mnist/records.py").write_text("a = 1\n")
    before = run_fn_fingerprint()
    (project / "mnist/records.py").write_text("")
    (project / "models/__init__.py").write_text("a = 1\n")
    assert run_fn_fingerprint() != before


def test_the_place_of_the_checkout_does_not_count(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run_fn_fingerprint()
    write(tmp_path / "elsewhere" / "deep")
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path / "elsewhere" / "deep")
    assert run_fn_fingerprint() == before


def test_a_syntax_error_is_not_passed_over(project: Path) -> None:
    (project / "models/gan/networks.py").write_text("def\n")
    with pytest.raises(SyntaxError):
        run_fn_fingerprint()


def test_modules_of_this_project_that_are_run() -> None:
    """The real sources: the recipe is part of the GAN's code and not of the classifier's."""
    closure = {
        module: set(fingerprint.imported_sources(module))
        for module in ("models.gan.run_fn", "models.digit_classifier.run_fn")
    }
    for module, names in closure.items():
        assert {module, "models", module.rpartition(".")[0], "mnist.records"} <= names
    gan, classifier = closure.values()
    assert {f"models.gan.{x}" for x in ("settings", "networks", "losses", "export")} <= gan
    assert not {name for name in classifier if name.startswith(("models.gan", "pipeline"))}


def test_ingestion_depends_on_the_room_of_the_data() -> None:
    closure = set(fingerprint.imported_sources("components.mnist_example_gen.executor"))
    assert {"mnist.idx", "mnist.spans", "mnist.windows", "mnist.splits"} <= closure


def test_files(tmp_path: Path) -> None:
    write_bytes: Callable[[bytes], int] = (tmp_path / "file").write_bytes
    write_bytes(b"abc")
    assert fingerprint.file_fingerprint(tmp_path / "file") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    ), "SHA-256 of abc as FIPS 180-2 prints it"
