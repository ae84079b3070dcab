"""The answering side of handshakes (HTP spec 3.2), cheapest check first.

    HELLO    size, mac1, form -> CHALLENGE; no state, no Diffie-Hellman
    ATTEST   form -> cookie -> the same ATTEST again? the same answer again -> halves together
             -> rate of the prefix -> Diffie-Hellman and AEAD -> registry and signature -> ACTIVE?
             -> fingerprint and resonance -> trust -> ACCEPT

A dialler without a valid signature is told UNKNOWN whether or not the name it gave exists, so that
names cannot be probed. Refusals are sealed and as long as acceptances.
"""

import hmac
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import NamedTuple

from hookprobe.crypto.agreement import X25519_BYTES, AgreementKey
from hookprobe.crypto.sealing import CipherCache
from hookprobe.errors import MalformedError, RemoteError
from hookprobe.htp.admission import (
    AttestParts,
    CookieJar,
    RateLimiter,
    UsedCookies,
    pack_host,
    prefix_of,
)
from hookprobe.htp.config import DATAGRAM_BYTES, SUITE_CLASSICAL, SUITE_HYBRID
from hookprobe.htp.effects import (
    Address,
    AttestRefused,
    Dropped,
    DropReason,
    Effect,
    RejectCode,
    Transmit,
)
from hookprobe.htp.exchange import (
    ACCEPT_REPEATED_BYTES,
    ATTEST_BYTES,
    ATTEST_REPEATED_BYTES,
    AnswererExchange,
    join_message,
    read_repeated,
    signed_statement,
    split_message,
)
from hookprobe.htp.ghost import make_session
from hookprobe.htp.handshake import CAPABILITY_CONTINUE
from hookprobe.htp.keys import derive_session_keys, key_id, reset_token
from hookprobe.htp.link import Link
from hookprobe.htp.messages import (
    AcceptBody,
    AttestBody,
    Challenge,
    decode_attest_body,
    decode_hello,
    encode_bare_reject,
    encode_rejection,
    hello_mac,
    mac1_key,
    split_hello,
)
from hookprobe.htp.packet import (
    FLAG_RESPONSE,
    TOKEN_BYTES,
    VERSION,
    ZERO_RESONANCE,
    Header,
    PacketType,
    check_handshake_header,
    encode_body,
    encode_header,
)
from hookprobe.htp.seams import LinkTools, LocalIdentity, RegisteredPeer
from hookprobe.htp.session import Session, SessionNames
from hookprobe.htp.trust import Level, level_of
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant

REJECT_RETRY_S = 300
# A fingerprint may become known any moment: the peer's verifier certifies it, and we are told.
RETRY_S = {RejectCode.FINGERPRINT: 5, RejectCode.RESONANCE: 5, RejectCode.TRUST: 5}
SECRET_SEED_BYTES = 32


class Pending(NamedTuple):
    """An accepted handshake whose session has not opened a packet yet.

    Attributes:
        session: Unconfirmed.
        address: Proven by the cookie.
        fingerprint: What heartbeats are checked against, None if they are not.
        until: When the session is dropped unconfirmed: the end of its cookie.
        continues: Stream id of the link whose channels the new keys carry on.
    """

    session: Session
    address: Address
    fingerprint: bytes | None
    until: Instant
    continues: int | None


class _Case(NamedTuple):
    """An ATTEST on its way through the checks."""

    exchange: AnswererExchange
    body: AttestBody
    cookie: bytes
    expires: Instant


