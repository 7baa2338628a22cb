"""Fingerprints of what TFX's cache key leaves out: source code and the content of files."""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PROJECT_PACKAGES = (
    "components",
    "evaluation",
    "metrics",
    "mnist",
    "models",
    "pipeline",
    "registry",
    "storage",
    "errors",
    "parsing",
    "surroundings",
)


def source_fingerprint(module: str) -> str:
    """Hashes a module of this project and all modules of this project that it imports.

    Args:
      module: dotted name, `models.gan.run_fn` say.

    Returns:
      SHA-256 over names and contents, hexadecimal; the same wherever the checkout lies.
    """
    digest = hashlib.sha256()
    for name, path in sorted(_closure(module).items()):
        digest.update(f"{name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def file_fingerprint(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _closure(module: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _path(name)
        if name not in found and path is not None:
            found[name] = path
            waiting.extend(_imports(name, path))
            if "." in name:
                waiting.append(name.rpartition(".")[0])
    return found


def _path(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(module: str, path: Path) -> Iterator[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            source = importlib.util.resolve_name(relative, package)
            names = [source, *(f"{source}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name.split(".")[0] in _PROJECT_PACKAGES)
