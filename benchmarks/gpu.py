"""Images, questions, log-probabilities and training per second on a GPU, against what the GPU can do.

    python -m benchmarks.gpu --size 7b 1b --minutes 8 --out gpu.json
    python -m benchmarks.gpu --size tiny --device cpu --out tiny.json

Random weights of the true size, made on the device; the code that is measured is the round's own. Each point is
measured by itself: where memory does not suffice, or another error occurs, it says so and the rest goes on. Points are
ordered by value, and the file is written after each, so that a run that is cut off leaves what it has.
`benchmarks.gpu_points` says what is measured, and what the floor is.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.device import Limits, machine, measure_limits, peak_memory, release, reset_peak, synchronize
from benchmarks.gpu_points import (
    QUESTIONS,
    Bench,
    answering,
    decoding,
    png,
    profiled_step,
    published,
    sampling,
    scoring,
    training,
)
from benchmarks.random_janus import SIZES, random_janus
from ospo_core.artifacts.atomic_write import atomic_file

logger = logging.getLogger("benchmarks.gpu")

POINT_SECONDS = 75.0
PUBLISHED_STEPS = 48
PARTS = ("sampling", "questions", "logprobs", "training")


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        part: the part of the benchmark that it belongs to.
        name: what and how many at once.
        measure: makes the figures.
        urgent: whether it comes before the points of other sizes that are not.
    """

    part: str
    name: str
    measure: Callable[[Bench], dict[str, Any]]
    urgent: bool = False


def _points() -> list[Point]:
    """Return all points, the most valuable first."""
    points = [Point("sampling", "sampling, batch 64", partial(sampling, batch=64), urgent=True)]
    for batch in (8, 64):
        name = f"published loop, batch {batch}, first {PUBLISHED_STEPS} steps"
        points.append(Point("sampling", name, partial(published, batch=batch, steps=PUBLISHED_STEPS), urgent=True))
    for batch, recompute in ((4, False), (2, False), (8, False), (16, False), (8, True)):
        name = f"training, batch {batch}" + (", recomputed" if recompute else "")
        points.append(Point("training", name, partial(training, batch=batch, recompute=recompute), urgent=True))
    for count in (32, 8):
        name = f"questions, {count} pictures x {QUESTIONS}"
        points.append(Point("questions", name, partial(answering, pictures=count), urgent=True))
    points.append(Point("sampling", "profile of a step, batch 64", partial(profiled_step, batch=64), urgent=True))
    points += [Point("logprobs", f"logprobs, batch {size}", partial(scoring, batch=size)) for size in (32, 8, 64)]
    points += [Point("sampling", f"VQ decoding, batch {size}", partial(decoding, batch=size)) for size in (32, 8)]
    points.append(Point("sampling", "PNG, 16 pictures", partial(png, batch=16)))
    points += [Point("sampling", f"sampling, batch {size}", partial(sampling, batch=size)) for size in (8, 32, 128)]
    return points


def ordered(sizes: Sequence[str], parts: Sequence[str]) -> list[tuple[str, Point]]:
    """Return what is measured, in order: each size's urgent points, then the rest, beginning with the last size."""
    points = [point for point in _points() if point.part in parts]
    urgent = [(size, point) for size in sizes for point in points if point.urgent]
    return urgent + [(size, point) for size in reversed(sizes) for point in points if not point.urgent]


def run(sizes: Sequence[str], parts: Sequence[str], device: torch.device, minutes: float, out: Path) -> dict[str, Any]:
    """Measure all points that time allows, writing the report after each, and return the report."""
    deadline = time.monotonic() + 60 * minutes
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    report: dict[str, Any] = {"machine": machine(device), "dtype": str(dtype), "models": {}, "points": []}
    limits = measure_limits(device, dtype)
    report["limits"] = asdict(limits)
    logger.info("copy %.0f GB/s, products %.0f TFLOP/s", limits.bandwidth / 1e9, limits.matmul / 1e12)
    release(device)
    current, bench = "", None
    for size, point in ordered(sizes, parts):
        if time.monotonic() < deadline and size != current:
            bench = None
            release(device)
            current, bench = size, _bench(size, device, dtype, limits, deadline)
            report["models"][size] = {**asdict(SIZES[size]), **asdict(bench.model.memory)}
        result = {"size": size, "part": point.part, "point": point.name, **_guarded(bench, point)}
        report["points"].append(result)
        logger.info("%s %s: %s", size, point.name, _headline(result))
        _write(out, report)
    return report


def _bench(size: str, device: torch.device, dtype: torch.dtype, limits: Limits, deadline: float) -> Bench:
    """Make a model and say how long that took."""
    began = time.perf_counter()
    model = random_janus(SIZES[size], device, dtype)
    synchronize(device)
    seconds = time.perf_counter() - began
    logger.info("%s: %.2f B parameters, made in %.1f s", size, model.memory.parameters / 1e9, seconds)
    return Bench(model, limits, deadline)


def _guarded(bench: Bench | None, point: Point) -> dict[str, Any]:
    """Measure a point; where that fails, return why."""
    if bench is None or time.monotonic() > bench.deadline:
        return {"status": "skipped: out of time"}
    bench.point_deadline = min(bench.deadline, time.monotonic() + POINT_SECONDS)
    began = time.perf_counter()
    reset_peak(bench.device)
    try:
        result = {"status": "ok", **point.measure(bench)}
    except torch.OutOfMemoryError:
        result = {"status": "out of memory"}
    except Exception as error:  # one point that fails must not cost the others: machine time is short
        logger.exception("%s failed", point.name)
        result = {"status": f"failed: {type(error).__name__}: {error}"[:500]}
    peak = peak_memory(bench.device)
    bench.model.close()
    release(bench.device)
    return {**result, **peak, "point_seconds": time.perf_counter() - began}


def _write(out: Path, report: Mapping[str, Any]) -> None:
    """Replace the file by the report so far."""
    with atomic_file(out) as path:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _headline(result: Mapping[str, Any]) -> str:
    """Return the point's figures that matter most, on one line."""
    if result["status"] != "ok":
        return f"{result['status']} after {result.get('point_seconds', 0):.1f} s"
    rates = [f"{value:.2f} {key.replace('_per_second', '/s')}" for key, value in result.items() if _is_rate(key)]
    shown = {"step_ms": "ms a step", "kernel_launches": "launches", "operators": "operators", "peak_gb": "GB"}
    rates += [f"{result[key]:.1f} {unit}" for key, unit in shown.items() if result.get(key) is not None]
    if result.get("share_of_floor"):
        rates.append(f"{result['share_of_floor']:.1%} of floor")
    return ", ".join([*rates, *filter(None, [result.get("note")])])


def _is_rate(key: str) -> bool:
    """Return whether a figure is what the point was measured for."""
    return key.endswith("_per_second") and not key.startswith("floor")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=tuple(SIZES), default=["7b", "1b"], help="most important first")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all; what is left then is skipped")
    parser.add_argument("--out", type=Path, required=True, help="report (JSON), written after every point")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    report = run(options.size, parts, torch.device(options.device), options.minutes, options.out)
    lines = [f"{point['size']:5} {point['point']:32} {_headline(point)}" for point in report["points"]]
    sys.stdout.write("\n".join([json.dumps(report["machine"]), json.dumps(report["limits"]), *lines]) + "\n")


if __name__ == "__main__":
    main()
