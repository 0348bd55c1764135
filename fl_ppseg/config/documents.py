"""Text from others as plain values: YAML and JSON, of bounded size, depth and number of values.

Every YAML file that is read (configs, policies, class tables, settings) comes through here, and so
does JSON that another process or person wrote. What is refused is refused in one line, before a
value is built: a file that is too large, anchors that unfold to more values than any config has,
brackets in brackets in brackets, a key given twice.
"""

import os
import stat
from pathlib import Path
from typing import Any, Final

import yaml

from fl_ppseg.system import strict_json
from fl_ppseg.system.errors import InputError

MAX_BYTES: Final = 2**20
"""Of a YAML file: the largest policy of a node is a tenth of it."""
MAX_DEPTH: Final = 32
"""Of values in values: the deepest config of ours has 6."""
MAX_VALUES: Final = 100_000
"""Of a document, what its aliases stand for included."""
MAX_ALIASES: Final = 1_000


def read_bytes(path: Path, max_bytes: int, *, follow_link: bool = True) -> bytes:
    """The content of a regular file, if it is not too large.

    Args:
        path: The file.
        max_bytes: Largest size.
        follow_link: Whether the path may be a link; where others write, it may not.

    Raises:
        InputError: It cannot be read, is not a file, or is larger.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe is not waited for
    try:
        descriptor = os.open(path, flags if follow_link else flags | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"{path}: cannot be read (not a regular file)")
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > max_bytes:
        raise InputError(f"{path}: expected at most {max_bytes:,} bytes, got more")
    return content


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """The content of a file as UTF-8.

    Raises:
        InputError: As `read_bytes`, or is not UTF-8.
    """
    try:
        return read_bytes(path, max_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def read_yaml(path: Path, max_bytes: int = MAX_BYTES) -> object:
    """Parse a YAML file.

    Raises:
        InputError: If it cannot be read, is not YAML, or is beyond a bound.
    """
    return parse_yaml(read_text(path, max_bytes), str(path))


def parse_yaml(text: str, source: str) -> object:
    """Plain values of YAML.

    Raises:
        InputError: If it is not YAML, or is beyond a bound; the line names the source.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"{source}: expected at most {MAX_BYTES:,} characters, got more")
    try:
        return yaml.load(text, _BoundedLoader)  # a child of SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-13-01
        raise InputError(f"{source}: not YAML ({' '.join(str(error).split())})") from None


def parse_json(text: str | bytes, source: str, max_bytes: int = MAX_BYTES) -> Any:
    """Plain values of JSON.

    Raises:
        InputError: If it is not JSON, or is beyond a bound; the line names the source.
    """
    if len(text) > max_bytes:
        raise InputError(f"{source}: expected at most {max_bytes:,} bytes, got more")
    try:
        return strict_json.parse_json(text, max_bytes=4 * max_bytes)  # UTF-8 of the text
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None


class _BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which counts what it composes before anything is built of it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._num_nodes = self._num_aliases = 0
        self._sizes: dict[int, int] = {}
        """Values that a node stands for, by id; a node that is being composed has none yet."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            self._check_alias(event)
        self._depth += 1
        self._num_nodes += 1
        if self._depth > MAX_DEPTH:
            raise _refused(f"expected values nested at most {MAX_DEPTH} deep, got more", event)
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if id(node) not in self._sizes:
            self._sizes[id(node)] = self._size(node)
        if max(self._num_nodes, self._sizes[id(node)]) > MAX_VALUES:
            raise _refused(f"expected at most {MAX_VALUES:,} values, got more", event)
        return node

    def _check_alias(self, event: yaml.AliasEvent) -> None:
        self._num_aliases += 1
        if self._num_aliases > MAX_ALIASES:
            raise _refused(f"expected at most {MAX_ALIASES:,} aliases, got more", event)
        if event.anchor in self.anchors and id(self.anchors[event.anchor]) not in self._sizes:
            raise _refused(f"anchor {event.anchor!r} refers to itself", event)

    def _size(self, node: yaml.Node) -> int:
        inside: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inside = node.value
        elif isinstance(node, yaml.MappingNode):
            inside = [part for pair in node.value for part in pair]
        return 1 + sum(self._sizes[id(part)] for part in inside)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[object] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode) or key.tag not in _KEY_TAGS:
                raise _refused("expected keys that are text or whole numbers", key)
            name = key.tag if key.tag == _MERGE else self.construct_object(key)
            if name in seen and name != _MERGE:
                raise _refused(f"key {name!r} is given twice", key)
            seen.add(name)
        return super().construct_mapping(node, deep)


_MERGE = "tag:yaml.org,2002:merge"
_KEY_TAGS = {_MERGE, "tag:yaml.org,2002:str", "tag:yaml.org,2002:int"}


def _refused(why: str, place: Any) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=why, problem_mark=place.start_mark)
