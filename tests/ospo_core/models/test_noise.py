from __future__ import annotations

import numpy as np
import pytest
import torch

from ospo_core.models.noise import gumbel, row_keys, uniform

CODES = 16_384
CPU = torch.device("cpu")


def drawn(seeds: list[int], steps: range = range(1), codes: int = CODES) -> torch.Tensor:
    """Return uniform numbers `[steps, B, K]`."""
    keys, numbers = row_keys(seeds, CPU), torch.arange(codes)
    return torch.stack([uniform(keys, torch.tensor([step]), numbers) for step in steps])


def chi_square(observed: np.ndarray, expected: np.ndarray) -> float:
    """Return chi-square in standard deviations from its mean."""
    statistic = ((observed - expected) ** 2 / expected).sum()
    freedom = len(observed) - 1
    return float((statistic - freedom) / np.sqrt(2 * freedom))


def mixed(bits: int) -> int:
    """SplitMix64's finaliser in Python's integers."""
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
    return bits ^ bits >> 31


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_numbers_are_those_of_unsigned_integers(seed: int) -> None:
    steps, codes = [0, 3, 575], [0, 1, CODES - 1]
    rows = [mixed((mixed(seed) + 0x9E3779B97F4A7C15 * (step + 1)) % 2**64) for step in steps]
    bits = [[mixed((row + 0xD1342543DE82EF95 * (code + 1)) % 2**64) for code in codes] for row in rows]
    found = drawn([seed], range(576))[steps, 0][:, codes]
    assert found.numpy() == pytest.approx(np.array([[(number >> 1) / 2**63 for number in row] for row in bits]))


def test_a_row_s_numbers_depend_on_nothing_but_its_seed_the_step_and_the_code() -> None:
    together = drawn([5, 2**63, 7], range(3))
    assert together[2, 1].equal(drawn([2**63], range(2, 3))[0, 0])
    keys, codes = row_keys([7], CPU), torch.tensor([300, 4])
    assert uniform(keys, torch.tensor([1]), codes)[0].equal(together[1, 2][codes])


@pytest.mark.parametrize("seeds", [list(range(64)), [2**63 + 2**40 * row for row in range(64)]], ids=["near", "far"])
def test_numbers_are_uniform_within_zero_and_one(seeds: list[int]) -> None:
    values = drawn(seeds).flatten()
    assert values.min() > 0 and values.max() < 1
    bins = np.bincount((values.double() * 256).long().numpy(), minlength=256)
    assert abs(chi_square(bins, np.full(256, len(values) / 256))) < 4
    low = (values.double() * 2**14).frac().mul(64).long()  # bits that few values share
    assert abs(chi_square(np.bincount(low.numpy(), minlength=64), np.full(64, len(values) / 64))) < 4


def test_neighbouring_codes_steps_and_seeds_are_not_correlated() -> None:
    values = drawn(list(range(100, 132)), range(8), 2048)
    for axis in range(3):
        for lag in (1, 2, 3):
            size = values.shape[axis] - lag
            first, second = values.narrow(axis, 0, size).flatten(), values.narrow(axis, lag, size).flatten()
            correlation = torch.corrcoef(torch.stack([first, second]))[0, 1]
            assert abs(float(correlation)) * len(first) ** 0.5 < 4.5
    pairs = (values.narrow(2, 0, 2047) * 16).long() * 16 + (values.narrow(2, 1, 2047) * 16).long()
    observed = np.bincount(pairs.flatten().numpy(), minlength=256)
    assert abs(chi_square(observed, np.full(256, pairs.numel() / 256))) < 4.5


def test_no_two_numbers_of_a_batch_repeat_more_than_chance_has_it() -> None:
    values = drawn(list(range(64)), range(2), 1024).double().mul(2**24).long().flatten()
    expected = len(values) ** 2 / 2 / 2**24
    repeats = len(values) - len(values.unique())
    assert repeats < expected + 6 * expected**0.5


def test_the_largest_of_logits_and_noise_is_a_draw_from_the_softmax() -> None:
    count, chances = 40_000, torch.tensor([0.5, 0.25, 0.15, 0.08, 0.019, 0.001])
    noise = gumbel(row_keys(range(count), CPU), torch.tensor([17]), torch.arange(6))
    observed = np.bincount((chances.log() + noise).argmax(dim=-1).numpy(), minlength=6)
    assert abs(chi_square(observed, count * chances.double().numpy())) < 4
    assert noise.mean() == pytest.approx(0.5772, abs=0.01)
    assert noise.var() == pytest.approx(1.6449, abs=0.03)
