"""JSON and YAML that somebody else wrote, parsed within limits of size, depth and aliases.

PyYAML and json take any nesting, and a few hundred bytes of aliases stand for gigabytes.
"""

import json
from typing import Any

import yaml

MOST_BYTES = 16 << 20
MOST_YAML_BYTES = 1 << 20  # PyYAML reads some 100 KB a second
MOST_DEPTH = 64
MOST_NODES = 100_000  # of a YAML document, each alias counted as what it stands for


class LimitError(ValueError):
    """A document is too large or nested too deeply; the message says what was allowed."""


class LimitedLoader(yaml.SafeLoader):
    """Reads what yaml.SafeLoader reads, up to `MOST_DEPTH` and `MOST_NODES`."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Composes a node; raises LimitError as soon as a limit is passed."""
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise LimitError(f"it is nested more than {MOST_DEPTH} levels deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and node not in self._sizes:
            raise LimitError("an alias in it stands for a value that holds this alias")
        if node is not None and not is_alias:
            self._sizes[node] = 1 + sum(self._sizes[child] for child in _children(node))
            if self._sizes[node] > MOST_NODES:
                raise LimitError(f"it stands for more than {MOST_NODES:,} values")
        return node


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def parse_yaml(text: str, loader: type[LimitedLoader] = LimitedLoader) -> Any:
    """Returns the value of a YAML text of one document; None for an empty text.

    Raises:
      As `parse_yaml_documents`.
    """
    _require_size(len(text), MOST_YAML_BYTES)
    return yaml.load(text, loader)


def parse_yaml_documents(text: str) -> list[Any]:
    """Returns the documents of a YAML text.

    Raises:
      LimitError: the text is longer than `MOST_YAML_BYTES`, or a document is beyond the limits.
      yaml.YAMLError: it is not YAML.
      ValueError: a value such as a date does not exist.
    """
    _require_size(len(text), MOST_YAML_BYTES)
    return list(yaml.load_all(text, LimitedLoader))


def parse_json(text: str | bytes) -> Any:
    """Returns the value of a JSON text.

    Raises:
      LimitError: the text is longer than `MOST_BYTES`, or nested deeper than `MOST_DEPTH`.
      ValueError: it is not JSON.
    """
    _require_size(len(text), MOST_BYTES)
    try:
        value = json.loads(text)
        if _depth(value) <= MOST_DEPTH:
            return value
    except RecursionError:
        pass
    raise LimitError(f"it is nested more than {MOST_DEPTH} levels deep")


def _require_size(size: int, most: int) -> None:
    if size > most:
        raise LimitError(f"it has {size:,} bytes, more than the {most:,} that are read")


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level and depth <= MOST_DEPTH:
        depth += 1
        level = [
            inner
            for each in level
            if isinstance(each, (dict, list))
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return depth
