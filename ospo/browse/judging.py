"""The pages to judge: blind tasks, one after the other, and what all answers say."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlencode

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ospo.browse.security import TOKEN, checked_form
from ospo.browse.site import Site, number_of, picture_response, query_of, site_of
from ospo_core.artifacts.manifest import Manifest
from ospo_core.browsing.library import missing
from ospo_core.browsing.sessions import LARGEST_SEED, Asked, Only, Session, judge_verdicts
from ospo_core.config.sections import Section
from ospo_core.errors import ConfigError
from ospo_core.evaluation.labels import store_label
from ospo_core.evaluation.people import judge_by_people, preference
from ospo_core.schema import StageName

_MOST_TASKS = 10**7


class SessionQuery(Section):
    """What an address says of a session.

    Args:
        n: number of the task, from 1; 0: the first one that this person has not answered.
        only: the kinds of task.
        who: what the person calls themselves.
    """

    n: int = Field(0, ge=0, le=_MOST_TASKS)
    only: Only = "both"
    who: str = Field("", max_length=40, pattern=r"^[\w .@-]*$")


class Start(SessionQuery):
    """The form that starts or continues a session."""

    seed: int = Field(0, ge=0, le=LARGEST_SEED)


class Answer(SessionQuery):
    """A form with an answer: what was pressed, as the person sees it."""

    n: int = Field(ge=1, le=_MOST_TASKS)
    answer: Literal["left", "right", "tie", "yes", "no"]


def people(request: Request) -> Response:
    """Show what all answers about an evaluation say."""
    site, manifest = site_of(request), _evaluation(request)
    labels = site.labels.of(manifest.fingerprint)
    return site.page(
        "people",
        round=site.library.round_of(manifest.fingerprint),
        evaluation=manifest.fingerprint,
        preference=preference(labels),
        judge=judge_by_people(labels, judge_verdicts(site.storage, manifest)),
        labels=labels,
        persons=sorted({label.person for label in labels}),
        largest_seed=LARGEST_SEED,
    )


def start(request: Request) -> Response:
    """Lead to the first open task of the session that the form names."""
    query = query_of(Start, request.query_params)
    wanted = urlencode({"only": query.only, "who": query.who})
    return RedirectResponse(f"/judge/{_evaluation(request).fingerprint}/{query.seed}?{wanted}", 303)


def task(request: Request) -> Response:
    """Show one task of a session, or lead to the first open one."""
    site, query = site_of(request), query_of(SessionQuery, request.query_params)
    session = _session(site, request, query.only)
    answered = session.answered(site.labels.of(session.evaluation), query.who)
    if query.n == 0:
        return _lead_on(session, query, answered)
    return site.page(
        "judge",
        session=session,
        query=query,
        asked=session.at(query.n),
        answered=answered,
        address=_address(session),
        only=urlencode({"only": query.only}),
        token=site.token,
        token_name=TOKEN,
    )


async def answer(request: Request) -> Response:
    """Store an answer at once, and lead to the next task."""
    fields = await checked_form(request, site_of(request).token)
    return await run_in_threadpool(_store, request, fields)


def picture(request: Request) -> Response:
    """Return a picture of a task, by its side only."""
    site, query = site_of(request), query_of(SessionQuery, request.query_params)
    session = _session(site, request, query.only)
    asked = session.at(number_of(request.path_params["number"], "task", _MOST_TASKS))
    side = request.path_params["side"]
    if side not in asked.places:
        raise missing("side", side, f"Give one of: {', '.join(asked.places)}")
    return picture_response(site.pictures.read(_evaluation(request), "image", asked.places[side]))


def _store(request: Request, fields: dict[str, str]) -> Response:
    site, given = site_of(request), query_of(Answer, fields)
    session = _session(site, request, given.only)
    asked = session.at(given.n)
    store_label(site.storage, _label(session, asked, given))
    answered = session.answered(site.labels.of(session.evaluation), given.who)
    return _lead_on(session, given, answered)


def _label(session: Session, asked: Asked, given: Answer) -> dict[str, object]:
    """Return the fields of a label."""
    meant = asked.answer(given.answer)
    if meant is None:
        raise ConfigError(
            "does not answer this task", field="answer", value=given.answer, remedy="Use the buttons of its page"
        )
    facts = {"evaluation": session.evaluation, "session": session.seed, "number": given.n, "person": given.who}
    return {**asked.task._asdict(), **facts, "left": asked.left, "answer": meant}


def _lead_on(session: Session, query: SessionQuery, answered: set[int]) -> Response:
    """Lead to the next open task, or to the figures when all are answered."""
    number = session.next_after(query.n, answered)
    if number is None:
        return RedirectResponse(f"/people/{session.evaluation}", 303)
    wanted = {"n": str(number), "only": query.only, "who": query.who}
    return RedirectResponse(f"{_address(session)}?{urlencode(wanted)}", 303)


def _address(session: Session) -> str:
    return f"/judge/{session.evaluation}/{session.seed}"


def _session(site: Site, request: Request, only: Only) -> Session:
    seed = number_of(request.path_params["seed"], "seed", LARGEST_SEED)
    return site.session(_evaluation(request), seed, only)


def _evaluation(request: Request) -> Manifest:
    return site_of(request).library.manifest(StageName.EVALUATION, request.path_params["evaluation"])
