"""What a device can do, and what a piece of work takes on it: time, peak memory, kernel launches, costly operators."""

from __future__ import annotations

import gc
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ospo_core.models.base import UnifiedModel

_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchCooperativeKernel")
_OTHER_CALLS = ("cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync", "cudaStreamSynchronize")
_TOP = 10


class EnoughSteps(Exception):
    """Ends a call of the sampler from inside; it is no failure."""


@dataclass(frozen=True)
class Limits:
    """What a device reaches in its two simplest jobs.

    Attributes:
        bandwidth: bytes per second of a large copy, those read and those written.
        matmul: floating-point operations per second of a large matrix product.
    """

    bandwidth: float
    matmul: float


def measure_limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """Measure both, each the best of several times."""
    large = device.type == "cuda"
    source = torch.zeros(2**30 if large else 2**25, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    side = 8192 if large else 256
    left = torch.randn((side, side), device=device).to(dtype)
    right = torch.randn((side, side), device=device).to(dtype)
    copy = min(times_of(device, lambda: target.copy_(source), 8))
    product = min(times_of(device, lambda: left @ right, 8))
    return Limits(2 * source.numel() / copy, 2 * side**3 / product)


def machine(device: torch.device) -> dict[str, Any]:
    """Say what was measured on."""
    gpu: dict[str, Any] = {}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        gpu = {"gpu": properties.name, "gpu_gb": properties.total_memory / 1e9, "cuda": torch.version.cuda}
        gpu["allocator"] = os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF")
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {**gpu, "device": str(device), **versions, "transformers": transformers.__version__}


def synchronize(device: torch.device) -> None:
    """Wait until the device has done everything it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release(device: torch.device) -> None:
    """Return the memory of what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def reset_peak(device: torch.device) -> None:
    """Begin to observe the peak of memory."""
    if device.type != "cuda":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak of resident memory
    else:
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.reset_accumulated_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, float]:
    """Return the peak since `reset_peak` in GB, of tensors and of what the allocator held for them, and its retries.

    A retry is an allocation for which cached memory had to be given back first. Without a GPU, the peak is that of the
    process's resident memory (Linux).
    """
    if device.type != "cuda":
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        return {"peak_gb": int(found[1]) * 1024 / 1e9} if found else {}
    return {
        "peak_gb": torch.cuda.max_memory_allocated(device) / 1e9,
        "peak_reserved_gb": torch.cuda.max_memory_reserved(device) / 1e9,
        "allocation_retries": torch.cuda.memory_stats(device)["num_alloc_retries"],
    }


def times_of(
    device: torch.device, work: Callable[[], object], repeats: int, enough: Callable[[], bool] = lambda: False
) -> list[float]:
    """Return the seconds of each repeat after one that is not counted; stops early, after one at least, on `enough`."""
    work()
    times: list[float] = []
    while len(times) < repeats and not (times and enough()):
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - began)
    return times


@dataclass
class Steps:
    """The steps that a call of the sampler made, as far as they are made from Python one by one.

    Attributes:
        marks: one mark per step: CUDA events, or seconds where there is no GPU.
    """

    marks: list[Any] = field(default_factory=list)

    def mark(self, device: torch.device) -> None:
        """Note that a step has begun, without waiting for the device."""
        if device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def milliseconds(self) -> list[float]:
        """Return the time from step to step; the device must have been waited for."""
        neighbours = pairwise(self.marks)
        if self.marks and isinstance(self.marks[0], float):
            return [1000 * (after - before) for before, after in neighbours]
        return [before.elapsed_time(after) for before, after in neighbours]


