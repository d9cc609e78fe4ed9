"""vLLM writes what the patterns allow: a random model with the tokenizer of Janus-Pro gives answers that parse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ospo_core.config.sections import EngineConfig
from ospo_core.engines import build_engine
from ospo_core.models.export import export_text_backbone
from ospo_core.prompts.families import AnswerKind, Chat, family
from ospo_core.prompts.generation import Instruction, Sampling, whole_answer
from ospo_core.schema import PerturbationKind, SubCategory
from tests.support.janus_pro import make_janus_pro

JANUS, PLACE = family("janus_pro"), SubCategory.SPATIAL_2D
TASKS: dict[AnswerKind, tuple[Chat, Callable[[str], Any]]] = {
    AnswerKind.PROMPT: (JANUS.write_prompt(PLACE, JANUS.seed_examples(PLACE)[:3]), JANUS.parse_prompt),
    AnswerKind.PERTURBATION: (
        JANUS.perturb(PerturbationKind.SWAP, "a hen above a bell", PLACE),
        JANUS.parse_perturbation,
    ),
    AnswerKind.DENSE: (JANUS.densify("a hen above a bell", "a bell above a hen", PLACE), JANUS.parse_dense),
    AnswerKind.QUESTIONS: (JANUS.decompose("a hen above a bell", PLACE), JANUS.parse_questions),
}


@pytest.mark.slow_engine
def test_the_answers_of_a_random_model_parse_and_depend_on_their_request_alone(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    folder = export_text_backbone(make_janus_pro(tmp_path / "janus"), tmp_path / "text")
    asked = {kind: Instruction((kind.value,), chat) for kind, (chat, _) in TASKS.items()}
    requests = [Sampling(1, 1.2, 1500, 1, 0.9, kind).request(JANUS, asked[kind]) for kind in TASKS]
    config = EngineConfig(kind="vllm", kv_cache_gib=0.1, max_num_seqs=4, max_model_len=3072)
    with build_engine(config, folder) as engine:
        answers = engine.generate(requests)
        assert engine.generate([requests[3], requests[1]]) == [answers[3], answers[1]]
    assert {answer.finish for answer in answers} == {"stop"}
    for (chat, parse), answer in zip(TASKS.values(), answers, strict=True):
        assert parse(whole_answer(chat, answer))
