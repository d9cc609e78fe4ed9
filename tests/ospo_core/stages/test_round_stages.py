"""The stages of a round fit each other: ids, variants, seeds and shards line up from prompts to promotion."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image
from safetensors import safe_open

from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.tables import read_table
from ospo_core.config.sections import EngineConfig
from ospo_core.errors import StageError
from ospo_core.models import pictures, sampling
from ospo_core.models.base import UnifiedModel
from ospo_core.models.pictures import decode_tokens
from ospo_core.models.sampling import SampledImages, sample_images
from ospo_core.rounds import Round
from ospo_core.schema import StageName, table_from_rows
from ospo_core.selection.scoring import answer_score
from ospo_core.stages import STAGES
from ospo_core.stages.attempts import Attempt
from ospo_core.stages.model_ref import model_folder, trained_model
from ospo_core.stages.pairs import PairsStage
from ospo_core.stages.run import StageRun, run_stage
from tests.ospo_core.stages.conftest import SmallRound
from tests.support.rounds import bound, finished


def test_every_stage_has_the_same_shards_and_accounts_for_its_items(small: SmallRound) -> None:
    for name in list(StageName)[:6]:
        manifest = small.manifests[name]
        assert [shard.name for shard in manifest.shards] == ["part-00000", "part-00001"]
        assert manifest.items_in == manifest.rows + sum(manifest.drops.values()), name
        assert {shard.table for shard in manifest.shards} == {STAGES[name].table}


def test_one_engine_start_and_few_model_loads(small: SmallRound) -> None:
    assert small.resources.starts == {"text": 2, "image": 3}
    assert small.resources.engine.closed


def test_both_images_of_a_variant_share_their_noise(small: SmallRound) -> None:
    images = small.rows(StageName.IMAGES)
    seeds: dict[tuple[str, int], set[int]] = {}
    for row in images:
        seeds.setdefault((row["item_id"], row["variant"]), set()).add(row["seed"])
    assert all(len(found) == 1 for found in seeds.values())
    assert len({next(iter(found)) for found in seeds.values()}) == len(seeds)
    assert Counter(row["side"] for row in images) == {"base": len(seeds), "negative": len(seeds)}


def test_a_shard_is_drawn_in_whole_batches_with_the_longest_prompts_first(
    small: SmallRound, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first batch of a GPU captures then suits all others; only the last one may be smaller."""
    batches: list[list[str]] = []

    def watched(model: UnifiedModel, prompts: list[str], *others: Any) -> SampledImages:
        batches.append(prompts)
        return sample_images(model, prompts, *others)

    images = small.config.images.model_copy(update={"batch_size": 3})
    config = small.config.model_copy(update={"images": images})
    run = bound(STAGES[StageName.IMAGES], config, small.manifests, small.model, resources=small.resources)
    (first, *_) = run.stage.shards(run)
    monkeypatch.setattr(pictures, "PICTURES_IN_MEMORY", 3)
    monkeypatch.setattr(sampling, "sample_images", watched)
    rows = run.stage.run_shard(run, first).table.to_pylist()
    lengths = [[len(prompt) for prompt in batch] for batch in batches]
    assert [len(batch) for batch in batches] == [3] * (len(rows) // 3) + [len(rows) % 3] and len(rows) % 3
    assert all(min(longer) >= max(shorter) for longer, shorter in pairwise(lengths))
    made = [row["tokens"] for row in small.rows(StageName.IMAGES)]
    assert [row["tokens"] for row in rows] == made[: len(rows)]


def test_scores_ask_every_question_of_the_base_prompt(small: SmallRound) -> None:
    questions = {(row["item_id"], row["of"]): row["questions"] for row in small.rows(StageName.QUESTIONS)}
    variants = Counter(row["item_id"] for row in small.rows(StageName.PERTURBATIONS))
    for row in small.rows(StageName.SCORES):
        assert [answer["question"] for answer in row["answers"]] == questions[row["item_id"], "base"]
        negatives = row["logprob_negatives"] or []  # unfiltered pairs choose base images only
        assert len(negatives) == (variants[row["item_id"]] if row["side"] == "base" else 0)
        assert row["logprob_base"] < 0 and all(value < 0 for value in negatives)
        scores = [answer_of(answer) for answer in row["answers"]]
        assert row["score"] == pytest.approx(sum(scores) / len(scores))
        assert row["negative_answers"] == []  # unfiltered pairs need none of them


def test_pictures_are_those_of_their_tokens(small: SmallRound) -> None:
    rows = small.rows(StageName.IMAGES)
    model = small.resources.image_model(small.config.model, Path(small.model.source), small.model.digest)
    for row, drawn in zip(rows, decode_tokens(model, np.array([row["tokens"] for row in rows])), strict=True):
        with Image.open(BytesIO(row["image"]["bytes"])) as picture:
            assert np.abs(np.asarray(picture).astype(int) - drawn).max() <= 1  # the size of a batch is a rounding error


def test_rule_v2_compares_only_images_that_could_be_chosen_with_the_perturbed_prompts(small: SmallRound) -> None:
    weakest = sorted(min(map(answer_of, row["answers"])) for row in small.rows(StageName.SCORES))
    threshold = max(-1.0, weakest[len(weakest) // 2])  # the random model says no to everything
    changed = {"filtering": True, "v2_answer_threshold": threshold}
    config = small.config.model_copy(update={"selection": small.config.selection.model_copy(update=changed)})
    stage = STAGES[StageName.SCORES]
    run = bound(stage, config, small.manifests, small.model, resources=small.resources)
    rows = stage.run_shard(run, stage.shards(run)[0]).table.to_pylist()
    negatives = {(row["item_id"], row["variant"]) for row in small.rows(StageName.PERTURBATIONS)}
    unfiltered = {(row["item_id"], row["variant"], row["side"]): row for row in small.rows(StageName.SCORES)}
    for row in rows:
        could = all(answer_of(answer) > min(0.0, threshold) for answer in row["answers"])
        assert bool(row["negative_answers"]) == bool(row["logprob_negatives"]) == could
        everything = unfiltered[row["item_id"], row["variant"], row["side"]]
        assert row["logprob_base"] == pytest.approx(everything["logprob_base"])
        if could and row["side"] == "base":
            assert row["logprob_negatives"] == pytest.approx(everything["logprob_negatives"])
        assert {(row["item_id"], answer["variant"]) for answer in row["negative_answers"]} <= negatives
    assert 0 < sum(bool(row["negative_answers"]) for row in rows) < len(rows)


def answer_of(answer: dict[str, float]) -> float:
    return answer_score(answer["p_yes"], answer["p_no"])


def test_pairs_join_tokens_and_prompts_of_their_item(small: SmallRound) -> None:
    images = {(row["item_id"], row["variant"], row["side"]): row for row in small.rows(StageName.IMAGES)}
    prompts = {row["item_id"]: row["prompt"] for row in small.rows(StageName.PROMPTS)}
    pairs = small.rows(StageName.PAIRS)
    assert len(pairs) == 8
    for pair in pairs:
        assert pair["prompt"] == prompts[pair["item_id"]] != pair["negative_prompt"]
        for side in ("chosen", "rejected"):
            image = images[pair["item_id"], pair[f"{side}_variant"], pair[f"{side}_side"]]
            assert image["tokens"] == pair[f"{side}_tokens"] and pair[f"{side}_mask"] is None


def test_object_masks_are_computed_where_training_weighs_by_them(small: SmallRound) -> None:
    loss = small.config.training.loss.model_copy(update={"object_weight": 1.0})
    training = small.config.training.model_copy(update={"loss": loss})
    config = small.config.model_copy(update={"training": training})
    stage = PairsStage()
    run = bound(stage, config, small.manifests, small.model, resources=small.resources)
    assert stage.fields(config) != stage.fields(small.config)
    rows = stage.run_shard(run, stage.shards(run)[0]).table.to_pylist()
    for row in rows:
        assert len(row["chosen_mask"]) == len(row["chosen_tokens"])
        assert all(0 <= weight <= 1 for weight in row["chosen_mask"] + row["rejected_mask"])


def test_nothing_to_train_on_is_refused_with_the_reasons(small: SmallRound) -> None:
    selection = small.config.selection.model_copy(update={"filtering": True, "v2_answer_threshold": 1.0})
    config = small.config.model_copy(update={"selection": selection})
    with pytest.raises(StageError, match=r"filtered out.*no_chosen_candidate.*selection"):
        run_stage(bound(PairsStage(), config, small.manifests, small.model, resources=small.resources))


def test_prompt_without_perturbations_is_counted(small: SmallRound) -> None:
    run = bound(PairsStage(), small.config, small.manifests, small.model, resources=small.resources)
    kept = {name: run.table(name, 0) for name in PairsStage.reads}
    lost = kept[StageName.PROMPTS]["item_id"][0]

    class Shortened(StageRun):
        """A run that has lost one prompt's perturbations."""

        def table(self, stage: StageName, index: int) -> pa.Table:
            others = kept[stage].filter(pc.not_equal(kept[stage]["item_id"], lost))
            return kept[stage] if stage is StageName.PROMPTS else others

    short = Shortened.bind(run.stage, run.config, run.storage, run.model, run.upstream, resources=run.resources)
    made = short.stage.run_shard(short, short.stage.shards(short)[0])
    assert made.drops["no_perturbation"] == 1 and made.items_in == 4


def test_training_stores_a_model_that_the_next_round_can_start_from(small: SmallRound, tmp_path: Path) -> None:
    manifest = small.manifests[StageName.TRAINING]
    child = trained_model(manifest)
    assert child.digest == manifest.extra["model_digest"] == manifest.extra["digest"] != small.model.digest
    folder = model_folder(child, small.storage, tmp_path)
    assert model_digest(folder) == child.digest
    with safe_open(folder / "model.safetensors", framework="np") as weights:
        assert len(list(weights.keys())) > 10
    assert any(key.endswith("adapter_model.safetensors") for key in small.storage.list(manifest.extra["adapter"]))
    metrics = {row["name"] for row in small.rows(StageName.TRAINING)}
    assert "loss" in metrics and "step" not in metrics
    assert not (Path(small.config.storage.scratch) / "training" / manifest.fingerprint).exists()


def test_evaluation_pairs_parent_and_child_and_decides(small: SmallRound) -> None:
    manifest = small.manifests[StageName.EVALUATION]
    rows = small.rows(StageName.EVALUATION)
    drawn = {
        label: {(r["item_id"], r["sample"], r["seed"]) for r in rows if r["model"] == label}
        for label in ("parent", "child")
    }
    assert drawn["parent"] == drawn["child"] and len(rows) == 8
    assert isinstance(manifest.extra["decision"]["promote"], bool) and manifest.extra["decision"]["metric"] == "vqa"
    assert manifest.extra["child"] == small.manifests[StageName.TRAINING].extra["digest"]


def test_rows_of_another_schema_are_refused() -> None:
    with pytest.raises(StageError, match="do not match the schema"):
        table_from_rows("questions", [{"item_id": "a"}])


@pytest.mark.parametrize("name", [StageName.IMAGES, StageName.SCORES, StageName.PAIRS])
def test_items_recomputed_with_the_same_options_come_out_the_same(small: SmallRound, name: StageName) -> None:
    round = Round(small.config, small.storage, small.model, resources=small.resources)
    again = finished(round.bind(name, small.manifests, Attempt(where="sub_category = 'spatial_2d'")))
    assert 0 < again.counts["kept_rows"] < again.rows
    assert again.prefix != small.manifests[name].prefix
    before, after = (read_table(small.storage, one).to_pylist() for one in (small.manifests[name], again))
    assert rounded(after) == rounded(before)


def rounded(value: Any) -> Any:
    """Round every float to 1e-5: on some CPUs the last bits depend on the shape of the batch that an item is in."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 5) if isinstance(value, float) else value


def test_gpu_time_is_wall_time_times_the_gpus_held(small: SmallRound, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here, so how many torch sees is made up; what is counted from it is not."""
    assert {manifest.gpu_seconds for manifest in small.manifests.values()} == {0.0}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    config = small.config.model_copy(update={"model": small.config.model.model_copy(update={"device": "auto"})})
    held = {
        name.value: stage.gpus(bound(stage, config, small.manifests, small.model)) for name, stage in STAGES.items()
    }
    texts = dict.fromkeys(("prompts", "perturbations", "questions", "images", "scores", "evaluation"), 1)
    assert held == {**texts, "pairs": 0, "training": config.training.accumulation}
    endpoint = {"kind": "endpoint", "base_url": "http://127.0.0.1:1", "served_model": "text"}
    elsewhere = config.model_copy(update={"engine": EngineConfig.model_validate(endpoint)})
    prompts = STAGES[StageName.PROMPTS]
    assert prompts.gpus(bound(prompts, elsewhere)) == 0


def test_object_masks_make_the_pairs_use_a_gpu(small: SmallRound) -> None:
    loss = small.config.training.loss.model_copy(update={"object_weight": 1.0})
    sections = {
        "training": small.config.training.model_copy(update={"loss": loss}),
        "model": small.config.model.model_copy(update={"device": "auto"}),
    }
    stage = STAGES[StageName.PAIRS]
    assert stage.uses_gpu(small.config.model_copy(update=sections))
    assert not stage.uses_gpu(small.config.model_copy(update={"model": sections["model"]}))
