"""Janus behind the protocol: a Llama, a SigLIP encoder to read pictures, a VQ model and a head of its own to write.

Pictures are read and written through different weights: reading goes through the vision encoder and its aligner,
writing through embeddings of the codes, their aligner and the generation head.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar

import torch
from numpy import uint8
from numpy.typing import NDArray
from torch.nn import functional
from transformers import (
    GenerationConfig,
    JanusForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ospo_core.errors import ModelError
from ospo_core.models.base import UnifiedModel
from ospo_core.models.janus.checkpoint import image_geometry, special_tokens
from ospo_core.models.pictures import to_pixels
from ospo_core.models.products import linear
from ospo_core.prompts.families import PromptFamily


class JanusModel(UnifiedModel):
    """Janus-Pro of any size, with a Llama inside; arguments as for `UnifiedModel`.

    Attributes:
        special: ids of special tokens.

    Raises:
        ModelError: the tokenizer or the image geometry does not fit.
    """

    network_class: ClassVar[type[PreTrainedModel]] = JanusForConditionalGeneration
    lora_targets: ClassVar[str] = r"model\.language_model\..*\.(q|k|v|o|gate|up|down)_proj"
    """Full names, since the vision encoder has layers of the same short names."""

    network: JanusForConditionalGeneration

    def __init__(
        self,
        network: JanusForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        family: PromptFamily,
        folder: Path = Path(),
    ) -> None:
        super().__init__(network, tokenizer, family, folder)
        self.special = special_tokens(tokenizer, network)
        self.geometry = image_geometry(network.config)
        self._table: tuple[list[tuple[int, int]], torch.Tensor] | None = None

    @property
    def backbone(self) -> PreTrainedModel:
        """The Llama."""
        backbone: PreTrainedModel = self.network.model.language_model
        return backbone

    @property
    def picture_id(self) -> int:
        """Id of the image placeholder."""
        return self.special.image

    def unconditional(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Replace everything but begin-of-sequence and begin-of-image by padding.

        The attention mask stays that of the conditional prompt, so the replaced tokens are still attended to, as in
        transformers' `JanusForConditionalGeneration.generate` and in Janus' own sampler (arXiv 2501.17811).
        """
        keep = (ids == self.special.bos) | (ids == self.special.begin_of_image)
        return ids.masked_fill(~keep, self.special.pad), mask

    def text_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the language head's logits."""
        logits: torch.Tensor = self.network.lm_head(states)
        return logits

    def embed_image(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Embed codes by their own table and aligner; one position each."""
        janus = self.network.model
        embeddings: torch.Tensor = janus.generation_aligner(janus.generation_embeddings(tokens[:, start:]))
        return embeddings

    def code_table(self) -> torch.Tensor | None:
        """Return all codes as `embed_image` embeds them; computed again only where their weights have changed."""
        janus = self.network.model
        parts = [*janus.generation_embeddings.parameters(), *janus.generation_aligner.parameters()]
        made_of = [(part.data_ptr(), part._version) for part in parts]
        if self._table is None or self._table[0] != made_of:
            with torch.inference_mode():
                table: torch.Tensor = janus.generation_aligner(janus.generation_embeddings.weight)
            self._table = made_of, table
        return self._table[1]

    def image_logits(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return the generation head's logits; they depend on the states alone."""
        head = self.network.model.generation_head
        if states.ndim == 3:  # many rows, with gradients perhaps; else a step's few, for which weights are reordered
            every: torch.Tensor = head(states)
            return every
        inner = head.activation_fn(linear(states, head.proj_out.weight, head.proj_out.bias))
        return linear(inner, head.vision_head.weight, head.vision_head.bias)

    def decode_image(self, tokens: torch.Tensor) -> torch.Tensor:
        """Decode by the VQ model, which normalises the code vectors itself; channels last is faster."""
        vq = self.network.model.vqmodel
        entries = vq.quantize.get_codebook_entry(tokens).contiguous(memory_format=torch.channels_last)
        pixels: torch.Tensor = vq.decoder(vq.post_quant_conv(entries))
        return pixels

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode by the VQ model, with latents and codebook normalised before the search.

        transformers' `JanusVQVAE.encode` searches the codebook with raw latents, while its decoder normalises the
        codebook: the two do not belong together (docs/method.md, trap 2). The VQ model was trained with both normalised
        (LlamaGen, arXiv 2406.06525, on which Janus' tokenizer builds).
        """
        vq = self.network.model.vqmodel
        latents = vq.quant_conv(vq.encoder(pixels.contiguous(memory_format=torch.channels_last)))
        return nearest_codes(latents.permute(0, 2, 3, 1).flatten(1, 2), vq.quantize.embedding.weight)

    def embed_pictures(self, pictures: NDArray[uint8]) -> torch.Tensor:
        """Embed pictures by the vision encoder and its aligner."""
        pixels = to_pixels(pictures, self.device).to(self.dtype)
        features: torch.Tensor = self.network.model.get_image_features(pixels).pooler_output
        return features

    @classmethod
    def text_backbone(cls, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
        """Return the language model as a Llama that shares its weights and ends at the tokenizer's end token.

        Raises:
            ModelError: the language model is not a Llama.
        """
        whole: Any = network.config
        config = copy.deepcopy(whole.text_config)
        if not isinstance(config, LlamaConfig):
            kind = getattr(config, "model_type", None)
            raise ModelError(
                "the language model is not a Llama", field="config.json: text_config.model_type", value=kind
            )
        special = special_tokens(tokenizer, network)
        config.tie_word_embeddings = network.lm_head.weight is network.get_input_embeddings().weight
        config.dtype = network.dtype
        ends = {"bos_token_id": special.bos, "eos_token_id": special.eos, "pad_token_id": special.pad}
        config.update(ends)
        with torch.device("meta"):
            llama = LlamaForCausalLM(config)
        llama.model, llama.lm_head = network.model.language_model, network.lm_head
        llama.generation_config = GenerationConfig(**ends)
        return llama.eval()


def nearest_codes(latents: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Return the code `int64 [...]` of `codebook` `[K, D]` nearest in direction to each of `latents` `[..., D]`.

    For unit vectors the smallest distance is the largest dot product.
    """
    directions = functional.normalize(latents.float(), dim=-1)
    return (directions @ functional.normalize(codebook.float(), dim=-1).T).argmax(dim=-1)
