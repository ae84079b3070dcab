"""What an attacker may try against the handshake: who is who, and what was said.

The numbers are those of the attack list.
"""

import hashlib
from dataclasses import replace

import pytest
from tests.unit.htp.htp_moves import (
    CLASSICAL,
    drop_reasons,
    feed,
    flipped,
    kind_of,
    rewritten,
    sent,
    unconnected,
    until_attest,
)
from tests.unit.htp.htp_pair import Host, World, pair

from hookprobe.crypto.agreement import AgreementKey
from hookprobe.htp.admission import CookieJar
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import SUITE_CLASSICAL, SUITE_HYBRID, HtpConfig
from hookprobe.htp.effects import (
    Address,
    AttestRefused,
    ConnectRejected,
    Dropped,
    DropReason,
    RejectCode,
    SessionUp,
)
from hookprobe.htp.exchange import (
    ACCEPT_BYTES,
    AnswererExchange,
    AttestPrefix,
    DiallerExchange,
    split_message,
)
from hookprobe.htp.messages import (
    AttestBody,
    decode_attest_body,
    decode_challenge,
    mac1_key,
)
from hookprobe.htp.packet import PacketType, decode_header
from hookprobe.htp.seams import PinnedPeer
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MINUTE, SECOND, Instant


def test_01_what_passes_on_the_wire_tells_nobody_who_or_what() -> None:
    world, edge, validator = pair()
    secret = b"TER of a quiet night"
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, secret, world.now))
    world.run(SECOND)
    assert validator.messages() == [secret]
    everything = b"".join(data for _, _, data in world.wire)
    hidden = [
        secret,
        edge.name.encode(),
        edge.weights.fingerprint,
        edge.identity.signer.public_key,
        edge.weights.respond(bytes(64))[0],
    ]
    assert [one for one in hidden if one in everything] == []


def test_02_a_validator_without_the_pinned_key_gets_no_session() -> None:
    world, edge, validator = unconnected()
    wrong = PinnedPeer(validator.name, validator.address, AgreementKey(b"z" * 32).public_key)
    world.execute(edge, edge.endpoint.connect(wrong, world.now))
    world.run(MINUTE)
    assert edge.of(SessionUp) == []
    assert set(validator.drops()) == {DropReason.MAC1}

    # One who knows the public key, and therefore answers HELLO, cannot open the ATTEST.
    world, edge, validator = unconnected()
    fake = world.add("fake")
    fake.identity = replace(fake.identity, node=validator.name)
    world.execute(edge, edge.endpoint.connect(validator.pin(), world.now))
    responder = fake.endpoint._responder
    responder._mac1_key = mac1_key(validator.identity.static_key.public_key)
    responder._key_id = hashlib.sha256(validator.identity.static_key.public_key).digest()[:8]

    def divert(there: World, source: Address, target: Address, data: bytes) -> bytes | None:
        if target == validator.address:
            there.execute(fake, fake.endpoint.receive_datagram(data, source, there.now))
            return None
        if source == fake.address:
            there.inject(validator.address, target, data)
            return None
        return data

    world.intercept = divert
    world.execute(edge, edge.endpoint.handle_timeout(Instant(world.now + 2 * SECOND)))
    world.run(MINUTE)
    assert edge.of(SessionUp) == []
    assert DropReason.HANDSHAKE in fake.drops()


