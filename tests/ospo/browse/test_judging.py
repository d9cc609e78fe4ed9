"""A blind session: nothing says which picture is whose, every answer is kept, and nobody else can answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from starlette.testclient import TestClient

from ospo.browse.site import build_site
from ospo_core.artifacts.storage import Storage
from ospo_core.browsing.sessions import draw_session
from ospo_core.evaluation.labels import LabelReader
from ospo_core.schema import StageName
from tests.ospo.browse.conftest import ADDRESS
from tests.support.browsed_round import BrowsedRound, browsed_round


def token_of(client: TestClient, evaluation: str) -> str:
    found = re.search(r'name="token" value="([^"]+)"', client.get(f"/judge/{evaluation}/0?n=1").text)
    assert found is not None
    return found[1]


def answer(
    client: TestClient, evaluation: str, number: int, given: str, who: str = "ann", seed: int = 0
) -> httpx2.Response:
    form = {"token": token_of(client, evaluation), "n": str(number), "only": "both", "who": who, "answer": given}
    return client.post(f"/judge/{evaluation}/{seed}", data=form)


def task_pages(client: TestClient, evaluation: str) -> Iterator[str]:
    for number in range(1, 41):
        text = client.get(f"/judge/{evaluation}/0?n={number}").text
        yield re.sub(r'name="token" value="[^"]+"', "", text)


def test_nothing_says_which_picture_is_whose(tmp_path: Path) -> None:
    """With the pictures of parent and child exchanged, every page is the same; only the pictures change sides."""
    rounds = [browsed_round(Storage(str(tmp_path / "root")), swapped=False)]
    clients = [TestClient(build_site(rounds[0].storage), base_url=ADDRESS, follow_redirects=False)]
    pages = list(task_pages(clients[0], rounds[0].evaluation))
    left, right = (clients[0].get(f"/judge/{rounds[0].evaluation}/0/1/{side}") for side in ("left", "right"))
    for file in sorted((tmp_path / "root").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    swapped = browsed_round(Storage(str(tmp_path / "root")), swapped=True)
    client = TestClient(build_site(swapped.storage), base_url=ADDRESS, follow_redirects=False)
    assert list(task_pages(client, swapped.evaluation)) == pages
    assert not any(word in page.lower() for page in pages for word in ("parent", "child", "vqa", "oracle"))
    other = [client.get(f"/judge/{swapped.evaluation}/0/1/{side}") for side in ("left", "right")]
    assert [one.content for one in other] == [right.content, left.content]
    ignored = {"content-length"}
    for one, two in zip((left, right), other, strict=True):
        assert {k: v for k, v in one.headers.items() if k not in ignored} == {
            k: v for k, v in two.headers.items() if k not in ignored
        }


def test_answers_are_stored_at_once_and_mean_the_model_that_was_shown(client: TestClient, made: BrowsedRound) -> None:
    session = draw_session(made.storage, made.manifests[StageName.EVALUATION], 0)
    for number, given in ((1, "left"), (2, "no"), (3, "right"), (5, "tie")):
        assert answer(client, made.evaluation, number, given).status_code == 303
        label = LabelReader(made.storage).of(made.evaluation)[-1]
        asked = session.at(number)
        assert label.task == asked.task and label.answer == asked.answer(given) and label.person == "ann"
        assert (label.session, label.number, label.left) == (0, number, asked.left)


def test_a_session_goes_on_at_the_first_open_task_also_after_a_restart(client: TestClient, made: BrowsedRound) -> None:
    for number, given in ((1, "left"), (2, "yes"), (4, "no")):
        answer(client, made.evaluation, number, given)
    later = TestClient(build_site(made.storage), base_url=ADDRESS, follow_redirects=False)
    for who, first in (("ann", "3"), ("bob", "1")):
        to = later.get(f"/judge/{made.evaluation}/0", params={"who": who}).headers["location"]
        assert parse_qs(urlsplit(to).query)["n"] == [first]
    after = answer(later, made.evaluation, 3, "tie").headers["location"]
    assert parse_qs(urlsplit(after).query)["n"] == ["5"]


def test_two_at_once_and_a_second_thought_keep_every_answer(client: TestClient, made: BrowsedRound) -> None:
    other = TestClient(build_site(made.storage), base_url=ADDRESS, follow_redirects=False)
    answer(client, made.evaluation, 1, "left", "ann")
    answer(other, made.evaluation, 1, "right", "bob")
    answer(client, made.evaluation, 1, "tie", "ann")
    labels = LabelReader(made.storage).of(made.evaluation)
    assert [label.person for label in labels] == ["ann", "bob", "ann"] and labels[-1].answer == "tie"
    assert "answered before" in client.get(f"/judge/{made.evaluation}/0?n=1&who=ann").text
    assert "3 answers by 2 people" in client.get(f"/people/{made.evaluation}").text


def test_figures_appear_once_there_are_answers(client: TestClient, made: BrowsedRound) -> None:
    for number in range(1, 11):
        answer(client, made.evaluation, number, "left" if number % 2 else "yes")
    text = client.get(f"/people/{made.evaluation}").text
    assert "Win rate of the child" in text and "precision" in text and "No answer yet" not in text


def test_the_end_leads_to_the_figures(client: TestClient, made: BrowsedRound) -> None:
    session = draw_session(made.storage, made.manifests[StageName.EVALUATION], 0)
    for number, asked in enumerate(session.tasks, start=1):
        last = answer(client, made.evaluation, number, "tie" if asked.left else "yes")
    assert last.headers["location"] == f"/people/{made.evaluation}"


def test_the_form_starts_the_session_that_it_names(client: TestClient, made: BrowsedRound) -> None:
    to = client.get(f"/judge/{made.evaluation}?seed=5&who=ann&only=question").headers["location"]
    assert to == f"/judge/{made.evaluation}/5?only=question&who=ann"
    assert client.get(f"/judge/{made.evaluation}?seed=-1").status_code == 400


@pytest.mark.parametrize(
    ("form", "headers", "status"),
    [
        ({"token": "wrong"}, {}, 403),
        ({"token": ""}, {}, 403),
        ({}, {"origin": "http://evil.example"}, 403),
        ({}, {"origin": "null"}, 403),
        ({}, {"host": "evil.example"}, 400),
        ({}, {"host": "127.0.0.1.evil.example:8350"}, 400),
        ({"answer": "yes"}, {}, 400),
        ({"answer": "child"}, {}, 400),
        ({"n": "0"}, {}, 400),
        ({"n": "100000"}, {}, 404),
        ({"who": "x" * 41}, {}, 400),
        ({"who": "a\nb"}, {}, 400),
        ({"more": "1"}, {}, 400),
        ({"who": "x" * 20_000}, {}, 413),
        ({f"f{number}": "" for number in range(30)}, {}, 400),
    ],
)
def test_a_form_from_elsewhere_or_with_nonsense_stores_nothing(
    client: TestClient, made: BrowsedRound, form: dict[str, str], headers: dict[str, str], status: int
) -> None:
    good = {"token": token_of(client, made.evaluation), "n": "1", "only": "both", "who": "", "answer": "left"}
    found = client.post(f"/judge/{made.evaluation}/0", data={**good, **form}, headers=headers)
    assert found.status_code == status
    assert made.storage.list("labels") == []


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.2", "0.0.0.0", ""])
def test_other_host_names_see_nothing(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 400 and "Rounds" not in answer.text
    assert client.get("/", headers={"host": "localhost:8350"}).status_code == 200


def test_nothing_but_an_answer_is_written(client: TestClient, made: BrowsedRound) -> None:
    before = made.storage.list()
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for address in ("/", f"/people/{made.evaluation}", "/static/keys.js"):
            assert client.request(method, address).status_code == 405
    assert made.storage.list() == before
