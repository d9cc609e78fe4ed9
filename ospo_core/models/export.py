"""Export the language model inside a unified checkpoint as an ordinary causal language model, for text engines.

The backbone shares every weight with the unified model, so what it writes is what the unified model would write.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from ospo_core.artifacts.model_digest import model_digest
from ospo_core.models.folders import new_folder
from ospo_core.models.loading import read_network
from ospo_core.models.locate import check_folder, model_class
from ospo_core.models.tokenizer import export_tokenizer, load_tokenizer

EXPORT_VERSION = 2
MARKER = "export.json"


def export_text_backbone(folder: Path, out: Path) -> Path:
    """Write the language backbone of the checkpoint `folder` to `out`, unless that very export is there already.

    Returns:
        `out`: a folder that transformers' `AutoModelForCausalLM` and vLLM load, with the tokenizer.

    Raises:
        ModelError: `folder` is not a complete checkpoint, its language model is of an unexpected kind, or its tokenizer
            encodes or decodes a text differently once exported.
        StorageError: `out` cannot be written.
    """
    check_folder(folder)
    marker = {"source_digest": model_digest(folder), "version": EXPORT_VERSION}
    with suppress(FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        if json.loads((out / MARKER).read_text(encoding="utf-8")) == marker:
            return out
    tokenizer = load_tokenizer(folder)
    backbone = model_class(folder).text_backbone(read_network(folder), tokenizer)
    with new_folder(out) as fresh:
        backbone.save_pretrained(fresh)
        export_tokenizer(tokenizer, fresh)
        (fresh / MARKER).write_text(json.dumps(marker, sort_keys=True), encoding="utf-8")
    return out
