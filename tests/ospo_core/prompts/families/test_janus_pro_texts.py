"""The few-shot examples for Janus-Pro: enough of each sort, in the form that is parsed, and right in what they show."""

from __future__ import annotations

import re
from collections import Counter
from difflib import SequenceMatcher

import pytest

from ospo_core.config import load_profile
from ospo_core.prompts.families import AnswerKind, PromptAnswer, family
from ospo_core.prompts.families import janus_pro_texts as texts
from ospo_core.prompts.filters import ContaminationCheck, dense_problem, normalise, number_above_four, same_meaning
from ospo_core.schema import PERTURBATIONS, PerturbationKind, SubCategory

JANUS = family("janus_pro")
TASKS = {
    "perturbations": texts.perturbation_texts(),
    "densification": texts.densification_texts(),
    "questions": texts.question_texts(),
}
SUB = pytest.mark.parametrize("sub_category", SubCategory)
EDITS = [
    pytest.param(kind, edit, id=edit.base)
    for one in TASKS["perturbations"].families.values()
    for kind, edits in one.examples.items()
    for edit in edits
]
PAIRS = [pytest.param(pair, id=pair.base) for one in TASKS["densification"].families.values() for pair in one.examples]
DECOMPOSITIONS = [
    pytest.param(each, id=each.prompt) for one in TASKS["questions"].families.values() for each in one.examples
]


def words(text: str) -> list[str]:
    """The words of a text that say something about a picture."""
    return [word for word in normalise(text).split() if word not in ("a", "an", "and")]


def changes(first: str, second: str) -> list[tuple[str, list[str], list[str]]]:
    """What turns the words of one text into those of the other."""
    before, after = words(first), words(second)
    codes = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return [(tag, before[i:j], after[k:m]) for tag, i, j, k, m in codes if tag != "equal"]


@SUB
def test_prompts_have_more_examples_than_a_call_shows(sub_category: SubCategory) -> None:
    config = load_profile("janus-pro-7b").prompts
    shown = config.examples_complex if sub_category is SubCategory.COMPLEX else config.examples
    assert len(JANUS.seed_examples(sub_category)) >= max(8, shown + 3)


@SUB
def test_concepts_and_relations_are_in_the_prompt(sub_category: SubCategory) -> None:
    for seed in JANUS.seed_examples(sub_category):
        assert all(concept in seed.prompt for concept in seed.concepts), seed
        for subject, relation, other in seed.relations:
            assert {subject, other} <= set(seed.concepts) and relation in seed.prompt, seed


def test_numbers_of_concepts_fit_the_sub_category() -> None:
    for sub_category in (SubCategory.COLOR_2, SubCategory.SHAPE_2, SubCategory.TEXTURE_2, SubCategory.NUMERACY_2):
        assert all(len(seed.concepts) == 2 for seed in JANUS.seed_examples(sub_category))
    for sub_category in (SubCategory.SPATIAL_2D, SubCategory.SPATIAL_3D):
        assert all(len(seed.relations) == 1 for seed in JANUS.seed_examples(sub_category))
    assert all(seed.relations for seed in JANUS.seed_examples(SubCategory.NON_SPATIAL))
    assert all(len(seed.relations) > 1 for seed in JANUS.seed_examples(SubCategory.COMPLEX))


@pytest.mark.parametrize("name", TASKS)
def test_every_sub_category_is_in_one_family(name: str) -> None:
    named = [sub for one in TASKS[name].families.values() for sub in one.sub_categories]
    assert sorted(named) == sorted(SubCategory)


@SUB
def test_every_kind_of_perturbation_has_three_examples(sub_category: SubCategory) -> None:
    examples = TASKS["perturbations"].examples_for(sub_category)
    assert all(len(examples[kind]) >= 3 for kind in PERTURBATIONS[sub_category])
    assert len(TASKS["densification"].examples_for(sub_category)) >= 3
    assert len(TASKS["questions"].examples_for(sub_category)) >= 3


@pytest.mark.parametrize(("kind", "edit"), EDITS)
def test_an_edit_changes_one_place_in_the_way_of_its_kind(kind: PerturbationKind, edit: texts.Edit) -> None:
    assert not same_meaning(edit.base, edit.changed)
    found = changes(edit.base, edit.changed)
    if kind is PerturbationKind.SWAP:
        assert Counter(words(edit.base)) == Counter(words(edit.changed))
    elif kind is PerturbationKind.DROP:
        assert [tag for tag, _, _ in found] == ["delete"]
    else:
        ((tag, before, after),) = found
        assert tag == "replace" and f"{' '.join(before)} -> {' '.join(after)}" in edit.change


@pytest.mark.parametrize("pair", PAIRS)
def test_dense_descriptions_share_all_but_the_changed_words(pair: texts.DensePair) -> None:
    assert dense_problem(pair.first, pair.second) is None
    assert set(words(pair.base)) <= set(words(pair.first)) and set(words(pair.changed)) <= set(words(pair.second))
    assert len(words(pair.first)) >= 3 * len(words(pair.base))
    found = changes(pair.first, pair.second)
    if any(tag == "delete" for tag, _, _ in found):  # a dropped object takes its whole sentence along
        ((_, gone, _),) = found
        assert set(words(pair.base)) - set(words(pair.changed)) <= set(gone)
    else:
        differing = {word for _, before, after in found for word in (*before, *after)}
        assert differing <= set(words(pair.base)) | set(words(pair.changed))


