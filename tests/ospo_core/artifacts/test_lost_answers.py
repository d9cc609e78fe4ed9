"""Every operation on a real object store, when a request fails or only its answer is lost (see fault_proxy)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import s3fs

from ospo_core.artifacts import storage as storage_module
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import StorageError
from tests.support.fault_proxy import KINDS, Fault, FaultProxy, fault_proxy
from tests.support.s3_server import S3Server

pytestmark = [pytest.mark.s3, pytest.mark.timeout(300)]
WRITERS = 16


class Script:
    """Breaks the next requests of one method, to addresses with some words in them, in one way."""

    def __init__(self) -> None:
        self.method, self.fault, self.left, self.words = "", Fault("500", False), 0, ""

    def __call__(self, method: str, path: str) -> Fault | None:
        if method != self.method or self.left == 0 or self.words not in path:
            return None
        self.left -= 1
        return self.fault

    def breaks(self, method: str, fault: Fault, times: int = 1, words: str = "") -> None:
        self.method, self.fault, self.left, self.words = method, fault, times, words


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def proxy(s3_server: S3Server, script: Script, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setattr(storage_module, "_READ_TIMEOUT", 2.0)
    with fault_proxy(s3_server.endpoint_url, script, hang_s=2.5) as running:
        yield running


@pytest.fixture
def broken(proxy: FaultProxy, s3_storage: Storage) -> Iterator[Storage]:
    yield Storage(s3_storage.root, proxy.endpoint_url)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "hang"])
@pytest.mark.parametrize("reaches", [False, True], ids=["request lost", "answer lost"])
def test_every_operation_survives_one_lost_request_or_answer(
    broken: Storage, proxy: FaultProxy, script: Script, kind: str, reaches: bool, tmp_path: Path
) -> None:
    fault = Fault(kind, reaches)
    script.breaks("PUT", fault)
    broken.write("f/key", b"abc")
    script.breaks("PUT", fault)
    assert broken.create("f/new", b"mine"), "a creator takes its own object for another's"
    assert not broken.create("f/new", b"other")
    script.breaks("GET", fault)
    assert broken.read("f/key") == b"abc"
    script.breaks("GET", fault)
    assert b"".join(broken.blocks("f/new")) == b"mine"
    script.breaks("GET", fault)
    assert broken.list("f") == ["f/key", "f/new"]
    script.breaks("HEAD", fault)
    assert broken.exists("f/key")
    script.breaks("DELETE", fault)
    broken.delete("f/key")
    assert not broken.exists("f/key")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(bytes(1000))
    script.breaks("PUT", fault)
    broken.put_folder(tmp_path / "model", "m")
    assert broken.read("m/weights") == bytes(1000)
    assert proxy.injected == {kind: 8}


@pytest.mark.parametrize("reaches", [False, True], ids=["request lost", "answer lost"])
def test_silence_is_waited_for_and_survived(broken: Storage, proxy: FaultProxy, script: Script, reaches: bool) -> None:
    script.breaks("PUT", Fault("hang", reaches))
    assert broken.create("f/new", b"mine")
    script.breaks("GET", Fault("hang", reaches))
    assert broken.read("f/new") == b"mine"
    assert proxy.injected == {"hang": 2}


@pytest.mark.parametrize("kind", ["500", "reset"])
def test_many_creators_without_answers_have_one_winner_who_knows_it(broken: Storage, script: Script, kind: str) -> None:
    """Every creator loses the answer to its first request; the one whose object is there is told so, no other is."""
    script.breaks("PUT", Fault(kind, True), WRITERS)
    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(lambda number: broken.create("race/key", b"writer %d" % number), range(WRITERS)))
    assert won.count(True) == 1
    assert broken.read("race/key") == b"writer %d" % won.index(True)


def test_a_store_that_keeps_failing_is_named(broken: Storage, script: Script) -> None:
    script.breaks("PUT", Fault("503", False), 1000)
    with pytest.raises(StorageError, match="the object store fails") as caught:
        broken.write("key", b"abc")
    assert "Run again" in caught.value.remedy and "key" in caught.value.field
    script.breaks("PUT", Fault("503", False), 0)
    assert broken.list() == []


def test_an_upload_in_parts_whose_end_was_not_answered_is_whole(
    broken: Storage, script: Script, tmp_path: Path
) -> None:
    """The request that completes an upload is a POST; made again, the server no longer knows the upload."""
    (tmp_path / "model").mkdir()
    data = bytes(range(256)) * 4096 * 101
    (tmp_path / "model" / "weights").write_bytes(data)
    script.breaks("POST", Fault("reset", True), times=4, words="uploadId")
    broken.put_folder(tmp_path / "model", "m")
    assert script.left == 0
    assert broken.sha256("m/weights")[1] == len(data)
