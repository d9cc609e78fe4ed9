from __future__ import annotations

from pathlib import Path

import pytest

from ospo_core.artifacts.model_digest import model_digest
from ospo_core.errors import ModelError
from ospo_core.models.facts import model_facts
from tests.support.janus_pro import BOS, EOS, PAD, Shape, make_janus_pro


def test_a_checkpoint_is_described_from_the_headers_of_its_weights(tmp_path: Path) -> None:
    folder = make_janus_pro(tmp_path / "model", Shape(vocabulary=2048))
    facts = model_facts(folder)
    assert facts["digest"] == model_digest(folder) and facts["family"] == "janus"
    assert facts["pictures"] == "384 x 384 px, 576 tokens of 16384 codes"
    assert facts["language model"] == "2 layers of width 64, 2048 ids"
    assert facts["tokenizer"].endswith(f"begin, end, padding: {BOS} {EOS} {PAD}")
    assert "parameters of type F32 in 1 files" in facts["weights"] and "transformers" in facts["libraries"]
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="the weights cannot be read"):
        model_facts(folder)
