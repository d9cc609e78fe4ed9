"""Tiny models whose image tokens and positions do not coincide, to show that the shared code assumes no layout.

They are a tiny Janus underneath. Row ends are those of Emu3, here in a raster that is not square; no shipped family
has two tokens per position yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ospo_core.models.janus.model import JanusModel
from ospo_core.models.loading import read_network
from ospo_core.models.sequences import encode_texts
from ospo_core.models.tokenizer import load_tokenizer
from ospo_core.prompts.families import family


class RowEndModel(JanusModel):
    """Rows end in a row-end token, as in Emu3; the raster is not square, and the unconditional prompt a fixed text."""

    def code_table(self) -> None:
        return None

    def _row_end(self) -> torch.Tensor:
        return self.embed_text(torch.tensor([[self.special.end_of_image]], device=self.device))

    def unconditional(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return encode_texts(self.tokenizer, [self.generation_text("a picture")] * len(ids))

    def embed_image(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        parts = []
        for place in range(start, tokens.shape[1]):
            parts.append(super().embed_image(tokens[:, : place + 1], place))
            if (place + 1) % self.geometry.columns == 0:
                parts.append(self._row_end().expand(len(tokens), -1, -1))
        return torch.cat(parts, dim=1)

    def token_offsets(self, count: int) -> Sequence[int]:
        return [token + token // self.geometry.columns for token in range(count)]


class PairModel(JanusModel):
    """Two tokens per position; the second depends on the first through its logits alone. Tokens have no raster."""

    def code_table(self) -> None:
        return None

    def _completed(self, tokens: torch.Tensor, start: int) -> torch.Tensor:
        return tokens[:, start // 2 * 2 : tokens.shape[1] // 2 * 2]

    def embed_image(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        each = super().embed_image(self._completed(tokens, start))
        return each.unflatten(1, (-1, 2)).sum(dim=2) if each.shape[1] else each

    def token_offsets(self, count: int) -> Sequence[int]:
        return [token // 2 for token in range(count)]

    def image_logits(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        logits = super().image_logits(states, tokens)
        count = states.shape[1] if states.ndim == 3 else 1
        numbers = torch.arange(tokens.shape[1] + 1 - count, tokens.shape[1] + 1, device=tokens.device)
        before = torch.nn.functional.pad(tokens, (1, 0))[:, -count:]
        return logits + (self._bias(before) * (numbers % 2)[:, None]).reshape(logits.shape)

    def _bias(self, first: torch.Tensor) -> torch.Tensor:
        """A preference for the token after the first one of the pair."""
        return 3.0 * torch.nn.functional.one_hot((first + 1) % self.geometry.codes, self.geometry.codes)


def load_row_ends(folder: Path) -> RowEndModel:
    """Return the tiny Janus in `folder` with two rows of eight tokens."""
    model = RowEndModel(read_network(folder), load_tokenizer(folder), family("shapes"), folder)
    model.geometry = replace(model.geometry, rows=2, columns=8)
    return model


def load_pairs(folder: Path) -> PairModel:
    """Return the tiny Janus in `folder` with two tokens per position."""
    model = PairModel(read_network(folder), load_tokenizer(folder), family("shapes"), folder)
    model.geometry = replace(model.geometry, rows=None, columns=None)
    return model
