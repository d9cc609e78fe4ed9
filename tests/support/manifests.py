"""Made-up manifests of finished stages, for tests of lineage, garbage and cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ospo_core.artifacts.manifest import Manifest, publish_manifest
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.run import content_of


def made(stage: StageName, number: int, upstream: tuple[Manifest, ...] = (), **extra: Any) -> Manifest:
    """Return the manifest of a stage, with figures that follow from `number`."""
    return Manifest(
        stage=stage,
        fingerprint=f"{number:064x}",
        version=1,
        rows=10 * number,
        items_in=0,
        ingredients={"upstream": {one.stage.value: content_of(one) for one in upstream}},
        seconds=float(number),
        cpu_seconds=2.0 * number,
        gpu_seconds=0.5 * number,
        counts={"images": 3.0, "image_tokens": 48.0, "prompt_tokens": 2.0},
        extra={"digest": f"content {stage.value} {number}", **extra},
        created_at=f"2026-01-01T00:00:{number:02d}",
    )


def generation(number: int, parent: str) -> list[Manifest]:
    """Return the stages of one round, from prompts to the training of model number `number`."""
    prompts = made(StageName.PROMPTS, number)
    images = made(StageName.IMAGES, number, (prompts,))
    pairs = made(StageName.PAIRS, number, (prompts, images))
    model = f"{number}" * 64
    facts = {"model_digest": model, "digest": model, "merged": f"models/{model}", "parent_digest": parent}
    training = made(StageName.TRAINING, number, (pairs,), **facts)
    return [prompts, images, pairs, training]


def published_training(storage: Storage, number: int, parent: ModelRef, folder: Path) -> Manifest:
    """Publish what a training of `parent` leaves in a storage if the model in `folder` is what it made."""
    digest = model_digest(folder)
    storage.put_folder(folder, f"models/{digest}")
    facts = {"model_digest": digest, "digest": digest, "merged": f"models/{digest}"}
    facts |= {"parent_digest": parent.digest, "parent_source": parent.source}
    return publish_manifest(storage, made(StageName.TRAINING, number, **facts))
