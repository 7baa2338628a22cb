"""What failed in a run, for its exit handler: a file per task, `<folder>/<run>/<task>`.

The backend gives an exit handler a state and no error. The folder is below
`kubeflow.checkpoint_root`, where all tasks of a run read and write. A task that succeeds removes
its file, so what is left names the tasks that failed, also those whose pod was lost.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import storage
from pipeline.side_work import run_aside

FOLDER = "failures"
_LOST = "its pod ended without an error: deleted, over its time limit, or out of memory"
_LARGEST_BYTES = 10_000


@dataclass(frozen=True)
class Notes:
    """The files of one run.

    Attributes:
      folder: path or URI; "" for no notes.
      run: id of the run.
    """

    folder: str
    run: str

    @classmethod
    def of(cls, executor_input: Mapping[str, Any]) -> "Notes":
        """The notes that the parameters of a task name (`compile.py`)."""
        values = executor_input.get("inputs", {}).get("parameterValues", {})
        return cls(values.get("failure_dir", ""), values.get("run_id", ""))

    def began(self, task: str) -> None:
        """Notes what is true of a task until it ends in good order."""
        self.failed(task, f"{task}: {_LOST}")

    def failed(self, task: str, error: str) -> None:
        """Notes why a task failed."""
        self._aside(lambda: storage.write(os.path.join(self._place, task), error.encode()))

    def succeeded(self, task: str) -> None:
        """Removes the note of a task."""
        self._aside(lambda: storage.remove(os.path.join(self._place, task)))

    def take(self) -> list[str]:
        """Returns the errors of the run, sorted by task, and removes them."""
        errors: list[str] = []

        def read() -> None:
            for name in storage.names_in(self._place):
                content = storage.read_if_there(os.path.join(self._place, name), _LARGEST_BYTES)
                errors.append((content or b"").decode(errors="replace"))
            storage.remove(self._place)

        self._aside(read)
        return errors

    @property
    def _place(self) -> str:
        return os.path.join(self.folder, self.run)

    def _aside(self, work: Callable[[], None]) -> None:
        if self.folder and self.run:
            run_aside(f"notes of failures in {self.folder}", work)
