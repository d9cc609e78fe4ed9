"""Memory that a network takes, from its shapes alone: for batch sizes, and for plans before any weights are there.

What autograd keeps per position and layer was counted on Llamas in training (models/fused.py, lora.py, packing.py), in
hidden and intermediate vectors: in float32 on a CPU, and in types of two bytes on a GPU, where the peaks agree with it
(docs/results.md). The adapters' inner vectors are omitted: their rank is small.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedConfig, PreTrainedModel

_KEPT = {4: (9.75, 4.25), 2: (10.5, 3.5)}
"""Bytes per number, to the hidden and intermediate vectors kept per position and layer."""


@dataclass(frozen=True)
class MemoryFigures:
    """Bytes that a model takes; multiply what is per position by rows and by positions of a row.

    Attributes:
        parameters: number of parameters.
        layers: layers of the language model.
        adapter_per_rank: parameters of an adapter of rank 1 on every projection of the language model.
        weights: bytes of all parameters.
        cache: bytes of keys and values per position, of all layers.
        layer_inputs: bytes per position that the backward pass needs with recomputation of the layers: their inputs.
        activations: bytes per position that the backward pass of training needs without recomputation; an estimate.
    """

    parameters: int
    layers: int
    adapter_per_rank: int
    weights: int
    cache: int
    layer_inputs: int
    activations: int


def memory_figures(network: PreTrainedModel, backbone: PreTrainedConfig) -> MemoryFigures:
    """Return the figures of a network; it may lie on the device `meta`, where it takes no memory itself.

    Args:
        network: the whole network, in float32 or a type of two bytes, in which caches and activations are too.
        backbone: the configuration of its language model.
    """
    size = network.dtype.itemsize
    hidden, layers, heads = backbone.hidden_size, backbone.num_hidden_layers, backbone.num_attention_heads
    head_size = getattr(backbone, "head_dim", None) or hidden // heads
    key_value = head_size * (getattr(backbone, "num_key_value_heads", None) or heads)
    kept_hidden, kept_inner = _KEPT[size]
    inner = backbone.intermediate_size
    projections = 2 * (hidden + head_size * heads) + 2 * (hidden + key_value) + 3 * (hidden + inner)
    return MemoryFigures(
        parameters=sum(weights.numel() for weights in network.parameters()),
        layers=layers,
        adapter_per_rank=layers * projections,
        weights=sum(weights.numel() * weights.element_size() for weights in network.parameters()),
        cache=2 * layers * key_value * size,
        layer_inputs=layers * hidden * size,
        activations=round(layers * (kept_hidden * hidden + kept_inner * inner) * size),
    )
