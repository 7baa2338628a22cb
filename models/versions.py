"""The versions of a model that are served, in a local folder or on a store."""

import storage


def newest_version(serving_dir: str) -> str | None:
    """The folder with the highest number in its name; None when there is none.

    On an object store a push that was cut off leaves a folder without its `saved_model.pb`, which
    comes last there. Such a version is passed over.
    """
    names = storage.names_in(serving_dir) if serving_dir else []
    for name in sorted(filter(str.isdecimal, names), key=int, reverse=True):
        if "://" not in serving_dir or storage.exists(f"{serving_dir}/{name}/saved_model.pb"):
            return name
    return None
