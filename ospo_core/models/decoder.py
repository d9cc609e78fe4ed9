"""The language model while an image is drawn: prompts are read once, then every row gets one position after the other.

A plain Llama, which all shipped families have, is computed here: projections of the same input are one product, keys
and values lie in memory reserved for the whole image, and no step waits for the host, so that a step can be captured in
a CUDA graph. Anything else (adapters, hooks, other layers) is computed by transformers.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaModel, PreTrainedModel
from transformers.activations import SiLUActivation
from transformers.cache_utils import DynamicCache
from transformers.models.llama import modeling_llama as llama

from ospo_core.models.base import UnifiedModel
from ospo_core.models.fused import FusedAttention, FusedMLP, FusedRMSNorm
from ospo_core.models.products import ReorderedLinear, add_linear, linear
from ospo_core.models.sequences import positions

_PLAIN = {
    LlamaModel,
    llama.LlamaDecoderLayer,
    llama.LlamaAttention,
    llama.LlamaMLP,
    llama.LlamaRMSNorm,
    llama.LlamaRotaryEmbedding,
    FusedAttention,
    FusedMLP,
    FusedRMSNorm,
    nn.Embedding,
    nn.Linear,
    ReorderedLinear,
    nn.ModuleList,
    nn.SiLU,
    SiLUActivation,
}
"""The modules of a language model that is computed here."""


class Decoder(Protocol):
    """The growing sequences of one batch, `R` rows.

    Attributes:
        state: `[R, D]`, the state from which the next token is predicted.
        width: positions so far, padding included.
    """

    state: torch.Tensor
    width: int

    def begin(self, ids: torch.Tensor, mask: torch.Tensor) -> None:
        """Read the prompts `[R, L]`, ids and mask on the CPU; rows with the same prompt are read once."""

    def step(self, embeddings: torch.Tensor) -> None:
        """Append positions `[R, P, D]`."""


class PlainDecoder:
    """Computed by transformers; see `Decoder`."""

    def __init__(self, model: UnifiedModel) -> None:
        self._model, self.width = model, 0

    def begin(self, ids: torch.Tensor, mask: torch.Tensor) -> None:
        """Read the prompts."""
        first_ids, first_mask, rows = distinct_prompts(ids, mask, self._model.device)
        output = self._model.backbone(
            inputs_embeds=self._model.embed_text(first_ids),
            attention_mask=first_mask,
            position_ids=positions(first_mask),
            use_cache=True,
        )
        self.state: torch.Tensor = output.last_hidden_state[:, -1][rows]
        self._cache: DynamicCache = output.past_key_values
        self._cache.batch_select_indices(rows)
        self._mask = mask.to(self._model.device)
        self._next = self._mask.sum(dim=-1, keepdim=True)
        self.width = ids.shape[1]

    def step(self, embeddings: torch.Tensor) -> None:
        """Append positions."""
        count = embeddings.shape[1]
        if not count:
            return
        self._mask = functional.pad(self._mask, (0, count), value=1)
        output = self._model.backbone(
            inputs_embeds=embeddings,
            attention_mask=self._mask,
            position_ids=self._next + torch.arange(count, device=self._next.device),
            past_key_values=self._cache,
            use_cache=True,
        )
        self.state = output.last_hidden_state[:, -1]
        self._next = self._next + count
        self.width += count


def distinct_prompts(
    ids: torch.Tensor, mask: torch.Tensor, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids and mask of the distinct rows, and which of them each row is, on the device."""
    distinct, rows = torch.stack([ids, mask], dim=1).unique(dim=0, return_inverse=True)
    first_ids, first_mask = distinct.to(device).unbind(dim=1)
    return first_ids, first_mask, rows.to(device)


