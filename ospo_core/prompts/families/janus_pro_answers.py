"""The answers of Janus-Pro: labelled lines, written for the few-shot examples and read from what the model writes.

The parsers live with the habits of a chat model and never guess: an answer that can be read in two ways is dropped, for
a reason that `ospo_core.prompts.filters` names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NoReturn

from ospo_core.prompts.families.base import AnswerKind, ParseError, PromptAnswer, PromptFamily, Relation
from ospo_core.prompts.families.labelled_lines import (
    has_other_label,
    plain,
    read_labelled,
    readable_lines,
    without_bullet,
)
from ospo_core.prompts.filters import (
    NO_PROMPT,
    NO_QUESTIONS,
    NOT_YES_NO,
    STRAY_TEXT,
    UNCLEAR_CONCEPTS,
    UNCLEAR_RELATIONS,
)

NO_RELATION = "none"

_LABELS = frozenset({"Prompt", "Concepts", "Relations", "Base", "Change", "Changed", "First", "Second"})
_NOTHING = frozenset({NO_RELATION, "no relation", "no relations", "no concepts", "n/a"})
_BRACKETS = " []()"
_AROUND = " \t*_#>-.,;:"
_ARTICLES = frozenset({"a", "an", "the"})
_PROMPT_STARTS = _ARTICLES | {"one", "two", "three", "four", "some", "several", "many"}
_TALK = frozenset({"prompt", "prompts", "changed", "sorry", "cannot", "can't", "example", "instruction", "sure"})
_PLACEHOLDER = frozenset("<>[]{}|")
_RELATION = re.compile(r"\(([^()]{1,400})\)")
_BETWEEN_RELATIONS = re.compile(r"[\s;,.]*(?:and[\s;,.]*)?")
_NUMBERED_QUESTION = re.compile(r"[Qq](?:uestion)?\s?\d{0,3}\s?[:.)]\s{0,8}")
_REPLY = re.compile(r"\W{0,8}(yes|no)\b(?!\s?(?:/|or\b))\W{0,8}", re.IGNORECASE)
_YES_OR_NO = re.compile(r"\W{0,8}yes\s?(?:/|or)\s?no\W{0,8}", re.IGNORECASE)
_CHATTER = re.compile(r"^(?:sure|sorry|certainly|here(?:'s| is| are))\b|\bprompts?\b", re.IGNORECASE)
_AUXILIARIES = frozenset({"is", "are", "was", "were", "do", "does", "did", "has", "have", "can"})
"""First words of yes/no questions; any other sentence with a question mark may be small talk, or ask what or where."""

_WORD = r"[A-Za-z0-9][A-Za-z0-9'-]{0,19}"
_SHORT = rf"{_WORD}( {_WORD}){{0,4}}"
_SENTENCE = rf"{_WORD}(,? {_WORD}){{1,34}}"
_CHANGE = rf"{_WORD}(,? ({_WORD}|->|<->)){{1,19}}"
_RELATED = rf"\({_SHORT}, {_SHORT}, {_SHORT}\)"
_LONG = rf"{_WORD}([,;.]? {_WORD}){{5,119}}\."
_QUESTION = rf"- (Is|Are|Does|Do|Has|Have|Can) {_WORD}(,? {_WORD}){{1,19}}\?"
_PATTERNS: dict[AnswerKind, str] = {
    AnswerKind.PROMPT: rf"Prompt: {_SENTENCE}\nConcepts: {_SHORT}(; {_SHORT}){{0,7}}"
    rf"\nRelations: ({NO_RELATION}|{_RELATED}(; {_RELATED}){{0,7}})",
    AnswerKind.PERTURBATION: rf"Change: {_CHANGE}\nChanged: {_SENTENCE}",
    AnswerKind.DENSE: rf"First: {_LONG}\nSecond: {_LONG}",
    AnswerKind.QUESTIONS: rf"{_QUESTION}(\n{_QUESTION}){{0,15}}",
}
"""ASCII text of bounded length, so that every answer ends before its limit of tokens."""

_NEXT_ANSWER: dict[AnswerKind, tuple[str, ...]] = {
    AnswerKind.PROMPT: ("\nPrompt:",),
    AnswerKind.PERTURBATION: ("\nBase:", "\nChange:"),
    AnswerKind.DENSE: ("\nBase:", "\nFirst:"),
    AnswerKind.QUESTIONS: ("\nPrompt:",),
}
"""Where a model begins another answer instead of ending its turn; the first label is the opening of the chat."""


class JanusProAnswers(PromptFamily):
    """The answer side of `JanusProFamily`: `format_*` and their inverses `parse_*`."""

    def stop(self, kind: AnswerKind) -> tuple[str, ...]:
        """Return the user's next turn, and the beginning of a second answer."""
        return ("<|User|>", *_NEXT_ANSWER[kind])

    def pattern(self, kind: AnswerKind) -> str:
        """Return a regular expression of what `format_*` writes, in ASCII and of bounded length."""
        return _PATTERNS[kind]

    def format_prompt(self, answer: PromptAnswer) -> str:
        """Return the lines `Prompt:`, `Concepts:` (separated by semicolons) and `Relations:` (triples, or none)."""
        relations = "; ".join(f"({', '.join(relation)})" for relation in answer.relations)
        concepts = "; ".join(answer.concepts)
        return f"Prompt: {answer.prompt}\nConcepts: {concepts}\nRelations: {relations or NO_RELATION}"

    def format_perturbation(self, change: str, changed: str) -> str:
        """Return the lines `Change:`, which names what changes, and `Changed:`, the answer to `perturb`."""
        return f"Change: {change}\nChanged: {changed}"

    def format_dense(self, dense: str, dense_negative: str) -> str:
        """Return the lines `First:` and `Second:`."""
        return f"First: {dense}\nSecond: {dense_negative}"

    def format_questions(self, questions: Sequence[str]) -> str:
        """Return one question per line, each after a dash."""
        return "\n".join(f"- {question}" for question in questions)

    def parse_prompt(self, answer: str) -> PromptAnswer:
        """Parse what `format_prompt` writes, the first if there are several; raises ParseError."""
        prompt, concepts, relations = read_labelled(answer, ("Prompt", "Concepts", "Relations"))
        text = _prompt(prompt, answer)
        named = _concepts(concepts, text, answer)
        return PromptAnswer(text, named, _relations(relations, named, answer))

    def parse_perturbation(self, answer: str) -> str:
        """Parse the line `Changed:` of `format_perturbation`, or a prompt alone on its line; raises ParseError."""
        lines = [line for line in readable_lines(answer) if line]
        if len(lines) == 1 and _looks_like_a_prompt(plain(without_bullet(lines[0]))):
            return plain(without_bullet(lines[0]))
        return _prompt(read_labelled(answer, ("Changed",))[0], answer)

    def parse_dense(self, answer: str) -> tuple[str, str]:
        """Parse what `format_dense` writes; raises ParseError."""
        first, second = (" ".join(" ".join(lines).split()) for lines in read_labelled(answer, ("First", "Second")))
        if not (_has_words(first) and _has_words(second)):
            raise ParseError(NO_PROMPT, answer, "a dense prompt is a placeholder")
        return first, second

    def parse_questions(self, answer: str) -> list[str]:
        """Parse yes/no questions, one or more per line, each once, with or without dash, number or `Yes` after it.

        Raises:
            ParseError: there are none, one cannot be answered with yes, or there is other text between them.
        """
        questions: list[str] = []
        after_blank, over = False, False
        for line in readable_lines(answer):
            text = without_bullet(line)
            if questions and text.partition(":")[0].strip().capitalize() in _LABELS:
                break
            if "?" in text:
                if over:
                    raise ParseError(STRAY_TEXT, answer, "there is other text between questions")
                questions += _questions_in(text, answer)
            elif questions and text and not text.endswith(":"):
                over = over or _ends_the_list(text, after_blank, answer)
            after_blank = not text
        if not questions:
            raise ParseError(NO_QUESTIONS, answer, "there is no question")
        return list(dict.fromkeys(questions))


