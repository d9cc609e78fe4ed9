"""A whole round by the shipped profile for Janus-Pro-7B, on a random model of the true layout, with only sizes changed.

576 image tokens, 16 384 codes, 384 px, a byte-level tokenizer, 102 400 text ids; few and narrow layers. Text is vLLM's
on the exported backbone, under structured output, since a random model would never write an answer by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.round import RoundResult, self_improvement_round
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import read_table
from ospo_core.config import load_profile
from ospo_core.schema import StageName, SubCategory
from tests.support.janus_pro import Shape, load_janus_pro, make_janus_pro

QUOTAS = {"color_1": 1, "spatial_2d": 1}


@pytest.fixture(autouse=True)
def server(prefect_server: str) -> Iterator[None]:
    yield


def run_round(root: Path, *options: str) -> RoundResult:
    """Run the profile on the CPU with small numbers."""
    heldout = root / "heldout.jsonl"
    heldout.write_text(json.dumps({"prompt": "a red bench", "category": "attribute", "questions": ["Is it red?"]}) + "\n")
    quotas = [f"prompts.quotas.{name.value}={QUOTAS.get(name.value, 0)}" for name in SubCategory]
    sizes = [
        f"storage.root={root / 'store'}",
        f"storage.scratch={root / 'scratch'}",
        f"model.path={root / 'model'}",
        "model.device=cpu",
        "engine.kv_cache_gib=0.1",
        "engine.max_num_seqs=4",
        "prompts.max_tokens=64",
        "perturbations.max_tokens=96",
        "questions.max_tokens=48",
        "questions.max_questions=2",
        "images.batch_size=8",
        "scores.batch_size=8",
        "training.steps=2",
        "training.batch_size=1",
        "training.accumulation=1",
        f"evaluation.prompts={heldout}",
        "evaluation.samples=1",
        "evaluation.bootstrap=50",
    ]
    return self_improvement_round(load_profile("janus-pro-7b", [*sizes, *quotas, *options]))


@pytest.mark.slow_engine
def test_a_random_model_of_the_true_layout_goes_through_a_round(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    make_janus_pro(tmp_path / "model", Shape())
    result = run_round(tmp_path, "selection.rule=best_of_n")
    print({name: (m.rows, m.drops, m.seconds if hasattr(m, "seconds") else None) for name, m in result.manifests.items()})
