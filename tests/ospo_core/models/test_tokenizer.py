"""The tokenizer of a true layout, in every way it may be stored: it begins texts, and an export changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers.pre_tokenizers import Metaspace
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ospo_core.engines.tokenizer import EngineTokenizer
from ospo_core.errors import ModelError
from ospo_core.models.tokenizer import check_same, export_tokenizer, load_tokenizer, probe_texts
from tests.support.janus_pro import BOS, EOS, TokenizerKind, janus_pro_tokenizer, write_tokenizer

KINDS: tuple[TokenizerKind, ...] = ("byte_level", "template", "metaspace")
TEXT = "<|User|>: a red  bench\n\n<|Assistant|>: Prompt: two cats\n"


def stored(folder: Path, kind: TokenizerKind) -> Path:
    """Write the tokenizer of an exported Llama, whose type makes transformers rebuild it."""
    write_tokenizer(janus_pro_tokenizer(kind), folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_begins_with_its_begin_token_and_is_otherwise_what_the_file_says(
    tmp_path: Path, kind: TokenizerKind
) -> None:
    tokenizer = load_tokenizer(stored(tmp_path, kind))
    plain = janus_pro_tokenizer(kind).backend_tokenizer
    for text in probe_texts():
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id and ids[1:] == plain.encode(text, add_special_tokens=False).ids


def test_a_tokenizer_that_reads_a_file_outside_the_digest_is_refused(tmp_path: Path) -> None:
    """Its class comes from the folder, and may read a file that nobody counts as part of the model."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[X_SEP]", "[MASK]", "a", "red", "bench"]
    (tmp_path / "prophetnet.tokenizer").write_text("\n".join(words))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "prophetnet"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ProphetNetTokenizer"}))
    with pytest.raises(ModelError, match=r"prophetnet\.tokenizer: .*no part of the model's digest"):
        load_tokenizer(tmp_path)


def test_byte_level_texts_come_back_as_they_were(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(stored(tmp_path, "byte_level"))
    for text in probe_texts():
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=False) == BOS + text


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_encodes_and_decodes_as_before_for_everyone_who_loads_the_folder(
    tmp_path: Path, kind: TokenizerKind
) -> None:
    source, out = stored(tmp_path / "source", kind), stored(tmp_path / "out", kind)
    tokenizer = load_tokenizer(source)
    if kind != "metaspace":
        assert AutoTokenizer.from_pretrained(source)(TEXT)["input_ids"] != tokenizer(TEXT)["input_ids"]
    export_tokenizer(tokenizer, out)
    served = AutoTokenizer.from_pretrained(out)  # as `vllm serve` does
    assert served(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
    (out / "generation_config.json").write_text(json.dumps({"eos_token_id": tokenizer.eos_token_id}))
    engine = EngineTokenizer(out, 64)
    assert engine.tokenizer(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
    assert engine.decode(tokenizer("Prompt: a red  bench\nConcepts: bench")["input_ids"]) == (
        "Prompt: a red  bench\nConcepts: bench"
    )


def test_an_end_token_after_every_text_is_taken_away(tmp_path: Path) -> None:
    tokenizer = janus_pro_tokenizer("template")
    tokenizer.add_bos_token = tokenizer.add_eos_token = True
    tokenizer.save_pretrained(tmp_path)
    assert PreTrainedTokenizerFast.from_pretrained(tmp_path)("a")["input_ids"][-1] == tokenizer.eos_token_id
    loaded = load_tokenizer(tmp_path)
    assert loaded.convert_ids_to_tokens(loaded("a")["input_ids"]) == [BOS, "a"] and loaded.eos_token == EOS


def test_a_tokenizer_that_cannot_begin_texts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stored(tmp_path, "byte_level")
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", False)
    with pytest.raises(ModelError, match="does not begin a text with its begin-of-sequence token"):
        load_tokenizer(folder)
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        export_tokenizer(janus_pro_tokenizer(), folder)
    with pytest.raises(ModelError, match=r"does not begin a text.*Export the text backbone again"):
        EngineTokenizer(folder, 64)


def test_a_difference_is_refused_with_the_text_that_shows_it(tmp_path: Path) -> None:
    expected, other = janus_pro_tokenizer("template"), janus_pro_tokenizer("template")
    check_same(expected, other, tmp_path)
    other.backend_tokenizer.decoder = janus_pro_tokenizer("metaspace").backend_tokenizer.decoder
    with pytest.raises(ModelError, match=r"decodes to another text: '.*a' \(got 'a'\)"):
        check_same(expected, other, tmp_path)
    other = janus_pro_tokenizer("template")
    other.backend_tokenizer.pre_tokenizer = Metaspace()
    with pytest.raises(ModelError, match="gives other ids"):
        check_same(expected, other, tmp_path)


def test_code_that_a_tokenizer_names_is_neither_run_nor_exported(tmp_path: Path) -> None:
    source = stored(tmp_path / "source", "byte_level")
    config = json.loads((source / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}, "tokenizer_class": "Tokenizer"}
    (source / "tokenizer_config.json").write_text(json.dumps(config))
    (source / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    out = stored(tmp_path / "out", "byte_level")
    export_tokenizer(load_tokenizer(source), out)
    assert "auto_map" not in json.loads((out / "tokenizer_config.json").read_text())
    assert not (tmp_path / "ran").exists() and not list(out.glob("*.py"))
