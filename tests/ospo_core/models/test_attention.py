from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ospo_core.models.attention import mask_of_maps, middle_layers, minmax, noun_places, object_masks, otsu, smooth
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.sequences import positions

NOUNS = [["circle"], ["square", "star"], ["circle"], ["star"]]


def test_otsu_parts_two_groups_in_the_middle() -> None:
    """Means 0.15 and 0.85: the cut between 0.2 and 0.8 has variance 2 * 2 * 0.7**2, any other less."""
    assert otsu(np.array([0.1, 0.8, 0.2, 0.9])) == pytest.approx(0.5)


def test_otsu_weighs_groups_by_their_size() -> None:
    """Cuts of (0, 4, 5, 6): 1*3*5**2 = 75 after 0; 2*2*3.5**2 = 49 after 4; 3*1*3**2 = 27 after 5."""
    assert otsu(np.array([0.0, 4.0, 5.0, 6.0])) == pytest.approx(2.0)


def test_otsu_never_parts_equal_values_and_knows_a_constant() -> None:
    assert otsu(np.array([1.0, 0.0, 0.0, 0.0, 1.0])) == pytest.approx(0.5)
    assert otsu(np.full(5, 0.3)) == pytest.approx(0.3)


def test_minmax_scales_and_leaves_constants() -> None:
    assert minmax(np.array([2.0, 3.0, 6.0])).tolist() == [0.0, 0.25, 1.0]
    assert minmax(np.ones(4)).tolist() == [1.0] * 4
    assert minmax(np.zeros(4)).tolist() == [0.0] * 4


def test_smooth_is_a_gaussian_of_five_by_five() -> None:
    """exp(-d**2 / 2) for d = -2..2 is .135335 .606531 1 .606531 .135335, sum 2.483732."""
    grid = np.zeros((7, 7))
    grid[3, 3] = 1.0
    blurred = smooth(grid)
    assert blurred[3, 3] == pytest.approx((1 / 2.483732) ** 2, abs=1e-6)
    assert blurred[3, 5] == pytest.approx(0.135335 / 2.483732**2, abs=1e-6)
    assert blurred[0, 3] == 0.0
    assert blurred.sum() == pytest.approx(1.0)


def test_an_all_ones_mask_stays_all_ones() -> None:
    assert np.allclose(smooth(np.ones((4, 4))), 1.0)
    assert mask_of_maps([np.full(16, 0.07)], 4, 4).tolist() == [1.0] * 16
    assert mask_of_maps([], 4, 4).tolist() == [1.0] * 16


def test_the_mask_is_the_union_over_nouns() -> None:
    left, right = np.zeros((6, 6)), np.zeros((6, 6))
    left[:, 0], right[:, 5] = 1.0, 0.02
    mask = mask_of_maps([left.ravel(), right.ravel()], 6, 6).reshape(6, 6)
    assert np.allclose(mask, mask[:, ::-1])
    assert mask.max() == 1.0
    assert mask[0, 2] == mask.min() == 0.0


def test_values_a_little_below_the_threshold_are_kept() -> None:
    """Of 0/8 ... 8/8 Otsu's threshold is 3.5/8 = 0.4375, so 3/8 is below it but above 0.8 x 0.4375 = 0.35."""
    ramp = np.arange(9) / 8
    assert otsu(ramp) == pytest.approx(0.4375)
    kept = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1], dtype=np.float64)
    assert np.allclose(mask_of_maps([ramp], 3, 3), minmax(smooth(kept.reshape(3, 3))).ravel())


def test_middle_layers_scale_with_depth() -> None:
    assert middle_layers(30) == range(5, 25)
    assert middle_layers(24) == range(4, 20)
    assert middle_layers(2) == range(0, 2)


def test_nouns_are_found_as_whole_words_singular_or_plural() -> None:
    text = "say : two Circles and a red circle in a circlet now"
    offsets = [(0, 0)] + [(match.start(), match.end()) for match in re.finditer(r"\S+", text)]
    prompt = text.removeprefix("say : ").removesuffix(" now")
    assert noun_places(text, prompt, ["circle"], offsets) == [[4, 8]]
    assert noun_places(text, prompt, ["red circle", "star"], offsets) == [[7, 8]]
    assert noun_places(text, prompt, ["say", "now"], offsets) == []


def test_masks_follow_the_attention_that_transformers_reports(
    tiny: JanusModel, prompts: list[str], images: NDArray[np.uint16]
) -> None:
    masks = object_masks(tiny, prompts, NOUNS, images, batch_size=4)
    vocabulary = tiny.tokenizer.get_vocab()
    for row, prompt in enumerate(prompts):
        ids, mask = tiny.encode_prompts([prompt])
        tokens = torch.from_numpy(images[row : row + 1].astype(np.int64))
        janus = tiny.network.model
        embeddings = torch.cat(
            [janus.get_input_embeddings()(ids), janus.generation_aligner(janus.generation_embeddings(tokens))], dim=1
        )
        mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
        janus.language_model.set_attn_implementation("eager")
        with torch.no_grad():
            output = janus.language_model(
                inputs_embeds=embeddings, attention_mask=mask, position_ids=positions(mask), output_attentions=True
            )
        janus.language_model.set_attn_implementation("sdpa")
        weights = torch.stack(output.attentions).mean(dim=(0, 2))[0].numpy()
        places = [
            [place for place, token in enumerate(ids[0]) if token in (vocabulary[noun], vocabulary.get(noun + "s"))]
            for noun in NOUNS[row]
        ]
        maps = [weights[ids.shape[1] :, place].mean(axis=1).astype(np.float64) for place in places]
        assert np.allclose(masks[row], mask_of_maps(maps, 4, 4), atol=1e-4)


def test_batch_size_changes_no_mask_and_the_model_is_left_as_it_was(
    tiny: JanusModel, prompts: list[str], images: NDArray[np.uint16]
) -> None:
    language = tiny.network.model.language_model
    before = [language.config._attn_implementation, *(len(layer.self_attn._forward_hooks) for layer in language.layers)]
    alone = object_masks(tiny, prompts, NOUNS, images, batch_size=1)
    assert np.allclose(alone, object_masks(tiny, prompts, NOUNS, images, batch_size=3), atol=1e-4)
    assert alone.dtype == np.float32
    after = [language.config._attn_implementation, *(len(layer.self_attn._forward_hooks) for layer in language.layers)]
    assert after == before


def test_prompts_without_a_known_noun_weigh_every_token_alike(tiny: JanusModel, images: NDArray[np.uint16]) -> None:
    assert object_masks(tiny, ["a star"] * 2, [["dog"], []], images[:2]).tolist() == [[1.0] * 16] * 2


def test_lists_of_different_lengths_are_refused(tiny: JanusModel, images: NDArray[np.uint16]) -> None:
    with pytest.raises(ValueError, match="1 prompts, 2 lists of nouns, 4 images"):
        object_masks(tiny, ["a star"], [[], []], images)
