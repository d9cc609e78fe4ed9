"""How each benchmark is run: pictures per prompt, seed, guidance, temperature, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ospo_core.config.sections import BenchmarkConfig, EvaluationConfig

T2I_COMPBENCH, GENEVAL, DPG = "t2i-compbench", "geneval", "dpg"
OWN = "own prompts"
"""Name of the protocol of a file of one's own prompts."""


@dataclass(frozen=True)
class Protocol:
    """How pictures are drawn for a benchmark.

    Args:
        name: of the benchmark.
        samples: pictures per prompt.
        seed: from which the seed of every picture is derived, with the prompt's id and the number of the picture.
        guidance, temperature: of sampling.
        sources: where these values come from.
        changed: what the configuration sets otherwise, as words.
    """

    name: str
    samples: int
    seed: int
    guidance: float
    temperature: float
    sources: Mapping[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()


_SAMPLING = {
    "guidance": "5: configs/eval of KU-AGI/OSPO and generation_inference.py of deepseek-ai/Janus",
    "temperature": "1: configs/eval of KU-AGI/OSPO",
    "seed": "42: configs/eval of KU-AGI/OSPO; here one seed per picture is derived from it",
    "size": "that of the model; GenEval and DPG-Bench fix none, T2I-CompBench's distances are in pixels of the picture",
}

PROTOCOLS: dict[str, Protocol] = {
    T2I_COMPBENCH: Protocol(
        T2I_COMPBENCH,
        10,
        42,
        5.0,
        1.0,
        {"samples": "10: GORS_finetune/inference_eval.py of T2I-CompBench", **_SAMPLING},
    ),
    GENEVAL: Protocol(GENEVAL, 4, 42, 5.0, 1.0, {"samples": "4: README of djghosh13/geneval", **_SAMPLING}),
    DPG: Protocol(DPG, 4, 42, 5.0, 1.0, {"samples": "4: README of TencentQQGYLab/ELLA", **_SAMPLING}),
}
"""The protocol of each benchmark: the number of pictures is its authors', sampling that of Janus-Pro and OSPO."""


def protocol_of(config: BenchmarkConfig, evaluation: EvaluationConfig) -> Protocol:
    """Return the protocol that the configuration asks for; a file of one's own is drawn as in an evaluation."""
    own = Protocol(OWN, evaluation.samples, evaluation.seed, evaluation.guidance, evaluation.temperature)
    known = PROTOCOLS.get(config.name, own)
    wanted = {"samples": config.samples, "guidance": config.guidance, "temperature": config.temperature}
    given = {name: value for name, value in wanted.items() if value is not None and value != getattr(known, name)}
    changed = [f"{name} {value:g} instead of {getattr(known, name):g}" for name, value in given.items()]
    if config.limit is not None:
        changed.append(f"at most {config.limit} prompts")
    return Protocol(
        name=known.name,
        samples=int(given.get("samples", known.samples)),
        seed=known.seed,
        guidance=float(given.get("guidance", known.guidance)),
        temperature=float(given.get("temperature", known.temperature)),
        sources=known.sources,
        changed=tuple(changed) if config.name in PROTOCOLS else (),
    )
