"""Export the language model inside a Janus checkpoint as an ordinary Llama checkpoint, for text engines.

The backbone shares every weight with the unified model, so what it writes is what the unified model would write.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from transformers import GenerationConfig, JanusForConditionalGeneration, LlamaConfig, LlamaForCausalLM

from ospo_core.artifacts.model_digest import model_digest
from ospo_core.errors import ModelError
from ospo_core.models.folders import copy_tokenizer, new_folder
from ospo_core.models.loading import SpecialTokens, check_folder, load_tokenizer, read_weights, special_tokens

EXPORT_VERSION = 1
MARKER = "export.json"


def export_text_backbone(folder: Path, out: Path) -> Path:
    """Write the language backbone of the Janus checkpoint `folder` to `out`, unless that very export is there already.

    Returns:
        `out`: a folder that `LlamaForCausalLM` and vLLM load, with the tokenizer.

    Raises:
        ModelError: `folder` is not a whole Janus checkpoint, or its language model is not a Llama.
        StorageError: `out` cannot be written.
    """
    check_folder(folder)
    marker = {"source_digest": model_digest(folder), "version": EXPORT_VERSION}
    if _read_marker(out) == marker:
        return out
    tokenizer = load_tokenizer(folder)
    janus = read_weights(folder)
    llama = text_backbone(janus, special_tokens(tokenizer, janus.config))
    with new_folder(out) as fresh:
        llama.save_pretrained(fresh)
        copy_tokenizer(folder, fresh)
        (fresh / MARKER).write_text(json.dumps(marker, sort_keys=True), encoding="utf-8")
    return out


def text_backbone(janus: JanusForConditionalGeneration, special: SpecialTokens) -> LlamaForCausalLM:
    """Return the language model of `janus` as a Llama that shares its weights; it ends at the tokenizer's end token.

    Raises:
        ModelError: the language model is not a Llama.
    """
    config = copy.deepcopy(janus.config.text_config)
    if not isinstance(config, LlamaConfig):
        kind = getattr(config, "model_type", None)
        raise ModelError("the language model is not a Llama", field="config.json: text_config.model_type", value=kind)
    tied = janus.lm_head.weight is janus.get_input_embeddings().weight
    config.tie_word_embeddings = tied
    config.dtype = janus.dtype
    ends = {"bos_token_id": special.bos, "eos_token_id": special.eos, "pad_token_id": special.pad}
    config.update(ends)
    with torch.device("meta"):
        llama = LlamaForCausalLM(config)
    llama.model, llama.lm_head = janus.model.language_model, janus.lm_head
    llama.generation_config = GenerationConfig(**ends)
    return llama.eval()


def _read_marker(out: Path) -> object:
    """Return what an earlier export says it is of, or None where there is none that can be read."""
    try:
        found: object = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found