def test_03_a_challenge_relay_ends_at_the_cookie_and_at_the_signature() -> None:
    """The edge talks to a rogue validator, which wants a session with the true one in its name."""
    world, edge, validator = unconnected(CLASSICAL)
    rogue = world.add("rogue")
    # The rogue dials the validator and gets a cookie of its own.
    (hello,) = sent(rogue.endpoint.connect(validator.pin(), world.now))
    (challenge,) = sent(validator.endpoint.receive_datagram(hello, rogue.address, world.now))
    true_cookie = decode_challenge(decode_header(challenge), challenge)
    # The edge dials the rogue, which hands on the validator's cookie.
    (edge_hello,) = sent(edge.endpoint.connect(rogue.pin(), world.now))
    (mine,) = sent(rogue.endpoint.receive_datagram(edge_hello, edge.address, world.now))
    token = decode_header(mine).flow_token
    relayed = true_cookie._replace(edge_token=token, suite=SUITE_CLASSICAL)
    (attest,) = sent(edge.endpoint.receive_datagram(relayed.encode(), rogue.address, world.now))
    # Verbatim: the cookie belongs to the rogue's HELLO, not to the edge's.
    verbatim = validator.endpoint.receive_datagram(attest, rogue.address, world.now)
    assert drop_reasons(verbatim) == [DropReason.COOKIE]
    # Lifted: the rogue opens the ATTEST, which was made for it, and moves the signature over.
    lifted = decode_attest_body(
        AnswererExchange(attest, SUITE_CLASSICAL, rogue.identity.static_key).body
    )
    prefix = AttestPrefix(
        true_cookie.cookie,
        true_cookie.generation,
        true_cookie.suite,
        hashlib.sha256(hello).digest(),
        decode_header(challenge).flow_token,
    )
    kem_key = rogue.seams.kem.generate(b"k" * 64)
    exchange = DiallerExchange(
        prefix, validator.identity.static_key.public_key, AgreementKey(b"e" * 32), kem_key
    )
    forged = split_message(exchange.write(lifted), 84)
    effects = feed(validator, forged, rogue.address, world.now)
    assert AttestRefused(edge.name, RejectCode.UNKNOWN) in effects
    assert validator.endpoint.peers == ()


def test_04_sessions_of_two_edges_and_two_validators_cannot_be_swapped() -> None:
    world = World()
    edges = [world.add("edge-1"), world.add("edge-2")]
    validators = [world.add("validator-1"), world.add("validator-2")]
    swapped = {
        validators[0].address: validators[1].address,
        validators[1].address: validators[0].address,
    }

    def swap(there: World, source: Address, target: Address, data: bytes) -> bytes | None:
        shown = swapped.get(source, source)
        there.inject(shown, swapped.get(target, target), data)
        return None

    world.intercept = swap
    for edge, validator in zip(edges, validators, strict=True):
        world.connect(edge, validator)
    world.run(MINUTE)
    assert [host.endpoint.peers for host in (*edges, *validators)] == [()] * 4
    world.intercept = None
    world.run(2 * MINUTE)
    assert edges[0].endpoint.peers == ("validator-1",)
    assert validators[1].endpoint.peers == ("edge-2",)


@pytest.mark.parametrize("suite", [SUITE_CLASSICAL, SUITE_HYBRID])
def test_05_no_flipped_bit_of_hello_or_attest_is_ever_accepted(suite: int) -> None:
    world, edge, validator, hello, attest = until_attest(HtpConfig(suites_offered=suite))
    step = 1 if suite == SUITE_CLASSICAL else 37
    for bit in range(0, len(hello) * 8, step):
        effects = validator.endpoint.receive_datagram(flipped(hello, bit), edge.address, world.now)
        # One flip turns the type into a session's; a shorter reset is the answer to those.
        assert [data for data in sent(effects) if kind_of(data) is not PacketType.CLOSE] == [], bit
    limits = HtpConfig(attest_rate_per_s=10**6, attest_burst=10**6)
    for bit in range(0, len(attest[0]) * 8, 31):
        fresh = World()
        other = fresh.add("validator-1", limits)
        fresh.book.entries[edge.name] = edge.enlist()
        other.endpoint._responder._cookies = validator.endpoint._responder._cookies
        effects = feed(other, [flipped(attest[0], bit), *attest[1:]], edge.address, world.now)
        assert sent(effects) == [], bit
        assert other.endpoint._table.pending == {}


