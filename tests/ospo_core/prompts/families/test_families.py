"""What holds for every family: seeds for each sub-category, texts that say what they are about, names."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from ospo_core.errors import ConfigError
from ospo_core.prompts.families import FAMILIES, IMAGE_MARKER, PromptFamily, family
from ospo_core.prompts.filters import ContaminationCheck, number_above_four
from ospo_core.schema import PERTURBATIONS, SubCategory

EVERY = pytest.mark.parametrize("known", FAMILIES.values(), ids=FAMILIES)
_JANUS = ("<begin_of_image>", "<end_of_image>")
TAGS = {"shapes": _JANUS, "janus_pro": _JANUS, "emu3": ("<|image start|>", "<|image end|>")}
"""The tags around an image, by family."""


@EVERY
@pytest.mark.parametrize("sub_category", SubCategory)
def test_seeds_are_enough_distinct_and_in_the_familys_own_form(known: PromptFamily, sub_category: SubCategory) -> None:
    seeds = known.seed_examples(sub_category)
    assert len({seed.prompt for seed in seeds}) == len(seeds) >= (5 if sub_category is SubCategory.COMPLEX else 3)
    for seed in seeds:
        assert known.parse_prompt(known.format_prompt(seed)) == seed
        assert number_above_four(seed.prompt) is None


@EVERY
@pytest.mark.parametrize("sub_category", SubCategory)
def test_instructions_name_what_they_are_about(known: PromptFamily, sub_category: SubCategory) -> None:
    seeds = known.seed_examples(sub_category)
    assert all(seed.prompt in known.chat_text(known.write_prompt(sub_category, seeds)) for seed in seeds)
    for kind in PERTURBATIONS[sub_category]:
        assert "a striped zebra" in known.perturb(kind, "a striped zebra", sub_category).instruction
    both = known.densify("a red x", "a blue y", sub_category).instruction
    assert "a red x" in both and "a blue y" in both
    assert "a red x" in known.decompose("a red x", sub_category).instruction


@EVERY
def test_image_tags_are_where_the_model_expects_them(known: PromptFamily) -> None:
    begin, end = TAGS[known.name]
    assert known.generation_text("a star").endswith(begin)
    assert f"{begin}{IMAGE_MARKER}{end}" in known.vqa_text("is there a star ?")
    assert {"yes"} <= set(known.yes) and {"no"} <= set(known.no)


def test_an_unknown_family_is_named_with_the_closest_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean shapes"):
        family("shape")


def test_no_seed_of_the_shapes_family_is_held_out() -> None:
    lines = files("ospo_core.shapes").joinpath("data/heldout.jsonl").read_text(encoding="utf-8").splitlines()
    held_out = ContaminationCheck(json.loads(line)["prompt"] for line in lines)
    seeds = [seed.prompt for sub_category in SubCategory for seed in family("shapes").seed_examples(sub_category)]
    assert [seed for seed in seeds if held_out(seed)] == []
