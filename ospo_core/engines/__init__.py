"""Text generation behind one protocol: vLLM in process, transformers, or an OpenAI-compatible server."""

from ospo_core.engines.base import Completion, Request, TextEngine, build_engine

__all__ = ["Completion", "Request", "TextEngine", "build_engine"]
