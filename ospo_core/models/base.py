"""The seam between the pipeline and a model family: all that differs from family to family, on one page.

Sampling, log-probabilities, answers, object masks, adapters and the export are written once, on `UnifiedModel`. A new
family is a folder with one subclass, one line in `locate.FAMILIES`, and a tiny model for the contract tests.

An image *token* is a stored value in [0, codes). A *position* is a column of the language model's input. Letters in
shapes: `B` rows, `L` prompt positions, `T` tokens of an image, `P` positions, `D` hidden size. Nothing but the subclass
knows how tokens and positions relate, so that a family may have

- one token per position and a head of its own for images: the defaults below hold;
- one vocabulary for text and images, and rows that end in a row-end token (Emu3): row ends are forced, so they are
  neither stored nor drawn and have no log-probability; `embed_image` adds them after the last token of a row,
  `token_offsets` is `t + t // columns`, and `image_logits` returns those columns of the text head that are codes;
- several tokens per position (residual quantisation): `embed_image` returns the positions that are complete, which may
  be none, and `image_logits` sees the tokens of the position so far;
- pictures that are not square (`rows` and `columns`), or tokens without a place in the picture (both None);
- images of several sizes: the size that is drawn is configuration, stated in `generation_text`; log-probabilities and
  masks follow the number of tokens they are given. An image that ends by itself is filled up to `geometry.tokens` with
  a code of its own, to which `image_logits` gives all probability once it has been drawn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from numpy import uint8
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ospo_core.artifacts.model_digest import model_digest
from ospo_core.errors import ModelError
from ospo_core.models.batching import Batching
from ospo_core.models.fused import suit_gpu
from ospo_core.models.memory import MemoryFigures, memory_figures
from ospo_core.models.sequences import encode_texts, single_token_ids
from ospo_core.prompts.families import IMAGE_MARKER, PromptFamily

MAX_CODES = 2**16
"""Image tokens are stored as uint16."""


def inconsistent(problem: str) -> ModelError:
    """Return the error for a config.json that contradicts itself."""
    return ModelError(problem, field="config.json", remedy="Use a checkpoint whose configuration is consistent")


@dataclass(frozen=True)
class ImageGeometry:
    """The images that a model writes and reads.

    Attributes:
        height: pixels.
        width: pixels.
        tokens: tokens of an image, `T`.
        codes: number of values of a token; at most `MAX_CODES`.
        rows: rows of the token raster, or None where tokens have no place in the picture.
        columns: columns of the token raster: token `r * columns + c` lies at row `r` and column `c`.
        read_positions: positions that a picture occupies when the model reads it.

    Raises:
        ModelError: the codes cannot be stored, or the raster has another number of places than there are tokens.
    """

    height: int
    width: int
    tokens: int
    codes: int
    rows: int | None
    columns: int | None
    read_positions: int

    def __post_init__(self) -> None:
        if self.codes > MAX_CODES:
            raise inconsistent(f"more than {MAX_CODES} codes")
        if self.rows and self.columns and self.rows * self.columns != self.tokens:
            raise inconsistent(f"{self.tokens} tokens do not fill {self.rows} rows of {self.columns}")


class UnifiedModel(ABC):
    """A network that reads and writes both text and images, with everything needed to use it.

    Args:
        network: the whole network; put in evaluation mode.
        tokenizer: its tokenizer; adds the begin-of-sequence token itself.
        family: the prompt family: chat texts and spellings of answers.
        folder: where it was read from; an empty path for a network made in memory.

    Attributes:
        geometry: the images that it writes and reads; set by the subclass.
        device: where the weights were at the start.
        dtype: their type.
        batching: cuts work into batches that fit into memory.
    """

    network_class: ClassVar[type[PreTrainedModel]]
    """The class of transformers that reads the checkpoint."""
    lora_targets: ClassVar[str]
    """Regular expression for the full names of the linear layers that adapters train: those of the backbone only."""
    geometry: ImageGeometry

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        family: PromptFamily,
        folder: Path = Path(),
    ) -> None:
        self.network: PreTrainedModel = network.eval()
        self.tokenizer, self.family, self.folder = tokenizer, family, folder
        self.device, self.dtype = network.device, network.dtype
        self.batching = Batching(self.device, self.dtype, network.num_parameters())
        if self.device.type == "cuda":
            suit_gpu(self.backbone)

    @property
    @abstractmethod
    def backbone(self) -> PreTrainedModel:
        """The causal language model without heads: `inputs_embeds` to `last_hidden_state`, with a `Cache`.

        It is a decoder of transformers whose `layers[i].self_attn` returns its output and its attention weights.
        """

    # Text

    @property
    def pad_id(self) -> int:
        """Id that fills padded columns; they are masked, so it does not matter which."""
        return int(self.tokenizer.pad_token_id)

    def generation_text(self, prompt: str) -> str:
        """Return the text after which the model writes the tokens of an image of `prompt`, which it contains."""
        return self.family.generation_text(prompt)

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the prefill of images: ids and mask `int64 [B, L]`, padded on the left, on the CPU."""
        return encode_texts(self.tokenizer, [self.generation_text(prompt) for prompt in prompts])

    @abstractmethod
    def unconditional(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask of the unconditional prompts, one per row of `encode_prompts`; `L` may differ."""

    def embed_text(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed text ids `[B, L]` as `[B, L, D]`."""
        embeddings: torch.Tensor = self.backbone.get_input_embeddings()(ids)
        return embeddings

    @abstractmethod
    def text_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits of the next text token, `[..., D] -> [..., vocabulary]`."""

    @cached_property
    def answer_ids(self) -> tuple[list[int], list[int]]:
        """Ids of the spellings of yes, and of no, that are one token.

        Raises:
            ModelError: no spelling of an answer is one token of the vocabulary.
        """
        return single_token_ids(self.tokenizer, self.family.yes), single_token_ids(self.tokenizer, self.family.no)

    # Writing images

    @abstractmethod
    def embed_image(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Embed the tokens `tokens[:, start:]`, with what the family inserts after them, as `[B, P, D]`.

        A position that takes further tokens is left to the call that completes it.

        Args:
            tokens: `int64 [B, S]`, the first `S` tokens of each image.
            start: number of tokens that earlier calls embedded.
        """

    def code_table(self) -> torch.Tensor | None:
        """Return the embedding of every code, `[codes, D]`, where a token is one position and nothing else matters.

        With a table, the sampler embeds by it instead of `embed_image`, and gives `image_logits` no tokens. None, the
        default, is always right.
        """
        return None

    def token_offsets(self, count: int) -> Sequence[int]:
        """Return for each of the first `count` tokens the number of positions of its image before its own."""
        return range(count)

    @abstractmethod
    def image_logits(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits of consecutive image tokens, each from the state of the position before its own.

        Args:
            states: `[B, S, D]`, or `[B, D]` for a single token.
            tokens: `int64 [B, N]`, all tokens of the image before the last one that is predicted.

        Returns:
            `[B, S, codes]` or `[B, codes]`. A code that is not allowed has a very negative logit, not an infinite one,
            since guidance takes differences.
        """

    @abstractmethod
    def decode_image(self, tokens: torch.Tensor) -> torch.Tensor:
        """Turn image tokens `int64 [B, T]` into pixels `[B, 3, H, W]`, about in [-1, 1]."""

    @abstractmethod
    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn pixels `[B, 3, H, W]` in [-1, 1] into the image tokens `int64 [B, T]` that decode to them best."""

    # Reading pictures

    @property
    @abstractmethod
    def picture_id(self) -> int:
        """Id of the placeholder token: it stands in a text for one position of a picture."""

    def question_text(self, question: str) -> str:
        """Return the text before the answer about a picture, with `read_positions` placeholders for the picture."""
        placeholder = str(self.tokenizer.convert_ids_to_tokens(self.picture_id))
        return self.family.vqa_text(question).replace(IMAGE_MARKER, placeholder * self.geometry.read_positions, 1)

    @abstractmethod
    def embed_pictures(self, pictures: NDArray[uint8]) -> torch.Tensor:
        """Embed pictures `uint8 [B, H, W, 3]` for reading, `[B, read_positions, D]`."""

    # The whole network

    @classmethod
    @abstractmethod
    def text_backbone(cls, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """Return the language model of `network` as a plain causal model of transformers that shares its weights.

        Raises:
            ModelError: the language model is not of the kind that the family exports.
        """

    @cached_property
    def memory(self) -> MemoryFigures:
        """Bytes that weights and sequences take, for choosing batch sizes."""
        return memory_figures(self.network, self.backbone.config)

    def close(self) -> None:
        """Give up the memory kept between batches, which refers to the model."""
        self.batching.kept.clear()

    @cached_property
    def digest(self) -> str:
        """Digest of the folder's configuration, tokenizer and weights (read once, on first use)."""
        return model_digest(self.folder)
