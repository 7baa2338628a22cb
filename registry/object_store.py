"""Adding versions to an object store, where there is no rename and no lock."""

import os
import time
import uuid
from collections.abc import Mapping

import storage
from registry.errors import RegistryError
from registry.history import now, user
from registry.integrity import digests
from registry.layout import PUSH_RECORD, SAVED_MODEL, is_complete, store_numbers, version_address
from registry.records import PushRecord

_CLAIMS = ".claims"
_ABANDONED_SECONDS = 3600.0
_TRIES = 100


def add_to_store(base: str, contents: Mapping[str, bytes], model: str, run: str = "") -> int:
    """Uploads a version, the newest; `saved_model.pb` goes last.

    A number is claimed by a file of its own; where another push claimed the number too, both take
    another one, so that no two pushes write to the same place. What pushes left that were killed an
    hour ago or more is removed.

    Args:
      base: URI of the place that a server watches.
      contents: of the version's files by relative path, `saved_model.pb` among them.
      model: see `PushRecord.model_fingerprint`.
      run: see `PushRecord`.

    Returns:
      The version: seconds since 1970, or a later number where that is taken.

    Raises:
      RegistryError: what was uploaded differs from the content, or no number could be claimed.
    """
    _remove_abandoned(base)
    version = _claim(base)
    record = PushRecord(
        version=version,
        pushed_at=now(),
        model_fingerprint=model,
        files=digests(contents),
        run=run,
        user=user(),
    )
    uploaded = {**contents, PUSH_RECORD: record.model_dump_json(indent=2).encode()}
    for path in sorted(uploaded, key=lambda path: path == SAVED_MODEL):
        address = os.path.join(version_address(base, version), path)
        storage.write(address, uploaded[path])
        if storage.read(address) != uploaded[path]:
            raise RegistryError("differs from what was uploaded", address, "push again")
    return version


def _claim(base: str) -> int:
    """Finds a number that nobody else writes to.

    A push that sees another claim beside its own withdraws. Of two pushes, the one that looks last
    sees the claim of the other, so they never both stay.
    """
    version = max([int(time.time()), *(number + 1 for number in store_numbers(base))])
    for _ in range(_TRIES):
        folder = os.path.join(base, _CLAIMS, str(version))
        claim = os.path.join(folder, uuid.uuid4().hex)
        storage.write(claim, b"")
        if len(storage.names_in(folder)) == 1:
            return version
        storage.remove(claim)
        version += 1 + uuid.uuid4().int % 10
    raise RegistryError(f"no version could be claimed in {_TRIES} tries", base, "push again")


def _remove_abandoned(base: str) -> None:
    for version in store_numbers(base):
        if is_complete(base, version):
            continue
        claims = os.path.join(base, _CLAIMS, str(version))
        written = [
            storage.modified(os.path.join(claims, name)) for name in storage.names_in(claims)
        ]
        if written and time.time() - max(written) > _ABANDONED_SECONDS:
            storage.remove(version_address(base, version))
