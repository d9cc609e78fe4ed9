"""Tokenizer and window shared by the engines."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ospo_core.config.sections import EngineConfig
from ospo_core.engines.base import Request
from ospo_core.engines.tokenizer import EngineTokenizer
from ospo_core.engines.transformers_engine import TransformersEngine
from ospo_core.errors import ModelError, StageError
from tests.support.tiny_llama import SPECIALS, make_tiny_llama

BOS, EOS = SPECIALS.index("<bos>"), SPECIALS.index("<eos>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("llama"))


FILES = ("tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json")
WRONG_INSIDE = '{"model": {"type": "WordLevel", "vocab": 3}, "added_tokens": [3], "id2label": 3}'


@pytest.mark.parametrize(
    ("file", "text"),
    [
        *((file, text) for file in FILES for text in ("[" * 100_000, "3", "")),
        ("tokenizer.json", WRONG_INSIDE),
        ("config.json", WRONG_INSIDE),
    ],
)
def test_a_damaged_export_is_one_error(folder: Path, tmp_path: Path, file: str, text: str) -> None:
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    (broken / file).write_text(text)
    with pytest.raises(ModelError, match=r"cannot be loaded.*Export the text backbone again"):
        TransformersEngine(EngineConfig(kind="transformers", max_model_len=64), broken)


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
