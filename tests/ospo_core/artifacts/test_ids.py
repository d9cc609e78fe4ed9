"""Identities do not depend on order of keys, machine or process, and tell different values apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospo_core.artifacts.ids import canonical_json, derive_seed, digest_of, item_id
from ospo_core.config import RoundConfig
from ospo_core.errors import OspoError
from ospo_core.schema import StageName

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(), _SCALARS))
def test_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    """The same mapping built backwards has the same canonical JSON."""
    assert canonical_json(value) == canonical_json(dict(reversed(list(value.items()))))


def test_values_have_one_canonical_form() -> None:
    """Enums, tuples, sets, paths, numpy scalars and pydantic models become plain JSON, sorted, without spaces."""
    value = {
        "b": (1, np.int64(2)),
        "a": {"y", "x"},
        "c": StageName.PROMPTS,
        "d": PurePosixPath("p/q"),
        "e": np.float64(0.5),
    }
    assert canonical_json(value) == '{"a":["x","y"],"b":[1,2],"c":"prompts","d":"p/q","e":0.5}'
    assert digest_of(RoundConfig(name="a")) == digest_of(RoundConfig(name="a").model_dump(mode="json"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", object(), {1: "a", "1": "b"}])
def test_values_without_canonical_form_are_refused_by_place(value: object) -> None:
    """What JSON cannot hold exactly is an error that names its place, also deep inside."""
    with pytest.raises(OspoError, match=r"figures\[1\]"):
        canonical_json({"figures": [1, value]})


def test_item_ids_keep_the_borders_of_their_parts() -> None:
    """16 hex digits; ("ab", "c") is not ("a", "bc")."""
    assert item_id("ab", "c") != item_id("a", "bc")
    assert len(item_id("x")) == 16 and int(item_id("x"), 16) >= 0


@given(st.lists(st.integers() | st.text(), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_seeds_are_uint63(parts: list[int | str]) -> None:
    """Seeds fit a signed 64-bit integer and are not negative."""
    assert 0 <= derive_seed(*parts) < 2**63


def test_seeds_are_the_same_in_every_process_and_differ_by_part() -> None:
    """A new interpreter with another hash seed derives the same seed; another variant gives another seed."""
    code = "from ospo_core.artifacts.ids import derive_seed; import sys; sys.stdout.write(str(derive_seed(1, 'x', 2)))"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert int(other.stdout) == derive_seed(1, "x", 2)
    assert len({derive_seed(1, "x", 2), derive_seed(1, "x", 3), derive_seed("1", "x", 2), derive_seed(2, "x", 1)}) == 4
