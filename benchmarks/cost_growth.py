"""How time and memory grow with the number of items, the batch, the questions of a picture and the tokens of an image.

    python -m benchmarks.cost_growth --out docs/images/growth.svg --json growth.json

One process on the CPU, the round's own code. Items, batches and questions are those of the embedded model, image
tokens those of a tiny random one. Memory is the peak of tensors above what there was before, a batch at a time.
`benchmarks.scale` has the growth of what does not compute with a model, up to a million prompts.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.contest import peak_of_tensors, this_machine
from benchmarks.measuring import growth
from benchmarks.random_janus import PATCH, SIZES, dense_prompts, random_janus
from benchmarks.workloads import embedded_model, world
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.logprobs import mean_logprob
from ospo_core.models.pictures import decode_tokens
from ospo_core.models.sampling import sample_images
from ospo_core.models.vqa import answer_questions
from ospo_core.report.plots import styled, svg

logger = logging.getLogger("benchmarks.cost_growth")

ITEMS = (100, 316, 1000, 3162, 10_000)
BATCHES = (1, 4, 16, 64, 256)
QUESTIONS = (1, 2, 4, 8, 16)
IMAGE_TOKENS = (16, 64, 144, 256, 576)
REPEATS, LONG = 3, 5.0


@dataclass(frozen=True)
class Growth:
    """The cost of one kind of work at several sizes.

    Attributes:
        work: what is done.
        size: what `sizes` counts.
        item: what `seconds` are for one of.
        sizes: growing.
        seconds: per item.
        megabytes: peak of tensors above what there was before.
        exponents: of the time of all items between neighbouring sizes: 1 is linear.
    """

    work: str
    size: str
    item: str
    sizes: list[int]
    seconds: list[float]
    megabytes: list[float]
    exponents: list[float]


Point = tuple[int, float, Callable[[], object]]
"""Size, number of items that the time is shared by, and the work."""


def of_items(model: JanusModel, sizes: Sequence[int]) -> Iterator[Point]:
    """Score as many images, at one batch size."""
    prompts = [item.prompt for item in world(max(sizes))]
    tokens = np.random.default_rng(0).integers(0, model.geometry.codes, (max(sizes), model.geometry.tokens))
    for size in sizes:
        yield size, size, partial(mean_logprob, model, prompts[:size], tokens[:size], 64)


def of_batches(model: JanusModel, sizes: Sequence[int]) -> Iterator[Point]:
    """Draw images with guidance, so many at a time."""
    prompts = [item.prompt for item in world(max(*sizes, 8))]
    for size in sizes:
        count = max(size, 8)
        yield size, count, partial(sample_images, model, prompts[:count], range(count), 5.0, 1.0, size)


def of_questions(model: JanusModel, sizes: Sequence[int]) -> Iterator[Point]:
    """Ask so many questions about each of 32 pictures."""
    known = list(dict.fromkeys(question for item in world(64) for question in item.questions))
    tokens = np.random.default_rng(0).integers(0, model.geometry.codes, (32, model.geometry.tokens))
    pictures = decode_tokens(model, tokens)
    for size in sizes:
        asked = [known[:size]] * len(pictures)
        yield size, size * len(pictures), partial(answer_questions, model, pictures, asked, 256)


def of_image_tokens(sizes: Sequence[int]) -> Iterator[Point]:
    """Draw eight images of so many tokens with guidance."""
    for size in sizes:
        edge = PATCH * math.isqrt(size)
        model = random_janus(replace(SIZES["tiny"], image_size=edge), torch.device("cpu"), torch.float32)
        prompts = dense_prompts(8)
        yield size, 8 * size, partial(sample_images, model, prompts, range(8), 5.0, 1.0, 8)


def measured(work: str, size: str, item: str, points: Iterator[Point], repeats: int = REPEATS) -> Growth:
    """Measure all points: the peak of memory, and then the median time per item; long work is timed once."""
    sizes, seconds, megabytes, wholes = [], [], [], []
    for count, items, run in points:
        gc.collect()
        began = time.perf_counter()
        megabytes.append(peak_of_tensors(run) / 1e6)
        long = time.perf_counter() - began > LONG
        took = [_seconds(run) for _ in range(1 if long else repeats)]
        wholes.append(statistics.median(took))
        sizes.append(count)
        seconds.append(wholes[-1] / items)
        logger.info("%s, %d %s: %.3g s per %s, %.0f MB", work, count, size, seconds[-1], item, megabytes[-1])
    return Growth(work, size, item, sizes, seconds, megabytes, growth(sizes, _totals(sizes, seconds)))


def _seconds(run: Callable[[], object]) -> float:
    """Return how long a run takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _totals(sizes: Sequence[int], seconds: Sequence[float]) -> list[float]:
    """Return a time that grows with exponent 1 where the time per item stays the same."""
    return [size * each for size, each in zip(sizes, seconds, strict=True)]


@styled
def growth_figure(growths: Sequence[Growth]) -> Figure:
    """Draw time per item and memory over size, one panel for each kind of work."""
    figure = Figure(figsize=(10.4, 3.2 * -(-len(growths) // 2)), layout="constrained")
    for place, each in enumerate(growths, start=1):
        axes = figure.add_subplot(-(-len(growths) // 2), 2, place)
        axes.plot(each.sizes, [1000 * s for s in each.seconds], marker="o", label=f"ms per {each.item}")
        axes.plot(each.sizes, each.megabytes, marker="s", label="MB at the peak")
        ratio = each.sizes[-1] / each.sizes[0]
        exponent = math.log(_totals(each.sizes, each.seconds)[-1] / _totals(each.sizes, each.seconds)[0], ratio)
        axes.set(xscale="log", yscale="log", xlabel=each.size, title=f"{each.work}: time grows by {exponent:.2f}")
        axes.set_xticks(each.sizes, [str(size) for size in each.sizes])
        axes.minorticks_off()
        axes.legend(fontsize="small")
    return figure


def all_growths(sizes: Mapping[str, Sequence[int]], repeats: int = REPEATS) -> list[Growth]:
    """Measure everything; `sizes` by what is counted."""
    model = embedded_model()
    return [
        measured("Log-probabilities", "images", "image", of_items(model, sizes["items"]), repeats),
        measured("Sampling", "images at a time", "image", of_batches(model, sizes["batches"]), repeats),
        measured("Answering", "questions a picture", "question", of_questions(model, sizes["questions"]), repeats),
        measured("Sampling", "tokens an image", "token", of_image_tokens(sizes["tokens"]), repeats),
    ]


def main() -> None:
    """Measure, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images/growth.svg"), help="the plot")
    parser.add_argument("--json", type=Path, help="the figures")
    parser.add_argument("--items", type=int, default=max(ITEMS), help="most images of the first panel")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    sizes: dict[str, Sequence[int]] = {
        "items": [n for n in ITEMS if n <= options.items],
        "batches": BATCHES,
        "questions": QUESTIONS,
        "tokens": IMAGE_TOKENS,
    }
    growths = all_growths(sizes, options.repeats)
    options.out.write_bytes(svg(growth_figure(growths)))
    if options.json:
        report = {"machine": this_machine(), "growths": [asdict(each) for each in growths]}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
