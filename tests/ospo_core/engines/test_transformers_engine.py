"""The transformers engine against plain greedy decoding, and the independence of its rows."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase, TopPLogitsWarper

from ospo_core.config.sections import EngineConfig
from ospo_core.engines import Request, TextEngine, build_engine
from ospo_core.errors import ModelError, StageError
from tests.support.tiny_llama import make_tiny_llama

PROMPTS = ["<|User|> : write a prompt <|Assistant|> :", "a", "is there a red circle left of the blue star ?", "two red"]
GREEDY = [Request(prompt, 0, 0.0, 12) for prompt in PROMPTS]
SAMPLED = [Request(prompt, seed, 1.0, 12) for seed, prompt in enumerate(PROMPTS * 2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("llama"))


def engine_of(folder: Path, batch: int = 16) -> TextEngine:
    return build_engine(EngineConfig(kind="transformers", max_num_seqs=batch, max_model_len=64), folder)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[TextEngine]:
    with engine_of(folder) as built:
        yield built


def greedy_by_hand(folder: Path, prompt: str, tokens: int) -> str:
    """Greedy decoding one prompt at a time, without cache and without padding."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), LlamaForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    while ids.shape[1] < start + tokens and ids[0, -1] != tokenizer.eos_token_id:
        with torch.no_grad():
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    return str(tokenizer.decode(ids[0, start:], skip_special_tokens=True))


def test_greedy_answers_in_a_padded_batch_equal_decoding_by_hand(engine: TextEngine, folder: Path) -> None:
    assert [done.text for done in engine.generate(GREEDY)] == [greedy_by_hand(folder, text, 12) for text in PROMPTS]


def test_neither_order_nor_batch_size_changes_an_answer(engine: TextEngine, folder: Path) -> None:
    whole = engine.generate(SAMPLED)
    assert engine.generate(SAMPLED[::-1])[::-1] == whole
    with engine_of(folder, batch=3) as small:
        assert small.generate(SAMPLED) == whole
    assert len({done.text for done in whole}) > len(PROMPTS)


def test_a_seed_is_an_answer_and_global_noise_plays_no_part(engine: TextEngine) -> None:
    request = Request("a red", 5, 1.0, 12)
    first = engine.generate([request])
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    assert engine.generate([request]) == first
    assert torch.equal(before, torch.random.get_rng_state())
    assert engine.generate([dataclasses.replace(request, seed=2**63 - 1)]) != first


def test_sampled_words_follow_the_models_probabilities(engine: TextEngine, folder: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), LlamaForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(tokenizer("a red", return_tensors="pt")["input_ids"]).logits[0, -1].softmax(-1)
    count = 1500
    drawn = engine.generate([Request("a red", seed, 1.0, 1) for seed in range(count)])
    seen = Counter(done.text for done in drawn)
    likely = [int(token) for token in expected.topk(5).indices if int(token) not in tokenizer.all_special_ids]
    for token in likely:
        share = seen[str(tokenizer.decode([token]))] / count
        assert abs(share - float(expected[token])) < 4 * (float(expected[token]) / count) ** 0.5


def test_top_p_draws_from_the_nucleus_only_and_one_means_all(engine: TextEngine, folder: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), LlamaForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer("a red", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model(ids).logits[:, -1]
    kept = TopPLogitsWarper(0.5)(ids, logits / 1.2).isfinite()[0].nonzero().flatten().tolist()
    assert 1 < len(kept) < logits.shape[1]
    drawn = engine.generate([Request("a red", seed, 1.2, 1, top_p=0.5) for seed in range(300)])
    assert {done.text for done in drawn} == {engine_text(tokenizer, token) for token in kept}
    assert engine.generate([dataclasses.replace(request, top_p=1.0) for request in SAMPLED]) == engine.generate(SAMPLED)
    greedy = engine.generate([Request("a red", seed, 1.0, 6, top_p=1e-6) for seed in range(3)])
    assert {done.text for done in greedy} == {engine.generate([Request("a red", 0, 0.0, 6)])[0].text}


def engine_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """Return what the engine makes of one generated token."""
    return str(tokenizer.decode([token], skip_special_tokens=True)).strip()


def test_limits_and_stop_strings_end_an_answer(engine: TextEngine) -> None:
    full = engine.generate([Request(PROMPTS[0], 0, 0.0, 12)])[0]
    words = full.text.split()
    cut = engine.generate([Request(PROMPTS[0], 0, 0.0, 12, stop=(words[2],))])[0]
    assert cut.text == " ".join(words[: words.index(words[2])]) and cut.finish == "stop" and cut.tokens <= 3
    short = engine.generate([Request(PROMPTS[0], 0, 0.0, 2)])[0]
    assert short.text == " ".join(words[:2]) and (short.tokens, short.finish) == (2, "length")


def test_no_requests_need_no_model_and_a_closed_engine_says_so(folder: Path) -> None:
    engine = engine_of(folder)
    assert engine.generate([]) == []
    engine.close()
    engine.close()
    with pytest.raises(StageError, match="closed"):
        engine.generate(GREEDY)


def test_a_folder_without_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match="cannot be loaded"):
        engine_of(tmp_path)
