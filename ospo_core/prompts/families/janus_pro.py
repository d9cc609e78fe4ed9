"""Text formats of Janus-Pro: its chat format, and few-shot instructions whose answers are labelled lines."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ospo_core.prompts.families import janus_pro_texts as texts
from ospo_core.prompts.families.base import IMAGE_MARKER, ParseError, PromptAnswer, PromptFamily, Relation
from ospo_core.prompts.filters import UNPARSABLE
from ospo_core.schema import PerturbationKind, SubCategory

NO_RELATION = "none"

_LINE = re.compile(r"^[\s*_]*([A-Za-z]+)[\s*_]*:[\s*_]*(.*?)[\s*_]*$")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])?\s*")
_RELATION = re.compile(r"\(([^()]*)\)")


def _marked_lines(answer: str, names: tuple[str, ...]) -> list[str]:
    """Return the texts of the lines `Name: text` for `names`; raises ParseError unless each occurs exactly once."""
    found: dict[str, str] = {}
    for match in filter(None, map(_LINE.match, answer.splitlines())):
        name, text = match.group(1).capitalize(), match.group(2)
        if name in names and found.setdefault(name, text) is not text:
            raise ParseError(UNPARSABLE, answer, f"the line {name} occurs twice")
    if missing := [name for name in names if not found.get(name)]:
        raise ParseError(UNPARSABLE, answer, f"no line {' and '.join(missing)}")
    return [found[name] for name in names]


def _plain(sentence: str) -> str:
    """Return a prompt without surrounding quotes and without a final full stop."""
    return " ".join(sentence.strip(" \"'“”").rstrip(".").split())


def _relations(text: str, answer: str) -> tuple[Relation, ...]:
    """Parse `(subject, relation, object); ...` or `none`."""
    if text.strip(" .()").lower() == NO_RELATION:
        return ()
    relations = [[part.strip() for part in group.split(",")] for group in _RELATION.findall(text)]
    if not relations:
        raise ParseError(UNPARSABLE, answer, "expected relations in brackets, or none")
    if any(len(words) != 3 or not all(words) for words in relations):
        raise ParseError(UNPARSABLE, answer, "a relation needs subject, relation and object")
    return tuple((subject, relation, other) for subject, relation, other in relations)


class JanusProFamily(PromptFamily):
    """Janus-Pro 1B and 7B (deepseek-community's checkpoints in transformers' format)."""

    name = "janus_pro"
    stop = ("<|User|>", "\n\n")
    yes = ("yes", "Yes", " yes", " Yes")
    no = ("no", "No", " no", " No")

    def chat_text(self, instruction: str) -> str:
        """Return the system prompt, the user's turn and the start of the assistant's turn."""
        return f"{texts.SYSTEM}<|User|>: {instruction}\n\n<|Assistant|>:"

    def vqa_text(self, question: str) -> str:
        """Return the chat text of a picture, a newline and a question."""
        text = texts.VQA.format(question=question)
        return self.chat_text(f"<begin_of_image>{IMAGE_MARKER}<end_of_image>\n{text}")

    def generation_text(self, prompt: str) -> str:
        """Return the chat without a system prompt, as Janus was trained for generation, and the begin-of-image tag."""
        return f"<|User|>: {prompt}\n\n<|Assistant|>:<begin_of_image>"

    def seed_examples(self, sub_category: SubCategory) -> list[PromptAnswer]:
        """Return the hand-written prompts of `janus_pro_texts`."""
        return list(texts.SEEDS[sub_category])

    def write_prompt(self, sub_category: SubCategory, examples: Sequence[PromptAnswer]) -> str:
        """Return the few-shot instruction, whose examples have prompt, concepts and relations."""
        shown = "\n\n".join(self.format_prompt(example) for example in examples)
        return texts.WRITE.format(task=texts.TASKS[sub_category], examples=shown)

    def perturb(self, kind: PerturbationKind, prompt: str, sub_category: SubCategory) -> str:
        """Return the few-shot instruction to change one detail."""
        pairs = texts.EDIT_EXAMPLES[kind]
        shown = "\n\n".join(f"Base: {base}\nChanged: {changed}" for base, changed in pairs)
        task, edit = texts.TASKS[sub_category], texts.EDITS[kind]
        return texts.PERTURB.format(task=task, edit=edit, examples=shown, prompt=prompt)

    def densify(self, prompt: str, negative: str) -> str:
        """Return the instruction to expand both prompts into one scene."""
        return texts.DENSIFY.format(prompt=prompt, negative=negative)

    def decompose(self, prompt: str) -> str:
        """Return the instruction to write questions about everything in a prompt."""
        return texts.DECOMPOSE.format(prompt=prompt)

    def format_prompt(self, answer: PromptAnswer) -> str:
        """Return the lines `Prompt:`, `Concepts:` (separated by semicolons) and `Relations:` (triples, or none)."""
        relations = "; ".join(f"({', '.join(relation)})" for relation in answer.relations)
        concepts = "; ".join(answer.concepts)
        return f"Prompt: {answer.prompt}\nConcepts: {concepts}\nRelations: {relations or NO_RELATION}"

    def format_dense(self, dense: str, dense_negative: str) -> str:
        """Return the lines `First:` and `Second:`."""
        return f"First: {dense}\nSecond: {dense_negative}"

    def format_questions(self, questions: Sequence[str]) -> str:
        """Return one question per line, each after a dash."""
        return "\n".join(f"- {question}" for question in questions)

    def parse_prompt(self, answer: str) -> PromptAnswer:
        """Parse what `format_prompt` writes; raises ParseError."""
        prompt, listed, relations = _marked_lines(answer, ("Prompt", "Concepts", "Relations"))
        concepts = tuple(part.strip() for part in listed.split(";"))
        if not all(concepts):
            raise ParseError(UNPARSABLE, answer, "a concept is empty")
        return PromptAnswer(_plain(prompt), concepts, _relations(relations, answer))

    def parse_perturbation(self, answer: str) -> str:
        """Parse the line `Changed:`; raises ParseError."""
        return _plain(_marked_lines(answer, ("Changed",))[0])

    def parse_dense(self, answer: str) -> tuple[str, str]:
        """Parse what `format_dense` writes; raises ParseError."""
        first, second = _marked_lines(answer, ("First", "Second"))
        return first, second

    def parse_questions(self, answer: str) -> list[str]:
        """Parse one question per line, with or without a dash or number before it; raises ParseError."""
        lines = [_BULLET.sub("", line, count=1).strip() for line in answer.splitlines() if line.strip()]
        if not lines or not all(line.endswith("?") and len(line) > 1 for line in lines):
            raise ParseError(UNPARSABLE, answer, "no questions, or a line that is not a question")
        return list(dict.fromkeys(lines))
