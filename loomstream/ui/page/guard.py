"""Who may talk to the page: its own origin, with its token.

Contract: an ASGI application around another one, which sees no request that is refused. A page of another site can make
a browser send requests here (CSRF), and can make its own name point here (DNS rebinding): hence `Host`, `Origin` and
`Sec-Fetch-Site` are checked on every request, before the token. The token comes as a cookie, which the address with
`?token=` sets, or as `Authorization: Bearer`. No body is longer than `max_body_bytes`. Every response carries the
policy that keeps the browser from running or fetching anything of anybody else's.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Callable, Iterable
from hashlib import sha256
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from loomstream.ui.asgi import Message, Receive, Scope, Send

MAX_BODY_BYTES = 1024 * 1024
_LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_OPEN_PATHS = frozenset(("/style.css", "/app.js", "/login", "/favicon.svg"))
"""What everybody may have: the page without its conversations, and where the token is given."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""No script but ours, no inline script or style, no request to another host, no HTML made from text."""
_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # `no-referrer` would make the `Origin` of our own form `null`
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class _TooLarge(Exception):
    """The body is longer than it may be."""


class Guard:
    """Refuses what is not the user's own. `token` is None where everybody on this machine may come in.

    `hosts` are further names by which the page may be reached, without a port. `only_loopback` says that it is bound to
    this machine; else any IP address is taken for a name of it, which no foreign page can have.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], object],
        *,
        token: str | None,
        port: int,
        stop: Callable[[], None],
        only_loopback: bool = True,
        hosts: Iterable[str] = (),
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._app = app
        self.stop = stop
        """Ends what goes on inside; for the server, when it is told to end."""
        self._token = token
        self._hosts = _LOOPBACK_NAMES | {host.lower() for host in hosts}
        self._only_loopback = only_loopback
        self._max_body_bytes = max_body_bytes
        self._once = ""
        self._cookie = f"looms_{port}"  # cookies know no ports: two pages of one machine must not share one

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)  # pyright: ignore[reportGeneralTypeIssues]
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = _headers(scope)
        refusal = self._foreign(scope, headers) or self._too_large(headers)
        if refusal is not None:
            await _answer(send, *refusal)
        elif self._enters(scope):
            await self._let_in(send)
        elif self._is_known(scope, headers):
            await self._serve(scope, receive, send)
        else:
            await self._ask_for_token(scope, send)

    # --- whose request it is ---------------------------------------------------------------------

    def _foreign(self, scope: Scope, headers: dict[bytes, str]) -> tuple[int, str] | None:
        host = headers.get(b"host", "")
        if not self._is_own(host):
            return 403, "This page does not answer to that name. `looms ui --allow-host NAME` adds one."
        origin = headers.get(b"origin")
        if origin is not None and origin.lower() != f"{scope.get('scheme', 'http')}://{host}".lower():
            return 403, "Another site sent this request."
        site = headers.get(b"sec-fetch-site", "none")
        is_visit = scope["method"] == "GET" and headers.get(b"sec-fetch-mode") == "navigate"
        if site not in ("none", "same-origin") and not is_visit:
            return 403, "Another site sent this request."
        return None

    def _is_own(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].lower()
        return name in self._hosts or (not self._only_loopback and _is_address(name.strip("[]")))

    def _is_known(self, scope: Scope, headers: dict[bytes, str]) -> bool:
        if self._token is None or scope["path"] in _OPEN_PATHS:
            return True
        scheme, _, given = headers.get(b"authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return _same(given.strip(), self._token)
        try:
            cookie = SimpleCookie(headers.get(b"cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return cookie is not None and _same(cookie.value, self.pass_of(self._token))

    @staticmethod
    def pass_of(token: str) -> str:
        """Give what the cookie holds: it follows from the token, which does not follow from it."""
        return sha256(b"loomstream page " + token.encode()).hexdigest()

    def _enters(self, scope: Scope) -> bool:
        """Say whether the address itself brings the right token."""
        if self._token is None or scope["path"] != "/" or scope["method"] != "GET":
            return False
        query = parse_qs(bytes(scope.get("query_string", b"")).decode("latin-1"))
        if any(_same(given, self._token) for given in query.get("token", [])):
            return True
        once = self._once
        if once and any(_same(given, once) for given in query.get("once", [])):
            self._once = ""
            return True
        return False

    def entrance(self) -> str:
        """Give a query that lets in once: others on a machine can see the address that a browser is started with."""
        if self._token is None:
            return ""
        self._once = secrets.token_urlsafe(32)
        return f"?once={self._once}"

    def is_token(self, given: str) -> bool:
        """Say whether this is the token."""
        return self._token is not None and _same(given, self._token)

    # --- answers ---------------------------------------------------------------------------------

    def cookie(self) -> tuple[bytes, bytes]:
        """Give the header that lets a browser in from now on."""
        value = f"{self._cookie}={self.pass_of(self._token or '')}; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000"
        return b"set-cookie", value.encode()

    async def _let_in(self, send: Send) -> None:
        """Set the cookie, and take the token out of the address bar."""
        await _answer(send, 303, "", (b"location", b"/"), self.cookie())

    async def _ask_for_token(self, scope: Scope, send: Send) -> None:
        if scope["path"] == "/" and scope["method"] == "GET":
            await _answer(send, 303, "", (b"location", b"/login"))
        else:
            await _answer(send, 401, "The token is missing or wrong: open the address that `looms ui` printed.")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_body_bytes:
                raise _TooLarge
            return message

        async def guarded(message: Message) -> None:
            if read > self._max_body_bytes:
                return  # what the application says of it is replaced
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        try:
            await self._app(scope, limited, guarded)  # pyright: ignore[reportGeneralTypeIssues]
        except _TooLarge:
            await _answer(send, *self._refusal_of_size())

    def _too_large(self, headers: dict[bytes, str]) -> tuple[int, str] | None:
        length = headers.get(b"content-length", "0")
        if length.isascii() and length.isdigit() and int(length[:18]) <= self._max_body_bytes:
            return None
        return self._refusal_of_size()

    def _refusal_of_size(self) -> tuple[int, str]:
        return 413, f"A request may hold {self._max_body_bytes:,} bytes."


def _headers(scope: Scope) -> dict[bytes, str]:
    """Give the headers by name; one that comes twice is joined, so that neither of the two is overlooked."""
    found: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        text = bytes(value).decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


async def _answer(send: Send, status: int, words: str, *headers: tuple[bytes, bytes]) -> None:
    known = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store"), *_HEADERS, *headers]
    await send({"type": "http.response.start", "status": status, "headers": known})
    body = f"{words or HTTPStatus(status).phrase}\n".encode()
    await send({"type": "http.response.body", "body": body})
