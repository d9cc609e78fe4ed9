"""Write a folder of model files so that it appears complete or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils import logging

from ospo_core.artifacts.atomic_write import atomic_folder
from ospo_core.artifacts.storage_errors import disk_problem
from ospo_core.errors import ModelError, OspoError, StorageError
from ospo_core.prompts.failures import printable

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and its messages below errors while the block runs."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


_SHOWN = 300
"""About how many characters of a library's message are shown."""


@contextmanager
def readable(problem: str, where: Path, remedy: str = "") -> Iterator[None]:
    """Raise what a library raises inside the block, while it reads files that nobody has checked, as ModelError.

    transformers, tokenizers, PEFT and safetensors take the contents of a folder for granted: wrong ones surface where
    they are used first, as errors of any class (AttributeError, ZeroDivisionError, ImportError of a quantisation,
    RecursionError; tokenizers raises Exception itself). So the block holds calls of a library and nothing else.

    Raises:
        ModelError: the problem, with the library's message.
    """
    try:
        yield
    except OspoError:
        raise
    except Exception as error:  # of any class, see above: the contents of files decide which
        said = printable(" ".join(str(error).split()), _SHOWN) or type(error).__name__
        raise ModelError(f"{problem}: {said}", field=str(where), remedy=remedy) from error


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out`, which replaces `out` when the block ends without an error.

    Raises:
        StorageError: the disk is full, or the folder cannot be written.
    """
    try:
        with atomic_folder(out) as fresh, quiet_transformers():
            yield fresh
    except (OSError, SafetensorError) as error:
        problem = disk_problem(error, out.parent) or f"the folder cannot be written: {error}"
        raise StorageError(problem, field=str(out), remedy="Free space, or choose another storage.scratch") from error


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files as they are."""
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def copy_all_but_weights(source: Path, target: Path) -> None:
    """Copy a model folder's tokenizer and its JSON files (configurations, preprocessor), not its weights."""
    copy_tokenizer(source, target)
    for file in source.glob("*.json"):
        if not file.name.endswith(".index.json"):
            shutil.copyfile(file, target / file.name)
