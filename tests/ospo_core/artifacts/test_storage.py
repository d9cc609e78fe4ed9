"""Storage keeps its promises on a local disk and on a real object store alike."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ospo_core.artifacts.backends import LocalBackend, StoredObject
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.errors import StorageError

_WRITERS = 32
_PROJECT = Path(__file__).parents[3]


def test_what_is_written_is_read_listed_and_deleted(storage: Storage) -> None:
    """write, read, exists, list, delete and delete_folder agree; absent things are no error where documented."""
    storage.write("prompts/f1/b.parquet", b"two")
    storage.write("prompts/f1/a/x.json", b"one")
    storage.write("prompts/f10/c", b"")
    assert storage.read("prompts/f1/b.parquet") == b"two"
    assert storage.list("prompts/f1") == ["prompts/f1/a/x.json", "prompts/f1/b.parquet"]
    assert len(storage.list()) == 3 and storage.list("none") == []
    assert storage.exists("prompts/f10/c") and not storage.exists("prompts/f1") and not storage.exists("prompts/f1/c")
    storage.delete("prompts/f10/c")
    storage.delete("prompts/f10/c")
    assert storage.delete_folder("prompts/f1") == 2 and storage.list() == []


def test_details_give_size_and_time_of_writing(storage: Storage) -> None:
    before = time.time()
    storage.write("prompts/f1/b.parquet", b"twelve bytes")
    storage.write("prompts/f10/c", b"")
    (found,) = storage.details("prompts/f1")
    assert (found.key, found.size) == ("prompts/f1/b.parquet", 12)
    assert before - 2 <= found.modified <= time.time() + 2
    assert [one.size for one in storage.details("prompts")] == [12, 0] and storage.details("none") == []


def test_reading_what_is_not_there_says_so(storage: Storage) -> None:
    """The error is a MissingObjectError with the full address."""
    storage.write("a", b"")
    with pytest.raises(MissingObjectError, match="stage/missing"):
        storage.read("stage/missing")


def test_write_replaces_and_create_does_not(storage: Storage) -> None:
    """Create answers False where something is and leaves it as it was."""
    storage.write("key", b"first")
    storage.write("key", b"second")
    assert not storage.create("key", b"third")
    assert storage.read("key") == b"second"
    assert storage.create("other", b"fourth") and storage.read("other") == b"fourth"


def test_one_of_many_concurrent_creators_wins(storage: Storage) -> None:
    """Of 32 writers exactly one gets True, and its bytes are what everybody reads."""

    def create(number: int) -> bool:
        return storage.create("race/manifest.json", f"writer {number}".encode() * 1000)

    with ThreadPoolExecutor(_WRITERS) as pool:
        won = list(pool.map(create, range(_WRITERS)))
    assert won.count(True) == 1
    assert storage.read("race/manifest.json") == f"writer {won.index(True)}".encode() * 1000
    assert storage.list("race") == ["race/manifest.json"]


def _write_all(storage: Storage, values: list[bytes]) -> None:
    for value in values:
        storage.write("key", value)


def test_readers_see_old_or_new_bytes_never_a_part(storage: Storage) -> None:
    """While one thread overwrites an object again and again, every read gives one of the whole values."""
    values = [bytes([number]) * 300_000 for number in range(4)]
    storage.write("key", values[0])
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(_write_all, storage, values * 3)
        reads = [storage.read("key")]
        while not writing.done():
            reads.append(storage.read("key"))
        writing.result()
    assert all(read in values for read in reads)


def test_a_killed_writer_leaves_whole_bytes(local_storage: Storage) -> None:
    """SIGKILL in the middle of overwriting leaves a whole object; temporary files are not listed and go with it."""
    values = [bytes([number]) * 4_000_000 for number in range(2)]
    local_storage.write("stage/key", values[0])
    code = (
        "import sys; from ospo_core.artifacts.storage import Storage; storage = Storage(sys.argv[1])\n"
        "sys.stdout.write('go'); sys.stdout.flush()\n"
        "for number in range(100000): storage.write('stage/key', bytes([number % 2]) * 4_000_000)"
    )
    command = [sys.executable, "-c", code, local_storage.root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=_PROJECT) as writer:
        assert writer.stdout is not None and writer.stdout.read(2) == b"go"
        time.sleep(0.1)
        writer.kill()
    assert local_storage.read("stage/key") in values and local_storage.list() == ["stage/key"]
    local_storage.delete_folder("stage")
    assert list(Path(local_storage.root).iterdir()) == []


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a\\b", "s3://b/k", "a\0b", "."])
def test_keys_that_leave_the_root_are_refused(local_storage: Storage, key: str) -> None:
    """Every operation refuses a key that is not plain and relative, before touching the disk."""
    for operation in (local_storage.read, local_storage.exists, local_storage.delete, local_storage.delete_folder):
        with pytest.raises(StorageError, match="not a key"):
            operation(key)
    with pytest.raises(StorageError, match="not a key"):
        local_storage.write(f"{key}/", b"")
    with pytest.raises(StorageError, match="not a key"):
        local_storage.write(key, b"")
    with pytest.raises(StorageError, match="not a key"):
        local_storage.create(key, b"")
    assert not Path(local_storage.root).exists()


def test_folders_go_in_and_come_out_whole(storage: Storage, tmp_path: Path) -> None:
    """A folder with sub-folders is the same after a round trip, also into a folder with other files."""
    source, target = tmp_path / "model", tmp_path / "copy"
    (source / "sub").mkdir(parents=True)
    (source / "config.json").write_bytes(b"{}")
    (source / "sub" / "weights").write_bytes(bytes(range(256)) * 5000)
    storage.put_folder(source, "training/f/merged")
    for _ in range(2):
        storage.get_folder("training/f/merged", target)
        (target / "mine").write_bytes(b"kept")
    assert (target / "sub" / "weights").read_bytes() == (source / "sub" / "weights").read_bytes()
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "mine", "sub"]
    assert not list(tmp_path.glob(".*.tmp"))
    with pytest.raises(StorageError, match="nothing is stored"):
        storage.get_folder("training/none", tmp_path / "none")


def test_storage_can_be_sent_to_another_process(storage: Storage) -> None:
    """A pickled storage opens its own connection and holds no credential."""
    storage.write("key", b"value")
    data = pickle.dumps(storage)
    assert b"testsecret" not in data
    assert pickle.loads(data).read("key") == b"value"


def test_digest_is_of_the_bytes(storage: Storage) -> None:
    """sha256 returns the well-known digest of `abc` and its size."""
    storage.write("key", b"abc")
    assert storage.sha256("key") == ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 3)


def test_a_good_place_is_writable_and_left_clean(storage: Storage) -> None:
    """check_writable leaves nothing behind."""
    storage.check_writable()
    assert storage.list() == []


def test_relative_roots_do_not_move_with_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root given relative to the working folder stays where it was when that changes."""
    monkeypatch.chdir(tmp_path)
    storage = Storage("runs")
    monkeypatch.chdir("/")
    storage.write("key", b"")
    assert (tmp_path / "runs" / "key").exists()
    assert storage.local_path("key") == tmp_path / "runs" / "key" == Path(storage.uri("key"))