class Responder:
    """Answers HELLO and ATTEST.

    Args:
        identity: Who we are.
        tools: Configuration, collaborators, randomness.
        ciphers: Of the endpoint.
        links: The endpoint's live links, to continue or to give precedence to.
        has_room: Tells whether one more session may wait for its first packet.
        now: The time.
    """

    __slots__ = (
        "_ciphers",
        "_cookies",
        "_has_room",
        "_identity",
        "_key_id",
        "_limiter",
        "_links",
        "_mac1_key",
        "_parts",
        "_tools",
        "_used",
    )

    def __init__(
        self,
        identity: LocalIdentity,
        tools: LinkTools,
        ciphers: CipherCache,
        links: Mapping[NodeId, Link],
        has_room: Callable[[Instant], bool],
        now: Instant,
    ) -> None:
        config = tools.config
        self._has_room = has_room
        self._identity = identity
        self._tools = tools
        self._ciphers = ciphers
        self._links = links
        self._mac1_key = mac1_key(identity.static_key.public_key)
        self._key_id = key_id(identity.static_key.public_key)
        root = identity.worker.cookie_root or tools.entropy.draw(32, now)
        self._cookies = CookieJar(root, config.cookie_period_us)
        self._limiter = RateLimiter(
            config.attest_rate_per_s, config.attest_burst, config.prefixes_max
        )
        self._used = UsedCookies(config.used_cookies_max)
        self._parts = AttestParts(config.partial_attests_max, config.partial_attest_us)

    def receive_hello(
        self, header: Header, data: bytes, address: Address, now: Instant
    ) -> list[Effect]:
        """Answer a HELLO with a CHALLENGE, statelessly.

        Raises:
            MalformedError: Not a HELLO in form, for our key.
        """
        covered, mac1 = split_hello(data)
        if not hmac.compare_digest(mac1, hello_mac(self._mac1_key, covered)):
            return [Dropped(DropReason.MAC1)]
        hello = decode_hello(header, data)
        if hello.key_id != self._key_id or hello.version_min > hello.version_max:
            raise MalformedError("HELLO: another key, or an empty range of versions")
        suite = self._choose(hello.suites)
        if suite is None or not hello.version_min <= VERSION <= hello.version_max:
            reject = encode_bare_reject(hello.edge_token, RejectCode.VERSION, REJECT_RETRY_S)
            return [Transmit(address, reject)]
        source = _source(address)
        cookie, generation = self._cookies.make(source, suite, sha256(data).digest(), now)
        challenge = Challenge(hello.edge_token, cookie, generation, suite)
        return [Transmit(address, challenge.encode())]

    def _choose(self, offered: int) -> int | None:
        common = offered & self._tools.config.suites_accepted
        for suite in (SUITE_HYBRID, SUITE_CLASSICAL):
            if common & suite:
                return suite
        return None

    def receive_attest(
        self, header: Header, data: bytes, address: Address, now: Instant
    ) -> tuple[list[Effect], Pending | None]:
        """Answer an ATTEST with ACCEPT, with the sealed REJECT, or with silence.

        Raises:
            MalformedError: Impossible form.
        """
        check_handshake_header(header, 1)
        cookie, generation, suite, hello_hash = read_repeated(data)
        _check_size(header, data, suite)
        source = _source(address)
        expires = self._cookies.expiry(cookie, generation, (source, suite, hello_hash), now)
        if expires is None:
            return [Dropped(DropReason.COOKIE)], None
        known = self._used.find(cookie)
        if known is not None:
            # Datagram for datagram: a half that was lost comes again when its half is repeated.
            again = known if header.frag_last == 0 else known[header.frag_index :][:1]
            return [Transmit(address, part) for part in again], None
        if not self._has_room(now):
            return [Dropped(DropReason.BUSY)], None
        message = self._assemble(header, data, cookie, now)
        if message is None:
            return [], None
        if not self._limiter.allow(prefix_of(source[:16]), now):
            return [Dropped(DropReason.RATE)], None
        try:
            exchange = AnswererExchange(message, suite, self._identity.static_key)
            body = decode_attest_body(exchange.body)
        except RemoteError:
            return [Dropped(DropReason.HANDSHAKE)], None
        self._tools.seams.note_handshake(message, exchange.state)
        return self._decide(_Case(exchange, body, cookie, expires), address, now)

    def _assemble(self, header: Header, data: bytes, cookie: bytes, now: Instant) -> bytes | None:
        if header.frag_last == 0:
            return data
        parts = self._parts.add(cookie, header.frag_index, data, now)
        return None if parts is None else join_message(parts, ATTEST_REPEATED_BYTES)

    def _decide(
        self, case: _Case, address: Address, now: Instant
    ) -> tuple[list[Effect], Pending | None]:
        registered = self._identify(case)
        code = RejectCode.UNKNOWN if registered is None else self._objection(case, registered, now)
        if code is not None or registered is None:
            refused = AttestRefused(case.body.node, code or RejectCode.UNKNOWN)
            sent = self._reject(case, refused.code, address, now)
            return [refused, *sent], None
        link = self._links.get(case.body.node)
        continues = None
        if link is not None:
            wanted = link.stream_id << 16 | CAPABILITY_CONTINUE
            continues = link.stream_id if case.body.capabilities == wanted else None
        return self._accept(case, registered, continues, address, now)

    def _identify(self, case: _Case) -> RegisteredPeer | None:
        """Return the registry's entry if the signature is that node's."""
        body = case.body
        registered = self._tools.seams.registry.find(body.node)
        if registered is None:
            return None
        statement = signed_statement(
            case.exchange.transcript, case.cookie, body.fingerprint, body.resonance, body.node
        )
        verify = self._tools.seams.signatures.verify
        return registered if verify(registered.public_key, statement, body.signature) else None

    def _objection(
        self, case: _Case, registered: RegisteredPeer, now: Instant
    ) -> RejectCode | None:
        body, config = case.body, self._tools.config
        if not registered.active:
            return RejectCode.NOT_ACTIVE
        expected = registered.w_fingerprints
        if expected is not None:
            if not any(hmac.compare_digest(known, body.fingerprint) for known in expected):
                return RejectCode.FINGERPRINT
            challenge = bytes(32) + case.exchange.transcript
            rdv, posf = body.resonance[:32], body.resonance[32:]
            if not self._tools.seams.check.check(body.node, body.fingerprint, challenge, rdv, posf):
                return RejectCode.RESONANCE
        if level_of(self._tools.seams.trust.trust(body.node, now)) is Level.CLOSED:
            return RejectCode.TRUST
        link = self._links.get(body.node)
        if link is None:
            return RejectCode.BUSY if len(self._links) >= config.peers_max else None
        return (
            RejectCode.CROSSED
            if has_precedence(link, self._identity.node, config.silence_us, now)
            else None
        )

    def _accept(
        self,
        case: _Case,
        registered: RegisteredPeer,
        continues: int | None,
        address: Address,
        now: Instant,
    ) -> tuple[list[Effect], Pending | None]:
        config, entropy = self._tools.config, self._tools.entropy
        drawn = entropy.draw(TOKEN_BYTES + SECRET_SEED_BYTES + X25519_BYTES, now)
        token, seed = self._identity.worker.own(drawn[:TOKEN_BYTES]), drawn[-X25519_BYTES:]
        body = AcceptBody(
            case.body.resonance[:32] + bytes(32),
            drawn[TOKEN_BYTES:-X25519_BYTES],
            token,
            reset_token(self._identity.reset_key, token),
            self._tools.seams.trust.trust(case.body.node, now),
            config.heartbeat_s,
            config.rekey_us // SECOND,
            config.datagram_max_bytes,
            now // MILLISECOND,
        )
        tail = FLAG_RESPONSE << 24 if continues is not None else 0
        header = encode_header(PacketType.ACCEPT, 1, 0, case.exchange.edge_token, 0, tail)
        ephemeral = AgreementKey(seed)
        try:
            state, message = case.exchange.answer(
                header, ephemeral, self._tools.seams.kem, body.encode()
            )
        except RemoteError:
            return [Dropped(DropReason.HANDSHAKE)], None
        self._tools.seams.note_handshake(message, state)
        keys = derive_session_keys(state, body.secret_seed, case.body.fingerprint)
        names = SessionNames(
            case.body.node, False, token, case.exchange.edge_token, b"", case.exchange.suite
        )
        self._tools.note_keys(keys, names.remote_token, token)
        session = make_session(keys, names, self._ciphers, config, now)
        session.resonance = case.body.resonance
        checked = _known(registered.w_fingerprints, case.body.fingerprint)
        pending = Pending(session, address, checked, case.expires, continues)
        return self._send(case, message, address, now), pending

    def _reject(
        self, case: _Case, code: RejectCode, address: Address, now: Instant
    ) -> list[Effect]:
        header = encode_header(PacketType.REJECT, 1, 0, case.exchange.edge_token, 0, 0)
        retry_s = RETRY_S.get(code, REJECT_RETRY_S)
        body = encode_body(ZERO_RESONANCE, encode_rejection(code, retry_s))
        ephemeral = AgreementKey(self._tools.entropy.draw(X25519_BYTES, now))
        try:
            state, message = case.exchange.answer(header, ephemeral, self._tools.seams.kem, body)
        except RemoteError:
            return [Dropped(DropReason.HANDSHAKE)]
        self._tools.seams.note_handshake(message, state)
        return self._send(case, message, address, now)

    def _send(self, case: _Case, message: bytes, address: Address, now: Instant) -> list[Effect]:
        datagrams = tuple(split_message(message, ACCEPT_REPEATED_BYTES))
        self._used.add(case.cookie, datagrams, case.expires, now)
        return [Transmit(address, part) for part in datagrams]


