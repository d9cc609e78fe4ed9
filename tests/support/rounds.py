"""Configurations of very small rounds, and means to run their stages in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.config.sections import EngineConfig
from ospo_core.schema import StageName
from ospo_core.stages import STAGES, Stage, StageRun, run_stage
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.resources import Resources
from tests.support.scripted_text import ScriptedEngine


def small_round(root: Path, **sections: Any) -> RoundConfig:
    """Return a round of 8 prompts in 2 shards, in folders below `root`; sections are merged over it.

    Its held-out prompts are written to `root`, since the first stage keeps them out of what it writes.
    """
    write_heldout(root)
    document: dict[str, Any] = {
        "name": "small",
        "storage": {"root": str(root / "store"), "scratch": str(root / "scratch"), "shard_size": 4},
        "model": {"path": str(root / "model"), "device": "cpu"},
        "engine": {"kind": "transformers"},
        "prompts": {"quotas": {"color_2": 5, "spatial_2d": 3}, "near_duplicate_similarity": 1.0},
        "images": {"batch_size": 16},
        "scores": {"batch_size": 16},
        "selection": {"filtering": False},
        "training": {"steps": 2, "batch_size": 2, "accumulation": 1, "lora": {"rank": 2, "alpha": 4}},
        "evaluation": {"prompts": str(root / "heldout.jsonl"), "limit": 4, "bootstrap": 50},
        "promotion": {"metric": "vqa", "max_category_drop": 1.0},
    }
    for name, section in sections.items():
        merged = isinstance(section, Mapping) and isinstance(document.get(name), Mapping)
        document[name] = {**document[name], **section} if merged else section
    return RoundConfig.model_validate(document)


def write_heldout(root: Path) -> None:
    """Write four held-out prompts of two sub-categories where `small_round` looks for them."""
    root.mkdir(parents=True, exist_ok=True)
    prompts = [("color_2", "a red circle and a blue star"), ("color_2", "a green star and a red square")]
    prompts += [("spatial_2d", "a red circle above a blue star"), ("spatial_2d", "a green star left of a red square")]
    lines = [json.dumps({"sub_category": name, "prompt": text}) for name, text in prompts]
    (root / "heldout.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


class ScriptedResources(Resources):
    """Resources whose text engine is made of rules, whatever the configuration says."""

    def __init__(self, engine: ScriptedEngine | None = None) -> None:
        super().__init__()
        self.engine = engine or ScriptedEngine()

    def text_engine(self, config: EngineConfig, folder: Path, digest: str, scratch: Path) -> ScriptedEngine:
        return self._hold("text", ["scripted", digest], lambda: self.engine)


def bound(
    stage: Stage,
    config: RoundConfig,
    upstream: Mapping[StageName, Manifest] | None = None,
    model: ModelRef | None = None,
    **others: Any,
) -> StageRun:
    """Return a stage bound to a round; without a model given, its digest is made up."""
    storage, model = Storage(config.storage.root), model or made_up_model(config)
    return StageRun.bind(stage, config, storage, model, upstream or {}, **others)


def finished(run: StageRun) -> Manifest:
    """Run a stage in this process and return its manifest."""
    return run_stage(run)[0]


def made_up_model(config: RoundConfig) -> ModelRef:
    """Return a reference that only stages without a real model can use."""
    return ModelRef(digest="0" * 64, source=config.model.path)


class PlacedRun(StageRun):
    """A stage run whose model folder is used without looking at it."""

    @property
    def model_folder(self) -> Path:
        return Path(self.model.source)


def text_run(
    stage: Stage, config: RoundConfig, resources: Resources, upstream: Mapping[StageName, Manifest] | None = None
) -> StageRun:
    """Return a text stage bound to a round whose model is never read."""
    storage, model = Storage(config.storage.root), made_up_model(config)
    return PlacedRun.bind(stage, config, storage, model, upstream or {}, resources=resources)


def run_stages(
    config: RoundConfig, resources: Resources, until: StageName, model: ModelRef
) -> dict[StageName, Manifest]:
    """Run the stages up to `until` in this process, without Prefect."""
    manifests: dict[StageName, Manifest] = {}
    for name, stage in STAGES.items():
        manifests[name] = finished(bound(stage, config, manifests, model, resources=resources))
        if name is until:
            break
    return manifests


def model_files(folder: Path, text: str = "weights") -> Path:
    """Write the files by which a model folder is recognised, without real weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "janus"}', encoding="utf-8")
    (folder / "model.safetensors").write_text(text, encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    return folder
