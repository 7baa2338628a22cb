#!/usr/bin/env python3
"""Performs the steps of deploy/Dockerfile without a Docker daemon, and runs commands in the result.

    sudo unshare --mount python3 tools/try_image.py FOLDER [--venv .venv] -- COMMAND [ARGUMENT...]

Each stage is an overlay over this machine's root, into which its RUN steps change their root; so
this machine stands for the image that FROM names: a Debian with the same Python (`--python`).
COMMAND runs as the image's USER, with its environment and in its WORKDIR. Left out are stages that
nothing before them needs, such as Beam's. `--venv` stands for what the stage `packages` installs,
which takes minutes and a registry. The layers are in memory, and gone at the end; FOLDER/tmp
is COMMAND's /tmp, and FOLDER/image.json what the image says of itself.
"""

import argparse
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Of this machine: what pip needs to find its registry.
REGISTRY = ("PIP_", "SSL_CERT", "REQUESTS_CA", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
HIDDEN = ("tmp", "work", "home")


@dataclass
class Stage:
    """One FROM and the steps after it, and once performed what came of it."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    labels: dict[str, str] = field(default_factory=dict)


def parse(text: str, arguments: dict[str, str]) -> dict[str, Stage]:
    """The stages of a Dockerfile, in order; `arguments` fill the ARGs before the first FROM."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    stages: dict[str, Stage] = {}
    known: dict[str, str] = {}
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, rest = line.split(None, 1)
        if instruction == "FROM":
            base, _, name = re.sub(r"\s+", " ", rest).partition(" AS ")
            stage = Stage(name, fill(base, known))
            stages[name] = stage
        elif not stages:
            name, _, default = rest.partition("=")
            known[name] = arguments.get(name, default)
        else:
            stage.steps.append((instruction, rest.strip()))
    return stages


def fill(text: str, values: dict[str, str]) -> str:
    """Puts values in the place of $NAME and ${NAME}."""
    return re.sub(r"\$\{?(\w+)\}?", lambda match: values.get(match[1], ""), text)


def pairs(text: str, values: dict[str, str]) -> dict[str, str]:
    """What ENV and LABEL say."""
    return {
        name: fill(value, values)
        for name, _, value in (each.partition("=") for each in shlex.split(text))
    }


@functools.cache
def context(root: Path) -> list[Path]:
    """The files that .dockerignore lets into the build, as paths below the root."""
    rules, opened = [], set()
    for line in (root / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            name = line.removeprefix("!")
            pattern = re.escape(name).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
            rules.append((re.compile(pattern), name != line))
            if name != line:
                opened |= set(Path(name).parents)

    def is_kept(path: Path) -> bool:
        kept = True
        for pattern, keeps in rules:
            if any(pattern.fullmatch(str(each)) for each in (path, *path.parents)):
                kept = keeps
        return kept

    found = []
    for folder, folders, names in os.walk(root):
        below = Path(folder).relative_to(root)
        folders[:] = [each for each in folders if is_kept(below / each) or below / each in opened]
        found += [below / name for name in names if is_kept(below / name)]
    return found


class Builder:
    """Performs stages in overlays."""

    def __init__(
        self, folder: Path, stages: dict[str, Stage], arguments: dict[str, str], python: str
    ) -> None:
        self.folder = folder
        self.stages = stages
        self.arguments = arguments
        self.roots: dict[str, Path] = {}
        self.layers: dict[str, list[str]] = {}
        self.venv: Path | None = None
        # An overlay takes no layers inside each other, so they are on a disk of their own.
        self.memory = folder / "memory"
        self.memory.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.memory], check=True)
        self._lay("", ["/"])
        (self.layer("") / "root").mkdir(mode=0o755)  # where Python may be, for all to see
        binaries = self.layer("") / "usr/local/bin"
        binaries.mkdir(parents=True)
        for name in ("python", "pip"):
            program = Path(python).with_name(name)
            (binaries / name).symlink_to(program if program.exists() else python)

    def layer(self, name: str) -> Path:
        return self.memory / "layers" / (name or "machine")

    def build(self, name: str) -> Path:
        """The root of a stage, performed if it was not yet; a name of none is this machine."""
        if name not in self.stages:
            name = ""
        if name in self.roots:
            return self.roots[name]
        if not name:
            return self._mount("", self.layers[""])
        stage = self.stages[name]
        self.build(stage.base)
        before = self.stages.get(stage.base, Stage("", ""))
        stage.environment = {"PATH": PATHS, "HOME": "/root"} | before.environment
        stage.workdir, stage.user = before.workdir, before.user
        stage.labels = dict(before.labels)
        self._lay(name, self.layers[stage.base if stage.base in self.stages else ""])
        root = self._mount(name, self.layers[name])
        scope: dict[str, str] = {}
        for instruction, rest in stage.steps:
            print(f"{name}: {instruction} {rest[:100]}", file=sys.stderr, flush=True)
            self._perform(stage, root, instruction, rest, scope)
        return root

    def _perform(
        self, stage: Stage, root: Path, instruction: str, rest: str, scope: dict[str, str]
    ) -> None:
        values = scope | stage.environment
        if instruction == "ARG":
            name, _, default = rest.partition("=")
            scope[name] = self.arguments.get(name, default)
        elif instruction == "ENV":
            stage.environment |= pairs(rest, values)
        elif instruction == "LABEL":
            stage.labels |= pairs(rest, values)
        elif instruction == "WORKDIR":
            stage.workdir = os.path.join(stage.workdir, rest)
            inside(root, stage.workdir).mkdir(parents=True, exist_ok=True)
        elif instruction == "USER":
            stage.user = rest
        elif instruction == "RUN":
            registry = {key: value for key, value in os.environ.items() if key.startswith(REGISTRY)}
            subprocess.run(
                enter(root, stage, ["/bin/sh", "-c", rest], registry | scope), check=True
            )
        elif instruction == "COPY":
            *sources, target = shlex.split(rest)
            origin = sources.pop(0).removeprefix("--from=") if "--from" in rest else None
            destination = inside(root, os.path.join(stage.workdir, target))
            if origin == "packages" and self.venv:
                destination.mkdir(parents=True)
                self._lend_venv(root)
            elif origin:
                source = inside(self.build(origin), sources[0])
                if os.listdir(source):
                    shutil.copytree(source, destination, symlinks=True, dirs_exist_ok=True)
            else:
                self._copy_context(sources, destination)

    def _copy_context(self, sources: list[str], destination: Path) -> None:
        for path in context(ROOT):
            for source in map(Path, sources):
                if path == source:
                    target = destination / path.name
                elif source in path.parents:
                    target = destination / path.relative_to(source)
                else:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / path, target)

    def _lend_venv(self, root: Path) -> None:
        """Shows the given environment at /opt/venv, as far as that is there, and lets it be."""
        place = root / "opt/venv"
        if self.venv and place.is_dir():
            subprocess.run(["mount", "--bind", self.venv, place], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)

    def _lay(self, name: str, below: list[str]) -> None:
        self.layer(name).mkdir(parents=True)
        self.layers[name] = [str(self.layer(name)), *below]

    def _mount(self, name: str, layers: list[str]) -> Path:
        root = self.memory / "roots" / (name or "machine")
        work = self.memory / "overlay" / (name or "machine")
        root.mkdir(parents=True)
        work.mkdir(parents=True)
        upper, *lower = layers
        options = f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work}"
        # util-linux 2.39 and later pass each option to the kernel by itself, in at most 256 bytes.
        whole = os.environ | {"LIBMOUNT_FORCE_MOUNT2": "always"}
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(root)]
        subprocess.run(mount, env=whole, check=True)
        subprocess.run(["mount", "--rbind", "/dev", root / "dev"], check=True)
        subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
        for hidden in HIDDEN:
            if (root / hidden).is_dir():
                place = self.folder / hidden
                place.mkdir(exist_ok=True)
                place.chmod(0o1777)
                subprocess.run(["mount", "--bind", place, root / hidden], check=True)
        self._lend_venv(root)
        self.roots[name] = root
        return root