def has_precedence(link: Link, us: NodeId, silence_us: int, now: Instant) -> bool:
    """Whether a live link that we dialled outlasts one that its peer dials.

    Two nodes that dial each other keep the session of the lexically smaller name; one that has
    been silent too long gives way.
    """
    return link.session.names.dialled and us < link.peer and now - link.last_heard < silence_us


def outlasts(link: Link, us: NodeId, silence_us: int, now: Instant) -> bool:
    """Whether a live link that its peer dialled outlasts one that we dial; by the same rule."""
    return not link.session.names.dialled and link.peer < us and now - link.last_heard < silence_us


def _known(expected: tuple[bytes, ...] | None, fingerprint: bytes) -> bytes | None:
    """Return the registry's own copy of a fingerprint that was found in it: one for all peers."""
    return None if expected is None else expected[expected.index(fingerprint)]


def _source(address: Address) -> bytes:
    return pack_host(address) + address.port.to_bytes(2)


def _check_size(header: Header, data: bytes, suite: int) -> None:
    whole = ATTEST_BYTES[suite]
    if whole <= DATAGRAM_BYTES:
        count, size = 1, whole
    else:
        count, size = 2, (whole + ATTEST_REPEATED_BYTES) // 2
    if header.frag_last != count - 1 or len(data) != size:
        raise MalformedError(f"ATTEST: datagram of {len(data)} bytes, want {size}")
