from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, JanusForConditionalGeneration, LlamaForCausalLM, Qwen2Config

from ospo_core.errors import ModelError
from ospo_core.models import export
from ospo_core.models.export import export_text_backbone, text_backbone
from ospo_core.models.layout import encode_texts, positions
from ospo_core.models.loading import LoadedModel, read_weights
from tests.support.tiny_janus import load_tiny_janus, make_tiny_janus

TEXTS = ["<|User|> : ask about : a red circle . <|Assistant|> :", "<|User|> : a star"]


@pytest.mark.parametrize("tied", [False, True])
def test_the_export_gives_the_logits_of_the_unified_model(tmp_path: Path, tied: bool) -> None:
    janus = load_tiny_janus(make_tiny_janus(tmp_path / "janus", tied=tied))
    out = export_text_backbone(janus.folder, tmp_path / "llama")
    found: Any = LlamaForCausalLM.from_pretrained(out, output_loading_info=True)
    llama, info = found
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert llama.config.tie_word_embeddings is tied
    assert llama.config.architectures == ["LlamaForCausalLM"]
    ids, mask = encode_texts(janus.tokenizer, TEXTS)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask)}
    with torch.no_grad():
        assert llama(**inputs).logits.equal(janus.model(**inputs).logits)


def test_the_export_has_the_tokenizer_and_ends_at_its_end_token(tiny: LoadedModel, tmp_path: Path) -> None:
    out = export_text_backbone(tiny.folder, tmp_path / "llama")
    assert AutoTokenizer.from_pretrained(out)(TEXTS[0])["input_ids"] == tiny.tokenizer(TEXTS[0])["input_ids"]
    llama = LlamaForCausalLM.from_pretrained(out)
    assert llama.generation_config.eos_token_id == llama.config.eos_token_id == tiny.special.eos
    assert llama.config.pad_token_id == tiny.special.pad


def test_an_export_of_the_same_model_is_kept_and_of_another_replaced(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []

    def counted(folder: Path) -> JanusForConditionalGeneration:
        reads.append(folder)
        return read_weights(folder)

    monkeypatch.setattr(export, "read_weights", counted)
    other = make_tiny_janus(tmp_path / "other", seed=1)
    out = tmp_path / "llama"
    for folder in (tiny_folder, tiny_folder, other):
        assert export_text_backbone(folder, out) == out
    assert reads == [tiny_folder, other]
    exported, expected = LlamaForCausalLM.from_pretrained(out), read_weights(other).model.language_model
    assert exported.state_dict()["model.norm.weight"].equal(expected.state_dict()["norm.weight"])
    assert exported.state_dict()["model.embed_tokens.weight"].equal(expected.state_dict()["embed_tokens.weight"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["llama", "other"]


def test_an_export_cut_short_is_made_again(tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "llama"
    out.mkdir()
    (out / "model.safetensors").write_bytes(b"half")
    export_text_backbone(tiny_folder, out)
    assert LlamaForCausalLM.from_pretrained(out).config.vocab_size > 0


def test_a_language_model_that_is_no_llama_is_refused(tiny_folder: Path) -> None:
    loaded = load_tiny_janus(tiny_folder)
    loaded.model.config.text_config = Qwen2Config()
    with pytest.raises(ModelError, match=r"not a Llama .got 'qwen2'"):
        text_backbone(loaded.model, loaded.special)


def test_exporting_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        export_text_backbone(tmp_path, tmp_path / "out")
