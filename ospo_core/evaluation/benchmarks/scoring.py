"""What a scorer must find out about a picture of each prompt, and the score that follows. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from ospo_core.evaluation.benchmarks import compbench, geneval
from ospo_core.evaluation.benchmarks.detections import Depth, Detection
from ospo_core.evaluation.benchmarks.dpg import category_shares, graph_score
from ospo_core.evaluation.benchmarks.prompts import BenchmarkPrompt
from ospo_core.evaluation.benchmarks.protocol import DPG, GENEVAL, T2I_COMPBENCH
from ospo_core.evaluation.judges import all_yes, whole_question
from ospo_core.evaluation.prompts import geneval_questions
from ospo_core.selection.scoring import answer_score

UNDECIDABLE, NO_RELATION = "undecidable", "no_relation_in_prompt"
"""Why a picture has no score: the oracle cannot decide, or the prompt names no relation that could be looked for."""

ORACLE = "oracle"
"""Part of a score of one's own prompts that the embedded world's oracle gave."""

Answer = tuple[float, float]
"""p(yes), p(no)."""


@dataclass(frozen=True)
class Needs:
    """What to find out about one picture.

    Args:
        questions: to answer with yes or no.
        labels: objects to look for; of those in `colored` the colour as well.
        counting: whether objects are counted, which has a threshold of its own.
        text: to compare the picture with; empty for none.
        depth: whether the nearness of every pixel is needed.
        oracle: sentence that the embedded world's oracle judges; empty for none.
    """

    questions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    colored: frozenset[str] = frozenset()
    counting: bool = False
    text: str = ""
    depth: bool = False
    oracle: str = ""


@dataclass(frozen=True)
class Evidence:
    """What was found out about one picture; a field holds nothing where `Needs` asks for nothing."""

    answers: Sequence[Answer] = ()
    found: Sequence[Detection] = ()
    similarity: float = 0.0
    depth: Depth | None = None
    verdict: bool | None = None


@dataclass(frozen=True)
class Score:
    """The score of one picture, usually from 0 to 1.

    Args:
        value: the score; None where it cannot be decided.
        parts: figures behind it, by name.
        reason: why it is not full, where that can be said; without a score, `UNDECIDABLE` or `NO_RELATION`.
    """

    value: float | None
    parts: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


def needs_of(benchmark: str, prompt: BenchmarkPrompt, judged: bool, family: str, oracle: bool) -> Needs:
    """Return what to find out about the pictures of a prompt.

    Args:
        benchmark: name of the protocol.
        prompt: the prompt.
        judged: whether a judge answers questions about everything, instead of evaluators for each job.
        family: of the model that draws; it changes the words of a question about a whole prompt.
        oracle: whether the embedded world's oracle decides about prompts of one's own.
    """
    if benchmark == DPG:
        return Needs(questions=tuple(one.question for one in prompt.propositions))
    if benchmark == GENEVAL and prompt.metadata is not None:
        if judged:
            return Needs(questions=tuple(geneval_questions(prompt.metadata.model_dump(by_alias=True))))
        labels, colored = geneval.labels_of(prompt.metadata), geneval.colored_labels(prompt.metadata)
        return Needs(labels=labels, colored=colored, counting=prompt.metadata.tag == "counting")
    whole = (whole_question(prompt.prompt, family),)
    if benchmark == T2I_COMPBENCH:
        return _judged_compbench(prompt, whole) if judged else _compbench(prompt)
    if oracle and not judged:
        return Needs(oracle=prompt.prompt)
    return Needs(questions=prompt.questions or whole)


def score_of(benchmark: str, prompt: BenchmarkPrompt, evidence: Evidence, judged: bool) -> Score:
    """Return the score of a picture, from what `needs_of` asked for."""
    if benchmark == DPG:
        scores = [answer_score(*answer) for answer in evidence.answers]
        yes = {one.number: score > 0 for one, score in zip(prompt.propositions, scores, strict=True)}
        return Score(graph_score(prompt.propositions, yes), category_shares(prompt.propositions, yes))
    if benchmark == T2I_COMPBENCH:
        return _judged_score(prompt, evidence) if judged else _compbench_score(prompt, evidence)
    if benchmark == GENEVAL and not judged and prompt.metadata is not None:
        against = geneval.reasons_against(prompt.metadata, evidence.found)
        return Score(float(not against), reason="; ".join(against))
    if not evidence.answers:
        if evidence.verdict is None:
            return Score(None, reason=UNDECIDABLE)
        return Score(float(evidence.verdict), {ORACLE: float(evidence.verdict)})
    return Score(float(all_yes([answer_score(*answer) for answer in evidence.answers])))


def share_of_yes(answer: Answer) -> float:
    """Return `p(yes) / (p(yes) + p(no))`; 0 where both are 0."""
    return answer[0] / sum(answer) if sum(answer) > 0 else 0.0


def _compbench(prompt: BenchmarkPrompt) -> Needs:
    phrases = tuple(f"{phrase}?" for phrase in compbench.noun_phrases(prompt.prompt))
    if prompt.category == "numeracy":
        return Needs(labels=tuple(one.label for one in compbench.counts_of(prompt.prompt)), counting=True)
    if prompt.category == "spatial":
        return Needs(labels=_labels(compbench.spatial_relation(prompt.prompt)))
    if prompt.category == "3d_spatial":
        return Needs(labels=_labels(compbench.depth_relation(prompt.prompt)), depth=True)
    if prompt.category == "non_spatial":
        return Needs(text=prompt.prompt)
    if prompt.category == "complex":
        labels = _labels(compbench.spatial_relation(prompt.prompt)) if "spatial" in prompt.parts else ()
        return Needs(questions=phrases, labels=labels, text=prompt.prompt if "action" in prompt.parts else "")
    return Needs(questions=phrases)


def _labels(relation: compbench.Relation | None) -> tuple[str, ...]:
    return (relation.first, relation.second) if relation is not None else ()


def _compbench_score(prompt: BenchmarkPrompt, evidence: Evidence) -> Score:
    """Return the score of the category's own evaluator."""
    attribute = compbench.attribute_score([share_of_yes(answer) for answer in evidence.answers])
    if prompt.category == "numeracy":
        return Score(compbench.count_score(compbench.counts_of(prompt.prompt), evidence.found))
    if prompt.category in ("spatial", "3d_spatial"):
        deep = prompt.category == "3d_spatial"
        relation = compbench.depth_relation(prompt.prompt) if deep else compbench.spatial_relation(prompt.prompt)
        if relation is None:
            return Score(None, reason=NO_RELATION)
        return Score(compbench.relation_score(relation, evidence.found, evidence.depth if deep else None))
    if prompt.category == "non_spatial":
        return Score(evidence.similarity)
    if prompt.category != "complex":
        return Score(attribute)
    parts = {"attribute": attribute}
    relation = compbench.spatial_relation(prompt.prompt) if "spatial" in prompt.parts else None
    if relation is not None:
        parts["spatial"] = compbench.relation_score(relation, evidence.found)
    if "action" in prompt.parts:
        parts["action"] = evidence.similarity
    return Score(compbench.complex_score(parts), parts)


def _judged_compbench(prompt: BenchmarkPrompt, whole: tuple[str, ...]) -> Needs:
    """Return the questions to a judge: one per named thing, and but for attributes one about the whole prompt."""
    things = tuple(f"Does the image show {phrase}?" for phrase in compbench.noun_phrases(prompt.prompt))
    return Needs(questions=things if prompt.category in _ATTRIBUTES and things else (*things, *whole))


def _judged_score(prompt: BenchmarkPrompt, evidence: Evidence) -> Score:
    """Return the product over the things for attributes, as BLIP-VQA's, otherwise the mean over all questions."""
    shares = [share_of_yes(answer) for answer in evidence.answers]
    return Score(compbench.attribute_score(shares) if prompt.category in _ATTRIBUTES else fmean(shares))


_ATTRIBUTES = ("color", "shape", "texture")
