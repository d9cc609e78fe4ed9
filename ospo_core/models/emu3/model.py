"""Emu3 behind the protocol: a Llama whose vocabulary has the codes of a VQ model, and nothing else for pictures.

A picture is written and read as the same tokens: `rows*columns`, then the codes row by row, each row followed by a
row-end token. Which token is a row end is known beforehand, so it is neither stored nor drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from numpy import uint8
from numpy.typing import NDArray
from torch.nn import functional
from transformers import (
    Emu3ForConditionalGeneration,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from ospo_core.models.base import UnifiedModel
from ospo_core.models.emu3.checkpoint import END_OF_FRAME, WRAPPER, image_geometry, image_ids
from ospo_core.models.pictures import to_pixels
from ospo_core.models.products import reorder_linears
from ospo_core.models.sequences import encode_texts
from ospo_core.prompts.families import IMAGE_MARKER, PromptFamily


class Emu3Model(UnifiedModel):
    """Emu3 of any size in transformers' format; arguments as for `UnifiedModel`.

    Attributes:
        ids: ids of image tokens.

    Raises:
        ModelError: the vocabulary of image tokens or the size of pictures does not fit.
    """

    network_class: ClassVar[type[PreTrainedModel]] = Emu3ForConditionalGeneration
    lora_targets: ClassVar[str] = r"model\.text_model\..*\.(q|k|v|o|gate|up|down)_proj"

    network: Emu3ForConditionalGeneration

    def __init__(
        self,
        network: Emu3ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        family: PromptFamily,
        folder: Path = Path(),
    ) -> None:
        network.model.text_model = _as_llama(network.model.text_model)
        super().__init__(network, tokenizer, family, folder)
        self.ids = image_ids(tokenizer, network, folder)
        self.geometry = image_geometry(network.config)
        first, last, count = self.ids.codes[0], self.ids.codes[-1], len(self.ids.codes)
        consecutive = self.ids.codes == tuple(range(first, first + count))
        self._codes = torch.tensor(self.ids.codes, device=self.device)
        self._columns: slice | torch.Tensor = slice(first, last + 1) if consecutive else self._codes

    @property
    def backbone(self) -> PreTrainedModel:
        """The language model, a Llama."""
        backbone: PreTrainedModel = self.network.model.text_model
        return backbone

    @property
    def picture_id(self) -> int:
        """Id of the image placeholder."""
        return self.ids.placeholder

    @property
    def _beginning(self) -> str:
        """What follows the begin-of-image tag: the size in tokens, which the family's texts do not know."""
        return f"{self.geometry.rows}*{self.geometry.columns}{WRAPPER}"

    def generation_text(self, prompt: str) -> str:
        """Return the family's text and the size of the image, as `Emu3Processor` does."""
        return self.family.generation_text(prompt) + self._beginning

    def question_text(self, question: str) -> str:
        """Return the family's text with the size of the picture, its placeholders and the end of its frame."""
        placeholders = str(self.tokenizer.convert_ids_to_tokens(self.picture_id)) * self.geometry.read_positions
        picture = f"{self._beginning}{placeholders}{END_OF_FRAME}"
        return self.family.vqa_text(question).replace(IMAGE_MARKER, picture, 1)

    def unconditional(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the family's negative prompt in the place of each prompt, as in Emu3's own sampler."""
        return encode_texts(self.tokenizer, [self.generation_text(self.family.negative_prompt)] * len(ids))

    def text_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the head's logits."""
        logits: torch.Tensor = self.network.lm_head(states)
        return logits

    def embed_image(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Embed codes as the text tokens that they are, with a row end after the last one of each row."""
        count, first = tokens.shape[1], self._place(start)
        ids = tokens.new_full((len(tokens), self._place(count) - first), self.ids.row_end)
        places = [self._place(token) - first for token in range(start, count)]
        ids[:, places] = self._codes.to(tokens.device)[tokens[:, start:]]
        return self.embed_text(ids)

    def token_offsets(self, count: int) -> Sequence[int]:
        """Return the places of tokens among the positions of an image: row ends take places, too."""
        return [self._place(token) for token in range(count)]

    def _place(self, token: int) -> int:
        """Return the number of positions before a token: the tokens and the row ends that stand there."""
        columns = self.geometry.columns
        assert columns is not None
        return token + token // columns

    def image_logits(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return the head's logits of the codes; where their ids are consecutive, its rows are not copied for it."""
        return functional.linear(states, self.network.lm_head.weight[self._columns])

    def decode_image(self, tokens: torch.Tensor) -> torch.Tensor:
        """Decode by the VQ model."""
        pixels: torch.Tensor = self.network.model.vqmodel.decode(tokens.unflatten(1, (self.geometry.rows, -1)))
        return pixels

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode by the VQ model."""
        sizes = [pixels.shape[2:]] * len(pixels)
        codes: list[torch.Tensor] = self.network.model.vqmodel.encode(pixels, sizes).image_tokens
        return torch.stack(codes).flatten(1)

    def embed_pictures(self, pictures: NDArray[uint8]) -> torch.Tensor:
        """Embed pictures by their tokens."""
        return self.embed_image(self.encode_image(to_pixels(pictures, self.device).to(self.dtype)))

    @classmethod
    def text_backbone(cls, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
        """Return the language model as a Llama that shares its weights and ends at the tokenizer's end token."""
        whole: Any = network
        config = _llama_config(whole.config.text_config)
        config.tie_word_embeddings = whole.lm_head.weight is whole.get_input_embeddings().weight
        config.dtype = network.dtype
        ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        config.update(ends)
        with torch.device("meta"):
            llama = LlamaForCausalLM(config)
        llama.model, llama.lm_head = _as_llama(whole.model.text_model), whole.lm_head
        llama.generation_config = GenerationConfig(**ends)
        return llama.eval()


_OF_A_LLAMA = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "rope_parameters",
    "attention_bias",
    "mlp_bias",
)
"""Options of the text model that a Llama has under the same name and with the same meaning."""


def _llama_config(text: PreTrainedConfig) -> LlamaConfig:
    """Return the configuration of the Llama that a text model is."""
    return LlamaConfig(**{name: getattr(text, name) for name in _OF_A_LLAMA})


def _as_llama(text_model: PreTrainedModel) -> LlamaModel:
    """Return the text model as the Llama that it is but for dropout, with the same weights under the same names.

    So what is made for Llamas serves it too (`decoder.py`, `norms.py`). Without dropout, the log-probabilities that are
    trained are those that were scored; TRL's trainers of preferences switch it off, too (`disable_dropout`).
    """
    with torch.device("meta"):
        llama = LlamaModel(_llama_config(text_model.config))
    llama.requires_grad_(next(text_model.parameters()).requires_grad)
    llama.load_state_dict(text_model.state_dict(keep_vars=True), assign=True)
    with text_model.device:
        llama.rotary_emb = LlamaRotaryEmbedding(llama.config)
    reorder_linears(llama)
    return llama.eval()
