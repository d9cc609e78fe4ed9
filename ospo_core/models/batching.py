"""Batches that shrink where memory runs out: the batch is halved, the new size is kept, and the work goes on.

The operators of a small model are too short to be shared by the cores of a CPU: there the cores compute a batch each.

Of accelerate only the test of errors is used: its `find_executable_batch_size` repeats the whole function from the
start, and the next call begins with the large size again.
"""

from __future__ import annotations

import gc
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch

from ospo_core.errors import ModelError

HALVINGS = "batch_halvings"
"""Name among a shard's counts of how often a batch was halved; omitted where none was."""

SMALL = 2**25
"""Most parameters of a model whose batches are computed side by side on a CPU. The embedded one has 7.6 million, and
gains a fifth (docs/lab-notes.md)."""
LANES = 4
"""Most batches that are computed side by side: between operators they wait for each other, since Python runs one."""

_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)


class Batching:
    """Batch sizes of one loaded model, by kind of work, for as long as the model is loaded.

    Args:
        device: where the model computes.
        dtype: type of its weights. In bfloat16 the batch size changes the rounding, and so now and then a token.
        parameters: how many it has.

    Attributes:
        kept: memory that a kind of work keeps for its next batch; it is given up first where memory runs out.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, parameters: int) -> None:
        self._small = device.type == "cpu" and parameters <= SMALL
        self._device, self._dtype = device.type, str(dtype).removeprefix("torch.")
        self.kept: dict[str, Any] = {}
        self._limits: dict[str, int] = {}
        self._used: dict[str, int] = {}
        self._halvings = 0

    def run(
        self,
        work: str,
        sizes: Sequence[int],
        batch_size: int,
        compute: Callable[[slice], _Result],
        *,
        alone: bool = False,
    ) -> Iterator[tuple[slice, _Result]]:
        """Compute consecutive batches, those of a small model side by side; yield the slice of each and its result.

        Args:
            work: what is done, e.g. `sampling`; the sizes of each kind are remembered apart.
            sizes: how much each item adds to a batch, at least 1.
            batch_size: the largest sum of sizes in a batch; a single item may exceed it.
            compute: computes the items of one batch, in any thread. It may be called again with fewer of them.
            alone: one batch after the other even so, since `compute` changes the model for the time of a batch.

        Raises:
            ModelError: memory does not even suffice for a single item.
        """
        next_one, waiting = 0, deque[tuple[slice, Callable[[], _Result]]]()
        several = self._small and not alone and sum(sizes) > batch_size
        lanes = min(LANES, torch.get_num_threads()) if several else 1
        with _side_by_side(lanes, compute) as begin:
            while waiting or next_one < len(sizes):
                limit = min(batch_size, self._limits.get(work, batch_size))
                while next_one < len(sizes) and len(waiting) < lanes:
                    part = _next_batch(sizes, next_one, limit)
                    self._used[work] = min(limit, self._used.get(work, limit))
                    waiting.append((part, begin(part)))
                    next_one = part.stop
                part, result_of = waiting.popleft()
                try:
                    result = result_of()
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    next_one = part.start  # those after it are computed again, too
                    waiting.clear()
                    if self.kept:
                        self.kept.clear()
                    else:
                        self._halve(work, part, sum(sizes[part]), error)
                else:
                    yield part, result
                    continue
                gc.collect()  # here, since the error holds what the failed batch had in memory
                if torch.cuda.is_initialized():
                    torch.cuda.empty_cache()

    def take_figures(self) -> tuple[dict[str, int], dict[str, Any]]:
        """Return counts and facts for the manifest about the batches since the last call; empty if there were none."""
        used, halvings = self._used, self._halvings
        self._used, self._halvings = {}, 0
        facts = {"batches": {"device": self._device, "dtype": self._dtype, "sizes": used}} if used else {}
        return ({HALVINGS: halvings} if halvings else {}), facts

    def _halve(self, work: str, part: slice, size: int, error: Exception) -> None:
        if part.stop - part.start == 1:
            raise ModelError(
                f"out of memory while {work} a batch of one item: {str(error).splitlines()[0]}",
                field="model.device",
                value=self._device,
                remedy="Use a GPU with more memory, model.dtype=bfloat16, or end what else runs on it",
            ) from error
        self._limits[work] = max(1, size // 2)
        self._halvings += 1
        logger.warning("Out of memory while %s a batch of %d; continuing with %d", work, size, self._limits[work])


@contextmanager
def _side_by_side(
    lanes: int, compute: Callable[[slice], _Result]
) -> Iterator[Callable[[slice], Callable[[], _Result]]]:
    """Yield what begins to compute a batch and returns a function that waits for the result.

    With several lanes each has a thread and its share of the cores; with one, the batch is computed here, when the
    result is asked for.
    """
    if lanes == 1:
        yield lambda part: partial(compute, part)
        return
    threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()

    def in_thread(part: slice) -> _Result:
        with torch.inference_mode(inference):  # threads do not inherit it
            return compute(part)

    torch.set_num_threads(threads // lanes)
    try:
        with ThreadPoolExecutor(lanes) as pool:
            yield lambda part: pool.submit(in_thread, part).result
    finally:
        torch.set_num_threads(threads)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, on a GPU or on the CPU."""
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or bool(should_reduce_batch_size(error))


def _next_batch(sizes: Sequence[int], start: int, limit: int) -> slice:
    """Return the items from `start` on whose sizes sum to at most `limit`, but at least one."""
    stop, total = start + 1, sizes[start]
    while stop < len(sizes) and total + sizes[stop] <= limit:
        total += sizes[stop]
        stop += 1
    return slice(start, stop)
