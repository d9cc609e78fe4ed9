"""YAML as configurations use it: scalars, lists and mappings with distinct keys, of bounded size and depth.

PyYAML's safe loader runs no code, but its constructors raise whatever Python raises, it recurses without a bound, and
a few lines of aliases may stand for gigabytes. Dates and binary data are texts and errors here: no option is one.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from ospo_core.config.text_files import read_text
from ospo_core.errors import ConfigError

LARGEST = 2**20
"""Bytes of a file."""
_DEEPEST = 50
_MOST_NODES = 100_000
"""Values in a file, where an alias counts as all that it stands for."""
_LONGEST_NUMBER = 100
"""Characters; more are not a number that any option could have."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_TAG = "tag:yaml.org,2002:"
_NUMBERS = ("bool", "int", "float")
_KINDS = (*_NUMBERS, "null", "str", "seq", "map", "merge")


class _Loader(yaml.SafeLoader):
    """YAML's safe loader with bounds, errors of one class, and no repeated keys, of which the last would win."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node; raises yaml.YAMLError if it lies too deep."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ConstructorError(None, None, f"nested more than {_DEEPEST} deep", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        """Return the root node; raises yaml.YAMLError if it holds what no configuration may."""
        root = super().get_single_node()
        if root is not None:
            self._count(root, {})
        return root

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """Return a truth value or a number; raises yaml.YAMLError where the text is not what its tag says."""
        kind = node.tag.removeprefix(_TAG)
        build = {"bool": self.construct_yaml_bool, "int": self.construct_yaml_int, "float": self.construct_yaml_float}
        try:
            if len(self.construct_scalar(node)) <= _LONGEST_NUMBER:
                return build[kind](node)
            problem = f"a number of more than {_LONGEST_NUMBER} digits"
        except (KeyError, ValueError, IndexError):  # what PyYAML raises for `!!bool x`, `!!int x` and `!!int`
            problem = f"{node.value!r} is not of the kind !!{kind}"
        raise ConstructorError(None, None, problem, node.start_mark)

    def _count(self, node: yaml.Node, known: dict[int, int | None]) -> int:
        """Return the number of values in `node`, aliases included.

        Raises:
            yaml.YAMLError: they are too many or endless, a key is repeated or no scalar, or a text has half of a
                character, which no file can hold.
        """
        found = known.get(id(node), 0)
        if found is None:
            raise ConstructorError(None, None, "holds itself through an alias", node.start_mark)
        if found:
            return found
        known[id(node)] = None
        below: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            below = node.value
        elif isinstance(node, yaml.MappingNode):
            self._check_keys(node)
            below = [part for pair in node.value for part in pair]
        elif _SURROGATE.search(node.value):
            raise ConstructorError(None, None, "holds half of a character", node.start_mark)
        total = 1 + sum(self._count(part, known) for part in below)
        if total > _MOST_NODES:
            problem = f"holds more than {_MOST_NODES} values, counting aliases"
            raise ConstructorError(None, None, problem, node.start_mark)
        known[id(node)] = total
        return total

    def _check_keys(self, node: yaml.MappingNode) -> None:
        keys: set[Hashable] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag in (f"{_TAG}seq", f"{_TAG}map"):
                raise ConstructorError(None, None, "a key is a list or a mapping", key_node.start_mark)
            key = "<<" if key_node.tag == f"{_TAG}merge" else self.construct_object(key_node)
            if key in keys:
                raise ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
            keys.add(key)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag.removeprefix(_TAG) in _KINDS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: build
    for tag, build in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(_TAG) in _KINDS
}
for _kind in _NUMBERS:
    _Loader.add_constructor(_TAG + _kind, _Loader.construct_number)


def parse_yaml(text: str) -> Any:
    """Return the value that YAML stands for.

    Raises:
        yaml.YAMLError: it is not YAML, or goes beyond the bounds.
    """
    if len(text) > LARGEST:
        raise yaml.YAMLError(f"more than {LARGEST} characters")
    return yaml.load(text, _Loader)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in the YAML file `path`.

    Raises:
        ConfigError: it cannot be read, is not YAML, is not a mapping, or has a key that is no text.
    """
    text = read_text(path, str(path), "Check the path and the file", LARGEST)
    try:
        document = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}", field=str(path), remedy="Correct the file") from None
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise ConfigError(
            "not a mapping of sections",
            field=str(path),
            value=document,
            remedy="Write `section:` lines with indented options below",
        )
    return document
