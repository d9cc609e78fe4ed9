"""Published results of Janus-Pro, SILMM and OSPO, to be set beside one's own; all by the benchmarks' own evaluators."""

from __future__ import annotations

from typing import NamedTuple

from ospo_core.evaluation.benchmarks.protocol import DPG, GENEVAL, T2I_COMPBENCH
from ospo_core.schema import ALL

_BASE_PAPER = "Janus-Pro, arXiv 2501.17811"
_METHOD_PAPER = "OSPO, arXiv 2506.02015"


class Published(NamedTuple):
    """The results of one model: score by category (`all` is the whole), and where they stand."""

    model: str
    source: str
    scores: dict[str, float]


def _geneval(*scores: float) -> dict[str, float]:
    names = ("single_object", "two_object", "counting", "colors", "position", "color_attr", ALL)
    return dict(zip(names, scores, strict=True))


def _dpg(*scores: float) -> dict[str, float]:
    names = ("global", "entity", "attribute", "relation", "other", ALL)
    return {name: score / 100 for name, score in zip(names, scores, strict=True)}


def _compbench(*scores: float) -> dict[str, float]:
    return dict(zip(("color", "shape", "texture", "spatial", "complex"), scores, strict=True))


PUBLISHED: dict[str, tuple[Published, ...]] = {
    GENEVAL: (
        Published("Janus-Pro-1B", f"{_BASE_PAPER}, table 4", _geneval(0.98, 0.82, 0.51, 0.89, 0.65, 0.56, 0.73)),
        Published("Janus-Pro-7B", f"{_BASE_PAPER}, table 4", _geneval(0.99, 0.89, 0.59, 0.90, 0.79, 0.66, 0.80)),
        Published("OSPO, Janus-Pro-1B", f"{_METHOD_PAPER}, table 2", {ALL: 0.76}),
        Published("OSPO, Janus-Pro-7B", f"{_METHOD_PAPER}, tables 2 and 4", {"position": 0.828, ALL: 0.83}),
    ),
    DPG: (
        Published("Janus-Pro-1B", f"{_BASE_PAPER}, table 5", _dpg(87.58, 88.63, 88.17, 88.98, 88.30, 82.63)),
        Published("Janus-Pro-7B", f"{_BASE_PAPER}, table 5", _dpg(86.90, 88.90, 89.40, 89.32, 89.48, 84.19)),
    ),
    T2I_COMPBENCH: (
        Published("Janus-Pro-7B", f"{_METHOD_PAPER}, table 1", _compbench(0.5215, 0.3272, 0.4050, 0.1654, 0.3868)),
        Published(
            "SILMM, Janus-Pro-7B", f"{_METHOD_PAPER}, table 1", _compbench(0.7394, 0.4325, 0.5796, 0.2105, 0.3725)
        ),
        Published("OSPO, Janus-Pro-1B", f"{_METHOD_PAPER}, table 1", {"complex": 0.3935}),
        Published(
            "OSPO, Janus-Pro-7B", f"{_METHOD_PAPER}, table 1", _compbench(0.8567, 0.6386, 0.7727, 0.3562, 0.4147)
        ),
    ),
}
"""Results by benchmark. Those of SILMM are OSPO's runs of it; docs/benchmarks.md says what was not found."""
