"""What has to hold for any bytes, any weather and any order of events."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.htp.htp_pair import Host, Weather, World, pair

from hookprobe.errors import RemoteError
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import (
    Address,
    MessageReceived,
    RejectCode,
    SessionDown,
    SessionUp,
    Transmit,
)
from hookprobe.htp.explain import explain
from hookprobe.htp.handshake import DIAL_TABLE, SESSION_TABLE, DialState, Phase
from hookprobe.htp.messages import (
    Ack,
    AttestBody,
    Challenge,
    CloseCode,
    FragmentHeader,
    Vitals,
    decode_ack,
    decode_attest_body,
    decode_bare_reject,
    decode_challenge,
    decode_close,
    decode_fragment,
    decode_heartbeat,
    encode_ack,
    encode_bare_reject,
    encode_close,
    encode_fragment_header,
    encode_heartbeat,
)
from hookprobe.htp.packet import (
    PacketType,
    decode_body,
    decode_header,
    encode_body,
    encode_header,
)
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MINUTE, SECOND

FEW = settings(deadline=None, derandomize=True, max_examples=15)
SOME = settings(deadline=None, derandomize=True, max_examples=150)

u8, u16 = st.integers(0, 2**8 - 1), st.integers(0, 2**16 - 1)
u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
STRANGER = Address("198.51.100.7", 777)


def fixed(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


# -- codecs ---------------------------------------------------------------------------------------


@SOME
@given(
    st.sampled_from(PacketType), u32, u32, fixed(8), u64, st.integers(0, 15), st.integers(0, 3),
    st.tuples(u8, u8).map(sorted),
)  # fmt: skip
def test_headers_round_trip(
    kind: PacketType, sequence: int, at: int, token: bytes, nonce: int, flags: int, mode: int,
    fragment: list[int],
) -> None:  # fmt: skip
    tail = flags << 24 | mode << 16 | fragment[0] << 8 | fragment[1]
    wire = encode_header(kind, sequence, at, token, nonce, tail)
    assert len(wire) == 32
    assert decode_header(wire) == (kind, sequence, at, token, nonce, flags, mode, *fragment)


@SOME
@given(fixed(64), st.binary(max_size=200), st.integers(0, 250))
def test_bodies_round_trip_and_padding_must_be_zero(
    resonance: bytes, payload: bytes, padded: int
) -> None:
    wire = encode_body(resonance, payload, padded)
    assert decode_body(wire) == (resonance, payload)
    if padded > len(payload):
        try:
            decode_body(wire[:-1] + b"\1")
        except RemoteError:
            return
        raise AssertionError("padding that is not zero was accepted")


@st.composite
def acks(draw: st.DrawFn) -> Ack:
    bounds = sorted(draw(st.sets(st.integers(0, 2**40), min_size=2, max_size=66)))
    pairs = zip(bounds[0::2], bounds[1::2], strict=False)
    ranges = [(low, high) for low, high in pairs if high - low < 2**31]
    kept: list[tuple[int, int]] = []
    for low, high in ranges:
        if not kept or 1 < low - kept[-1][1] < 2**31:
            kept.append((low, high))
    if not kept:
        kept = [(0, 0)]
    return Ack(
        draw(u32), draw(u32), draw(u32), draw(u16), draw(u16), draw(st.integers(0, 7)),
        draw(fixed(8)), tuple(reversed(kept[-33:])),
    )  # fmt: skip


@SOME
@given(acks())
def test_acks_round_trip(ack: Ack) -> None:
    wire = encode_ack(ack)
    assert decode_ack(wire) == ack
    assert len(wire) <= 38 + 8 * 32


@SOME
@given(
    st.builds(FragmentHeader, u8, u16, u32, u32, fixed(4)),
    st.binary(max_size=64),
    st.builds(Vitals, u32, u8, u8, u8, u16),
    fixed(8),
)
def test_small_bodies_round_trip(
    fragment: FragmentHeader, piece: bytes, vitals: Vitals, probe: bytes
) -> None:
    assert decode_fragment(encode_fragment_header(fragment) + piece) == (fragment, piece)
    assert decode_heartbeat(encode_heartbeat(probe, vitals)) == (probe, vitals)


@SOME
@given(fixed(8), fixed(16), u16, u16, st.sampled_from([RejectCode.BUSY, RejectCode.VERSION]), u32)
def test_clear_messages_round_trip(
    token: bytes, cookie: bytes, generation: int, suite: int, code: RejectCode, wait: int
) -> None:
    challenge = Challenge(token, cookie, generation, suite)
    wire = challenge.encode()
    assert decode_challenge(decode_header(wire), wire) == challenge
    wire = encode_bare_reject(token, code, wait)
    assert decode_bare_reject(decode_header(wire), wire) == (code, wait)
    assert decode_close(encode_close(CloseCode.NORMAL, "bye")) == 0
    body = AttestBody(cookie * 4, NodeId("edge-1"), cookie * 4, cookie * 4, wait)
    assert decode_attest_body(body.encode()) == body


@SOME
@given(st.binary(max_size=300))
def test_44_decoders_raise_remote_errors_only(data: bytes) -> None:
    for decode in (decode_header, decode_body, decode_ack, decode_attest_body, decode_close,
                   decode_fragment, decode_heartbeat):  # fmt: skip
        try:
            decode(data)
        except RemoteError:
            continue


# -- tables ---------------------------------------------------------------------------------------


def test_every_state_is_reached_and_the_dialler_never_gets_stuck() -> None:
    assert set(DIAL_TABLE.values()) == set(DialState)
    assert {state for state, _ in DIAL_TABLE} == set(DialState)
    assert set(SESSION_TABLE.values()) | {Phase.NONE} == set(Phase)
    reached = {Phase.NONE}
    for _ in Phase:
        reached |= {after for (before, _), after in SESSION_TABLE.items() if before in reached}
    assert reached == set(Phase)
    assert {after for (before, _), after in SESSION_TABLE.items() if before is Phase.CLOSED} == {
        Phase.CLOSED
    }


# -- any bytes ------------------------------------------------------------------------------------


def recorded() -> tuple[World, Host, Host, list[bytes]]:
    world, edge, validator = pair()
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, bytes(9000), world.now))
    world.run(SECOND)
    return world, edge, validator, [data for _, _, data in world.wire]


WORLD, EDGE, VALIDATOR, CORPUS = recorded()


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from(CORPUS) | st.binary(max_size=1500))
    for _ in range(draw(st.integers(0, 4))):
        if not data:
            break
        spot = draw(st.integers(0, len(data) - 1))
        change = draw(st.sampled_from(["flip", "cut", "insert", "token"]))
        if change == "flip":
            data = data[:spot] + bytes((data[spot] ^ draw(st.integers(1, 255)),)) + data[spot + 1 :]
        elif change == "cut":
            data = data[:spot]
        elif change == "insert":
            data = data[:spot] + draw(st.binary(max_size=40)) + data[spot:]
        else:
            tokens = [*VALIDATOR.endpoint._table.sessions, *EDGE.endpoint._table.sessions]
            data = data[:12] + draw(st.sampled_from(tokens)) + data[20:]
    return data


@settings(deadline=None, derandomize=True, max_examples=800)
@given(hostile(), st.sampled_from([STRANGER, EDGE.address, VALIDATOR.address]))
def test_44_any_bytes_raise_nothing_and_no_stranger_is_sent_more_than_it_sent(
    data: bytes, source: Address
) -> None:
    for host in (EDGE, VALIDATOR):
        if source == host.address:
            continue
        effects = host.endpoint.receive_datagram(data, source, WORLD.now)
        answer = sum(len(one.data) for one in effects if isinstance(one, Transmit))
        if source == STRANGER:
            assert answer == 0 or answer < len(data)
        assert not any(isinstance(one, MessageReceived | SessionUp) for one in effects)


@SOME
@given(hostile())
def test_explain_covers_every_byte_of_anything_once(data: bytes) -> None:
    position = 0
    for row in explain(data):
        assert row.offset == position, row
        position += row.length
    assert position == len(data)


# -- any weather ----------------------------------------------------------------------------------


def in_order(host: Host, channel: Channel) -> list[bytes]:
    return [one.data for one in host.effects
            if isinstance(one, MessageReceived) and one.channel is channel]  # fmt: skip


@FEW
@given(st.integers(0, 2**16), st.integers(0, 250), st.integers(0, 200), st.integers(0, 60_000))
def test_every_message_arrives_once_and_in_order_through_a_quarter_of_loss(
    seed: int, loss: int, duplication: int, jitter_us: int
) -> None:
    weather = Weather(loss=loss, duplication=duplication, corruption=20, jitter_us=jitter_us,
                      seed=seed)  # fmt: skip
    world, edge, validator = pair(None, weather)
    random = Random(seed)
    wanted: dict[tuple[str, Channel], list[bytes]] = {}
    for number in range(60):
        for host, peer in ((edge, validator), (validator, edge)):
            channel = random.choice(list(Channel))
            size = random.choice([0, 20, 100, 2000]) if number % 20 else 30_000
            data = b"%d:" % number + random.randbytes(size)
            world.execute(host, host.endpoint.send(peer.name, channel, data, world.now))
            wanted.setdefault((peer.name, channel), []).append(data)
        world.run(20_000)
    for _ in range(40):
        world.run(10 * SECOND)
        if len(edge.messages()) == len(validator.messages()) == 60:
            break
    for host in (edge, validator):
        assert host.of(SessionDown) == []
        for channel in Channel:
            assert in_order(host, channel) == wanted.get((host.name, channel), [])


STEP = st.sampled_from(
    ["send", "send", "send", "flow", "flow", "wait", "close", "restart edge", "restart validator",
     "cut", "heal", "move", "sleep"]
)  # fmt: skip


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(STEP, min_size=5, max_size=25), st.integers(0, 999))
def test_45_any_order_of_events_ends_connected_and_never_repeats_or_reorders(
    steps: list[str], seed: int
) -> None:
    config = HtpConfig(rekey_us=MINUTE, reject_after_us=2 * MINUTE)
    world, edge, validator = pair(config, Weather(loss=50, jitter_us=20_000, seed=seed))
    count = 0
    for step in steps:
        if step == "send":
            for host, peer in ((edge, validator), (validator, edge)):
                count += 1
                data = count.to_bytes(4) + bytes(count % 3 * 900)
                effects = host.endpoint.send(peer.name, Channel.GOSSIP, data, world.now)
                assert effects or host.endpoint.peers
                world.execute(host, effects)
        elif step == "close":
            world.execute(edge, edge.endpoint.close(validator.name, world.now))
            world.connect(edge, validator)
        elif step.startswith("restart"):
            host = edge if step.endswith("edge") else validator
            host.boot(world.now)
            if host is edge:
                world.connect(edge, validator)
        elif step in ("cut", "heal"):
            world.intercept = (lambda *_: None) if step == "cut" else None
        elif step == "move":
            world.moved[edge.address] = Address("10.0.0.1", 20_000 + count)
        else:
            world.run({"flow": 300_000, "wait": 20 * SECOND, "sleep": 5 * MINUTE}[step])
    world.intercept = None
    world.run(4 * MINUTE)
    assert edge.endpoint.peers == (validator.name,)
    assert validator.endpoint.peers == (edge.name,)
    for host in (edge, validator):
        numbers = [int.from_bytes(data[:4]) for data in host.messages()]
        assert numbers == sorted(set(numbers))
        assert len(host.endpoint._table.sessions) <= 4
