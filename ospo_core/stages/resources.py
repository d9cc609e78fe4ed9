"""The owner of what is expensive to start: one text engine or one loaded model at a time, never both.

Each is started once per phase. A request for the other kind, or for another model, first releases the one in use, so
that a GPU never holds two.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from ospo_core.artifacts.ids import digest_of
from ospo_core.config.sections import EngineConfig, ModelConfig
from ospo_core.engines import TextEngine, build_engine

if TYPE_CHECKING:
    from ospo_core.models.base import UnifiedModel


atexit.register(gc.unfreeze)  # what is frozen at the end of the process would be reported as leaked, by triton


class Resources:
    """Owns one text engine or one loaded model, started on demand; `starts` counts the starts of each kind.

    Pickled for another process, it is replaced by the resources of that process.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._key = ""
        self._held: Any = None
        self.starts: Counter[str] = Counter()

    def __reduce__(self) -> tuple[Callable[[], Resources], tuple[()]]:
        """Return the function with which another process gets its own."""
        return shared_resources, ()

    def text_engine(self, config: EngineConfig, folder: Path, digest: str, scratch: Path) -> TextEngine:
        """Return the text engine of a model, started unless it is the one in use.

        Args:
            config: which engine.
            folder: the model; its language backbone is exported to `scratch/exports` once per digest.
            digest: identity of the model.
            scratch: local folder for the export.
        """

        def start() -> TextEngine:
            if config.kind == "endpoint":
                return build_engine(config, folder, digest)
            from ospo_core.models.export import export_text_backbone

            return build_engine(config, export_text_backbone(folder, scratch / "exports" / digest))

        engine: TextEngine = self._hold("text", [config, digest], start)
        return engine

    def image_model(self, config: ModelConfig, folder: Path, digest: str) -> UnifiedModel:
        """Return the loaded model in `folder`, loaded unless it is the one in use."""

        def start() -> UnifiedModel:
            from ospo_core.models.loading import load_model

            return load_model(folder, config)

        loaded: UnifiedModel = self._hold("image", [config, digest], start)
        return loaded

    def evaluators(self, which: Any, start: Callable[[], Any]) -> Any:
        """Return the evaluators of a benchmark, together in the place of a model; `which` identifies them."""
        return self._hold("evaluators", which, start)

    def workers(self, which: Any, start: Callable[[], Any]) -> Any:
        """Return a pool of processes that each own an engine or a model instead; releasing it ends them."""
        return self._hold("workers", which, start)

    def batch_figures(self) -> tuple[dict[str, int], dict[str, Any]]:
        """Return counts and facts about the batches of the loaded model since the last call; empty without a model."""
        batching = getattr(self._held, "batching", None)
        return batching.take_figures() if batching is not None else ({}, {})

    def release(self) -> None:
        """Close what is in use and free its memory; without anything in use, do nothing."""
        with self._lock:
            held, self._held, self._key = self._held, None, ""
            if held is None:
                return
            close = getattr(held, "close", None)
            if close is not None:
                close()
            del held
            gc.collect()
            gc.freeze()  # what lives now need not be looked through at the end of the next phase
            torch = sys.modules.get("torch")
            if torch is not None and torch.cuda.is_initialized():
                torch.cuda.empty_cache()

    def _hold(self, kind: str, identity: Any, start: Callable[[], Any]) -> Any:
        key = digest_of([kind, identity])
        with self._lock:
            if self._key != key:
                self.release()
                self._held = start()
                self._key = key
                self.starts[kind] += 1
            return self._held


def import_text_engine(config: EngineConfig) -> None:
    """Import what the text engine of a profile needs, which takes longer than starting it, and start nothing."""
    if config.kind == "endpoint":
        return
    import_module("ospo_core.models.export")
    if config.kind == "vllm" and find_spec("vllm") is not None:
        from ospo_core.engines.vllm_engine import import_vllm

        import_vllm()


@cache
def shared_resources() -> Resources:
    """Return the resources of this process."""
    return Resources()
