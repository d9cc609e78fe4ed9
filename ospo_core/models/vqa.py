"""Yes/no answers about pictures: `p(yes)` and `p(no)` of the next token (method, section 3).

The vision encoder runs once a picture, and so does the language model over everything up to the picture's end: its
keys and values are shared by all questions about the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Cache

from ospo_core.errors import ModelError
from ospo_core.models.layout import pad_left, positions
from ospo_core.models.loading import LoadedModel, to_pixels
from ospo_core.prompts.families import IMAGE_MARKER

Answer = tuple[float, float]
"""Next-token probabilities `(p_yes, p_no)`."""


@torch.inference_mode()
def answer_questions(
    loaded: LoadedModel, pictures: NDArray[np.uint8], questions: Sequence[Sequence[str]], batch_size: int
) -> list[list[Answer]]:
    """Answer questions about pictures.

    Args:
        loaded: the model.
        pictures: `uint8 [N, H, W, 3]` of the model's size.
        questions: `N` lists of questions; a list may be empty.
        batch_size: questions answered together (a picture's questions are never parted); changes only rounding.

    Returns:
        For each picture and question `(p_yes, p_no)`, each the largest next-token probability over the spellings.

    Raises:
        ValueError: pictures and lists of questions differ in number.
        ModelError: no spelling of yes or no is one token of the vocabulary.
    """
    if len(pictures) != len(questions):
        raise ValueError(f"{len(pictures)} pictures but {len(questions)} lists of questions")
    spellings = spelling_ids(loaded, loaded.family.yes), spelling_ids(loaded, loaded.family.no)
    answers: list[list[Answer]] = [[] for _ in questions]
    for part in _groups([len(asked) for asked in questions], batch_size):
        owners = [local for local, index in enumerate(part) for _ in questions[index]]
        asked = [question for index in part for question in questions[index]]
        found = _probabilities(loaded, pictures[part], asked, owners, spellings)
        for local, answer in zip(owners, found, strict=True):
            answers[part[local]].append(answer)
    return answers


def spelling_ids(loaded: LoadedModel, spellings: Sequence[str]) -> list[int]:
    """Return the ids of those spellings that are one known token.

    Raises:
        ModelError: none of them is.
    """
    tokenizer, ids = loaded.tokenizer, set()
    for spelling in spellings:
        tokens = tokenizer.encode(spelling, add_special_tokens=False)
        if len(tokens) == 1 and tokens[0] != tokenizer.unk_token_id:
            ids.add(int(tokens[0]))
    if not ids:
        raise ModelError(
            "no spelling of an answer is one token",
            field="tokenizer",
            value=tuple(spellings),
            remedy="Check the family",
        )
    return sorted(ids)


def _groups(counts: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield groups of indices in order, each of at most `batch_size` questions or of one picture; skip empty ones."""
    group: list[int] = []
    size = 0
    for index, count in enumerate(counts):
        if not count:
            continue
        if group and size + count > batch_size:
            yield group
            group, size = [], 0
        group.append(index)
        size += count
    if group:
        yield group


def question_ids(loaded: LoadedModel, questions: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Tokenize questions; return the ids up to the picture's last token, the same for all, and the ids after it.

    Raises:
        ModelError: the texts do not hold exactly one picture each at the same place.
    """
    image = loaded.tokenizer.convert_ids_to_tokens(loaded.special.image)
    run = str(image) * loaded.image_tokens
    texts = [loaded.family.vqa_text(question).replace(IMAGE_MARKER, run, 1) for question in questions]
    rows: list[list[int]] = loaded.tokenizer(texts, padding=False)["input_ids"]
    start = rows[0].index(loaded.special.image) if loaded.special.image in rows[0] else 0
    cut = start + loaded.image_tokens
    prefix = rows[0][:cut]
    if any(row[:cut] != prefix or row.count(loaded.special.image) != loaded.image_tokens for row in rows):
        raise ModelError(
            "the text of a question does not hold exactly one picture",
            field="tokenizer",
            remedy="Check the family's vqa_text and the model's image_token_id",
        )
    return prefix, [row[cut:] for row in rows]


def _probabilities(
    loaded: LoadedModel,
    pictures: NDArray[np.uint8],
    questions: Sequence[str],
    owners: Sequence[int],
    spellings: tuple[list[int], list[int]],
) -> list[Answer]:
    """Answer one group: `pictures [P, H, W, 3]`, `Q` questions, and for each question the picture it is about."""
    prefix, rows = question_ids(loaded, questions)
    cache = _picture_cache(loaded, pictures, prefix)
    cache.batch_select_indices(torch.tensor(owners, device=loaded.device))
    ids, mask = pad_left(rows, loaded.special.pad)
    mask = torch.cat([mask.new_ones((len(rows), len(prefix))), mask], dim=1).to(loaded.device)
    output = loaded.model.model.language_model(
        input_ids=ids.to(loaded.device),
        attention_mask=mask,
        position_ids=positions(mask)[:, len(prefix) :],
        past_key_values=cache,
        use_cache=True,
    )
    chances = loaded.model.lm_head(output.last_hidden_state[:, -1]).float().softmax(dim=-1)
    yes, no = (chances[:, ids].amax(dim=-1).tolist() for ids in spellings)
    return list(zip(yes, no, strict=True))


def _picture_cache(loaded: LoadedModel, pictures: NDArray[np.uint8], prefix: Sequence[int]) -> Cache:
    """Read pictures `[P, H, W, 3]`, each after the same `prefix` of ids, and return all their keys and values."""
    janus = loaded.model.model
    features = janus.get_image_features(to_pixels(pictures).to(loaded.device, loaded.dtype)).pooler_output
    ids = torch.tensor(prefix, device=loaded.device).expand(len(pictures), -1)
    embeddings = janus.get_input_embeddings()(ids)
    holes = (ids == loaded.special.image)[..., None]
    embeddings = embeddings.masked_scatter(holes, features.to(embeddings.dtype))
    cache: Cache = janus.language_model(inputs_embeds=embeddings, use_cache=True).past_key_values
    return cache