def _prompt(lines: Sequence[str], answer: str) -> str:
    """Return the one prompt in the lines of its label; raises ParseError if it is something else."""
    text = plain(lines[0])
    if len(lines) > 1 or not _has_words(text) or text.endswith(("?", ":")) or _CHATTER.search(text):
        raise ParseError(NO_PROMPT, answer, "a prompt is empty, a placeholder, a question, or more than one line")
    return text


def _has_words(text: str) -> bool:
    """Return whether a text has letters or digits and is no placeholder such as `[prompt]`."""
    return any(letter.isalnum() for letter in text) and not _PLACEHOLDER & set(text)


def _looks_like_a_prompt(text: str) -> bool:
    """Return whether a line without a label is surely a prompt: one short sentence that begins as a noun phrase."""
    words = text.casefold().split()
    if not 2 < len(words) <= 40 or words[0] not in _PROMPT_STARTS or not _has_words(text):
        return False
    return not ({":", "?", "!", ";"} & set(text) or ". " in text or _TALK & set(words))


def _concepts(lines: Sequence[str], prompt: str, answer: str) -> tuple[str, ...]:
    """Parse concepts parted by semicolons, as a list, or by commas where that is certain; raises ParseError."""

    def unclear(detail: str) -> NoReturn:
        raise ParseError(UNCLEAR_CONCEPTS, answer, detail)

    parts = [part.strip(_BRACKETS) for part in lines]
    if len(parts) == 1:
        text = parts[0].rstrip(" .;")
        separator = ";" if ";" in text else ","
        parts = text.split(separator)
        if separator == "," and len(parts) > 1:
            parts = [part.strip().removeprefix("and ") for part in parts]
            if any(" and " in part for part in parts) or _describe_one(parts, prompt):
                unclear("commas between the concepts, or within one")
    elif any(mark in part for part in parts for mark in ",;"):
        unclear("a list of concepts with further separators")
    concepts = tuple(plain(without_bullet(part)) for part in parts)
    if not all(_has_words(concept) and ":" not in concept for concept in concepts):
        unclear("a concept is empty, or is not one")
    if len(concepts) == 1 and concepts[0].casefold() in _NOTHING:
        unclear("a prompt without concepts")
    return concepts