def inside(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def enter(root: Path, stage: Stage, command: list[str], more: dict[str, str]) -> list[str]:
    """The command line that runs a command in a stage."""
    environment = [f"{name}={value}" for name, value in (stage.environment | more).items()]
    in_workdir = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', stage.workdir, *command]
    change = ["chroot", f"--userspec={stage.user}", "--groups=", str(root)]
    return ["env", "-i", *environment, *change, *in_workdir]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of this run")
    parser.add_argument("--venv", type=Path, help="in place of what the stage packages makes")
    parser.add_argument("--python", default=sys.executable, help="the image's Python")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("command", nargs="+", help="its arguments after --")
    options = parser.parse_args()
    os.umask(0o022)
    options.folder.mkdir(parents=True, exist_ok=True)
    arguments = dict(each.split("=", 1) for each in options.build_arg)
    stages = parse((ROOT / "deploy/Dockerfile").read_text(), arguments)
    python = os.path.realpath(options.python)
    builder = Builder(options.folder.resolve(), stages, arguments, python)
    builder.venv = options.venv and options.venv.resolve()
    name = list(stages)[-1]
    root = builder.build(name)
    stage = stages[name]
    (options.folder / "image.json").write_text(
        json.dumps({"labels": stage.labels, "user": stage.user, "workdir": stage.workdir})
    )
    return subprocess.run(enter(root, stage, options.command, {}), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
