"""Messages about dropped answers: the commonest reasons first, and one raw answer in one line."""

from __future__ import annotations

from ospo_core.prompts.failures import LONGEST, describe_drops, printable


def test_a_raw_answer_is_one_line_cut_in_the_middle() -> None:
    assert printable("Prompt: a\n\tb\x00") == r"Prompt: a\n\tb\x00"
    assert printable("lone \ud800") == r"lone \ud800"
    long = printable("a" * 5000 + "z" * 5000)
    assert long.startswith("aaa") and long.endswith("zzz") and "9600 characters" in long
    assert len(long) < LONGEST + 40


def test_reasons_come_by_number_with_an_answer_of_the_commonest_that_has_one() -> None:
    drops = {
        "stray_text": 3,
        "missing_line": 12,
        "surplus": 99,
        "duplicate": 5,
        "truncated": 1,
        "not_text": 1,
        "none": 0,
    }
    text = describe_drops(drops, {"stray_text": "Prompt: a\nb", "truncated": "x"})
    assert text.startswith("dropped: 12 missing_line, 5 duplicate, 3 stray_text, 1 not_text, 1 for other reasons")
    assert text.endswith(r'stray_text, for example: "Prompt: a\nb"')
    assert describe_drops({"surplus": 4}, {}) == "no answer was dropped"