def _describe_one(parts: Sequence[str], prompt: str) -> bool:
    """Return whether a part may be an adjective of the next one: `red, wooden bench` for a red wooden bench.

    That is so if somewhere in the prompt the last word of the part comes directly before a word of the next.
    """
    words = [word.strip(".,;:!?\"'").casefold() for word in prompt.split()]
    followers: dict[str, set[str]] = {}
    for word, following in pairwise(words):
        followers.setdefault(word, set()).add(following)
    lists = [part.casefold().split() or [""] for part in parts]
    return any(followers.get(one[-1], set()) & (set(other) - _ARTICLES) for one, other in pairwise(lists))


def _relations(lines: Sequence[str], concepts: Sequence[str], answer: str) -> tuple[Relation, ...]:
    """Parse `(subject, relation, object); ...`, with or without brackets, as a list, or `none`; raises ParseError."""
    text = "; ".join(line.strip().rstrip(";. ") for line in lines)
    if text.strip(" .()[]-").casefold() in _NOTHING:
        return ()
    groups = _RELATION.findall(text)
    if not groups:
        groups = [group for group in text.split(";") if group.strip()]
    elif not all(_BETWEEN_RELATIONS.fullmatch(rest) for rest in _RELATION.split(text)[::2]):
        raise ParseError(UNCLEAR_RELATIONS, answer, "there is text outside the brackets of relations")
    relations = [_relation(group, concepts) for group in groups]
    if not relations or any(relation is None for relation in relations):
        raise ParseError(UNCLEAR_RELATIONS, answer, "a relation needs subject, relation and object; or write none")
    return tuple(relation for relation in relations if relation is not None)


