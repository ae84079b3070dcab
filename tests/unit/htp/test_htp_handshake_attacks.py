"""What an attacker may try against the handshake; the numbers are those of the attack list."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from tests.unit.htp.htp_pair import Book, Host, Weather, World, identity_of, pair, seeded_random

from hookprobe.crypto.agreement import AgreementKey
from hookprobe.htp.admission import CookieJar
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import SUITE_CLASSICAL, SUITE_HYBRID, HtpConfig
from hookprobe.htp.effects import (
    Address,
    AttestRefused,
    BareRejectSeen,
    ConnectRejected,
    DownReason,
    Dropped,
    DropReason,
    Effect,
    RejectCode,
    ResonanceMismatch,
    SessionDown,
    SessionRenewed,
    SessionUp,
    Transmit,
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
    encode_bare_reject,
    hello_mac,
    mac1_key,
)
from hookprobe.htp.packet import PacketType, decode_header
from hookprobe.htp.seams import PinnedPeer
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MINUTE, SECOND, Instant

CLASSICAL = HtpConfig(suites_offered=SUITE_CLASSICAL)


def kind_of(data: bytes) -> PacketType:
    return decode_header(data).kind


def sent(effects: list[Effect]) -> list[bytes]:
    return [one.data for one in effects if isinstance(one, Transmit)]


def drop_reasons(effects: list[Effect]) -> list[DropReason]:
    return [one.reason for one in effects if isinstance(one, Dropped)]


def unconnected(config: HtpConfig | None = None) -> tuple[World, Host, Host]:
    world = World()
    return world, world.add("edge-1", config), world.add("validator-1")


def until_attest(config: HtpConfig | None = None) -> tuple[World, Host, Host, bytes, list[bytes]]:
    """Play the handshake by hand up to the ATTEST: (.., HELLO, ATTEST datagrams)."""
    world, edge, validator = unconnected(config)
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    (challenge,) = sent(validator.endpoint.receive_datagram(hello, edge.address, world.now))
    attest = sent(edge.endpoint.receive_datagram(challenge, validator.address, world.now))
    return world, edge, validator, hello, attest


def feed(host: Host, datagrams: list[bytes], source: Address, now: Instant) -> list[Effect]:
    return [
        effect for data in datagrams for effect in host.endpoint.receive_datagram(data, source, now)
    ]


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
    relayed = replace(true_cookie, edge_token=token, suite=SUITE_CLASSICAL)
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


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes((data[bit // 8] ^ 1 << bit % 8,)) + data[bit // 8 + 1 :]


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


def rewritten(hello: bytes, validator: Host, start: int, value: bytes) -> bytes:
    """Change a HELLO in flight and make mac1 right again, as anyone who knows S_V can."""
    covered = hello[:start] + value + hello[start + len(value) : 1184]
    return covered + hello_mac(mac1_key(validator.identity.static_key.public_key), covered)


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
    forged = replace(decode_challenge(decode_header(challenge), challenge), suite=SUITE_CLASSICAL)
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
            NodeId("drifted"): good._replace(w_fingerprint=b"d" * 64),
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
    assert rejected.retry_at >= world.now + 4 * MINUTE
    parts = [data for _, _, data in world.wire if kind_of(data) is PacketType.REJECT]
    assert sum(map(len, parts)) - 32 * (len(parts) - 1) == ACCEPT_BYTES[suite]
    assert not validator.endpoint.peers
    # It tries again after the wait, for ever.
    world.book.entries[node.name] = good
    validator.replay.distrusted.clear()
    world.run(6 * MINUTE)
    assert validator.endpoint.peers == (node.name,)


def test_13_a_storm_of_bare_rejects_does_not_stop_the_edge() -> None:
    world, edge, validator = unconnected()

    def storm(there: World, source: Address, target: Address, data: bytes) -> bytes | None:
        if kind_of(data) is PacketType.HELLO:
            token = data[146:154]
            for _ in range(5):
                reject = encode_bare_reject(token, RejectCode.BUSY, 3600)
                there.inject(target, source, reject)
        return data

    world.intercept = storm
    world.connect(edge, validator)
    world.run(SECOND)
    assert edge.of(BareRejectSeen)[:1] == [BareRejectSeen(validator.name, RejectCode.BUSY)]
    assert edge.endpoint.peers == (validator.name,)


def test_14_an_unconfirmed_session_does_not_evict_the_live_one() -> None:
    world, edge, validator = pair()
    ghost = Host("edge-1", Address("10.0.0.66", 4719), edge.config, world.book, world.now)
    (hello,) = sent(ghost.endpoint.connect(validator.pin(), world.now))
    (challenge,) = sent(validator.endpoint.receive_datagram(hello, ghost.address, world.now))
    attest = sent(ghost.endpoint.receive_datagram(challenge, validator.address, world.now))
    assert sent(feed(validator, attest, ghost.address, world.now))
    assert len(validator.endpoint._table.pending) == 1
    world.execute(validator, validator.endpoint.send(edge.name, Channel.TER, b"still", world.now))
    world.run(SECOND)
    assert edge.messages() == [b"still"]
    world.run(3 * MINUTE)
    assert validator.endpoint._table.pending == {}
    assert validator.of(SessionDown) == []
    assert len(validator.endpoint._table.sessions) == 1


def test_15_fragments_of_two_attests_do_not_mix() -> None:
    world, edge, validator, _, one = until_attest()
    other = Host("edge-2", Address("10.0.0.7", 4719), edge.config, world.book, world.now)
    (hello,) = sent(other.endpoint.connect(validator.pin(), world.now))
    (challenge,) = sent(validator.endpoint.receive_datagram(hello, other.address, world.now))
    two = sent(other.endpoint.receive_datagram(challenge, validator.address, world.now))
    # The second half of the other's message, under the cookie of the first.
    mixed = one[1][:84] + two[1][84:]
    effects = feed(validator, [one[0], mixed], edge.address, world.now)
    assert drop_reasons(effects) == [DropReason.HANDSHAKE]
    assert sent(feed(validator, one, edge.address, world.now))


def test_15_a_flood_of_fragments_needs_a_cookie_and_is_bounded() -> None:
    world, edge, validator, _, attest = until_attest()
    for number in range(1000):
        forged = attest[0][:32] + number.to_bytes(16) + attest[0][48:]
        forged = forged[:12] + forged[32:40] + forged[20:]
        effects = validator.endpoint.receive_datagram(forged, edge.address, world.now)
        assert effects == [Dropped(DropReason.COOKIE)]
    parts = validator.endpoint._responder._parts
    assert len(parts) == 0
    for number in range(5000):
        parts.add(number.to_bytes(16), 0, b"half", world.now)
    assert len(parts) == validator.config.partial_attests_max
    late = Instant(world.now + 4 * SECOND)
    assert parts.add(b"c" * 16, 0, b"first", late) is None
    assert len(parts) == 1
    assert parts.add(b"c" * 16, 0, b"again", late) is None
    assert parts.add(b"c" * 16, 1, b"second", late) == [b"first", b"second"]


@pytest.mark.parametrize("victim", [kind for kind in PacketType if kind < PacketType.REJECT])
def test_16_the_loss_of_any_handshake_message_costs_a_retry_only(victim: PacketType) -> None:
    world, edge, validator = unconnected()
    lost: list[bytes] = []

    def lose_first(there: World, source: Address, target: Address, data: bytes) -> bytes | None:
        del there, source, target
        if kind_of(data) is victim and not lost:
            lost.append(data)
            return None
        return data

    world.intercept = lose_first
    world.connect(edge, validator)
    world.run(3 * SECOND)
    assert len(lost) == 1
    assert edge.endpoint.peers == (validator.name,)
    assert validator.endpoint.peers == (edge.name,)


@pytest.mark.parametrize("seed", range(12))
def test_16_handshakes_survive_random_loss_of_a_quarter(seed: int) -> None:
    world = World(Weather(loss=250, duplication=50, jitter_us=30_000, seed=seed))
    edge, validator = world.add("edge-1"), world.add("validator-1")
    world.connect(edge, validator)
    world.run(2 * MINUTE)
    assert edge.endpoint.peers == (validator.name,)
    assert validator.endpoint.peers == (edge.name,)


def test_17_two_nodes_that_dial_each_other_end_with_one_session() -> None:
    for delay in (0, 5_000, 20_000, 200_000):
        world = World()
        one, two = world.add("validator-1"), world.add("validator-2")
        world.connect(one, two)
        world.run(delay)
        world.connect(two, one)
        world.run(10 * SECOND)
        for sender, receiver in ((one, two), (two, one)):
            world.execute(
                sender, sender.endpoint.send(receiver.name, Channel.CONSENSUS, b"vote", world.now)
            )
        world.run(SECOND)
        assert one.messages() == two.messages() == [b"vote"]
        sessions = [len(host.endpoint._table.sessions) for host in (one, two)]
        assert sessions == [1, 1], delay
        assert one.endpoint._links[two.name].session.names.dialled


def test_17_messages_cross_a_renewal_in_flight_unharmed() -> None:
    config = HtpConfig(rekey_us=30 * SECOND, reject_after_us=5 * MINUTE)
    world, edge, validator = pair(config, Weather(loss=100, jitter_us=40_000, seed=3))
    wanted = [b"%d" % number for number in range(2000)]
    for text in wanted:
        world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, text, world.now))
        world.execute(validator, validator.endpoint.send(edge.name, Channel.TER, text, world.now))
        world.run(50_000)
    world.run(MINUTE)
    assert validator.messages() == wanted
    assert edge.messages() == wanted
    assert validator.of(SessionDown) == []


@pytest.mark.parametrize("broken", ["edge-1", "validator-1", "both"])
def test_18_a_constant_random_source_still_gives_distinct_keys(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(seed: int) -> Callable[[int], bytes]:
        return bytes if broken == "both" else seeded_random(seed)

    monkeypatch.setattr("tests.unit.htp.htp_pair.seeded_random", constant)
    world = World()
    config = HtpConfig(suites_offered=SUITE_CLASSICAL)
    edges = [world.add("edge-1", config), world.add("edge-2", config)]
    validator = world.add("validator-1")
    for host in (*edges, validator):
        if host.name == broken:
            host.endpoint._entropy._random_bytes = bytes
    for edge in edges:
        world.connect(edge, validator)
    world.run(SECOND)
    for edge in edges:
        world.execute(edge, edge.endpoint.close(validator.name, world.now))
        world.connect(edge, validator)
    world.run(SECOND)
    sealed = [data for _, _, data in world.wire if len(data) > 116 and data[2:4] == b"\x00\x20"]
    keys = {link.session.exporter for link in validator.endpoint._links.values()}
    assert len(keys) == 2
    assert len({data[32:] for data in sealed}) == len(sealed) >= 4


def test_19_no_unproven_address_is_sent_more_than_it_sent() -> None:
    world, _, validator, hello, attest = until_attest()
    spoofed = Address("198.51.100.7", 9)
    for data in (hello, *attest, bytes(1200), b"\x00\x02\x00\x10" + b"\x07" * 200):
        effects = validator.endpoint.receive_datagram(data, spoofed, world.now)
        assert sum(map(len, sent(effects))) < len(data)


def test_20_a_spoofed_flood_leaves_memory_flat_and_an_honest_edge_connects() -> None:
    world, edge, validator = unconnected()
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    responder = validator.endpoint._responder
    for number in range(3000):
        spoofed = Address(f"10.{number >> 8}.{number & 255}.9", 1024 + number)
        for data in (hello, b"\x00\x02\x00\x10" + number.to_bytes(8) * 20):
            validator.endpoint.receive_datagram(data, spoofed, world.now)
    assert len(responder._used) == len(responder._parts) == len(responder._limiter) == 0
    assert len(validator.endpoint._table.sessions) == len(validator.endpoint._table.pending) == 0
    assert world.book.lookups == 0
    world.run(5 * SECOND)
    assert edge.endpoint.peers == (validator.name,)


def test_20_one_prefix_may_have_a_few_attests_checked_and_no_more() -> None:
    world, _, validator = unconnected()
    book = Book()
    accepted = 0
    for number in range(30):
        node = Host(
            f"node-{number}", Address("10.0.0.5", 5000 + number), CLASSICAL, book, world.now
        )
        world.book.entries[node.name] = node.enlist()
        (hello,) = sent(node.endpoint.connect(validator.pin(), world.now))
        (challenge,) = sent(validator.endpoint.receive_datagram(hello, node.address, world.now))
        attest = sent(node.endpoint.receive_datagram(challenge, validator.address, world.now))
        effects = feed(validator, attest, node.address, world.now)
        accepted += bool(sent(effects))
        if number >= 5:
            assert drop_reasons(effects) == [DropReason.RATE]
    assert accepted == validator.config.attest_burst


def test_a_forged_first_challenge_cannot_win() -> None:
    world, edge, validator = unconnected()

    def forge(there: World, source: Address, target: Address, data: bytes) -> bytes | None:
        if kind_of(data) is PacketType.CHALLENGE:
            there.inject(source, target, data[:100] + b"F" * 16 + data[116:])
        return data

    world.intercept = forge
    world.connect(edge, validator)
    world.run(SECOND)
    assert edge.endpoint.peers == (validator.name,)
    assert DropReason.COOKIE in validator.drops()


def test_challenges_beyond_three_are_not_answered() -> None:
    world, edge, validator = unconnected()
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    (challenge,) = sent(validator.endpoint.receive_datagram(hello, edge.address, world.now))
    answered = 0
    for number in range(6):
        forged = challenge[:100] + number.to_bytes(16) + challenge[116:]
        effects = edge.endpoint.receive_datagram(forged, validator.address, world.now)
        answered += bool(sent(effects))
    assert answered == 3


def test_a_changed_port_between_hello_and_attest_costs_one_retry() -> None:
    world, edge, validator = unconnected()
    world.connect(edge, validator)
    world.run(15_000)
    world.moved[edge.address] = Address("10.0.0.1", 61_000)
    world.run(20 * SECOND)
    assert edge.endpoint.peers == (validator.name,)


def test_the_retry_schedule_doubles_to_a_minute_with_jitter() -> None:
    world = World()
    edge = world.add("edge-1")
    ghost = PinnedPeer(
        NodeId("validator-9"), Address("10.0.0.99", 4719), identity_of("v").static_key.public_key
    )
    world.execute(edge, edge.endpoint.connect(ghost, world.now))
    times = [world.now]
    while len(times) < 10:
        due = edge.endpoint.next_timeout()
        assert due is not None
        world.now = due
        assert sent(edge.endpoint.handle_timeout(due))
        times.append(due)
    gaps = [(after - before) / SECOND for before, after in pairwise(times)]
    for gap, step in zip(gaps, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert 0.8 * step <= gap <= 1.2 * step
    assert len(set(gaps)) == len(gaps)


def test_an_attest_body_needs_every_byte() -> None:
    body = AttestBody(bytes(64), NodeId("edge-1"), bytes(64), bytes(64), 0).encode()
    assert len(body) == 236


def test_an_answer_from_another_address_is_not_taken() -> None:
    world, edge, validator = unconnected()
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    (challenge,) = sent(validator.endpoint.receive_datagram(hello, edge.address, world.now))
    effects = edge.endpoint.receive_datagram(challenge, Address("10.6.6.6", 4719), world.now)
    assert effects == [Dropped(DropReason.UNKNOWN_TOKEN)]


def test_17_a_renewal_of_channels_that_are_gone_is_closed_and_started_anew() -> None:
    world, edge, validator = pair()
    world.run(SECOND)
    edge.endpoint._links[validator.name].renewal_due = True
    world.execute(edge, edge.endpoint._settle(edge.endpoint._links[validator.name], world.now))
    while not validator.endpoint._table.pending:
        assert world.step(world.now + SECOND)
    # The ACCEPT that promises to continue is on its way when the validator loses the channels.
    world.execute(validator, validator.endpoint.close(edge.name, world.now))
    world.run(10 * SECOND)
    assert validator.endpoint.peers == (edge.name,)
    assert edge.endpoint.peers == (validator.name,)
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"anew", world.now))
    world.run(SECOND)
    assert validator.messages() == [b"anew"]
    assert len(validator.of(SessionUp)) == 2


def test_a_renewal_that_was_refused_is_tried_again_while_the_session_lives() -> None:
    world, edge, validator = pair()
    world.run(SECOND)
    world.book.entries[edge.name] = edge.enlist(active=False)
    edge.endpoint._links[validator.name].renewal_due = True
    world.execute(edge, edge.endpoint._settle(edge.endpoint._links[validator.name], world.now))
    world.run(SECOND)
    assert [one.code for one in edge.effects if isinstance(one, ConnectRejected)] == [
        RejectCode.NOT_ACTIVE
    ]
    world.book.entries[edge.name] = edge.enlist()
    world.run(6 * MINUTE)
    assert edge.of(SessionRenewed) == [SessionRenewed(validator.name)]
    assert edge.of(SessionDown) == []


def test_a_renewal_is_held_to_the_fingerprint_of_its_own_attest() -> None:
    world, edge, validator = pair()
    world.run(SECOND)
    edge.weights.fingerprint = b"n" * 64
    world.book.entries[edge.name] = edge.enlist()
    edge.endpoint._links[validator.name].renewal_due = True
    world.execute(edge, edge.endpoint._settle(edge.endpoint._links[validator.name], world.now))
    world.run(5 * MINUTE)
    assert edge.of(SessionRenewed) == [SessionRenewed(validator.name)]
    assert validator.of(ResonanceMismatch) == []
    assert validator.endpoint.peers == (edge.name,)


def test_08_a_hello_for_another_key_or_no_version_at_all_is_dropped() -> None:
    world, edge, validator = unconnected()
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    for start, value in ((132, b"otherkey"), (142, b"\x00\x03\x00\x02")):
        changed = rewritten(hello, validator, start, value)
        effects = validator.endpoint.receive_datagram(changed, edge.address, world.now)
        assert effects == [Dropped(DropReason.MALFORMED)]


def test_13_a_bare_reject_may_say_version_or_busy_only() -> None:
    world, edge, validator = unconnected()
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    for code in RejectCode:
        reject = encode_bare_reject(hello[146:154], code, 1)
        effects = edge.endpoint.receive_datagram(reject, validator.address, world.now)
        clear = code in (RejectCode.VERSION, RejectCode.BUSY)
        assert (effects == [BareRejectSeen(validator.name, code)]) is clear


def test_15_copies_of_accept_fragments_are_bounded() -> None:
    world, edge, validator, _, attest = until_attest()
    accept = sent(feed(validator, attest, edge.address, world.now))
    for number in range(20):
        forged = accept[0][:40] + number.to_bytes(8) + accept[0][48:]
        edge.endpoint.receive_datagram(forged, validator.address, world.now)
    dial = edge.endpoint._dials.find(validator.name)
    assert dial is not None
    assert len(dial._parts[0]) == 3


def test_17_a_restarted_validator_does_not_continue_what_it_does_not_know() -> None:
    world, edge, validator = pair()
    world.run(2 * SECOND)
    validator.boot(world.now)
    edge.endpoint._links[validator.name].renewal_due = True
    world.execute(edge, edge.endpoint._settle(edge.endpoint._links[validator.name], world.now))
    world.run(SECOND)
    assert edge.of(SessionRenewed) == []
    assert edge.of(SessionDown) == [SessionDown(validator.name, DownReason.REPLACED)]
    assert len(edge.of(SessionUp)) == 2
    assert validator.endpoint.peers == (edge.name,)
