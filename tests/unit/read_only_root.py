"""A shell script on a root file system that nobody can write to, as in a restricted container."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_read_only(volume: Path, script: str, *, has_tmp: bool) -> subprocess.CompletedProcess[str]:
    """Runs a script in the project's folder.

    Args:
      volume: a folder that is `/mnt` there, the one place that can be written to.
      script: for bash.
      has_tmp: whether there is an empty `/tmp` besides.
    """
    keep, give_back = "", ""
    if ROOT.is_relative_to("/tmp"):  # else an empty /tmp would hide the clone
        keep = f"mount --bind {ROOT} /srv; mount -o remount,bind,ro /srv"
        give_back = f"mkdir -p {ROOT}; mount --bind /srv {ROOT}; cd {ROOT}"
    mounts = f"""
      set -e
      {keep}
      mount --bind {volume} /mnt
      for place in / $(findmnt -rno TARGET --target {ROOT}) $(findmnt -rno TARGET --target /tmp); do
        mount -o remount,bind,ro "$place"
      done
      mount -t tmpfs none /tmp
      {give_back}
      mount -o remount,{"rw" if has_tmp else "ro"} /tmp
      for folder in {ROOT} /var/tmp; do ! touch "$folder/new" 2> /dev/null; done
    """
    given = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    given |= {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    unshare = ["unshare", "--mount", "--propagation", "private", "bash", "-c", mounts + script]
    if os.geteuid():
        unshare[1:1] = ["--user", "--map-root-user"]
    return subprocess.run(
        unshare, cwd=ROOT, env=given, timeout=600, check=False, capture_output=True, text=True
    )
