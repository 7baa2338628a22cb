"""A quicker `import tfx`, for a command line whose user waits for it."""

import contextlib
import gc
import sys
import types
from collections.abc import Iterator

# Google Cloud's client, a sixth of the time that TFX takes to import; no local run uses it.
_UNUSED = "tfx.v1.extensions"


@contextlib.contextmanager
def quick_tfx_import() -> Iterator[None]:
    """Imports within it are quicker: no garbage collection, and no `tfx.v1.extensions`.

    An import makes many objects and hardly any garbage. What is imported for the first time within
    finds an empty `tfx.v1.extensions`; measured by `benchmarks/startup.py`.
    """
    placeholder = None
    if _UNUSED not in sys.modules:
        placeholder = sys.modules[_UNUSED] = types.ModuleType(_UNUSED)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if placeholder is not None:
            del sys.modules[_UNUSED]
