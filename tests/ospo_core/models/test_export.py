from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ospo_core.config.sections import EngineConfig
from ospo_core.engines import Request, build_engine
from ospo_core.errors import ModelError
from ospo_core.models import export
from ospo_core.models.export import export_text_backbone
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.loading import read_network
from tests.support.janus_pro import load_janus_pro, make_janus_pro
from tests.support.tiny_janus import make_tiny_janus

TEXT = "<|User|> : ask about : a red circle . <|Assistant|> :"


def test_the_export_has_the_tokenizer_and_ends_at_its_end_token(tiny: JanusModel, tmp_path: Path) -> None:
    out = export_text_backbone(tiny.folder, tmp_path / "llama")
    assert AutoTokenizer.from_pretrained(out)(TEXT)["input_ids"] == tiny.tokenizer(TEXT)["input_ids"]
    llama = AutoModelForCausalLM.from_pretrained(out)
    assert llama.generation_config.eos_token_id == llama.config.eos_token_id == tiny.special.eos
    assert llama.config.pad_token_id == tiny.special.pad


def test_an_export_of_the_same_model_is_kept_and_of_another_replaced(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []

    def counted(folder: Path) -> PreTrainedModel:
        reads.append(folder)
        return read_network(folder)

    monkeypatch.setattr(export, "read_network", counted)
    other = make_tiny_janus(tmp_path / "other", seed=1)
    out = tmp_path / "llama"
    for folder in (tiny_folder, tiny_folder, other):
        assert export_text_backbone(folder, out) == out
    assert reads == [tiny_folder, other]
    exported, expected = AutoModelForCausalLM.from_pretrained(out), read_network(other).model.language_model
    assert exported.state_dict()["model.norm.weight"].equal(expected.state_dict()["norm.weight"])
    assert exported.state_dict()["model.embed_tokens.weight"].equal(expected.state_dict()["embed_tokens.weight"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["llama", "other"]


def test_an_export_cut_short_is_made_again(tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "llama"
    out.mkdir()
    (out / "model.safetensors").write_bytes(b"half")
    export_text_backbone(tiny_folder, out)
    assert AutoModelForCausalLM.from_pretrained(out).config.vocab_size > 0


def test_exporting_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        export_text_backbone(tmp_path, tmp_path / "out")


@pytest.mark.slow_engine
def test_vllm_writes_with_the_export_of_a_byte_level_janus_what_transformers_writes(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    parent = load_janus_pro(make_janus_pro(tmp_path / "parent"))
    out = export_text_backbone(parent.folder, tmp_path / "text")
    asked = [Request(text, 0, 0.0, 8) for text in ("Prompt: a red  bench\n\n", "<|User|>: a\n\n<|Assistant|>:")]
    config = EngineConfig(kind="vllm", kv_cache_gib=0.02, max_num_seqs=2, max_model_len=64)
    with build_engine(config, out) as engine:
        served = engine._llm.get_tokenizer()  # with which `vllm serve` reads prompts
        assert [served(one.prompt)["input_ids"] for one in asked] == [
            parent.tokenizer(one.prompt)["input_ids"] for one in asked
        ]
        answers = engine.generate(asked)
    with build_engine(EngineConfig(kind="transformers", max_model_len=64), out) as engine:
        assert engine.generate(asked) == answers
