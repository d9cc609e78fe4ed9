"""Hard negatives: one detail of each prompt is changed, then both are expanded together (OSPO, section 3.2)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ospo_core.artifacts.ids import derive_seed
from ospo_core.config.sections import PerturbationsConfig
from ospo_core.engines.base import TextEngine
from ospo_core.prompts.families import AnswerKind, Chat, ParseError, PromptFamily
from ospo_core.prompts.filters import dense_problem, perturbation_problem
from ospo_core.prompts.generation import Answers, Instruction, Sampling, generate_with_retries, generation_counts
from ospo_core.schema import PERTURBATIONS, PerturbationKind, SubCategory

Row = dict[str, Any]


def perturb_prompts(
    engine: TextEngine,
    family: PromptFamily,
    prompt_rows: Sequence[Mapping[str, Any]],
    config: PerturbationsConfig,
    seed: int,
    min_parsed: float = 0.0,
) -> tuple[list[Row], Counter[str], dict[str, float], dict[str, str]]:
    """Perturb every prompt three times and densify the results.

    Args:
        prompt_rows: rows of table `prompts`.
        config: temperatures and limits; `densify=False` uses the short prompts as the dense ones.
        seed: of the round.
        min_parsed: share of the first answers that must have the expected form.

    Returns:
        Rows of table `perturbations`, by prompt and variant; dropped variants by the reason of their last attempt;
        counts: calls, retries, tokens, failed answers by reason (`failed_<reason>`), items_without_variants;
        one raw answer by reason for which answers failed.

    Raises:
        StageError: fewer of the first answers have the expected form.
    """
    variants = [
        _Variant(row, number, kind)
        for row in prompt_rows
        for number, kind in enumerate(PERTURBATIONS[SubCategory(row["sub_category"])])
    ]
    options = (config.temperature, config.max_tokens, config.attempts, config.top_p)
    sampling = Sampling(seed, *options, AnswerKind.PERTURBATION, min_parsed)
    negatives = _perturb(engine, family, variants, sampling)
    pairs = [(variant, text) for variant, text in zip(variants, negatives.values, strict=True) if text is not None]
    dense = _densify(engine, family, pairs, config, seed, min_parsed)
    rows = [
        {
            **{name: variant.row[name] for name in ("item_id", "category", "sub_category", "prompt")},
            "variant": variant.variant,
            "kind": variant.kind.value,
            "negative_prompt": negative,
            "dense_prompt": texts[0],
            "dense_negative_prompt": texts[1],
            "seed": derive_seed(seed, variant.row["item_id"], variant.variant),  # shared by both images of the variant
        }
        for (variant, negative), texts in zip(pairs, dense.values, strict=True)
        if texts is not None
    ]
    drops = Counter(filter(None, (*negatives.reasons, *dense.reasons)))
    kept = {row["item_id"] for row in rows}
    counts = generation_counts(negatives, dense)
    counts["items_without_variants"] = float(sum(row["item_id"] not in kept for row in prompt_rows))
    return rows, drops, counts, {**dense.raw, **negatives.raw}


@dataclass(frozen=True)
class _Variant:
    """One of the three perturbations of a prompt."""

    row: Mapping[str, Any]
    variant: int
    kind: PerturbationKind

    @property
    def sub_category(self) -> SubCategory:
        """The sub-category of the prompt."""
        return SubCategory(self.row["sub_category"])

    def instruction(self, task: str, chat: Chat) -> Instruction:
        """Return the instruction of a task, keyed by this variant."""
        return Instruction((str(self.row["item_id"]), self.variant, task), chat)


def _perturb(
    engine: TextEngine, family: PromptFamily, variants: Sequence[_Variant], sampling: Sampling
) -> Answers[str]:
    """Generate every variant's negative prompt; those of one prompt all differ."""
    accepted: defaultdict[str, list[str]] = defaultdict(list)

    def parse(index: int, answer: str) -> str:
        row = variants[index].row
        negative = family.parse_perturbation(answer)
        if reason := perturbation_problem(negative, row["prompt"], accepted[row["item_id"]]):
            raise ParseError(reason, negative, "the perturbed prompt cannot be a hard negative")
        accepted[row["item_id"]].append(negative)
        return negative

    instructions = [
        variant.instruction("perturb", family.perturb(variant.kind, variant.row["prompt"], variant.sub_category))
        for variant in variants
    ]
    return generate_with_retries(engine, family, instructions, sampling, parse)


def _densify(
    engine: TextEngine,
    family: PromptFamily,
    pairs: Sequence[tuple[_Variant, str]],
    config: PerturbationsConfig,
    seed: int,
    min_parsed: float,
) -> Answers[tuple[str, str]]:
    """Generate the dense prompts of (variant, negative prompt); without `densify` they are the short prompts."""
    if not config.densify:
        return Answers([(variant.row["prompt"], negative) for variant, negative in pairs], [""] * len(pairs))

    def parse(index: int, answer: str) -> tuple[str, str]:
        dense, dense_negative = family.parse_dense(answer)
        if reason := dense_problem(dense, dense_negative):
            raise ParseError(reason, answer, "both dense prompts mean the same")
        return dense, dense_negative

    instructions = [
        variant.instruction("densify", family.densify(variant.row["prompt"], negative, variant.sub_category))
        for variant, negative in pairs
    ]
    options = (config.dense_temperature, config.max_tokens, config.attempts, config.dense_top_p)
    sampling = Sampling(seed, *options, AnswerKind.DENSE, min_parsed)
    return generate_with_retries(engine, family, instructions, sampling, parse)