@pytest.mark.parametrize("each", DECOMPOSITIONS)
def test_questions_ask_one_fact_each_in_the_words_of_the_prompt(each: texts.Decomposition) -> None:
    assert len(set(each.questions)) == len(each.questions) >= 2
    asked = set(words(" ".join(each.questions)))
    assert set(words(each.prompt)) - asked <= {"hands", "cracks", "in"}  # "is ... handing", "is ... wearing"
    for question in each.questions:
        assert re.fullmatch(r"(Is|Are) [^?]+\?", question) and " and " not in question


def test_every_answer_is_parsed_to_what_was_written() -> None:
    for edit in (param.values[1] for param in EDITS):
        assert JANUS.parse_perturbation(JANUS.format_perturbation(edit.change, edit.changed)) == edit.changed
    for pair in (param.values[0] for param in PAIRS):
        assert JANUS.parse_dense(JANUS.format_dense(pair.first, pair.second)) == (pair.first, pair.second)
    for each in (param.values[0] for param in DECOMPOSITIONS):
        assert tuple(JANUS.parse_questions(JANUS.format_questions(each.questions))) == each.questions


def every_prompt() -> list[str]:
    seeds = [seed.prompt for sub_category in SubCategory for seed in JANUS.seed_examples(sub_category)]
    edits = [text for param in EDITS for text in (param.values[1].base, param.values[1].changed)]
    dense = [text for param in PAIRS for text in (param.values[0].base, param.values[0].changed)]
    return [*seeds, *edits, *dense, *(param.values[0].prompt for param in DECOMPOSITIONS)]


def test_no_prompt_occurs_twice_and_no_number_is_above_four() -> None:
    prompts = every_prompt()
    assert [text for text, count in Counter(map(normalise, prompts)).items() if count > 1] == []
    assert [text for text in prompts if number_above_four(text)] == []
    for number, text in enumerate(prompts):
        assert not ContaminationCheck([*prompts[:number], *prompts[number + 1 :]])(text), text


def chats(sub_category: SubCategory, prompt: str) -> list[str]:
    """Every chat of a sub-category about a prompt, as long as a round makes it."""
    shown = load_profile("janus-pro-7b").prompts.examples_complex
    longest = sorted(JANUS.seed_examples(sub_category), key=lambda seed: len(JANUS.format_prompt(seed)))[-shown:]
    made = [
        JANUS.write_prompt(sub_category, longest),
        *(JANUS.perturb(kind, prompt, sub_category) for kind in PERTURBATIONS[sub_category]),
        JANUS.densify(prompt, prompt, sub_category),
        JANUS.decompose(prompt, sub_category),
    ]
    return [JANUS.chat_text(chat) for chat in made]


@SUB
def test_every_chat_and_its_answer_fit_the_window_whatever_the_tokenizer(sub_category: SubCategory) -> None:
    config = load_profile("janus-pro-7b")
    answer = max(config.prompts.max_tokens, config.perturbations.max_tokens, config.questions.max_tokens)
    for text in chats(sub_category, "x" * 200):
        assert len(text.encode()) + 1 + answer <= config.engine.max_model_len  # a byte-level token is at least a byte


@SUB
def test_every_answer_shown_has_the_form_that_structured_output_enforces(sub_category: SubCategory) -> None:
    made = {
        AnswerKind.PROMPT: [JANUS.write_prompt(sub_category, JANUS.seed_examples(sub_category))],
        AnswerKind.PERTURBATION: [JANUS.perturb(kind, "a", sub_category) for kind in PERTURBATIONS[sub_category]],
        AnswerKind.DENSE: [JANUS.densify("a", "a", sub_category)],
        AnswerKind.QUESTIONS: [JANUS.decompose("a", sub_category)],
    }
    for kind, chats in made.items():
        for chat in chats:
            assert all(answer.startswith(chat.opening) for _, answer in chat.examples)
            for _, answer in chat.examples:
                assert re.fullmatch(str(JANUS.pattern(kind)), answer), answer
                assert not any(stop in answer for stop in JANUS.stop(kind))


@SUB
def test_what_differs_between_two_requests_of_a_task_comes_last(sub_category: SubCategory) -> None:
    for first, second in zip(chats(sub_category, "a"), chats(sub_category, "b"), strict=True):
        assert first.rpartition("<|User|>")[0] == second.rpartition("<|User|>")[0]
        assert first.rpartition("<|User|>")[0].count("<|Assistant|>") >= 3


def test_a_chat_shows_the_examples_as_turns_and_opens_the_answer() -> None:
    seed = PromptAnswer("a goose above a bell", ("goose", "bell"), (("goose", "above", "bell"),))
    chat = JANUS.write_prompt(SubCategory.SPATIAL_2D, [seed])
    assert [answer for _, answer in chat.examples] == [JANUS.format_prompt(seed)]
    assert JANUS.chat_text(chat).endswith(f"<|User|>: {chat.instruction}\n\n<|Assistant|>: Prompt:")
    assert JANUS.parse_prompt(chat.answer(JANUS.format_prompt(seed).removeprefix("Prompt:"))) == seed
    assert JANUS.write_prompt(SubCategory.SPATIAL_2D, []).examples == ()
