"""Text files that people give, and what is said of those that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ospo_core.config.text_files import lines_of, local_path, read_text
from ospo_core.errors import ConfigError


def test_a_mark_of_byte_order_is_left_out_and_lines_end_as_in_files(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffa\r\nb\rc\nd\u2028e\x0bf\x85g".encode())
    assert lines_of(read_text(path, "option", "")) == ["a", "b", "c", "d\u2028e\x0bf\x85g"]


def test_what_is_no_readable_text_is_named(tmp_path: Path) -> None:
    pipe, binary = tmp_path / "pipe", tmp_path / "binary"
    os.mkfifo(pipe)
    binary.write_bytes(b"ab\xff")
    found = {
        pipe: "is not a file",
        tmp_path: "is not a file",
        Path("/dev/zero"): "is not a file",
        tmp_path / "none": "cannot be read: No such file",
        Path("x" * 300): "cannot be read: File name too long",
        Path("a\0b"): "a character that no path may have",
        binary: "not UTF-8 text: byte 2 is 0xff",
    }
    for path, problem in found.items():
        with pytest.raises(ConfigError, match=problem) as caught:
            read_text(path, "the.option", "Give another")
        assert str(caught.value).startswith("the.option: ") and "Give another" in str(caught.value)
    with pytest.raises(ConfigError, match="is larger than 2 bytes"):
        read_text(binary, "the.option", "", largest=2)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("~nobody-of-this-name/x", "the home folder of nobody"),
        ("x" * 300, "is not a path: File name too long"),
        ("a\0b", "a character that no path may have"),
        ("\ud800", "a character that no path may have"),
    ],
)
def test_a_name_that_is_no_path_is_named(name: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"^the\.option: .*{problem}"):
        local_path(name, "the.option")


def test_a_path_need_not_exist(tmp_path: Path) -> None:
    assert local_path(str(tmp_path / "none"), "x") == tmp_path / "none"
    assert local_path("~/x", "x") == Path.home() / "x"
