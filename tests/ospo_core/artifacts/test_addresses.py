"""What a storage root, an endpoint and a key may be; anything else is one error that names field, value and remedy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospo_core.artifacts.addresses import check_endpoint, checked_key, is_key, split_root
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import StorageError


@pytest.mark.parametrize(
    ("root", "problem"),
    [
        *(
            (f"{protocol}://place/x", "is not supported")
            for protocol in ("gs", "abfs", "ftp", "dir", "http", "S3", "s3a")
        ),
        ("simplecache::s3://bucket", "is not supported"),
        ("s3://bucket/a://b", "is not supported"),
        *((root, "is an address without a protocol") for root in ("localhost:9000", "localhost:9000/b", "10.0.0.1:80")),
        *((root, "is an address without a protocol") for root in ("s3:/bucket", "gs:/bucket/x", "[::1]:9000")),
        *((root, "names no place") for root in ("", "s3://", "s3:///", "file://")),
        ("~nosuchuser/runs", "a user whom this machine does not know"),
        ("runs/" + "x" * 256, "longer than 255 bytes"),
        ("runs/" + "é" * 128, "longer than 255 bytes"),
        *((root, "characters that no name can have") for root in ("a\0b", "s3://b/\0", "a\ud800b", "file:///\udcff")),
    ],
)
def test_other_roots_are_refused_with_what_is_supported(root: str, problem: str) -> None:
    with pytest.raises(StorageError, match=rf"^storage\.root: .*{problem}") as caught:
        Storage(root)
    assert any(words in caught.value.remedy for words in ("s3://bucket", "Write out", "shorter"))


@pytest.mark.parametrize(
    "root", ["runs", "/a/b:c", "a b/ü", "./x:y", "file:///a", "s3://bucket/p", "2026-01-01T10:30", "~"]
)
def test_ordinary_roots_are_taken_as_they_were(root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    protocol, place = split_root(root)
    local = str(Path(root.removeprefix("file://")).expanduser().absolute())
    assert (protocol, place) == (("s3", root) if root.startswith("s3") else ("file", local))


@pytest.mark.parametrize(
    "address",
    [
        "localhost:9000",
        "ftp://host",
        "http://",
        "http://[::1",
        "http://host:99999",
        "http://host:x",
        "http://a b",
        "\0",
    ],
)
def test_addresses_of_no_server_are_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match=r"^storage\.endpoint_url: is not the address of a server.*http://host:port"):
        Storage("s3://bucket/p", address)
    if "\0" not in address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(StorageError, match=r"^AWS_ENDPOINT_URL: is not the address of a server"):
            Storage("s3://bucket/p").read("key")


@pytest.mark.parametrize("address", ["http://localhost:9000", "https://s3.eu-west-1.amazonaws.com", "http://[::1]:80/"])
def test_addresses_of_servers_are_taken(address: str) -> None:
    check_endpoint(address)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(alphabet="./~:\\ab\0", max_size=12))
def test_no_text_at_all_makes_a_root_fail_in_another_way(root: str) -> None:
    try:
        storage = Storage(root)
    except StorageError:
        return
    assert storage.protocol == "s3" or os.path.isabs(storage.root)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(alphabet="./~:\\ab\0", max_size=12))
def test_a_key_stays_below_the_root(key: str) -> None:
    try:
        checked_key(key)
    except StorageError:
        assert not is_key(key)
        return
    assert is_key(key) and os.path.normpath(f"/root/{key}") == f"/root/{key}"
