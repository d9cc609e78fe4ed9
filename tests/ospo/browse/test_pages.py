"""Every page shows what the storage holds, as text, and answers nonsense with one message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from starlette.testclient import TestClient

from ospo_core.schema import StageName
from tests.support.browsed_round import HELD_OUT, HOSTILE, ROUND_ID, BrowsedRound

VOID = {"meta", "img", "br", "link", "input"}
ROUND = f"/rounds/{ROUND_ID}"


class Html(HTMLParser):
    """The addresses and scripts of a page; elements must close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.scripts: list[str | None] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        assert "style" not in named and not any(name.startswith("on") for name in named)
        self.addresses += [named[name] or "" for name in ("href", "src", "action") if name in named]
        self.scripts += [named.get("src")] if tag == "script" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def all_pages(made: BrowsedRound) -> Iterator[str]:
    yield from ("/", ROUND, f"{ROUND}/pairs", f"{ROUND}/comparisons", f"{ROUND}/items/0003", f"{ROUND}/items/0009")
    yield from (f"/people/{made.evaluation}", f"/judge/{made.evaluation}/0?n=1", f"/judge/{made.evaluation}/0?n=2")


def test_every_page_and_all_it_names_are_there_and_nothing_comes_from_elsewhere(
    client: TestClient, made: BrowsedRound
) -> None:
    seen: set[str] = set()
    for page in all_pages(made):
        answer = client.get(page)
        assert answer.status_code == 200, answer.text
        html = Html(answer.text)
        assert html.scripts == ["/static/keys.js"]
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
        path = page.partition("?")[0]
        here = {one if not one.startswith("?") else path + one for one in html.addresses if not one.startswith("#")}
        seen |= {one for one in here if not one.startswith("data:")}
    assert all(one.startswith("/") and not one.startswith("//") for one in seen)
    wrong = [one for one in sorted(seen) if client.get(one.replace("&amp;", "&")).status_code not in (200, 303)]
    assert wrong == []


def test_texts_are_shown_as_text(client: TestClient, made: BrowsedRound) -> None:
    for page in (ROUND, f"{ROUND}/pairs", f"{ROUND}/items/0003", f"{ROUND}/pairs?text=%3Cscript%3E"):
        text = client.get(page).text
        assert "alert(" in text or "%3C" in page
        assert "<script>alert" not in text and HOSTILE not in text and "&lt;script&gt;" in text


def test_the_address_holds_the_whole_state(client: TestClient) -> None:
    text = client.get(f"{ROUND}/pairs?category=&least=-0.5&order=narrow&text=circle&page=2").text
    assert 'value="narrow" selected' in text and 'value="circle"' in text and "page 2 of 3" in text
    links = re.findall(r'<a rel="(prev|next)"[^>]* href="([^"]+)"', text)
    assert links[0] == ("prev", "?least=-0.5&amp;text=circle&amp;order=narrow")
    assert links[1] == ("next", "?least=-0.5&amp;text=circle&amp;order=narrow&amp;page=3")


def test_pictures_are_given_as_they_are(client: TestClient, made: BrowsedRound) -> None:
    fingerprint = made.manifests[StageName.PAIRS].fingerprint
    answer = client.get(f"/pictures/pairs/{fingerprint}/chosen_image/5")
    assert answer.content == made.pairs[5]["chosen_image"]["bytes"] and answer.headers["content-type"] == "image/png"


def test_a_stored_report_runs_in_a_sandbox(client: TestClient, made: BrowsedRound) -> None:
    assert client.get(f"{ROUND}/report").status_code == 404
    made.storage.write(f"reports/evaluation-{made.evaluation[:16]}.html", b"<script>alert(1)</script>")
    answer = client.get(f"{ROUND}/report")
    assert answer.status_code == 200 and answer.headers["content-security-policy"].endswith("sandbox")
    assert f'href="{ROUND}/report"' in client.get(ROUND).text


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("/rounds/..%2f..%2fetc", 404, ""),
        ("/rounds/ffffffffffff", 404, "not in this storage"),
        (f"{ROUND}/items/%3Cscript%3E", 404, "&lt;script&gt;"),
        (f"{ROUND}/pairs?order=evil", 400, "order"),
        (f"{ROUND}/pairs?unknown=1", 400, "unknown"),
        (f"{ROUND}/pairs?page=99999999999999999999", 400, "page"),
        (f"{ROUND}/pairs?least=nan", 400, "least"),
        ("/pictures/pairs/../rounds/x", 404, ""),
        (f"/pictures/secrets/{'0' * 64}/image/0", 404, "secrets"),
        (f"/pictures/pairs/{'0' * 63}6/chosen_image/99999", 404, "picture"),
        (f"/pictures/pairs/{'0' * 63}6/prompt/0", 404, "picture"),
        (f"/pictures/pairs/{'0' * 63}6/chosen_image/-1", 404, "place"),
        (f"/pictures/pairs/{'0' * 63}6/chosen_image/{'1' * 5000}", 404, "place"),
        (f"/judge/{'0' * 64}/0", 404, "evaluation"),
        (f"/judge/{'0' * 63}8/4294967296", 404, "seed"),
        (f"/judge/{'0' * 63}8/0?n=100000", 404, "task"),
        (f"/judge/{'0' * 63}8/0?n=1&who=%3Cb%3E", 400, "who"),
        (f"/judge/{'0' * 63}8/0/1/picture", 404, "side"),
        ("/static/../site.py", 404, ""),
        ("/nothing", 404, ""),
    ],
)
def test_nonsense_gets_one_message(client: TestClient, address: str, status: int, words: str) -> None:
    answer = client.get(address)
    assert answer.status_code == status and words in answer.text and "Traceback" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_damaged_shard_is_named(client: TestClient, made: BrowsedRound) -> None:
    manifest = made.manifests[StageName.PAIRS]
    made.storage.write(manifest.shard_key(1), b"no table")
    answer = client.get(f"{ROUND}/pairs")
    assert answer.status_code == 500 and "damaged" in answer.text and manifest.prefix in answer.text


def test_people_are_counted_on_their_page(client: TestClient, made: BrowsedRound) -> None:
    text = client.get(f"/people/{made.evaluation}").text
    assert text.count("No answer yet.") == 2 and str(HELD_OUT) not in text.split("<main>")[0]