@dataclass(frozen=True)
class _Layer:
    """Weights of one layer; `qkv` and `gate_up` are several projections of the same input."""

    before: torch.Tensor
    qkv: torch.Tensor
    out: torch.Tensor
    between: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class LlamaWeights:
    """The weights of a plain Llama with projections of the same input joined.

    The network's own parameters become views of the joined ones, so these take no memory of their own.

    Args:
        backbone: for which `is_plain` holds; changed in place.
    """

    def __init__(self, backbone: PreTrainedModel) -> None:
        network: Any = backbone
        config = network.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_size: int = network.layers[0].self_attn.head_dim
        self.hidden, self.eps = config.hidden_size, config.rms_norm_eps
        self._rotary, self._tables = network.rotary_emb, dict[int, tuple[torch.Tensor, torch.Tensor]]()
        with torch.inference_mode(False), torch.no_grad():
            self.layers = [_joined(layer) for layer in network.layers]
        self.norm: torch.Tensor = network.norm.weight
        self._versions = _versions(network)

    def belongs_to(self, backbone: PreTrainedModel) -> bool:
        """Return whether these still are the network's weights, unchanged."""
        return self._versions == _versions(backbone)

    def rotations(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and signed sines `[count, D]` of the first positions; threads may ask for other numbers."""
        tables = self._tables.get(count)
        if tables is None:
            places = torch.arange(count, device=self.norm.device)[None]
            cos, sin = self._rotary(self.norm[None], places)
            sign = torch.ones_like(sin[0, 0])
            sign[: self.head_size // 2] = -1
            tables = cos[0], sin[0] * sign
            self._tables = {count: tables}
        return tables


def _versions(backbone: nn.Module) -> list[tuple[int, int]]:
    """Return what changes where a weight of the layers is replaced or changed in place."""
    weights = backbone.get_submodule("layers").parameters()
    return [(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights]


def _joined(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        before=layer.input_layernorm.weight,
        qkv=_join([attention.q_proj, attention.k_proj, attention.v_proj]),
        out=attention.o_proj.weight,
        between=layer.post_attention_layernorm.weight,
        gate_up=_join([mlp.gate_proj, mlp.up_proj]),
        down=mlp.down_proj.weight,
    )


def _join(projections: list[nn.Linear]) -> torch.Tensor:
    """Return the weights one below the other, and make those of the projections views of it."""
    joined = torch.cat([projection.weight for projection in projections])
    parts = joined.split([projection.out_features for projection in projections])
    for projection, part in zip(projections, parts, strict=True):
        projection.weight.data = part
    return joined


_known: WeakKeyDictionary[nn.Module, LlamaWeights] = WeakKeyDictionary()
_joining = Lock()


def llama_weights(backbone: PreTrainedModel) -> LlamaWeights | None:
    """Return the joined weights of the language model, joined at the first call; None if it is not a plain Llama."""
    if not is_plain(backbone):
        return None
    with _joining:  # batches that are computed side by side begin together
        weights = _known.get(backbone)
        if weights is None or not weights.belongs_to(backbone):
            weights = _known[backbone] = LlamaWeights(backbone)
        return weights


def is_plain(backbone: PreTrainedModel) -> bool:
    """Return whether it is a Llama as transformers has it: no adapter, hook, bias or other kind of position."""
    modules = list(backbone.modules())
    return (
        isinstance(backbone, LlamaModel)
        and not backbone.training
        and backbone.config.hidden_act == "silu"
        and (backbone.config.rope_parameters or {}).get("rope_type") == "default"
        and all(type(module) in _PLAIN for module in modules)
        and not any(_changed(module) for module in modules)
        and not any(isinstance(module, nn.Linear) and module.bias is not None for module in modules)
        and len({(weights.device, weights.dtype) for weights in backbone.parameters()}) == 1
    )


def _changed(module: nn.Module) -> bool:
    """Return whether somebody has hooked into the module; what transformers itself puts there only looks on."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    watching = "transformers.utils.output_capturing"
    return "forward" in vars(module) or any(getattr(hook, "__module__", None) != watching for hook in hooks)


class LlamaDecoder:
    """A plain Llama, computed here; see `Decoder`. Its memory can be used for one batch after the other.

    Args:
        model: the model.
        weights: those of its language model.
        rows: `R`.
        capacity: positions of a row, prompt included.
        segment: a step attends to a multiple of so many positions, those that are not written yet masked. 1 attends to
            no more than there is; larger ones repeat shapes, as CUDA graphs need.
    """

    def __init__(self, model: UnifiedModel, weights: LlamaWeights, rows: int, capacity: int, segment: int = 1) -> None:
        self._model, self.weights, self._segment = model, weights, segment
        self.capacity = -(-capacity // segment) * segment
        device, dtype = model.device, weights.norm.dtype
        kept = torch.float32 if device.type == "cpu" else dtype  # CPUs attend in bfloat16 at a quarter of the speed
        cache = (2, len(weights.layers), rows, weights.kv_heads, self.capacity, weights.head_size)
        self._keys, self._values = torch.zeros(cache, dtype=kept, device=device)
        self._mask = torch.zeros((rows, 1, 1, self.capacity), dtype=kept, device=device)
        self._turns = weights.rotations(self.capacity)
        self._next = torch.zeros(rows, dtype=torch.int64, device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self.state = torch.zeros((rows, weights.hidden), dtype=dtype, device=device)
        self.width = 0

    @property
    def limit(self) -> int:
        """Positions that the next step attends to, those not written yet included."""
        return -(-(self.width + 1) // self._segment) * self._segment

    def begin(self, ids: torch.Tensor, mask: torch.Tensor) -> None:
        """Read the prompts."""
        first_ids, first_mask, rows = distinct_prompts(ids, mask, self._model.device)
        self.width = ids.shape[1]
        self._place.fill_(self.width)
        torch.sum(first_mask[rows], dim=-1, out=self._next)
        self._mask.fill_(-torch.inf)
        self._mask[:, 0, 0, : self.width].masked_fill_(first_mask[rows] == 1, 0)
        cos, sin = (table[positions(first_mask)] for table in self._turns)
        allowed = _causal(first_mask)
        states = self._model.embed_text(first_ids)
        last = len(self.weights.layers) - 1
        for number, layer in enumerate(self.weights.layers):
            query, key, value = self._projected(layer, states, cos, sin)
            self._keys[number, :, :, : self.width] = key.index_select(0, rows)
            self._values[number, :, :, : self.width] = value.index_select(0, rows)
            if number == last:  # what follows is wanted for the last position alone
                states, query, allowed = states[:, -1:], query[:, :, -1:], allowed[:, :, -1:]
            states = self._completed(layer, states, _attend(query, key, value, allowed))
        self.state.copy_(self._normed(states[:, -1], self.weights.norm)[rows])

    def step(self, embeddings: torch.Tensor) -> None:
        """Append positions."""
        for position in embeddings.unbind(dim=1):
            self.append(position, self.limit)
            self.width += 1

    def append(self, states: torch.Tensor, limit: int) -> None:
        """Append one position `[R, D]`, attending to the first `limit` positions; the host waits for nothing."""
        self._mask.index_fill_(3, self._place, 0)
        cos, sin = (table[self._next][:, None] for table in self._turns)
        mask, states = self._mask[..., :limit], states[:, None]
        with _attention_of_a_step(states.device):
            for number, layer in enumerate(self.weights.layers):
                query, key, value = self._projected(layer, states, cos, sin)
                keys, values = self._keys[number], self._values[number]
                if self._segment == 1:  # the host knows the place, and a plain copy is quicker
                    keys[:, :, limit - 1], values[:, :, limit - 1] = key[:, :, 0], value[:, :, 0]
                else:
                    keys.index_copy_(2, self._place, key.to(keys.dtype))
                    values.index_copy_(2, self._place, value.to(values.dtype))
                attended = _attend(query, keys[:, :, :limit], values[:, :, :limit], mask)
                states = self._completed(layer, states, attended)
        self.state.copy_(self._normed(states[:, 0], self.weights.norm))
        self._next += 1
        self._place += 1

    def _projected(
        self, layer: _Layer, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Return rotated queries, rotated keys, and values, each `[R, heads, P, head size]`, of states `[R, P, D]`."""
        weights = self.weights
        joined = linear(self._normed(states, layer.before), layer.qkv)
        heads = joined.unflatten(-1, (-1, weights.head_size)).transpose(1, 2)
        turned = heads[:, : weights.heads + weights.kv_heads]
        turned = torch.addcmul(turned * cos[:, None], turned.roll(weights.head_size // 2, -1), sin[:, None])
        return turned[:, : weights.heads], turned[:, weights.heads :], heads[:, weights.heads + weights.kv_heads :]

    def _completed(self, layer: _Layer, states: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """Return the states after the layer."""
        shape, states = states.shape, states.flatten(0, 1)
        states = add_linear(states, attended.transpose(1, 2).reshape(len(states), -1), layer.out)
        gate, up = linear(self._normed(states, layer.between), layer.gate_up).chunk(2, dim=-1)
        return add_linear(states, functional.silu(gate).mul_(up), layer.down).view(shape)

    def _normed(self, states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(states, (self.weights.hidden,), weight, self.weights.eps)


def _causal(mask: torch.Tensor) -> torch.Tensor:
    """Return which positions each one attends to, `bool [R, 1, L, L]`; padding attends to itself, as to something."""
    length = mask.shape[1]
    square = torch.ones((length, length), dtype=torch.bool, device=mask.device)
    return ((mask[:, None, :] == 1) & square.tril() | torch.eye(length, dtype=torch.bool, device=mask.device))[:, None]


def _attention_of_a_step(device: torch.device) -> AbstractContextManager[None]:
    """Allow cuDNN's attention on a GPU: with a query per row it reads keys and values at the speed of memory.

    Steps have the same few shapes; elsewhere it is not used (see `suit_gpu`).
    """
    if device.type != "cuda":
        return nullcontext()
    allowed: AbstractContextManager[None] = sdpa_kernel(
        [SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    )
    return allowed


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Attend in the type of the keys; the result has the query's."""
    grouped, asking = query.shape[1] != key.shape[1], query.to(key.dtype)
    attended = functional.scaled_dot_product_attention(asking, key, value, attn_mask=mask, enable_gqa=grouped)
    return attended.to(query.dtype)
