"""Reading answers made of lines `Label: text` as chat models write them: with small talk, Markdown and repetitions.

Every step takes time linear in the length of an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ospo_core.prompts.families.base import ParseError, check_text
from ospo_core.prompts.filters import MISSING_LINE, STRAY_TEXT

_MARKUP = " \t*_#>`~"
_QUOTES = "\"'\u201c\u201d\u2018\u2019`"
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\ufeff\xad"))
_FENCE = re.compile(r"\s*(?:```|~~~)\w{0,20}\s*")
_BULLET = re.compile(r"\s{0,20}(?:[-*+\u2022\u2013\u2014]{1,2}\s{0,8}|\(?\d{1,3}[.)]\s{1,8})")
_OTHER_LABEL = re.compile(r"[A-Za-z]{2,20}(?: [A-Za-z]{1,20}){0,3}\s?:")


def readable_lines(answer: str) -> list[str]:
    """Return the lines of an answer without code fences and surrounding blanks; blank lines are kept, empty.

    Raises:
        ParseError: the answer contains lone surrogates or control characters.
    """
    text = answer.translate(_INVISIBLE)
    check_text(text)
    return [line.strip() for line in text.splitlines() if not _FENCE.fullmatch(line)]


def without_bullet(line: str) -> str:
    """Return a line without the dash or number of a list, and without Markdown around it."""
    match = _BULLET.match(line)
    return line[match.end() if match else 0 :].strip(_MARKUP)


def is_item(line: str) -> bool:
    """Return whether a line begins as an item of a list."""
    return _BULLET.match(line) is not None


def plain(sentence: str) -> str:
    """Return a sentence without surrounding quotes and Markdown, without final full stops, with single spaces."""
    return " ".join(sentence.strip(_MARKUP + _QUOTES).rstrip(" .").strip(_MARKUP + _QUOTES).split())


def has_other_label(line: str) -> bool:
    """Return whether a line begins like `Explanation:`, so that it continues nothing before it."""
    return _OTHER_LABEL.match(line.strip(_MARKUP)) is not None


@dataclass
class _Entry:
    """A label, its lines, and whether these are the items of a list below it."""

    label: str
    lines: list[str] = field(default_factory=list)
    listed: bool = False


def read_labelled(answer: str, labels: Sequence[str]) -> list[list[str]]:
    """Return the lines of each label in the first answer within a text; most have one line, lists have several.

    Text before the first label is a preamble. What follows the last label is ignored if it is set apart by a blank line
    or by a label of its own; the first of several answers counts.

    Args:
        answer: what the model wrote.
        labels: the labels in their order, e.g. `("Prompt", "Concepts", "Relations")`.

    Raises:
        ParseError: a label is missing or out of order, or there is text that may or may not belong to a label.
    """
    entries: list[_Entry] = []
    open_entry: _Entry | None = None
    for line in readable_lines(answer):
        label, text = _split_label(line, labels)
        if label:
            if entries and entries[-1].label == label and not entries[-1].lines:
                entries.pop()  # the opening in the model's mouth, which it then wrote itself
            if len(entries) == len(labels) and entries[-1].lines:
                break  # the next answer
            open_entry = _Entry(label, [text] if text else [])
            entries.append(open_entry)
        elif open_entry is not None:
            open_entry = _continued(open_entry, line, answer)
        elif line and entries and len(entries) < len(labels):
            raise ParseError(STRAY_TEXT, answer, "there is text between two labels")
    if [entry.label for entry in entries] != list(labels) or not all(entry.lines for entry in entries):
        raise ParseError(MISSING_LINE, answer, f"expected the lines {', '.join(labels)}, once and in this order")
    return [entry.lines for entry in entries]


def _continued(entry: _Entry, line: str, answer: str) -> _Entry | None:
    """Take a line below a label: as its text or as an item of its list; return None if the entry has ended.

    Raises:
        ParseError: the line may belong to the entry or not.
    """
    if not line:
        return None if entry.lines else entry
    if not entry.lines:
        entry.listed = is_item(line)
    elif not (entry.listed and is_item(line)):
        if has_other_label(line):
            return None
        raise ParseError(STRAY_TEXT, answer, f"there is a second line below {entry.label}")
    entry.lines.append(without_bullet(line))
    return entry


def _split_label(line: str, labels: Sequence[str]) -> tuple[str, str]:
    """Return the label of a line and its text, or two empty strings; `**Prompt 1:**` and `concept:` are labels too."""
    head, colon, text = without_bullet(line[:80]).partition(":")
    name = head.strip(_MARKUP).rstrip("0123456789 ").capitalize()
    label = next((label for label in labels if name and name in (label, label.removesuffix("s"))), "")
    if not colon or not label:
        return "", ""
    text = line.partition(":")[2].strip(_MARKUP)
    again, colon, rest = text.partition(":")
    return label, rest.strip(_MARKUP) if colon and again.strip(_MARKUP).capitalize() == label else text
