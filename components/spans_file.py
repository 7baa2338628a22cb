"""`spans.json`: what MnistExampleGen writes beside its splits, a line per span, oldest first."""

import json
import os
from typing import Any

import storage

SPANS_FILE = "spans.json"


def read_spans(examples: Any) -> list[dict[str, Any]]:
    """The spans of an Examples artifact, in the order in which each split holds their digits.

    Returns:
      For each `span`, `fingerprint` of its files, `train` and `eval` (how many digits), `dropped`
      (training digits that are held out or in an earlier span) and `labels` (of each class).
    """
    return json.loads(storage.read(os.path.join(examples.uri, SPANS_FILE)))
