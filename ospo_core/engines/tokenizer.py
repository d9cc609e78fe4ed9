"""Text to token ids and back, shared by the engines that hold the model, so that they all encode and decode alike."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ospo_core.engines.base import Completion, Request, cut_at_stop
from ospo_core.errors import ModelError, StageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


OFFLINE = {"local_files_only": True, "trust_remote_code": False}
"""Options of `from_pretrained`: no network access, no code from the model's folder."""


@contextmanager
def loading(what: str, folder: Path) -> Iterator[None]:
    """Raise what transformers raises inside the block, while it loads a part of an exported checkpoint, as ModelError.

    A damaged file surfaces where it is used first, as an error of any class; tokenizers raises Exception itself.
    """
    try:
        yield
    except Exception as error:  # of any class, see above: the contents of files decide which
        said = " ".join(str(error).split())[:300] or type(error).__name__
        remedy = f"Export the text backbone again: {said}"
        raise ModelError(f"{what} cannot be loaded", field="model folder", value=str(folder), remedy=remedy) from error


def _stored_ends(folder: Path) -> Iterator[Any]:
    """Yield what the configurations of a checkpoint state as ids of end tokens."""
    for path in (folder / "generation_config.json", folder / "config.json"):
        stored = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
        yield from stored if isinstance(stored, list) else [stored]


class EngineTokenizer:
    """The tokenizer of an exported checkpoint; `window` is the most tokens of prompt and answer together.

    Raises:
        ModelError: the checkpoint, its tokenizer or an end-of-sequence token is missing, or texts do not begin with the
            begin-of-sequence token.
    """

    def __init__(self, folder: Path, window: int) -> None:
        if not (folder / "config.json").is_file():
            raise ModelError(
                "there is no model in this folder",
                field="model folder",
                value=str(folder),
                remedy="Export the text backbone first",
            )
        self.window = window
        from transformers import AutoTokenizer

        with loading("the tokenizer", folder):
            self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, **OFFLINE)
            begun = self.tokenizer("a")["input_ids"][:1]
            known = [self.tokenizer.eos_token_id, *_stored_ends(folder)]
        begin = self.tokenizer.bos_token_id
        if begin is not None and begun != [begin]:
            raise ModelError(
                "the tokenizer does not begin a text with its begin-of-sequence token",
                field="model folder",
                value=str(folder),
                remedy="Export the text backbone again",
            )
        self.end_ids = frozenset(token for token in known if isinstance(token, int))
        if not self.end_ids:
            raise ModelError(
                "the tokenizer has no end-of-sequence token",
                field="eos_token",
                value=str(folder),
                remedy="Set eos_token in tokenizer_config.json",
            )

    def encode(self, requests: Sequence[Request]) -> list[list[int]]:
        """Return the token ids of the prompts, including the begin-of-sequence token.

        Raises:
            StageError: a prompt leaves no room for an answer.
        """
        if not requests:
            return []
        rows: list[list[int]] = self.tokenizer([request.prompt for request in requests])["input_ids"]
        longest = max(map(len, rows))
        if longest >= self.window:
            raise StageError(
                f"an instruction of {longest} tokens leaves no room for its answer",
                field="engine.max_model_len",
                value=self.window,
                remedy="Raise engine.max_model_len, or show fewer examples",
            )
        return rows

    def limit(self, request: Request, prompt_tokens: int) -> int:
        """Return the largest number of tokens that the answer to a prompt of that length may have."""
        return min(request.max_tokens, self.window - prompt_tokens)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids, without special tokens and with unchanged spacing."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).strip()

    def completion(self, ids: Sequence[int], stop: Sequence[str]) -> Completion:
        """Return the answer in generated ids, up to the first end token or stop string."""
        end = next((at for at, token in enumerate(ids) if token in self.end_ids), None)
        text, stopped = cut_at_stop(self.decode(ids if end is None else ids[:end]), stop)
        finished = stopped or end is not None
        return Completion(text.strip(), len(ids) if end is None else end + 1, "stop" if finished else "length")
