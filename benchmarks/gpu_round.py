"""A mini-round on random weights of a true size: what each phase makes per second, and the memory that it takes.

    python -m benchmarks.gpu_round --size 7b --out round-7b.json
    python -m benchmarks.gpu_round --size tiny --device cpu --images 2 --texts 2 --batch-size 1 --out tiny.json

The phases are those of a round, in its order, by the round's own code: the model is read from a folder, text is written
by vLLM (by transformers where vLLM is not installed), and training is the process that a round starts, with its merge.
The model, its export and the merged model take up to twice the size of the weights on disk. Prefect is not needed. A
phase that fails costs only those that need what it makes; the report is written after each.

`benchmarks.gpu` measures the parts one by one, at several batch sizes, against what the device could do.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from benchmarks.device import machine, peak_memory, release, reset_peak, synchronize
from benchmarks.gpu_points import GUIDANCE, QUESTIONS
from benchmarks.random_janus import SIZES, dense_prompts, questions_about, random_janus
from benchmarks.workloads import pairs_table, random_pairs
from ospo_core.artifacts.atomic_write import atomic_file
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.config.sections import EngineConfig, LoraSettings, ModelConfig, TrainingConfig
from ospo_core.engines import Request, build_engine
from ospo_core.models.base import UnifiedModel
from ospo_core.models.export import export_text_backbone
from ospo_core.models.loading import load_model
from ospo_core.models.logprobs import mean_logprob
from ospo_core.models.pictures import decode_tokens, encode_png
from ospo_core.models.sampling import sample_images
from ospo_core.models.vqa import answer_questions
from ospo_core.prompts.families import family
from ospo_core.schema import SubCategory
from ospo_core.training.job import JobFiles, TrainingJob, read_metrics
from ospo_core.training.memory import device_memory, plan_passes
from ospo_core.training.process import run_training

logger = logging.getLogger("benchmarks.gpu_round")

Figures = dict[str, Any]


@dataclass(frozen=True)
class Amounts:
    """How much is made.

    Attributes:
        images: images, drawn, questioned and scored in one batch; half of them are chosen, half rejected.
        texts: texts, all at once.
        text_tokens: longest text.
        batch_size: pairs per forward pass of training.
        accumulation: forward passes per step.
        steps: steps of training; the first is not counted.
    """

    images: int = 64
    texts: int = 32
    text_tokens: int = 64
    batch_size: int = 8
    accumulation: int = 2
    steps: int = 3


class MiniRound:
    """The phases of a mini-round; each returns its figures and leaves what the next ones need.

    Args:
        size: name of the size of the model.
        device: where it runs.
        folder: empty folder for the model and all that is made of it.
        amounts: how much is made.
    """

    def __init__(self, size: str, device: torch.device, folder: Path, amounts: Amounts) -> None:
        self._size, self._device, self._amounts = size, device, amounts
        self._folder, self._checkpoint, self._export = folder, folder / "model", folder / "export"
        self._config = ModelConfig(
            path=str(self._checkpoint),
            family="janus_pro",
            device="cuda" if device.type == "cuda" else "cpu",
            dtype="bfloat16" if device.type == "cuda" else "float32",
        )
        self._model: UnifiedModel | None = None
        self._tokens: NDArray[np.uint16] = np.empty((0, 0), dtype=np.uint16)
        self._pictures: NDArray[np.uint8] = np.empty((0, 0, 0, 3), dtype=np.uint8)

    @property
    def phases(self) -> list[tuple[str, Callable[[], Figures]]]:
        """The phases in order, by name."""
        return [
            ("checkpoint", self._write_checkpoint),
            ("text", self._write_texts),
            ("loading", self._load),
            ("images", self._draw),
            ("questions", self._ask),
            ("log-probabilities", self._score),
            ("training and merge", self._train),
        ]

    @property
    def model(self) -> UnifiedModel:
        """The loaded model.

        Raises:
            RuntimeError: it could not be loaded.
        """
        if self._model is None:
            raise RuntimeError("there is no model")
        return self._model

    def _write_checkpoint(self) -> Figures:
        """Make the model on the device and write its folder; no phase of a round."""
        dtype = torch.bfloat16 if self._config.dtype == "bfloat16" else torch.float32
        model = random_janus(SIZES[self._size], self._device, dtype)
        model.network.save_pretrained(self._checkpoint)
        model.tokenizer.save_pretrained(self._checkpoint)
        return {"parameters": model.memory.parameters, "weights_gb": model.memory.weights / 1e9}

    def _write_texts(self) -> Figures:
        """Export the text backbone, start the engine and write dense prompts, as the round's longest task does."""
        prompts, spoken = dense_prompts(self._amounts.texts + 1), family("janus_pro")
        chats = [spoken.chat_text(spoken.densify(*pair, SubCategory.COMPLEX)) for pair in pairwise(prompts)]
        kind = "vllm" if find_spec("vllm") else "transformers"
        config = EngineConfig.model_validate({"kind": kind, "dtype": self._config.dtype, "max_model_len": 4096})
        began = time.perf_counter()
        export_text_backbone(self._checkpoint, self._export)
        exported = time.perf_counter()
        limit = self._amounts.text_tokens
        with build_engine(config, self._export) as engine:
            started = time.perf_counter()
            answers = engine.generate([Request(text, seed, 1.0, limit) for seed, text in enumerate(chats)])
            seconds = time.perf_counter() - started
            used = _used_memory(self._device) if kind == "vllm" else {}  # vLLM has processes of its own
        shutil.rmtree(self._export)
        tokens = sum(answer.tokens for answer in answers)
        figures = {"tokens_per_second": tokens / seconds, "tokens": tokens, "engine": kind, **used}
        return {**figures, "export_seconds": exported - began, "start_seconds": started - exported}

    def _load(self) -> Figures:
        """Load the model as every phase of images does."""
        self._model = load_model(self._checkpoint, self._config)
        return {}

    def _draw(self) -> Figures:
        """Draw images with guidance, decode them and encode them as PNG."""
        count, began = self._amounts.images, time.perf_counter()
        self._tokens = sample_images(self.model, dense_prompts(count), range(count), GUIDANCE, 1.0, count).tokens
        drawn = time.perf_counter()
        self._pictures = decode_tokens(self.model, self._tokens, min(count, 32))
        size = sum(len(encode_png(picture)) for picture in self._pictures)
        rest = time.perf_counter() - drawn
        figures = {"images_per_second": count / (drawn - began + rest), "batch": count, "guidance": GUIDANCE}
        return {**figures, "sampling_seconds": drawn - began, "decoding_seconds": rest, "bytes_per_image": size / count}

    def _ask(self) -> Figures:
        """Answer questions about the pictures."""
        asked = [questions_about(picture, QUESTIONS) for picture in range(len(self._pictures))]
        count, began = QUESTIONS * len(asked), time.perf_counter()
        answer_questions(self.model, self._pictures, asked, count)
        return {"questions_per_second": count / (time.perf_counter() - began), "batch": count}

    def _score(self) -> Figures:
        """Compute the log-probability of each image."""
        count, began = len(self._tokens), time.perf_counter()
        mean_logprob(self.model, dense_prompts(count), self._tokens, count)
        return {"sequences_per_second": count / (time.perf_counter() - began), "batch": count}

    def _train(self) -> Figures:
        """Train on the images in the process that a round starts, and merge; this process gives up its memory first."""
        amounts, device = self._amounts, self._device
        training = TrainingConfig(
            lora=LoraSettings(rank=32, alpha=64),
            batch_size=amounts.batch_size,
            accumulation=amounts.accumulation,
            steps=amounts.steps,
            dtype=self._config.dtype,
        )
        plan = plan_passes(training, self.model, device_memory(device))
        self._model = None
        release(device)
        pairs = self._folder / "pairs.parquet"
        pq.write_table(pairs_table(random_pairs(self._tokens)), pairs)
        job = TrainingJob(
            model_folder=self._checkpoint,
            model_digest=model_digest(self._checkpoint),
            model=self._config,
            pairs_path=pairs,
            training=training,
            out_dir=self._folder / "training",
        )
        result = run_training(job, poll_s=0.1)
        times = [row["seconds"] for row in read_metrics(JobFiles(job.out_dir).metrics)]
        step = statistics.median(times[1:] or times)
        shutil.rmtree(job.out_dir)
        return {
            "pairs_per_second": amounts.batch_size * amounts.accumulation / step,
            "step_seconds": times,
            "loading_and_merge_seconds": result.seconds - sum(times),
            "peak_gb": result.peak_memory / 1e9,
            "estimated_gb": plan.memory / 1e9,
            "pairs_per_pass": plan.pairs,
            "recomputed": plan.recompute,
        }


