"""Every shipped profile loads, and says what it is meant to say."""

from __future__ import annotations

import pytest

from ospo_core.config import RoundConfig, load_profile, profile_names
from ospo_core.schema import Category, SubCategory, category_of


def test_five_profiles_are_shipped() -> None:
    assert profile_names() == ["janus-pro-1b", "janus-pro-7b", "published", "shapes", "smoke"]


@pytest.mark.parametrize("name", profile_names())
def test_profile_loads_under_its_own_name(name: str) -> None:
    assert load_profile(name).name == name


def test_profiles_of_the_embedded_model_differ_in_training_and_the_number_of_prompts_only() -> None:
    defaults, published, shapes = RoundConfig(name="shapes"), load_profile("published"), load_profile("shapes")
    storage = {"name": defaults.name, "storage": defaults.storage}
    assert published.model_copy(update={**storage, "training": defaults.training}) == defaults
    assert shapes.training.further_rate < 1 == published.training.further_rate
    assert shapes.model_copy(update={"training": defaults.training, "prompts": defaults.prompts}) == defaults
    assert shapes.prompts.model_copy(update={"quotas": defaults.prompts.quotas}) == defaults.prompts
    for sub_category, quota in shapes.prompts.quotas.items():
        assert quota == pytest.approx(published.prompts.quotas[sub_category] * 2 / 3, abs=1), "the same proportions"


@pytest.mark.parametrize("name", ["janus-pro-1b", "janus-pro-7b"])
def test_janus_profiles_have_the_papers_numbers(name: str) -> None:
    config = load_profile(name)
    quotas: dict[Category, int] = {}
    for sub_category in SubCategory:
        category = category_of(sub_category)
        quotas[category] = quotas.get(category, 0) + config.prompts.quotas[sub_category]
    assert quotas == {
        Category.ATTRIBUTE: 6 * 667,
        Category.LAYOUT: 4 * 1000,
        Category.NON_SPATIAL: 4000,
        Category.COMPLEX: 4000,
    }
    training = config.training
    assert training.batch_size * training.accumulation == 128 and training.steps == 500
    assert (training.learning_rate, training.schedule, training.lora.rank, training.lora.alpha) == (
        1e-5,
        "constant",
        32,
        64,
    )
    assert (training.loss.w_simpo, training.loss.w_cond, training.loss.w_sft) == (0.8, 0.5, 1.5)
    assert config.images.guidance == 5.0 and config.selection.rule == "v2"
    assert (config.model.device, config.model.dtype, config.engine.kind) == ("cuda", "bfloat16", "vllm")
    assert config.engine.max_model_len == 4096 and config.storage.root.startswith("s3://")


@pytest.mark.parametrize("name", profile_names())
def test_no_stage_has_more_than_about_a_hundred_shards(name: str) -> None:
    config = load_profile(name)
    prompts = sum(config.prompts.quotas.values())
    assert prompts / config.storage.shard_size < 100
    assert sum(-(-quota // config.storage.shard_size) for quota in config.prompts.quotas.values()) < 100
