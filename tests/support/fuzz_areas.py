"""The areas that are fuzzed: configurations, answers of the model, stored files, bodies of endpoints, command lines."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub.constants
import pytest
import yaml
from hypothesis import strategies as st

from ospo.app import run
from ospo_core.artifacts.checksummed_json import dump_checksummed
from ospo_core.artifacts.tables import read_entry, read_shard_entry
from ospo_core.config import load_experiment, load_profile, profile_names
from ospo_core.config.sections import EngineConfig
from ospo_core.engines.base import Request
from ospo_core.engines.endpoint_engine import EndpointEngine
from ospo_core.errors import OspoError
from ospo_core.evaluation.endpoint_judge import KEY_VARIABLE, EndpointJudge
from tests.support.chat_server import chat_answer
from tests.support.family_answers import PARSERS, good_answer
from tests.support.fuzz_inputs import (
    ADDRESSES,
    DOCUMENTS,
    ODD_TEXTS,
    OVERRIDES,
    PROFILES,
    SCALARS,
    SECRET,
    TEXTS,
    VALUES,
    YAML_TEXTS,
    changed,
    places,
)
from tests.support.fuzzing import Area, Broken, check_message
from tests.support.raw_server import raw_server
from tests.support.stored_round import Stored


class Configurations(Area):
    """Profiles and experiments: their YAML, and the overrides of `--set`."""

    name: ClassVar[str] = "configurations"

    def inputs(self) -> st.SearchStrategy[Any]:
        texts = YAML_TEXTS | DOCUMENTS.map(_as_yaml)
        overrides = st.lists(OVERRIDES, max_size=2)
        comparison = {
            "title": "t",
            "profile": "shapes",
            "seeds": [0],
            "guidances": [1.0],
            "arms": ["arm"],
            "common": {},
        }
        experiments = _mutated(comparison).map(_as_yaml) | YAML_TEXTS
        arms = DOCUMENTS.map(lambda sections: _as_yaml({"title": "an arm", **sections})) | YAML_TEXTS
        return st.one_of(
            st.tuples(st.just("name"), PROFILES, st.just(""), overrides),
            st.tuples(st.just("profile"), texts, st.just(""), overrides),
            st.tuples(st.just("experiment"), experiments, arms, overrides),
        )

    def attempt(self, given: Any) -> None:
        kind, text, arm, overrides = given
        if kind == "name":
            load_profile(text, overrides)
        elif kind == "profile":
            path = _written(self.inside / "round.yaml", text)
            load_profile(str(path), overrides)
        else:
            _written(self.inside / "experiment.yaml", text)
            _written(self.inside / "arm.yaml", arm)
            load_experiment(str(self.inside), tuple(overrides))


class Answers(Area):
    """What a text model may answer, read by the parsers of every family."""

    name: ClassVar[str] = "answers"

    def inputs(self) -> st.SearchStrategy[Any]:
        texts = TEXTS.filter(
            lambda text: SECRET not in text
        )  # a model knows none, and edits would hide where it stands
        pieces = texts | st.sampled_from(["\n", "|", ":", "- ", "1. ", "[", "(", "Prompt: ", "Relations: none", "?"])
        edits = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 20), pieces), max_size=4)
        return st.tuples(st.sampled_from(sorted(PARSERS)), st.none() | texts, edits)

    def attempt(self, given: Any) -> None:
        parser, answer, edits = given
        text = good_answer(parser) if answer is None else answer
        for place, removed, piece in edits:
            text = text[:place] + piece + text[place + removed :]
        PARSERS[parser](text)


class StoredFiles(Area):
    """A storage in which one file was damaged, forged with a right checksum, exchanged or deleted."""

    name: ClassVar[str] = "stored-files"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.stored = Stored(self.inside)
        self.stored.read_all()
        storage = self.stored.storage
        self.whole = {key: storage.read(key) for key in storage.list()}

    def inputs(self) -> st.SearchStrategy[Any]:
        keys = st.sampled_from(sorted(self.whole))
        forged = st.sampled_from(
            [
                (key, path)
                for key in sorted(self.whole)
                if key.endswith(".json")
                for path in places(json.loads(self.whole[key]))
            ]
        )
        return st.one_of(
            st.tuples(forged, VALUES | st.just(...)).map(lambda one: (one[0][0], "forged", (one[0][1], one[1]))),
            st.tuples(keys, st.just("cut"), st.integers(0, 3000)),
            st.tuples(keys, st.just("exchanged"), keys),
            st.tuples(keys, st.just("replaced"), st.binary(max_size=20)),
            st.tuples(keys, st.just("deleted"), st.none()),
        )

    def attempt(self, given: Any) -> None:
        key, kind, detail = given
        storage = self.stored.storage
        try:
            if kind == "deleted":
                storage.delete(key)
            else:
                storage.write(key, self._damaged(key, kind, detail))
            if key.endswith(".parquet"):
                self._read_rows(key)
            self.stored.read_all()
        finally:
            self._restore()

    def _damaged(self, key: str, kind: str, detail: Any) -> bytes:
        """Return what stands in a file instead of what was written."""
        if kind == "forged":
            document = json.loads(self.whole[key])
            made = changed(document, *detail)
            made.pop("sha256_of_this_document", None)
            try:
                return dump_checksummed(made)
            except (OspoError, ValueError):  # no JSON that the project can write
                return json.dumps(made).encode()
        if kind == "cut":
            return self.whole[key][:detail]
        return self.whole[detail] if kind == "exchanged" else bytes(detail)

    def _read_rows(self, key: str) -> None:
        """Read a shard whose entry was forged so that it names the damaged bytes."""
        storage = self.stored.storage
        prefix, _, file = key.rpartition("/")
        entry = read_shard_entry(storage, prefix, file.rpartition("-")[0])
        with suppress(OspoError):
            try:
                found = hashlib.sha256(storage.read(key)).hexdigest()
                read_entry(storage, prefix, entry.model_copy(update={"sha256": found}))
            except OspoError as error:
                check_message(str(error), error.exit_code)
                raise

    def _restore(self) -> None:
        """Make the storage what it was."""
        storage = self.stored.storage
        for key in storage.list():
            if key not in self.whole:
                storage.delete(key)
        for key, data in self.whole.items():
            if not storage.exists(key) or storage.read(key) != data:
                storage.write(key, data)


class EndpointBodies(Area):
    """What a server answers to the text engine and to the judge: status, headers and body."""

    name: ClassVar[str] = "endpoint-bodies"

    def inputs(self) -> st.SearchStrategy[Any]:
        completion = {"choices": [{"text": "a", "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}
        listing = {"data": [{"id": "tiny", "root": f"/exports/{'0' * 64}", "owned_by": "vllm"}]}
        documents = [completion, listing, chat_answer("Yes", {"Yes": -0.1, "No": -2.0})]
        both = {**completion, **listing, "choices": [{**completion["choices"][0], **documents[2]["choices"][0]}]}
        json_bodies = st.one_of(*(_mutated(one) for one in (*documents, both, both)), VALUES).map(_as_json)
        bodies = json_bodies | st.binary(max_size=40) | YAML_TEXTS.map(_as_bytes) | ADDRESSES.map(_as_bytes)
        names = st.sampled_from(
            ["Content-Type", "Retry-After", "Set-Cookie", "x-should-retry", "X-Request-Id", "Server"]
        )
        kinds = st.sampled_from(["application/json", "application/json; charset=base64", "text/html", "-5", "1e99"])
        headers = st.lists(st.tuples(names, kinds | SCALARS.map(str)), max_size=2)
        statuses = st.sampled_from([200, 200, 200, 200, 204, 400, 401, 404, 429, 500, 503, 600])
        return st.tuples(statuses, headers, bodies, st.sampled_from([0, 0, 0, 0, -1, 7]))

    @contextmanager
    def opened(self) -> Iterator[None]:
        with super().opened(), pytest.MonkeyPatch.context() as patch, raw_server(self._send, head=b"") as (url, _):
            patch.setenv("OPENAI_API_KEY", SECRET)
            patch.setenv(KEY_VARIABLE, SECRET)
            patch.setattr(time, "sleep", lambda seconds: None)  # between the attempts of a client
            config = EngineConfig(kind="endpoint", base_url=url, served_model="tiny")
            self.engine, self.judge = EndpointEngine(config, "0" * 64), EndpointJudge(url, "tiny")
            try:
                yield
            finally:
                self.engine.close()
                self.judge.close()

    def attempt(self, given: Any) -> None:
        status, headers, body, surplus = given
        lines = [f"HTTP/1.1 {status} Odd", f"Content-Length: {max(0, len(body) + surplus)}"]
        lines += [f"{name}: {' '.join(value.split())}" for name, value in headers]
        self.sent = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogatepass") + body
        try:
            self.engine.generate([Request("p", seed=1, temperature=1.0, max_tokens=4)])
            if SECRET in str(self.engine.facts()):
                raise Broken("a fact that is stored shows a secret")
        except OspoError as error:
            check_message(str(error), error.exit_code)
        self.judge.answer([b"png"], [["Is it?"]])

    def _send(self, connection: socket.socket) -> None:
        """Answer a request."""
        connection.sendall(self.sent)


REMOTE_PROFILES = {name for name in profile_names() if "://" in load_profile(name).storage.root}
"""Profiles whose storage is on a network: how long it takes to find that it is not there says nothing about inputs."""


class CommandLines(Area):
    """Arguments of the commands that read: neither Prefect nor an engine is started, and no network is asked."""

    name: ClassVar[str] = "command-lines"
    NAMED: ClassVar[tuple[tuple[str, ...], ...]] = (("lineage",), ("model", "check"), ("import-pairs",), ("export",))
    READING: ClassVar[tuple[str, ...]] = ("plan", "status", "rounds", "cost", "labels", "report", "gc")

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        stored = Stored(self.inside)
        self.profile = self.inside / "round.yaml"
        self.profile.write_text(yaml.safe_dump(stored.config.model_dump(mode="json")), encoding="utf-8")

    def inputs(self) -> st.SearchStrategy[Any]:
        texts = (ODD_TEXTS | TEXTS).filter(lambda text: not text.startswith("/"))
        named = st.tuples(st.sampled_from(self.NAMED), st.lists(texts, max_size=2)).map(lambda one: [*one[0], *one[1]])
        commands = st.sampled_from(self.READING).map(lambda name: [name]) | named | st.lists(texts, max_size=3)
        changes = OVERRIDES.filter(lambda text: "credentials_block" not in text)  # that is read from Prefect
        option = st.one_of(
            changes.map(lambda text: ["--set", text]),
            PROFILES.filter(lambda text: text not in REMOTE_PROFILES).map(lambda text: ["--profile", text]),
            SCALARS.map(lambda value: ["--keep-hours", str(value)]),
            texts.map(lambda text: ["--forget", text]),
            texts.map(lambda text: [f"--{text}"]),
        )
        return st.tuples(commands, st.lists(option, max_size=2)).map(
            lambda one: [_as_argument(text) for text in chain(one[0], *one[1])]
        )

    @contextmanager
    def opened(self) -> Iterator[None]:
        with super().opened(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
            yield

    def attempt(self, given: Any) -> None:
        arguments = list(given)
        if arguments and arguments[0] in (*self.READING, "lineage", "import-pairs", "export"):
            arguments[1:1] = ["--profile", str(self.profile)]
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        code: Any = 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                run(arguments)
            except SystemExit as ended:
                code = ended.code or 0
        shown, message = (one.buffer.getvalue().decode("utf-8", "replace") for one in (out, err))
        if code == 2 and message.startswith("Usage:"):  # it shows the arguments as they were given
            return
        if SECRET in shown:
            raise Broken(f"shows a secret: {shown!r}")
        if code and not message.startswith("Error: "):
            raise Broken(f"exit code {code} without a message: {message!r}")
        if code:
            check_message(message.removeprefix("Error: "), code)


def _mutated(document: Any) -> st.SearchStrategy[Any]:
    """Return a JSON document with no value, one or two replaced or removed."""
    once = st.builds(lambda path, value: (path, value), st.sampled_from(places(document)), VALUES | st.just(...))
    return st.lists(once, max_size=2).map(lambda changes: _changed_where_possible(document, changes))


def _changed_where_possible(document: Any, changes: list[tuple[Any, Any]]) -> Any:
    """Return the document with the changes; one may have removed the place of the next."""
    for path, value in changes:
        with suppress(LookupError, TypeError, ValueError):
            document = changed(document, path, value)
    return document


def _as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _as_yaml(document: Any) -> str:
    return yaml.safe_dump(document, allow_unicode=False)


def _as_argument(text: str) -> str:
    """Return a text as the system hands it over: bytes without zeros."""
    return os.fsdecode(_as_bytes(text).replace(b"\0", b""))


def _written(path: Path, text: str) -> Path:
    """Return the path of a file, with this text in it."""
    path.write_bytes(_as_bytes(text))
    return path


AREAS: dict[str, type[Area]] = {
    area.name: area for area in (Configurations, Answers, StoredFiles, EndpointBodies, CommandLines)
}
