"""Who may talk to the page: this machine's browser only, and a write needs the token of one of our pages.

Another site that is open in the same browser can send requests to a loopback address. Its name is in the Host header if
it points to this machine (DNS rebinding), and in the Origin header if it posts here.
"""

from __future__ import annotations

import hmac
from urllib.parse import parse_qsl

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost")
"""The names under which the page answers."""

TOKEN = "token"
"""Name of the form field with the token."""

_LARGEST_FORM, _MOST_FIELDS = 16_384, 20
_POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
"""Policy for a stored report, whose style is inside and which needs no script."""

_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class SafeHeaders:
    """Adds the headers of security to every response that does not set them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


async def checked_form(request: Request, token: str) -> dict[str, str]:
    """Return the fields of a form that one of our pages has sent.

    Raises:
        HTTPException: the form comes from elsewhere (403), or is too large or no form (400, 413).
    """
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{request.headers['host']}":
        raise HTTPException(403, "The form was sent by another site.")
    body = b""
    async for block in request.stream():
        body += block
        if len(body) > _LARGEST_FORM:
            raise HTTPException(413, "The form is too large.")
    try:
        fields = dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError as error:
        raise HTTPException(400, "The form cannot be read.") from error
    if not hmac.compare_digest(fields.pop(TOKEN, "").encode(), token.encode()):
        raise HTTPException(403, "The form has no valid token: the page is from an earlier start. Load it again.")
    return fields
