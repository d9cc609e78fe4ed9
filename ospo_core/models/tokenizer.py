"""The tokenizer of a checkpoint: loaded without running its code, and made to begin every text correctly.

transformers 5 lets the model's type choose the class, which may rebuild the tokenizer with other rules than those of
`tokenizer.json`, and ignores `add_bos_token` where that file exists: the same files can encode differently in two
folders, without a message. So `tokenizer.json` is read as it is, and what is exported is compared with it on texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ospo_core.artifacts.model_digest import is_part
from ospo_core.errors import ModelError
from ospo_core.models.folders import readable
from ospo_core.prompts.families import FAMILIES
from ospo_core.schema import SubCategory

MOST_IDS = 2**24
"""The largest id of a token; the largest vocabularies have some 300 000."""

_OFFLINE = {"local_files_only": True, "trust_remote_code": False}

_AWKWARD = (
    "a",
    " a",
    "a ",
    "  two  spaces   three",
    "a\nb",
    "a\n\nb\n",
    "\n",
    "\ttab\tand\r\nreturn",
    "Prompt: a red bench\nConcepts: bench; red bench\nRelations: none",
    "1. Is there a bench? Yes\n2) Is it red?\n- no",
    "it's don't we'll (a, b); \"quoted\" - dash, etc.",
    "12 345.678,90 1/2 100%",
    "naïve café, Ünïcödé, smörgåsbord",
    "e\u0301 combining, \u00a0 no-break, \u200b zero width, \u2581 low block",
    "红色的长椅 赤いベンチ 빨간 벤치",
    "красная скамейка και مقعد أحمر",
    "emoji \U0001f600 \U0001f469\u200d\U0001f4bb \U0001f1eb\U0001f1f7",
    "<|User|>: a\n\n<|Assistant|>: b",
    "<begin_of_image><end_of_image>\nIs it red?",
    "<|User|>:a<|Assistant|>:<begin_of_image>",
    "</s><s><unk><pad> < | > [INST] {image} {{x}}",
    "C:\\path\\file https://example.org/a?b=c&d=e#f",
    "ALL CAPS camelCase snake_case kebab-case",
)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer in `folder`, running none of its code.

    If it has a begin-of-sequence token, every encoded text begins with it and ends without an end-of-sequence token.

    Raises:
        ModelError: the tokenizer's files cannot be read, or it cannot be made to begin texts that way.
    """
    whole = (folder / "tokenizer.json").is_file()
    if whole:
        _check_ids(folder / "tokenizer.json")
    reader: Any = PreTrainedTokenizerFast if whole else AutoTokenizer
    with readable("the tokenizer cannot be read", folder):
        tokenizer: PreTrainedTokenizerBase = reader.from_pretrained(folder, **_OFFLINE)
        tokenizer("a")
    for name in type(tokenizer).vocab_files_names.values():  # its class chooses them, and the folder its class
        if not is_part(name) and (folder / name).is_file():
            raise ModelError(
                "the tokenizer reads a file that is no part of the model's digest",
                field=str(folder / name),
                remedy="Save the tokenizer with tokenizer.json, e.g. by transformers' AutoTokenizer",
            )
    _begin_texts(tokenizer, folder)
    return tokenizer


def _check_ids(file: Path) -> None:
    """Raise ModelError for an id that no embedding has; transformers would take memory for all ids up to it."""
    with readable("the tokenizer cannot be read", file):
        stored = json.loads(file.read_text(encoding="utf-8"))
        vocabulary = stored["model"].get("vocab")
        ids = [*(vocabulary.values() if isinstance(vocabulary, dict) else ())]
        ids += [token["id"] for token in stored.get("added_tokens") or ()]
        largest = max((number for number in ids if isinstance(number, int)), default=0)
    if largest > MOST_IDS:
        raise ModelError("a token with an id that no model has", field=str(file), value=largest)


def export_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer so that it encodes and decodes the same under any model type, and check that it does.

    Raises:
        ModelError: it is not a fast tokenizer, or what was written encodes or decodes a text differently.
    """
    if not tokenizer.is_fast:
        remedy = "Save it with tokenizer.json, e.g. by transformers' AutoTokenizer"
        raise ModelError("the tokenizer has no tokenizer.json", value=type(tokenizer).__name__, remedy=remedy)
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    stored = json.loads(file.read_text(encoding="utf-8"))
    stored.pop("auto_map", None)  # names code that nobody runs
    stored["tokenizer_class"] = "PreTrainedTokenizerFast"  # reads tokenizer.json as it is; vLLM loads by it too
    file.write_text(json.dumps(stored, indent=2, sort_keys=True, ensure_ascii=False), encoding="utf-8")
    check_same(tokenizer, AutoTokenizer.from_pretrained(folder, **_OFFLINE), folder)


def check_same(expected: PreTrainedTokenizerBase, found: PreTrainedTokenizerBase, folder: Path) -> None:
    """Check that two tokenizers give the same ids and texts for a few hundred texts, with and without special tokens.

    Raises:
        ModelError: the first text for which they do not.
    """
    for text in dict.fromkeys(probe_texts()):
        ids = expected(text)["input_ids"]
        other = found(text)["input_ids"]
        if other != ids:
            raise _differs("gives other ids", folder, text, f"{other[:8]}, not {ids[:8]}")
        for skip in (True, False):
            options = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": False}
            written, wanted = found.decode(ids, **options), expected.decode(ids, **options)
            if written != wanted:
                raise _differs("decodes to another text", folder, text, repr(written))


def probe_texts() -> Iterator[str]:
    """Yield varied texts: awkward spaces, scripts and marks, and what the families' templates say about every kind."""
    yield from _AWKWARD
    for family in FAMILIES.values():
        for sub_category in SubCategory:
            examples = family.seed_examples(sub_category)
            yield family.chat_text(family.write_prompt(sub_category, examples))
            for example in examples:
                yield family.generation_text(example.prompt)
                yield family.format_prompt(example)
                yield family.vqa_text(f"Is there a {example.concepts[0]}?")


def _begin_texts(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Make the tokenizer put its begin-of-sequence token, and nothing else, around a text."""
    if tokenizer.bos_token_id is None or _begins(tokenizer):
        return
    if tokenizer.is_fast:
        tokenizer.add_eos_token = False
        tokenizer.add_bos_token = True  # replaces the post-processor by a template
    if not _begins(tokenizer):
        raise ModelError(
            "the tokenizer does not begin a text with its begin-of-sequence token",
            field=str(folder),
            value=tokenizer("a")["input_ids"],
            remedy=f"Write a tokenizer.json whose post-processor puts {tokenizer.bos_token} before a text",
        )


def _begins(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a text is encoded as the begin-of-sequence token and the text alone."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    return bool(tokenizer("a")["input_ids"] == [tokenizer.bos_token_id, *plain])


def _differs(problem: str, folder: Path, text: str, found: str) -> ModelError:
    """Return the error for a text that the exported tokenizer treats differently."""
    return ModelError(
        f"the exported tokenizer {problem}: {found}",
        field=str(folder),
        value=text,
        remedy="Report it with the checkpoint's tokenizer files; the model would be asked something else",
    )
