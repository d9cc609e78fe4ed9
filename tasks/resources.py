"""What a shard takes of a machine, and a job that means the same files on any machine of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ospo_core.errors import ConfigError
from ospo_core.models.locate import EMBEDDED_PREFIX
from ospo_core.schema import StageName
from ospo_core.stages.model_pointer import CURRENT
from ospo_core.stages.model_ref import STORED
from tasks.jobs import StageJob, storage_of

TEXT_STAGES = {StageName.PROMPTS, StageName.PERTURBATIONS, StageName.QUESTIONS}
MODEL_STAGES = {StageName.IMAGES, StageName.SCORES, StageName.TRAINING, StageName.EVALUATION}

_NOT_A_PATH = (EMBEDDED_PREFIX, STORED)


@dataclass(frozen=True)
class ShardNeeds:
    """What one shard takes while it runs."""

    cpus: int
    gpus: int


def shard_needs(job: StageJob, cluster_gpus: float) -> ShardNeeds:
    """Return what a shard of this stage takes: a whole GPU where it loads a model and there are GPUs.

    Two shards never share a GPU. Text over an endpoint and pairing load nothing; `model.device` decides for the model,
    while text engines take a GPU wherever there is one.

    Args:
        job: the stage.
        cluster_gpus: GPUs of all nodes together.

    Raises:
        ConfigError: `model.device` is `cuda` and no node has a GPU.
    """
    config = job.config
    engine = job.stage in TEXT_STAGES and config.engine.kind != "endpoint"
    model = job.stage in MODEL_STAGES and config.model.device != "cpu"
    if model and config.model.device == "cuda" and not cluster_gpus:
        raise ConfigError(
            "no node of the Ray cluster has a GPU",
            field="model.device",
            value="cuda",
            remedy="Add a node with a GPU, or use auto or cpu",
        )
    return ShardNeeds(cpus=config.execution.ray_cpus, gpus=int((engine or model) and cluster_gpus > 0))


def anchored(job: StageJob) -> StageJob:
    """Return the job with absolute paths, since a process on another node has another current folder.

    No fingerprint changes: paths are not part of any.
    """
    config, storage = job.config, storage_of(job.config)
    sections = {
        "storage": config.storage.model_copy(
            update={"root": storage.root, "scratch": _absolute(config.storage.scratch)}
        ),
        "model": config.model.model_copy(update={"path": _absolute(config.model.path)}),
        "prompts": config.prompts.model_copy(
            update={"contamination_lists": tuple(_absolute(name) for name in config.prompts.contamination_lists)}
        ),
        "evaluation": config.evaluation.model_copy(update={"prompts": _absolute(config.evaluation.prompts)}),
    }
    model = job.model.model_copy(update={"source": _absolute(job.model.source)})
    return job.model_copy(update={"config": config.model_copy(update=sections), "model": model})


def _absolute(path: str) -> str:
    """Return a local path made absolute; names of embedded, stored and current things stay as they are."""
    if path == CURRENT or path.startswith(_NOT_A_PATH):
        return path
    return str(Path(path).expanduser().absolute())