def run(sizes: Sequence[str], device: torch.device, amounts: Amounts, out: Path, scratch: Path | None) -> Figures:
    """Run a mini-round per size, writing the report after each phase, and return the report."""
    report: Figures = {"machine": machine(device), "amounts": asdict(amounts), "phases": []}
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            mini = MiniRound(size, device, Path(folder), amounts)
            for name, phase in mini.phases:
                result = {"size": size, "phase": name, **_measured(phase, device)}
                report["phases"].append(result)
                logger.info("%s %s: %s", size, name, result)
                with atomic_file(out) as path:
                    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _measured(phase: Callable[[], Figures], device: torch.device) -> Figures:
    """Return a phase's figures with its time and peak memory; where it fails, why."""
    release(device)
    reset_peak(device)
    began = time.perf_counter()
    try:
        figures = phase()
        synchronize(device)
        status = "ok"
    except Exception as error:  # one phase that fails must not cost the others: machine time is short
        logger.exception("the phase failed")
        figures, status = {}, f"failed: {type(error).__name__}: {error}"[:500]
    return {"status": status, "seconds": time.perf_counter() - began, **peak_memory(device), **figures}


def _used_memory(device: torch.device) -> Figures:
    """Return the memory that all processes together hold on a GPU."""
    if device.type != "cuda":
        return {}
    free, whole = torch.cuda.mem_get_info(device)
    return {"device_used_gb": (whole - free) / 1e9}


