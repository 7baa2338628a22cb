"""A shell script on a root file system that nobody can write to, as in a restricted container."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_read_only(volume: Path, script: str, *, has_tmp: bool) -> subprocess.CompletedProcess[str]:
    """Runs a script in the project's folder.

    Args:
      volume: a folder that is `/mnt` there, the one place that can be written to.
      script: for bash.
      has_tmp: whether there is an empty `/tmp` besides.
    """
    root = shlex.quote(str(ROOT))
    keep, give_back = "", ""
    if ROOT.is_relative_to("/tmp"):  # else an empty /tmp would hide the clone
        keep = f"mount --bind {root} /srv; mount -o remount,bind,ro /srv"
        give_back = f"mkdir -p {root}; mount --bind /srv {root}; cd {root}"
    mounts = f"""
      set -e
      {keep}
      mount --bind {shlex.quote(str(volume))} /mnt
      for place in / $(findmnt -rno TARGET --target {root}) $(findmnt -rno TARGET --target /tmp); do
        mount -o remount,bind,ro "$place"
      done
      mount -t tmpfs none /tmp
      {give_back}
      mount -o remount,{"rw" if has_tmp else "ro"} /tmp
      for folder in {root} /var/tmp; do ! touch "$folder/new" 2> /dev/null; done
    """
    given = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    given |= {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    as_root = ["--user", "--map-root-user"] if os.geteuid() else []
    unshare = ["unshare", *as_root, "--mount", "--propagation", "private"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    command = [*unshare, "bash", "-c", mounts + script]
    return subprocess.run(
        command, cwd=ROOT, env=given, timeout=600, check=False, capture_output=True, text=True
    )
