"""API keys: named, hashed at load, compared in constant time, read again when their file changes.

Every route is closed unless it is on ``OPEN_ROUTES``; a new route needs no thought to be safe.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from rerankd.errors import ConfigurationError, Forbidden, Unauthorized
from rerankd.files import read_text
from rerankd.http import playground_routes
from rerankd.http.forwarded import TrustedProxies, caller_address
from rerankd.http.hosts import AllowedHosts
from rerankd.http.request_state import SCOPE_KEY, RequestState
from rerankd.settings import Settings

OPEN_ROUTES = frozenset(
    (method, path)
    for method in ("GET", "HEAD")
    for path in (
        *("/", "/health", "/livez", "/readyz", "/ping", "/v1/cluster/auth", "/xinference/v1/cluster/auth"),
        *playground_routes.FILES,
    )
)
"""Method and path that need no key: what a load balancer has to see, that the server runs, whether it wants keys
(Xinference's clients ask before they send theirs), and the static page."""

ADMIN_PREFIX = "/admin"

_SECONDS_BETWEEN_LOOKS = 1.0
_UNSETTLED_SECONDS = 2.0
"""A file that changed within them is read again at the next look: its clock may be too coarse to show a change."""
_MAX_KEY_FILE_BYTES = 1024 * 1024
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """A named key; of its secret only the SHA-256 digest is kept."""

    name: str
    digest: bytes
    is_admin: bool = False


def parse_keys(rows: Iterable[str], *, is_admin: bool = False) -> tuple[Key, ...]:
    """Keys from ``name:secret`` rows; empty rows and ``#`` comments are skipped.

    Raises:
        ConfigurationError: a row has no name or no secret (the row itself is not repeated: it is a secret).
    """
    keys = []
    for number, row in enumerate(rows, 1):
        if not row.strip() or row.lstrip().startswith("#"):
            continue
        name, colon, secret = (part.strip() for part in row.partition(":"))
        if not (name and colon and secret):
            raise ConfigurationError(f"API key number {number} has to be of the form name:secret")
        keys.append(Key(name, _digest(secret.encode()), is_admin))
    return tuple(keys)


class KeyRing:
    """The keys in force.

    Args:
        settings: ``api_keys``, ``api_keys_file`` and ``admin_keys`` of it.

    Raises:
        ConfigurationError: a row or the file cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self._fixed = parse_keys(settings.api_keys.split(",")) + parse_keys(
            settings.admin_keys.split(","), is_admin=True
        )
        self._file = Path(settings.api_keys_file) if settings.api_keys_file else None
        self._from_file: tuple[Key, ...] = ()
        self._stamp: tuple[int, ...] | None = None
        self._look_after = 0.0
        # Decided once: a key file that is emptied later must close the server, not open it.
        self.is_required = bool(settings.api_keys.strip() or self._file)
        self.has_admin = any(key.is_admin for key in self._fixed)
        if self._file is not None:
            try:
                self._read_file(self._file)
            except OSError as error:
                raise ConfigurationError(f"api_keys_file cannot be read: {error.strerror}") from None

    def find(self, secret: bytes) -> Key | None:
        """The key with that secret. Always compares with all of them, so that time tells nothing."""
        self._look_at_file()
        digest = _digest(secret)
        found = None
        for key in self._fixed + self._from_file:
            if secrets.compare_digest(key.digest, digest):
                found = key
        return found

    def _look_at_file(self) -> None:
        now = time.monotonic()
        if self._file is None or now < self._look_after:
            return
        self._look_after = now + _SECONDS_BETWEEN_LOOKS
        try:
            if _stamp(self._file) != self._stamp:
                before = self._from_file
                self._read_file(self._file)
                if self._from_file != before:
                    _log.info("api keys read again", keys=len(self._from_file))
        except (OSError, ConfigurationError) as error:
            # Tried again at every look, until it can be read.
            _log.error("api keys file is unreadable, the keys read last stay in force", error=type(error).__name__)

    def _read_file(self, file: Path) -> None:
        """Read it, and remember its stamp only once it is read, and only if it had not changed just now."""
        before = _stamp(file)
        self._from_file = parse_keys(read_text(file, _MAX_KEY_FILE_BYTES).splitlines())
        is_settled = time.time() - max(before[0], before[1]) / 1e9 >= _UNSETTLED_SECONDS
        self._stamp = before if is_settled and _stamp(file) == before else None


class Authentication:
    """Middleware that lets a call pass when its ``Host`` and its key allow the route, and says who calls.

    Args:
        hosts: the names under which the server is reached.
        trusted_proxies: whose ``X-Forwarded-For`` is believed; anybody else may write there what he likes.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts, keys: KeyRing, trusted_proxies: TrustedProxies) -> None:
        self._app = app
        self._hosts = hosts
        self._keys = keys
        self._trusted = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: RequestState = scope[SCOPE_KEY]
        self._hosts.check(state.headers.get(b"host"))
        state.tenant = self._tenant(scope)
        await self._app(scope, receive, send)

    def _tenant(self, scope: Scope) -> str:
        """Name of the key, else the client's address; raises when the key does not open the route."""
        is_admin_route = scope["path"] == ADMIN_PREFIX or scope["path"].startswith(f"{ADMIN_PREFIX}/")
        needs_key = is_admin_route or (self._keys.is_required and (scope["method"], scope["path"]) not in OPEN_ROUTES)
        key = None
        for secret in _secrets_of(scope):
            key = key or self._keys.find(secret)
        if key is None and is_admin_route and not self._keys.has_admin:
            raise Unauthorized("the administration is closed: this server has no admin key", setting="admin_keys")
        if key is None and needs_key:
            raise Unauthorized("an API key is needed: send it as Authorization: Bearer KEY")
        if key is not None and is_admin_route and not key.is_admin:
            raise Forbidden("this route needs an admin key (admin_keys)")
        return key.name if key else caller_address(scope, self._trusted)


def check_address(settings: Settings) -> None:
    """Refuse to listen beyond this machine without a key.

    Raises:
        ConfigurationError: a public address, no key, and not ``insecure``.
    """
    has_keys = bool(settings.api_keys.strip() or settings.api_keys_file)
    if has_keys or settings.insecure or _is_loopback(settings.host):
        return
    raise ConfigurationError(
        f"the address {settings.host} is reachable from outside and there is no API key: "
        "set api_keys (name:secret), or listen on 127.0.0.1, or say --insecure"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _secrets_of(scope: Scope) -> list[bytes]:
    """Everything in the headers that may be a key, as the clients in the wild send it."""
    found = []
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, rest = value.partition(b" ")
            if scheme.lower() == b"bearer" and rest.strip():
                found.append(rest.strip())
        elif name in (b"api-key", b"x-api-key") and value.strip():
            found.append(value.strip())
    return found[:4]


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _stamp(file: Path) -> tuple[int, ...]:
    """Times of the last change of content and of attributes in nanoseconds, size, inode."""
    status = file.stat()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