@pytest.mark.parametrize("link", ["stage", "stage/folder", "stage/folder/file"])
def test_links_below_the_root_are_not_followed(local_storage: Storage, tmp_path: Path, link: str) -> None:
    """Nothing is read, written or deleted through a link; removing the folder that it lies in removes it."""
    outside, key = tmp_path / "outside", "stage/folder/file"
    place = outside / Path(key).relative_to(link)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"precious")
    local_storage.write("other", b"")
    at = Path(local_storage.root) / link
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(outside / "." if link != key else place)
    operations: list[Callable[[], object]] = [
        lambda: local_storage.read(key),
        lambda: list(local_storage.blocks(key)),
        lambda: local_storage.write(key, b"changed"),
        lambda: local_storage.create(key, b"changed"),
        lambda: local_storage.exists(key),
        lambda: local_storage.delete(key),
        lambda: local_storage.delete_folder(link),
        lambda: local_storage.get_folder(link, tmp_path / "copy"),
        lambda: local_storage.put_folder(Path(local_storage.root), key),
    ]
    for operation in operations:
        with pytest.raises(StorageError, match=r"is a symbolic link.*not followed"):
            operation()
    assert local_storage.list() == ["other"] and place.read_bytes() == b"precious"
    if link != "stage":
        local_storage.delete_folder("stage")
        assert not at.is_symlink() and place.read_bytes() == b"precious"


def test_a_root_may_be_reached_through_links(tmp_path: Path) -> None:
    """The place of the root is the user's own choice."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    Storage(str(tmp_path / "link" / "runs")).write("stage/key", b"x")
    assert (tmp_path / "disk" / "runs" / "stage" / "key").read_bytes() == b"x"


def test_foreign_names_in_a_bucket_are_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store allows `a/../b` as a name; it is not listed, copied or deleted."""
    storage = Storage(str(tmp_path / "root"))
    storage.write("models/m/config.json", b"{}")
    known = LocalBackend.objects
    foreign = ["models/m/../../../evil", "models/m//x", "models/m/a\\b", "models/m/\x1b[2J"]

    def listed(backend: LocalBackend, prefix: str) -> list[StoredObject]:
        return known(backend, prefix) + [StoredObject(name, 1, 0.0) for name in foreign]

    monkeypatch.setattr(LocalBackend, "objects", listed)
    storage.get_folder("models/m", tmp_path / "deep" / "copy")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()].count("config.json") == 2
    assert not (tmp_path / "evil").exists() and len(list(tmp_path.rglob("*"))) == 7
    assert storage.delete_folder("models/m") == 1


def test_a_copy_that_is_refused_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    """What the caller does not accept does not appear under its name."""
    storage.write("models/m/config.json", b"{}")

    def refuse(folder: Path) -> None:
        assert (folder / "config.json").read_bytes() == b"{}"
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"):
        storage.get_folder("models/m", tmp_path / "copy", refuse)
    assert list(tmp_path.rglob("config.json")) in ([], [tmp_path / "root" / "models" / "m" / "config.json"])


def test_an_empty_object_says_when_it_was_last_written(storage: Storage) -> None:
    """Writing it again makes it younger; that is how a running stage claims its folder."""
    times = []
    for _ in range(2):
        storage.write("stage/in-use", b"")
        (one,) = storage.details("stage")
        assert (one.key, one.size) == ("stage/in-use", 0)
        times.append(one.modified)
        time.sleep(1.1)
    assert times[0] < times[1] and abs(times[1] - time.time()) < 60
    storage.delete("stage/in-use")
    assert storage.details("stage") == []


def test_polars_gets_the_endpoint_and_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert Storage(str(tmp_path)).storage_options() == {}
    assert Storage("s3://bucket").storage_options() == {}
    given = Storage("s3://bucket", "http://127.0.0.1:9000").storage_options()
    assert given == {
        "aws_endpoint_url": "http://127.0.0.1:9000",
        "aws_allow_http": "true",
        "aws_region": "eu-west-1",
    }
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://store.example")
    found = Storage("s3://bucket").storage_options()
    assert (found["aws_endpoint_url"], found["aws_allow_http"]) == ("https://store.example", "false")
