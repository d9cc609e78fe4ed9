"""The web application: what its pages share, and its routes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from importlib.resources import files
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from jinja2 import ChoiceLoader, Environment, PackageLoader
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from ospo.browse.security import LOOPBACK, SafeHeaders
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.browsing.gallery import Gallery
from ospo_core.browsing.items import Items
from ospo_core.browsing.library import Library, missing
from ospo_core.browsing.pictures import EncodedPicture, Pictures
from ospo_core.browsing.sessions import Only, Session, draw_session
from ospo_core.errors import ConfigError, OspoError
from ospo_core.evaluation.labels import LabelReader
from ospo_core.report.html import report_environment, training_view

Query = TypeVar("Query", bound=BaseModel)

_SESSIONS_KEPT = 8
_LONGEST_SHOWN = 80
_FOR_A_DAY = {"Cache-Control": "private, max-age=86400"}


class Site:
    """The storage behind the pages, and what is kept in memory between requests."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.library, self.pictures, self.labels = Library(storage), Pictures(storage), LabelReader(storage)
        self.gallery, self.items = Gallery(storage), Items(storage)
        self.token = secrets.token_urlsafe(32)
        self._templates = _environment()
        self._curves: dict[str, Any] = {}
        self._sessions: dict[tuple[str, int, Only], Session] = {}
        self._drawing = Lock()  # matplotlib's style is global

    def page(self, name: str, status: int = 200, **view: Any) -> HTMLResponse:
        """Return a page made from a template."""
        text = self._templates.get_template(f"{name}.html.j2").render(view, root=self.storage.uri())
        return HTMLResponse(text, status)

    def curves(self, manifest: Manifest) -> Any:
        """Return the training curves as the report shows them."""
        with self._drawing:
            if manifest.fingerprint not in self._curves:
                self._curves[manifest.fingerprint] = training_view(self.storage, {manifest.stage: manifest})
            return self._curves[manifest.fingerprint]

    def drawing(self) -> Lock:
        """Return the lock to hold while a chart is drawn."""
        return self._drawing

    def session(self, manifest: Manifest, seed: int, only: Only) -> Session:
        """Return the session of an evaluation with this seed."""
        key = (manifest.fingerprint, seed, only)
        if key not in self._sessions:
            while len(self._sessions) >= _SESSIONS_KEPT:
                self._sessions.pop(next(iter(self._sessions)), None)
            self._sessions[key] = draw_session(self.storage, manifest, seed, only)
        return self._sessions[key]


def build_site(storage: Storage) -> Starlette:
    """Return the web application for a storage."""
    from ospo.browse import judging, pages

    routes = [
        Route("/", pages.rounds),
        Route("/rounds/{round}", pages.one_round),
        Route("/rounds/{round}/report", pages.report),
        Route("/rounds/{round}/pairs", pages.pairs),
        Route("/rounds/{round}/items/{item}", pages.item),
        Route("/rounds/{round}/comparisons", pages.comparisons),
        Route("/pictures/{stage}/{fingerprint}/{column}/{place}", pages.picture),
        Route("/people/{evaluation}", judging.people),
        Route("/judge/{evaluation}", judging.start),
        Route("/judge/{evaluation}/{seed}", judging.task, methods=["GET"]),
        Route("/judge/{evaluation}/{seed}", judging.answer, methods=["POST"]),
        Route("/judge/{evaluation}/{seed}/{number}/{side}", judging.picture),
        Route("/static/{name}", static),
    ]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(SafeHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK), www_redirect=False),
        ],
        exception_handlers={OspoError: _show_error, HTTPException: _show_error},
    )
    app.state.site = Site(storage)
    return app


def site_of(request: Request) -> Site:
    """Return the site that a request is for."""
    site: Site = request.app.state.site
    return site


def query_of(model: type[Query], fields: Mapping[str, str]) -> Query:
    """Return the fields of an address or form as a model; empty ones are as if they were not there.

    Raises:
        ConfigError: a field is unknown or has a value that does not fit.
    """
    try:
        return model.model_validate({name: value for name, value in fields.items() if value != ""})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field, value = ".".join(map(str, first["loc"])), str(first["input"])[:_LONGEST_SHOWN]
        known = ", ".join(model.model_fields)
        raise ConfigError(first["msg"], field=field, value=value, remedy=f"The fields are: {known}") from error


def number_of(text: str, field: str, most: int) -> int:
    """Return a part of an address as a whole number from 0 to `most`; raise MissingObjectError if it is none."""
    if not text.isascii() or not text.isdigit() or len(text) > len(str(most)) or int(text) > most:
        raise missing(field, text[:40], f"Give a whole number up to {most}")
    return int(text)


def picture_response(picture: EncodedPicture) -> Response:
    """Return a picture as it is stored; what is at an address never changes."""
    return Response(picture.data, media_type=picture.media_type, headers=_FOR_A_DAY)


def static(request: Request) -> Response:
    """Return the style sheet or the script."""
    name = request.path_params["name"]
    if name == "style.css":
        sheets = (
            files("ospo_core.report") / "templates" / "report.css",
            files("ospo.browse") / "static" / "browse.css",
        )
        return Response("\n".join(sheet.read_text(encoding="utf-8") for sheet in sheets), media_type="text/css")
    if name == "keys.js":
        script = files("ospo.browse") / "static" / "keys.js"
        return Response(script.read_text(encoding="utf-8"), media_type="text/javascript")
    raise HTTPException(404, "There is no such file.")


def _environment() -> Environment:
    loader = ChoiceLoader([PackageLoader("ospo.browse"), PackageLoader("ospo_core.report")])
    environment = report_environment(loader)
    environment.filters |= {"part": lambda text: quote(str(text), safe=""), "query": _query}
    return environment


def _query(fields: BaseModel, **changes: Any) -> str:
    """Return a query with some changes as the end of an address, without what has its default."""
    changed = fields.model_copy(update=changes).model_dump(mode="json", exclude_defaults=True)
    return f"?{urlencode(changed)}" if changed else "?"


def _show_error(request: Request, error: Exception) -> Response:
    """Show an expected error as a page."""
    status = 500
    if isinstance(error, HTTPException):
        status, text = error.status_code, str(error.detail)
    else:
        status = 404 if isinstance(error, MissingObjectError) else 400 if isinstance(error, ConfigError) else 500
        text = str(error)
    return site_of(request).page("error", status, text=text, code=status)
