"""A tiny model, random pairs for it, and small training jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ospo_core.config.sections import LoraSettings, LossConfig, ModelConfig, TrainingConfig
from ospo_core.schema import table_from_rows
from ospo_core.training.job import TrainingJob
from tests.support.tiny_janus import CODES, TOKENS

COLORS = ("red", "blue", "green", "yellow")
_CPU = ModelConfig(device="cpu")


def pair_row(index: int, generator: np.random.Generator) -> dict[str, Any]:
    """Return one pair with random tokens and a mask over the first half of the chosen image."""
    color, other = COLORS[index % 4], COLORS[(index + 1) % 4]
    longer = " above a blue square" * (index % 3)
    image = {"bytes": b"", "path": ""}
    return {
        "item_id": f"item{index}",
        "category": "attribute",
        "sub_category": "color_1",
        "prompt": f"a {color} circle{longer}",
        "negative_prompt": f"a {other} circle{longer}",
        "negative_kind": "replace",
        "chosen_variant": 0,
        "chosen_side": "base",
        "rejected_variant": 0,
        "rejected_side": "negative",
        "chosen_tokens": generator.integers(0, CODES, TOKENS).tolist(),
        "rejected_tokens": generator.integers(0, CODES, TOKENS).tolist(),
        "chosen_image": image,
        "rejected_image": image,
        "chosen_answers": [],
        "rejected_answers": [],
        "chosen_score": 0.9,
        "rejected_score": -0.9,
        "image_logprob_gap": 0.1,
        "text_logprob_gap": 0.1,
        "rule": "v2",
        "chosen_mask": [1.0] * (TOKENS // 2) + [0.0] * (TOKENS // 2),
        "rejected_mask": [0.5] * TOKENS,
    }


def write_pairs(path: Path, count: int = 12, **columns: Any) -> Path:
    """Write random pairs, some columns replaced, and return the file."""
    generator = np.random.default_rng(7)
    rows = [{**pair_row(index, generator), **columns} for index in range(count)]
    pq.write_table(table_from_rows("pairs", rows), path)
    return path


def config(**options: Any) -> TrainingConfig:
    """Return a small training configuration."""
    small = {
        "steps": 4,
        "batch_size": 4,
        "accumulation": 2,
        "learning_rate": 1e-3,
        "lora": LoraSettings(rank=4, alpha=8, dropout=0.05),
        "checkpoint_every": 2,
        "loss": LossConfig(),
    }
    return TrainingConfig(**{**small, **options})


def job(model: Path, pairs: Path, out: Path, seed: int = 3, **options: Any) -> TrainingJob:
    """Return a small training job on the CPU."""
    return TrainingJob(
        model_folder=model,
        model_digest="tiny",
        model=_CPU,
        pairs_path=pairs,
        training=config(**options),
        seed=seed,
        out_dir=out,
    )