@pytest.mark.parametrize("suite", [SUITE_CLASSICAL, SUITE_HYBRID])
def test_05_no_flipped_bit_of_challenge_or_accept_is_ever_accepted(suite: int) -> None:
    config = HtpConfig(suites_offered=suite)
    world, edge, validator, hello, attest = until_attest(config)
    accept = sent(feed(validator, attest, edge.address, world.now))
    for bit in range(0, len(accept[0]) * 8, 7):
        effects = edge.endpoint.receive_datagram(
            flipped(accept[0], bit), validator.address, world.now
        )
        assert sent(effects) == [], bit
        assert edge.endpoint.peers == ()
    # All that noise did not spoil the true answer; candidates are kept within their bound.
    if suite == SUITE_CLASSICAL:
        feed(edge, accept, validator.address, world.now)
        assert edge.endpoint.peers == (validator.name,)

    for bit in range(0, 120 * 8, 5):
        world, edge, validator = unconnected(config)
        (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
        (challenge,) = sent(validator.endpoint.receive_datagram(hello, edge.address, world.now))
        forged = flipped(challenge, bit)
        out = sent(edge.endpoint.receive_datagram(forged, validator.address, world.now))
        # A changed cookie earns an ATTEST, but one that the validator does not take.
        assert sent(feed(validator, out, edge.address, world.now)) == []
        # And the true CHALLENGE is still answered.
        out = sent(edge.endpoint.receive_datagram(challenge, validator.address, world.now))
        assert sent(feed(validator, out, edge.address, world.now)), bit


@pytest.mark.parametrize("change", [-1, 1, -16, 16, -100])
def test_06_truncated_and_extended_messages_are_dropped(change: int) -> None:
    def resize(data: bytes) -> bytes:
        return data[:change] if change < 0 else data + bytes(change)

    world, edge, validator, hello, attest = until_attest(CLASSICAL)
    accept = sent(feed(validator, attest, edge.address, world.now))
    for host, source, data in (
        (validator, edge.address, hello),
        (validator, edge.address, attest[0]),
        (edge, validator.address, accept[0]),
    ):
        effects = host.endpoint.receive_datagram(resize(data), source, world.now)
        assert sent(effects) == []
        assert drop_reasons(effects) != []
    world, edge, validator = unconnected()
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    (challenge,) = sent(validator.endpoint.receive_datagram(hello, edge.address, world.now))
    effects = edge.endpoint.receive_datagram(resize(challenge), validator.address, world.now)
    assert drop_reasons(effects) == [DropReason.MALFORMED]


def test_07_a_suite_downgrade_in_flight_fails_at_the_cookie() -> None:
    config = HtpConfig(suites_offered=SUITE_CLASSICAL | SUITE_HYBRID)
    world, edge, validator = unconnected(config)
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    weaker = rewritten(hello, validator, 140, b"\x00\x01")
    (challenge,) = sent(validator.endpoint.receive_datagram(weaker, edge.address, world.now))
    attest = sent(edge.endpoint.receive_datagram(challenge, validator.address, world.now))
    assert len(attest) == 1
    effects = feed(validator, attest, edge.address, world.now)
    assert drop_reasons(effects) == [DropReason.COOKIE]


def test_07_a_suite_that_was_not_offered_is_not_taken() -> None:
    world, edge, validator = unconnected()
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    (challenge,) = sent(validator.endpoint.receive_datagram(hello, edge.address, world.now))
    forged = decode_challenge(decode_header(challenge), challenge)._replace(suite=SUITE_CLASSICAL)
    effects = edge.endpoint.receive_datagram(forged.encode(), validator.address, world.now)
    assert drop_reasons(effects) == [DropReason.MALFORMED]


def test_07_version_one_is_not_spoken() -> None:
    world, edge, validator = unconnected()
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    old = rewritten(hello, validator, 0, b"\x00\x01")
    effects = validator.endpoint.receive_datagram(old, edge.address, world.now)
    assert effects == [Dropped(DropReason.MALFORMED)]
    only_old = rewritten(hello, validator, 142, b"\x00\x01\x00\x01")
    (reject,) = sent(validator.endpoint.receive_datagram(only_old, edge.address, world.now))
    assert kind_of(reject) is PacketType.REJECT
    assert len(reject) <= 128


def test_08_a_hello_without_the_right_mac1_meets_silence() -> None:
    world, edge, validator = unconnected()
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    for wrong in (hello[:1184] + bytes(16), hello[:1184] + b"\xff" * 16):
        effects = validator.endpoint.receive_datagram(wrong, edge.address, world.now)
        assert effects == [Dropped(DropReason.MAC1)]
    quiet = replace(validator.config, answering=False)
    silent = Host("validator-1", validator.address, quiet, world.book, world.now)
    effects = silent.endpoint.receive_datagram(hello, edge.address, world.now)
    assert effects == [Dropped(DropReason.NOT_ANSWERING)]


@pytest.mark.parametrize(
    ("source", "later_us", "taken"),
    [
        (Address("10.0.0.1", 4719), 0, True),
        (Address("10.0.0.1", 4719), 59 * SECOND, True),
        (Address("10.0.0.9", 4719), 0, False),
        (Address("10.0.0.1", 4720), 0, False),
        (Address("::ffff:10.0.0.1", 4719), 0, True),
        (Address("10.0.0.1", 4719), 121 * SECOND, False),
    ],
)
def test_09_a_cookie_holds_for_one_address_and_two_generations(
    source: Address, later_us: int, taken: bool
) -> None:
    world, _, validator, _, attest = until_attest(CLASSICAL)
    effects = validator.endpoint.receive_datagram(attest[0], source, Instant(world.now + later_us))
    assert bool(sent(effects)) is taken
    assert (drop_reasons(effects) == [DropReason.COOKIE]) is not taken


def test_09_a_cookie_holds_for_one_suite() -> None:
    jar = CookieJar(b"r" * 32, MINUTE)
    now = Instant(1_800_000_000 * SECOND)
    cookie, generation = jar.make(b"source", SUITE_CLASSICAL, b"hash", now)
    covered = (b"source", SUITE_CLASSICAL, b"hash")
    assert jar.expiry(cookie, generation, covered, now) == now + 2 * MINUTE
    swapped = (b"source", SUITE_HYBRID, b"hash")
    assert jar.expiry(cookie, generation, swapped, now) is None
    assert jar.expiry(cookie, generation + 1, covered, now) is None
    assert jar.expiry(cookie, generation, (b"source", SUITE_CLASSICAL, b"HASH"), now) is None


@pytest.mark.parametrize("suite", [SUITE_CLASSICAL, SUITE_HYBRID])
def test_10_a_replayed_attest_gets_the_same_answer_and_no_second_session(suite: int) -> None:
    world, edge, validator, _, attest = until_attest(HtpConfig(suites_offered=suite))
    first = sent(feed(validator, attest, edge.address, world.now))
    again = sent(feed(validator, attest, edge.address, world.now))
    assert again == first
    assert len(validator.endpoint._table.pending) == 1
    elsewhere = feed(validator, attest, Address("10.9.9.9", 4719), world.now)
    assert sent(elsewhere) == []
    expired = feed(validator, attest, edge.address, Instant(world.now + 3 * MINUTE))
    assert set(drop_reasons(expired)) == {DropReason.COOKIE}


LOW_ORDER = [bytes(32), b"\x01" + bytes(31), bytes.fromhex("ec" + "ff" * 30 + "7f")]


@pytest.mark.parametrize("point", LOW_ORDER)
def test_11_low_order_points_are_dropped_by_both_ends(point: bytes) -> None:
    world, edge, validator, _, attest = until_attest(CLASSICAL)
    accept = sent(feed(validator, attest, edge.address, world.now))
    forged = attest[0][:92] + point + attest[0][124:]
    fresh = Host("validator-1", validator.address, validator.config, world.book, world.now)
    fresh.endpoint._responder._cookies = validator.endpoint._responder._cookies
    effects = fresh.endpoint.receive_datagram(forged, edge.address, world.now)
    assert effects == [Dropped(DropReason.HANDSHAKE)]
    forged = accept[0][:32] + point + accept[0][64:]
    effects = edge.endpoint.receive_datagram(forged, validator.address, world.now)
    assert effects == [Dropped(DropReason.HANDSHAKE)]


def test_11_a_malformed_kem_key_is_dropped() -> None:
    world, edge, validator = unconnected()

    class BadKem:
        def generate(self, seed: bytes) -> "BadKem":
            del seed
            return self

        public_key = b"\xff" * 1184

        def decapsulate(self, ciphertext: bytes) -> bytes:
            return ciphertext[:32]

        def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
            return public_key[:32], bytes(1088)

    edge.seams = replace(edge.seams, kem=BadKem())
    edge.boot(world.now)
    world.connect(edge, validator)
    world.run(5 * SECOND)
    assert validator.endpoint._table.pending == {}
    assert DropReason.HANDSHAKE in validator.drops()


@pytest.mark.parametrize("suite", [SUITE_CLASSICAL, SUITE_HYBRID])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("stranger", RejectCode.UNKNOWN),
        ("suspended", RejectCode.NOT_ACTIVE),
        ("impostor", RejectCode.UNKNOWN),
        ("drifted", RejectCode.FINGERPRINT),
        ("replayer", RejectCode.RESONANCE),
    ],
)
def test_12_a_node_that_may_not_enter_gets_a_sealed_reject_of_equal_size(
    name: str, code: RejectCode, suite: int
) -> None:
    world = World()
    node = world.add(name, HtpConfig(suites_offered=suite), known=False)
    validator = world.add("validator-1")
    good = node.enlist()
    world.book.entries.update(
        {
            NodeId("suspended"): node.enlist(active=False),
            NodeId("impostor"): good._replace(public_key=validator.identity.signer.public_key),
            NodeId("drifted"): good._replace(w_fingerprints=(b"d" * 64,)),
            NodeId("replayer"): good,
        }
    )
    if name == "replayer":
        validator.replay.distrusted.append(node.name)
    world.connect(node, validator)
    world.run(SECOND)
    assert validator.of(AttestRefused) == [AttestRefused(node.name, code)]
    (rejected,) = node.of(ConnectRejected)
    assert isinstance(rejected, ConnectRejected)
    assert rejected.code is code
    # What others say of weights may change any moment; the registry does not.
    weights = code in {RejectCode.FINGERPRINT, RejectCode.RESONANCE}
    assert rejected.retry_at >= world.now + (3 * SECOND if weights else 4 * MINUTE)
    parts = [data for _, _, data in world.wire if kind_of(data) is PacketType.REJECT]
    assert sum(map(len, parts)) - 32 * (len(parts) - 1) == ACCEPT_BYTES[suite]
    assert not validator.endpoint.peers
    # It tries again after the wait, for ever.
    world.book.entries[node.name] = good
    validator.replay.distrusted.clear()
    world.run(6 * MINUTE)
    assert validator.endpoint.peers == (node.name,)


def test_an_attest_body_needs_every_byte() -> None:
    body = AttestBody(bytes(64), NodeId("edge-1"), bytes(64), bytes(64), 0).encode()
    assert len(body) == 236


def test_08_a_hello_for_another_key_or_no_version_at_all_is_dropped() -> None:
    world, edge, validator = unconnected()
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    for start, value in ((132, b"otherkey"), (142, b"\x00\x03\x00\x02")):
        changed = rewritten(hello, validator, start, value)
        effects = validator.endpoint.receive_datagram(changed, edge.address, world.now)
        assert effects == [Dropped(DropReason.MALFORMED)]
