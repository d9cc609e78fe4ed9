"""YAML from outside: one class of errors, no code, and bounds of size, depth and aliases."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from ospo_core.config.yaml_text import LARGEST, parse_yaml, read_yaml
from ospo_core.errors import ConfigError

BOMB = "[&a [x, x], " + ", ".join(f"&{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]" for n in range(20)) + "]"
MERGES = "[&a {k: 1}, " + ", ".join(f"&b{n} {{<<: [*{'a' if n == 0 else f'b{n - 1}'}] }}" for n in range(9)) + "]"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("!!bool x", "'x' is not of the kind !!bool"),
        ("!!int x", "'x' is not of the kind !!int"),
        ("!!int", "'' is not of the kind !!int"),
        ("!!float ''", "'' is not of the kind !!float"),
        ("9" * 5000, "a number of more than 100 digits"),
        ("0x" + "f" * 5000, "a number of more than 100 digits"),
        ("!!binary aGk=", "could not determine a constructor"),
        ("!!timestamp x", "could not determine a constructor"),
        ("!!set {a}", "could not determine a constructor"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("[" * 100_000, "nested more than 50 deep"),
        ("{a: " * 3000, "nested more than 50 deep"),
        ("- " * 3000, "nested more than 50 deep"),
        (BOMB, "more than 100000 values"),
        ("&a [*a]", "holds itself"),
        ("&a {b: {c: *a}}", "holds itself"),
        ("{[a]: 1}", "a key is a list or a mapping"),
        ("!!seq a: 1", "a key is a list or a mapping"),
        ("{a: 1, a: 2}", "'a' is given twice"),
        ("{<<: 3}", "for merging"),
        ('"\\ud800"', "half of a character"),
        ("\x00", "special characters"),
        ("*a", "undefined alias"),
        ("--- 1\n--- 2", "another document"),
        ("x" * (LARGEST + 1), "characters"),
    ],
)
def test_bad_yaml_is_a_yaml_error_in_short_time(text: str, problem: str) -> None:
    start = time.process_time()
    with pytest.raises(yaml.YAMLError, match=problem):
        parse_yaml(text)
    assert time.process_time() - start < 5


def test_good_yaml_is_read_as_before() -> None:
    text = "{a: 1, b: [1.5, yes, null, ~], c: 'x', d: {<<: &m {e: 0x10}, f: 1_000}, g: *m, h: !!str 1}"
    assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml(MERGES)[-1] == {"k": 1}
    later = "m: &m {f: 0}\nd: {e: &a {<<: *m, f: 1}}\nb: {<<: *a}"
    assert parse_yaml(later) == {"m": {"f": 0}, "d": {"e": {"f": 1}}, "b": {"f": 1}}
    assert parse_yaml("2026-01-01") == "2026-01-01", "no option is a date, so this is a text"
    assert parse_yaml("2026-99-99") == "2026-99-99"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"name: \xe4\n", "not UTF-8 text: byte 6 is 0xe4"),
        ("a: 1".encode("utf-16"), "not UTF-8 text"),
        (b"1: 2\n", "not a mapping of sections"),
        (b"- a\n", "not a mapping of sections"),
        (b"a: " + b"x" * LARGEST, f"is larger than {LARGEST} bytes"),
        (b"a: [" + b"1," * 100_001 + b"]", "more than 100000 values"),
    ],
)
def test_a_file_that_is_no_mapping_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "round.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=problem) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 1500


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "round.yaml"
    path.write_bytes(b"\xef\xbb\xbfseed: 1\r\n")
    assert read_yaml(path) == {"seed": 1}
