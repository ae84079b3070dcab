"""Posting one webhook: signed, bounded, and not to where an outsider could point us.

Standard Webhooks headers (github.com/standard-webhooks, version 1): `webhook-id`,
`webhook-timestamp` in seconds, and for receivers with a secret

    webhook-signature = "v1," || base64(HMAC-SHA256(secret, id || "." || timestamp || "." || body))

The name is resolved once and the connection goes to that very address, so that a name cannot point
elsewhere between check and use. Addresses that are not public are refused unless the settings allow
them; redirects are not followed; what the receiver says is read up to `ANSWER_MAX_BYTES` and not
kept.
"""

import base64
import contextlib
import hmac
import http.client
import ipaddress
import socket
import ssl
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

from hookprobe import __version__
from hookprobe.errors import UnavailableError
from hookprobe.runtime.webhook_outbox import Outcome
from hookprobe.runtime.webhook_settings import Hook
from hookprobe.wire.instant import SECOND, Instant

TIMEOUT_S = 10.0  # for each step
WHOLE_S = 30.0  # for all of them: a receiver that dribbles does not hold a thread
ANSWER_MAX_BYTES = 64 << 10
_DIGITS_MAX = 6


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is posted: the same id and body in every attempt."""

    id: str
    body: bytes


def headers_of(hook: Hook, parcel: Parcel, now: Instant) -> dict[str, str]:
    """Return the headers of one attempt."""
    seconds = str(now // SECOND)
    headers = {
        "content-type": "application/json",
        "user-agent": f"hookprobe/{__version__}",
        "webhook-id": parcel.id,
        "webhook-timestamp": seconds,
    }
    if hook.bearer:
        headers["authorization"] = f"Bearer {hook.bearer}"
    if hook.secret:
        headers["webhook-signature"] = sign(hook.secret, parcel, seconds)
    return headers


def sign(secret: bytes, parcel: Parcel, seconds: str) -> str:
    """Return the value of `webhook-signature`."""
    message = f"{parcel.id}.{seconds}.".encode() + parcel.body
    return "v1," + base64.b64encode(hmac.digest(secret, message, "sha256")).decode()


def post(hook: Hook, parcel: Parcel, now: Instant) -> Outcome:
    """Post once and wait for the answer; blocks for a few timeouts at most."""
    parts = urlsplit(hook.url)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        address = resolve(host, port, allow_private=hook.allow_private)
        connection = _Pinned(host, port, address, secure=secure)
        watch = threading.Timer(WHOLE_S, connection.cut)
        watch.daemon = True
        watch.start()
        try:
            connection.request("POST", path, parcel.body, headers_of(hook, parcel, now))
            response = connection.getresponse()
            response.read(ANSWER_MAX_BYTES)
            return Outcome(response.status, "", _retry_after(response.getheader("retry-after")))
        finally:
            watch.cancel()
            connection.close()
    except UnavailableError as error:
        return Outcome(0, error.message)
    except (OSError, http.client.HTTPException, ValueError) as error:
        # The kind of failure is told, not its text: that could quote the address or a header.
        return Outcome(0, type(error).__name__)


def resolve(host: str, port: int, *, allow_private: bool) -> str:
    """Return an address to connect to.

    Raises:
        UnavailableError: No such name, or an address that is not public.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UnavailableError(f"{host}: no such name") from error
    addresses = [str(item[4][0]) for item in found]
    if not addresses:
        raise UnavailableError(f"{host}: no address")
    # One private address among public ones is how a name tries its luck: all must be public.
    if not allow_private and not all(is_public(item) for item in addresses):
        raise UnavailableError(
            f"{host}: not a public address", hint="allow_private: true, if that is meant"
        )
    return addresses[0]


def is_public(text: str) -> bool:
    """Whether an address is one of the public internet."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address.teredo is not None:
            inner = address.teredo[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return address.is_global and not address.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class _Pinned(http.client.HTTPConnection):
    """A connection to one address, with the certificate of one name."""

    def __init__(self, host: str, port: int, address: str, *, secure: bool) -> None:
        super().__init__(host, port, timeout=TIMEOUT_S)
        self._address = address
        self._tls = ssl.create_default_context() if secure else None

    def cut(self) -> None:
        """End whatever the connection is waiting for."""
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), TIMEOUT_S)
        self.sock = plain
        if self._tls is not None:
            try:
                self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
            except OSError:
                plain.close()
                raise


def _retry_after(text: str | None) -> int:
    """Return microseconds; the form with a date is not honoured."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > _DIGITS_MAX:
        return 0
    return int(text) * SECOND
