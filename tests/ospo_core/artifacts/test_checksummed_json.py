"""A document with a checksum: what other bytes do is one error that names the file."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospo_core.artifacts.checksummed_json import dump_checksummed, load_checksummed
from ospo_core.errors import DamagedArtifactError

SUM = b'"sha256_of_this_document": "' + b"0" * 64 + b'"'


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"null", b"1", b'"x"', b"\xff", b"{", b"{}", b"NaN", b"{" + SUM + b"}",
        b"{" + SUM + b', "x": NaN}',
        b"{" + SUM + b', "x": -Infinity}',
        b"{" + SUM + b', "x": 1e999}',
        b"{" + SUM + b', "x": ' + b"9" * 5000 + b"}",
        b"{" + SUM + b', "x": "\\ud800"}',
        b"{" + SUM + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"{" + SUM + b', "x": ' + b"[" * 900 + b"]" * 900 + b"}",
        b"[" * 100_000,
        b'{"sha256_of_this_document": {}}', b'{"sha256_of_this_document": NaN}',
        "{}".encode("utf-16"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("required", [True, False])
def test_bytes_that_nobody_wrote_are_damage_of_the_file_that_has_them(data: bytes, required: bool) -> None:
    try:
        document = load_checksummed(data, "images/f/manifest.json", required)
    except DamagedArtifactError as error:
        assert error.field == "images/f/manifest.json" and error.remedy
    else:
        assert not required and document == {}


@settings(max_examples=300, deadline=None)
@given(st.binary() | st.text(alphabet='{}[]":,0123456789eE+-.NaInfity\\ud').map(str.encode))
def test_no_bytes_at_all_fail_in_another_way(data: bytes) -> None:
    with pytest.raises(DamagedArtifactError, match=r"^f: damaged"):
        load_checksummed(data, "f")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text().filter(lambda name: not name.startswith("sha256_")), _JSON, max_size=4))
def test_what_was_written_is_read(document: dict[str, object]) -> None:
    assert load_checksummed(dump_checksummed(document), "f") == document