def table(report: Mapping[str, Any]) -> str:
    """Return the report as a Markdown table: phases, and for each size its rate and its peak memory."""
    rows: dict[str, list[str]] = {}
    sizes = list(dict.fromkeys(result["size"] for result in report["phases"]))
    for result in report["phases"]:
        rates = [f"{value:.3g} {key.removesuffix('_per_second')}/s" for key, value in result.items() if _is_rate(key)]
        shown = result["status"] if result["status"] != "ok" else " ".join(rates) or f"{result['seconds']:.0f} s"
        peak = result.get("device_used_gb", result.get("peak_gb"))
        rows.setdefault(result["phase"], []).extend([shown, f"{peak:.1f} GB" if peak is not None else ""])
    head = ["", *(cell for size in sizes for cell in (size, "peak"))]
    lines = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _is_rate(key: str) -> bool:
    """Return whether a figure is what a phase makes per second."""
    return key.endswith("_per_second")


def main() -> None:
    """Run what the command line asks for; print the machine and the table."""
    default = Amounts()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=tuple(SIZES), default=["7b"], help="in this order")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scratch", type=Path, help="where the model folders are written; default: the system's")
    parser.add_argument("--out", type=Path, required=True, help="report (JSON), written after every phase")
    for name, value in asdict(default).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    amounts = Amounts(**{name: getattr(options, name) for name in asdict(default)})
    report = run(options.size, torch.device(options.device), amounts, options.out, options.scratch)
    sys.stdout.write(f"{json.dumps(report['machine'])}\n\n{table(report)}\n")


if __name__ == "__main__":
    main()
