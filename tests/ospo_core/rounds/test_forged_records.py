"""Records with a right checksum that somebody changed: a damaged one is named, and nothing else goes wrong."""

from __future__ import annotations

import json
import random

import pytest

from ospo_core.artifacts.checksummed_json import dump_checksummed
from ospo_core.errors import OspoError
from tests.support.fuzz_inputs import changed, places
from tests.support.stored_round import Stored

ODD = [None, -1, 10**400, 1e300, "", "../x", "/etc", "\u202e", True, [], ["x"], {}, {"a": {}}]
SAMPLE = 20
"""Changes tried per file; with all of them, some 3600, the outcome is the same."""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return Stored(tmp_path_factory.mktemp("forged"))


def test_no_change_of_a_record_fails_in_another_way(stored: Stored) -> None:
    stored.read_all()
    generator, storage = random.Random(0), stored.storage
    before = storage.list()
    for key in [key for key in before if key.endswith(".json")]:
        whole = storage.read(key)
        document = json.loads(whole)
        del document["sha256_of_this_document"]
        tries = [(path, value) for path in places(document) for value in (*ODD, ...)]
        for path, value in generator.sample(tries, min(SAMPLE, len(tries))):
            storage.write(key, dump_checksummed(changed(document, path, value)))
            try:
                stored.read_all()
            except OspoError as error:
                assert error.remedy, f"{error} (at {path} of {key})"
        storage.write(key, whole)
    assert storage.list() == before