@contextmanager
def watched_steps(model: UnifiedModel, on_step: Callable[[int], None] = lambda step: None) -> Iterator[Steps]:
    """Observe the sampler inside the block, which ends without an error where `on_step` raises `EnoughSteps`.

    The sampler asks for the logits of image tokens once per step. Steps replayed from a CUDA graph are not seen.
    """
    steps, logits = Steps(), model.image_logits

    def observed(states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        if model.device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
            on_step(len(steps.marks))
            steps.mark(model.device)
        return logits(states, tokens)

    with patch.object(model, "image_logits", observed):
        try:
            yield steps
        except EnoughSteps:
            pass
        finally:
            synchronize(model.device)


@dataclass(frozen=True)
class _Totals:
    """Seconds, bytes of all tensors made, and by name and kind of device: calls, microseconds of device and of host."""

    seconds: float
    allocated: int
    events: dict[tuple[str, DeviceType], tuple[float, float, float]]


def profiled_steps(device: torch.device, make: Callable[[int], object], few: int, many: int) -> dict[str, Any]:
    """Profile what one step more costs: launches, operators, bytes and times per step, in milliseconds.

    It is the difference between `many` and `few` steps, so that it does not matter how the steps are made (one by one,
    or replayed from a CUDA graph), nor what comes before them. On a CPU, operators stand for launches.

    Args:
        device: where the work is done.
        make: makes so many steps, after whatever must come before them.
        few: steps of the first profile.
        many: steps of the second.
    """
    short, long = (_totals(device, make, count) for count in (few, many))
    steps, none = many - few, (0.0, 0.0, 0.0)
    events = {
        key: tuple((after - before) / steps for after, before in zip(totals, short.events.get(key, none), strict=True))
        for key, totals in long.events.items()
    }
    host = {name: event for (name, kind), event in events.items() if kind == DeviceType.CPU}
    kernels = {name: event for (name, kind), event in events.items() if kind == DeviceType.CUDA}
    return {
        "steps": steps,
        "step_ms_profiled": 1000 * (long.seconds - short.seconds) / steps,
        "device_busy_ms": sum(event[1] for event in kernels.values()) / 1000,
        "kernel_launches": sum(event[0] for name, event in host.items() if name.startswith(_LAUNCHES)),
        "operators": sum(event[0] for name, event in host.items() if name.startswith("aten::")),
        "mb_allocated": (long.allocated - short.allocated) / 1e6 / steps,
        "other_calls": {name: event[0] for name, event in host.items() if name in _OTHER_CALLS},
        "top_by_device_time": _top(host, 1),
        "top_kernels": _top(kernels, 1),
        "top_by_host_time": _top(host, 2),
    }


def _totals(device: torch.device, make: Callable[[int], object], count: int) -> _Totals:
    """Profile `count` steps."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    make(count)  # what is made once, such as graphs, is not the step's
    synchronize(device)
    with profile(activities=kinds, profile_memory=True) as observed:
        began = time.perf_counter()
        make(count)
        synchronize(device)
        seconds = time.perf_counter() - began
    allocated = sum(size for size in memory_changes(observed, device) if size > 0)
    events = {
        (event.key, event.device_type): (event.count, event.self_device_time_total, event.self_cpu_time_total)
        for event in observed.key_averages()
    }
    return _Totals(seconds, allocated, events)


def _top(events: Mapping[str, tuple[float, ...]], which: int) -> list[dict[str, Any]]:
    """Return the events that take longest by one of the profiler's times."""
    largest = sorted(events.items(), key=lambda event: event[1][which], reverse=True)[:_TOP]
    return [
        {"name": name[:120], "ms": event[which] / 1000, "calls": event[0]}
        for name, event in largest
        if event[which] > 0
    ]


def memory_changes(observed: profile, device: torch.device) -> Iterator[int]:
    """Yield by how many bytes the memory of tensors on the device grew or shrank, in order, as its allocator reports.

    Neither the speed nor the other load of the machine matters. The profile must have been made with `profile_memory`.
    """
    kind = DeviceType.CUDA if device.type == "cuda" else DeviceType.CPU
    results: Any = observed.profiler.kineto_results if observed.profiler else None
    for event in results.events() if results else ():
        if event.name() == "[memory]" and event.device_type() == kind:
            yield event.nbytes()


def median(values: list[float]) -> float | None:
    """Return the median; None of nothing."""
    return statistics.median(values) if values else None
