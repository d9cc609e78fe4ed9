"""The page over a round on a real object store: every page works, answers are kept, and requests stay few."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import s3fs
from starlette.testclient import TestClient

from ospo.actions import show_labels
from ospo.browse.site import build_site
from ospo_core.artifacts.storage import Storage
from ospo_core.evaluation.labels import LabelReader
from ospo_core.schema import StageName
from tests.ospo.browse.conftest import ADDRESS
from tests.support.browsed_round import ROUND_ID, BrowsedRound, browsed_round
from tests.support.fault_proxy import Fault, fault_proxy
from tests.support.s3_server import S3Server

BUCKET = "browsed"
ROUND = f"/rounds/{ROUND_ID}"
PER_PAGE = 24
"""Requests of any page for records and manifests, whatever the sizes; measured: 20 to 23."""
PER_SHARD = 4
"""Requests for some columns of one shard; measured: 2 to 3."""

pytestmark = [pytest.mark.s3, pytest.mark.timeout(600)]


@dataclass
class Counted:
    """A browser on the page over a round on the store, and the requests that the store got since the last look."""

    made: BrowsedRound
    client: TestClient
    seen: list[str] = field(default_factory=list)

    def get(self, address: str) -> tuple[str, int]:
        """Return the text of a page and the number of requests it took."""
        self.seen.clear()
        answer = self.client.get(address)
        assert answer.status_code == 200, answer.text
        return answer.text, len(self.seen)


@pytest.fixture(scope="module")
def counted(s3_server: S3Server) -> Iterator[Counted]:
    seen = list[str]()

    def note(method: str, path: str) -> Fault | None:
        seen.append(f"{method} {path}")
        return None

    s3fs.S3FileSystem(endpoint_url=s3_server.endpoint_url, skip_instance_cache=True).mkdir(BUCKET)
    with fault_proxy(s3_server.endpoint_url, note) as proxy:
        storage = Storage(f"s3://{BUCKET}/root", proxy.endpoint_url)
        made = browsed_round(storage, shard=3)
        client = TestClient(build_site(storage), base_url=ADDRESS, follow_redirects=False)
        yield Counted(made, client, seen)


def test_every_page_and_picture_is_there(counted: Counted) -> None:
    evaluation, pairs = counted.made.evaluation, counted.made.manifests[StageName.PAIRS].fingerprint
    for page, words in {
        "/": ROUND_ID,
        ROUND: "Preference pairs",
        f"{ROUND}/comparisons": "page 1 of",
        f"/people/{evaluation}": "answers",
        f"/judge/{evaluation}/0?n=1": 'name="token"',
    }.items():
        assert words in counted.get(page)[0], page
    answer = counted.client.get(f"/pictures/pairs/{pairs}/chosen_image/5")
    assert answer.content == counted.made.pairs[5]["chosen_image"]["bytes"]
    assert counted.client.get(f"/judge/{evaluation}/0/1/left").headers["content-type"] == "image/png"
    assert counted.client.get("/rounds/ffffffffffff").status_code == 404


def test_a_page_of_the_gallery_asks_less_than_all_shards(counted: Counted) -> None:
    shards = len(counted.made.manifests[StageName.PAIRS].shards)
    assert shards == 20
    counted.get(f"{ROUND}/pairs")
    for page in ("?page=1", "?page=2", "?page=3"):
        text, requests = counted.get(f"{ROUND}/pairs{page}")
        assert "of 3" in text and requests <= PER_PAGE + PER_SHARD * (24 // 3 + 2), (page, requests)
    first = counted.get(f"{ROUND}/pairs?order=doubt")[1]
    again = counted.get(f"{ROUND}/pairs?order=doubt&page=2")[1]
    assert first <= PER_PAGE + PER_SHARD * 2 * shards and again <= PER_PAGE + PER_SHARD * shards
    counted.get(f"{ROUND}/items/0003")
    text, requests = counted.get(f"{ROUND}/items/0004")
    assert "dense" in text and requests <= PER_PAGE + PER_SHARD * len(StageName)
    assert counted.get(f"{ROUND}/items/0004")[1] == requests


def test_answers_are_stored_there_and_counted(counted: Counted, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation, storage = counted.made.evaluation, counted.made.storage
    found = re.search(r'name="token" value="([^"]+)"', counted.get(f"/judge/{evaluation}/0?n=1")[0])
    assert found is not None
    for number in (1, 3):
        form = {"token": found[1], "n": str(number), "only": "both", "who": "ann", "answer": "left"}
        counted.seen.clear()
        assert counted.client.post(f"/judge/{evaluation}/0", data=form).status_code == 303
        assert sum(one.startswith("PUT") for one in counted.seen) == 1 and len(counted.seen) <= 10
    assert [label.number for label in LabelReader(storage).of(evaluation)] == [1, 3]
    assert "2 answers" in " ".join(counted.get(f"/people/{evaluation}")[0].split())
    show_labels("shapes", [f"storage.root={storage.root}", f"storage.endpoint_url={storage.endpoint_url}"])
    assert f"People on evaluation {evaluation[:12]}" in capsys.readouterr().out