def _relation(text: str, concepts: Sequence[str]) -> Relation | None:
    """Return the three parts of a relation, parted by commas, or where a concept begins or ends it; None if unclear."""
    parts = [" ".join(part.strip(" []\"'").split()) for part in text.split(",")]
    if not all(_has_words(part) for part in parts) or len(parts) > 3:
        return None
    if len(parts) == 3:
        return parts[0], parts[1], parts[2]
    whole = " ".join(parts).split()
    names = sorted((tuple(name.casefold().split()) for name in concepts), key=len, reverse=True)
    words = tuple(word.casefold() for word in whole)
    skipped = len(words) > 1 and words[0] in _ARTICLES
    begin = len(parts[0].split()) if len(parts) == 2 else 0
    starts = [skipped + len(name) for name in names if words[skipped : skipped + len(name)] == name]
    ends = [len(words) - len(name) for name in names if words[-len(name) :] == name]
    first = starts[0] if starts else begin
    last = ends[0] if ends else begin
    middle = whole[first:last]
    while middle and middle[-1].casefold() in _ARTICLES:
        middle.pop()
    if not first or not middle or any(word.casefold() in _ARTICLES for word in middle):
        return None
    return " ".join(whole[:first]), " ".join(middle), " ".join(whole[last:])


def _questions_in(line: str, answer: str) -> list[str]:
    """Return the questions of one line, without what the model replied to them; raises ParseError."""
    *bodies, rest = line.split("?")
    _check_reply(rest, answer)
    questions = []
    for body in filter(str.strip, bodies):
        text = _question(body, answer)
        questions.append(f"{text}?")
    return questions


def _question(body: str, answer: str) -> str:
    """Return a question without number, heading or the reply to the question before it; raises ParseError."""
    replied = _REPLY.match(body)
    text = body[replied.end() :] if replied else body
    _check_reply(replied.group() if replied else "", answer)
    text = " ".join(_NUMBERED_QUESTION.sub("", text.strip(_AROUND), count=1).split())
    heading, colon, after = text.partition(":")
    if colon and len(heading.split()) <= 3 and _first_word(after) in _AUXILIARIES:
        text = after.strip(_AROUND)
    if _first_word(text) not in _AUXILIARIES or len(text.split()) < 2:
        raise ParseError(NOT_YES_NO, answer, f"not a yes/no question: {text[:100]}")
    return text


def _first_word(text: str) -> str:
    """Return the first word in lower case, or an empty string."""
    return next(iter(text.split(maxsplit=1)), "").casefold()


def _check_reply(text: str, answer: str) -> None:
    """Raise ParseError unless what follows a question is nothing, `Yes`, or `(yes/no)`.

    A question that the model answers with no contradicts the prompt, or checks what the prompt excludes.
    """
    reply = _REPLY.fullmatch(text)
    if reply is None and _has_words(text) and not _YES_OR_NO.fullmatch(text):
        raise ParseError(STRAY_TEXT, answer, "there is text after a question")
    if reply is not None and reply.group(1).casefold() == "no":
        raise ParseError(NOT_YES_NO, answer, "the model answered a question with no")


def _ends_the_list(text: str, after_blank: bool, answer: str) -> bool:
    """Return whether a line without a question ends the list; it may also be a reply; raises ParseError if unclear."""
    if _REPLY.fullmatch(text):
        _check_reply(text, answer)
        return False
    if after_blank or has_other_label(text):
        return True
    raise ParseError(STRAY_TEXT, answer, "there is a line that is not a question")
