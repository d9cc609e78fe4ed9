"""Questions of held-out prompts that come without any, written once by the first model of a lineage.

They lie in `heldout/<digest>` of the storage, so that all rounds, whoever is the parent, ask the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ospo_core.artifacts.ids import digest_of
from ospo_core.artifacts.tables import load_shard_entry, publish_shard, read_entry
from ospo_core.config import RoundConfig
from ospo_core.errors import StageError
from ospo_core.evaluation.prompts import EvalPrompt
from ospo_core.prompts.decomposing import decompose_prompts
from ospo_core.prompts.families import family
from ospo_core.schema import table_from_rows
from ospo_core.stages.base import ShardResult, options_of
from ospo_core.stages.questions import QuestionsStage
from ospo_core.stages.run import StageRun
from ospo_core.stages.text import text_fields

HELDOUT = "heldout"
"""Folder of the storage."""
ASKED_WHOLE = "asked_whole_"
"""Beginning of the names under which prompts that could not be decomposed are counted, by reason."""
NAME = "questions"
"""Name of the only shard of such a folder."""


def asking_fields(config: RoundConfig) -> dict[str, Any]:
    """Return the configuration that changes the questions; the seed is the evaluation's, the same in every round."""
    return {
        "questions": options_of(config.questions),
        **text_fields(config),
        "seed": config.evaluation.seed,
        "version": QuestionsStage.version,
    }


def heldout_questions(run: StageRun, prompts: Sequence[EvalPrompt]) -> ShardResult:
    """Return rows of table `questions` for `prompts`: those of an earlier round, or decomposed and published now.

    A prompt whose every attempt failed has no row, since it will be asked about as a whole; it is counted under its
    reason. Nothing is offered to the evaluation here, so `items_in` is 0.

    Raises:
        StageError: nobody was named who decomposes them.
    """
    asking = run.judge.asking if run.judge is not None else None
    if asking is None:
        raise StageError("no model is named to decompose the held-out prompts", field=f"stage {run.stage.name}")
    subjects = [prompt.model_dump(include={"item_id", "prompt", "sub_category"}) for prompt in prompts]
    fields = {**asking_fields(run.config), "model": asking.digest, "family": run.config.model.family}
    prefix = f"{HELDOUT}/{digest_of([fields, subjects])}"
    found = load_shard_entry(run.storage, prefix, NAME)
    counts: dict[str, float] = {}  # an earlier round has counted the calls of what was found
    if found is None:
        engine, texts = run.text_engine(asking), family(run.config.model.family)
        seed = run.config.evaluation.seed
        rows, drops, counts, _ = decompose_prompts(engine, texts, subjects, run.config.questions, seed)
        table = table_from_rows("questions", rows)
        found = publish_shard(run.storage, prefix, NAME, table, drops=dict(drops), counts=counts)
    table = read_entry(run.storage, prefix, found)
    whole = {f"{ASKED_WHOLE}{reason}": float(count) for reason, count in found.drops.items()}
    return ShardResult(table=table, items_in=0, counts={**counts, **whole})
