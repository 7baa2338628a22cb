"""Whether a version still is what was pushed, and which model it holds.

Intact means that every file of the push is there with the content that was pushed. Files that
others add, such as `.DS_Store`, change nothing.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping

import storage
from registry.layout import PUSH_RECORD, SAVED_MODEL, list_versions, version_address
from registry.records import read_record

_Folder = str | os.PathLike[str]


def read_files(version: _Folder) -> dict[str, bytes]:
    """Reads the files of a version as they were pushed, or of a model that was not pushed yet.

    Args:
      version: path or URI of the folder.

    Returns:
      Content by relative path, without the push record.
    """
    folder, record = os.fspath(version), read_record(version)
    paths = record.files if record else storage.files_in(folder)
    return {path: storage.read(os.path.join(folder, path)) for path in paths if path != PUSH_RECORD}


def digests(contents: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of each file, hexadecimal, by path."""
    return {path: hashlib.sha256(contents[path]).hexdigest() for path in sorted(contents)}


def fingerprint(contents: Mapping[str, bytes]) -> str:
    """SHA-256 over the paths and contents of all files, hexadecimal."""
    return hashlib.sha256(json.dumps(digests(contents), sort_keys=True).encode()).hexdigest()


def model_of(version: _Folder) -> str:
    """The fingerprint of the model in a version's folder."""
    record = read_record(version)
    return record.model_fingerprint if record else fingerprint(read_files(version))


def is_intact(version: _Folder) -> bool:
    """Whether the files of a version are those that were pushed.

    Without a push record that is not known, and a `saved_model.pb` is enough. A file that cannot
    be read proves no damage: it raises OSError.

    Args:
      version: path or URI of the version's folder, or of a copy of it.
    """
    folder, record = os.fspath(version), read_record(version)
    if record is None:
        return storage.read_if_there(os.path.join(folder, SAVED_MODEL)) is not None
    for path, digest in record.files.items():
        content = storage.read_if_there(os.path.join(folder, path))
        if content is None or hashlib.sha256(content).hexdigest() != digest:
            return False
    return True


def can_restore(version: _Folder) -> bool:
    """Whether a folder holds a version with its push record, and all files are intact."""
    return read_record(version) is not None and is_intact(version)


def intact_versions(base: _Folder) -> Iterator[int]:
    """Yields the versions whose files are those that were pushed, newest first."""
    for version in reversed(list_versions(base)):
        if is_intact(version_address(base, version)):
            yield version


def newest_intact_version(base: _Folder) -> int | None:
    """The newest version whose files are those that were pushed; None where there is none."""
    return next(intact_versions(base), None)


def find_damaged(base: _Folder) -> list[int]:
    """The versions above the newest intact one, newest first."""
    versions, newest = list_versions(base), newest_intact_version(base)
    return [version for version in reversed(versions) if newest is None or version > newest]
