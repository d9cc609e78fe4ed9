"""Tokenizer and window shared by the engines."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ospo_core.engines.base import Request
from ospo_core.engines.tokenizer import EngineTokenizer
from ospo_core.errors import ModelError, StageError
from tests.support.tiny_llama import SPECIALS, make_tiny_llama

BOS, EOS = SPECIALS.index("<bos>"), SPECIALS.index("<eos>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("llama"))


def test_prompts_get_their_begin_token_and_texts_come_back_word_for_word(folder: Path) -> None:
    tokenizer = EngineTokenizer(folder, 64)
    text = "is there a red circle ? a , b | none"
    ids = tokenizer.encode([Request(text.replace("b ", "blue "), 0, 0.0, 4)])[0]
    assert ids[0] == BOS and tokenizer.decode(ids) == text.replace("b ", "blue ")
    assert tokenizer.encode([]) == []


def test_a_completion_ends_at_end_token_stop_string_or_limit(folder: Path) -> None:
    tokenizer = EngineTokenizer(folder, 64)
    red, blue = tokenizer.encode([Request("red blue", 0, 0.0, 1)])[0][1:]
    ended = tokenizer.completion([red, EOS, blue], ())
    assert (ended.text, ended.tokens, ended.finish) == ("red", 2, "stop")
    stopped = tokenizer.completion([red, blue], ("blue",))
    assert (stopped.text, stopped.finish) == ("red", "stop")
    assert tokenizer.completion([red, blue], ()).finish == "length"


def test_an_instruction_that_fills_the_window_is_named(folder: Path) -> None:
    with pytest.raises(StageError, match=r"engine.max_model_len.*instruction of 6 tokens"):
        EngineTokenizer(folder, 6).encode([Request("a red circle a star", 0, 0.0, 4)])
    assert EngineTokenizer(folder, 8).limit(Request("a", 0, 0.0, 100), 6) == 2


def test_folders_without_model_tokenizer_or_end_token_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model in this folder"):
        EngineTokenizer(tmp_path, 8)
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(ModelError, match="tokenizer"):
        EngineTokenizer(tmp_path, 8)
