"""Ordered channels: fragments, limits, priorities, flow control."""

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest
from tests.unit.htp.htp_pair import World, pair

from hookprobe.errors import ConfigError, LimitExceededError, LocalError, MalformedError
from hookprobe.htp.channels import PRIORITIES, Channel, Priority, parse_channel
from hookprobe.htp.config import MESSAGE_MAX_BYTES, HtpConfig
from hookprobe.htp.effects import (
    Dropped,
    DropReason,
    Effect,
    MessageReceived,
    RefusedReason,
    SendRefused,
    Transmit,
    VitalsReported,
)
from hookprobe.htp.inbox import Inbox
from hookprobe.htp.messages import (
    FragmentHeader,
    Vitals,
    encode_fragment_header,
    message_tag,
)
from hookprobe.htp.outbox import (
    CREDIT_INITIAL_BYTES,
    FRAGMENT_COST_BYTES,
    PIECE_MAX_BYTES,
    Fragment,
    Outbox,
    OutMessage,
    cut,
)
from hookprobe.htp.packet import Header, PacketType, decode_header
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MINUTE, SECOND, Instant

NOW = Instant(10**15)


def outer(number: int = 0, sequence: int = 0, index: int = 0, last: int = 0) -> Header:
    return Header(PacketType.DATA, sequence, 0, bytes(8), number, 1, 0, index, last)


def offered(*messages: tuple[Channel, bytes], queue: int = 16 << 20) -> Outbox:
    outbox = Outbox(queue)
    for channel, data in messages:
        assert outbox.offer(channel, data)
    return outbox


def drain(outbox: Outbox) -> list[Fragment]:
    taken = []
    while (fragment := outbox.take()) is not None:
        taken.append(fragment)
    return taken


@pytest.mark.parametrize(
    "size", [0, 1, PIECE_MAX_BYTES, PIECE_MAX_BYTES + 1, 8191, 8192, 8193, 100_000, 1 << 20]
)
def test_fragments_cover_a_message_and_fit_a_datagram(size: int) -> None:
    data = Random(size).randbytes(size)
    message = OutMessage(Channel.TER, data, 0, 0)
    pieces = list(cut(message))
    assert len(pieces) == message.total
    assert b"".join(data[piece.start : piece.stop] for piece in pieces) == data
    assert all(piece.stop - piece.start <= PIECE_MAX_BYTES for piece in pieces)
    chunks = {piece.chunk_index for piece in pieces}
    for chunk in chunks:
        sizes = [piece.stop - piece.start for piece in pieces if piece.chunk_index == chunk]
        assert len(set(sizes[:-1])) <= 1
        assert sizes[-1] <= sizes[0]


def test_fragments_in_any_order_give_the_message_once() -> None:
    data = Random(1).randbytes(30_000)
    pieces = list(cut(OutMessage(Channel.MODEL, data, 0, 5)))
    Random(2).shuffle(pieces)
    inbox = Inbox(4 << 20)
    got = []
    for piece in pieces * 2:
        header = outer(0, 5, piece.frag_index, piece.frag_last)
        got += inbox.receive(header, piece.payload())
    assert got == [(Channel.MODEL, data)]
    assert inbox.held == 0


def test_channels_do_not_wait_for_each_other() -> None:
    inbox = Inbox(4 << 20)
    late = OutMessage(Channel.TER, b"second", 1, 0)
    vote = OutMessage(Channel.CONSENSUS, b"vote", 0, 1)
    first = OutMessage(Channel.TER, b"first", 0, 2)
    got = []
    for message in (late, vote, first):
        (piece,) = cut(message)
        got += inbox.receive(outer(sequence=message.sequence), piece.payload())
    assert [data for _, data in got] == [b"vote", b"first", b"second"]


def test_a_vote_overtakes_bulk_data() -> None:
    outbox = offered((Channel.MODEL, bytes(50_000)))
    assert outbox.take() is not None
    outbox.offer(Channel.GOSSIP, b"block")
    outbox.offer(Channel.CONSENSUS, b"vote")
    order = [fragment.message.channel for fragment in drain(outbox)]
    assert order[:2] == [Channel.CONSENSUS, Channel.GOSSIP]
    assert set(order[2:]) == {Channel.MODEL}


def test_a_vote_overtakes_lost_bulk_data_too() -> None:
    outbox = offered((Channel.MODEL, bytes(5000)))
    for fragment in drain(outbox):
        outbox.put_back(fragment)
    outbox.offer(Channel.CONSENSUS, b"vote")
    assert drain(outbox)[0].message.channel is Channel.CONSENSUS


def test_every_channel_has_a_priority_and_no_other_kind_is_one() -> None:
    assert set(PRIORITIES) == set(Channel)
    assert [channel for channel in Channel if channel >= 0x30] == [Channel.FILE]
    assert max(PRIORITIES.values()) is PRIORITIES[Channel.FILE]
    for kind in range(256):
        if kind in set(Channel):
            assert parse_channel(kind) == kind
        else:
            with pytest.raises(MalformedError):
                parse_channel(kind)


def test_the_queue_is_bounded_by_priority() -> None:
    outbox = Outbox(4 << 20)
    taken = dict.fromkeys(Priority, 0)
    for channel in (Channel.MODEL, Channel.GOSSIP, Channel.CONSENSUS):
        while outbox.offer(channel, bytes(65_536)):
            taken[PRIORITIES[channel]] += 65_536 + FRAGMENT_COST_BYTES
    total = sum(taken.values())
    assert taken[Priority.DATA] <= 2 << 20
    assert taken[Priority.DATA] > 1.9 * (1 << 20)
    assert 3.8 * (1 << 20) < total <= 4 << 20
    assert outbox.held == total


def test_empty_messages_count_against_the_queue() -> None:
    outbox = Outbox(4 << 20)
    offers = 0
    while outbox.offer(Channel.CONSENSUS, b""):
        offers += 1
    assert offers == (4 << 20) // FRAGMENT_COST_BYTES


def test_a_full_queue_is_told_to_the_caller_and_drains() -> None:
    config = HtpConfig(send_queue_max_bytes=4 << 20)
    world, edge, validator = pair(config)
    refused = 0
    for _ in range(40):
        effects = edge.endpoint.send(validator.name, Channel.TER, bytes(100_000), world.now)
        if effects == [SendRefused(validator.name, Channel.TER, RefusedReason.QUEUE_FULL)]:
            refused += 1
        world.execute(edge, effects)
    assert refused == 40 - (2 << 20) // 100_064
    world.run(MINUTE)
    assert len(validator.messages()) == 40 - refused
    assert edge.endpoint._links[validator.name].traffic.outbox.held == 0


def test_sending_to_nobody_is_told_to_the_caller() -> None:
    world = World()
    edge = world.add("edge-1")
    assert edge.endpoint.send(NodeId("nobody"), Channel.TER, b"", world.now) == [
        SendRefused(NodeId("nobody"), Channel.TER, RefusedReason.NO_SESSION)
    ]


def test_misuse_is_a_local_error() -> None:
    world, edge, validator = pair()
    with pytest.raises(LocalError):
        edge.endpoint.send(validator.name, Channel.TER, bytes(MESSAGE_MAX_BYTES + 1), world.now)
    with pytest.raises(LocalError):
        edge.endpoint.connect(validator.pin(), world.now)
    with pytest.raises(LocalError):
        edge.endpoint.connect(edge.pin(), world.now)


def test_new_data_waits_for_credit_and_lost_data_does_not() -> None:
    outbox = offered((Channel.MODEL, bytes(1 << 20)))
    sent = drain(outbox)
    assert sum(fragment.cost for fragment in sent) <= CREDIT_INITIAL_BYTES
    assert outbox.take() is None
    outbox.put_back(sent[3])
    assert outbox.take() is sent[3]
    outbox.credit = 2 << 20
    assert len(drain(outbox)) == 1024 - len(sent)


def press(inbox: Inbox, pieces: Iterable[tuple[Header, bytes]]) -> None:
    for header, payload in pieces:
        inbox.receive(header, payload)


def test_a_peer_that_ignores_credit_is_stopped() -> None:
    inbox = Inbox(CREDIT_INITIAL_BYTES)
    pieces = cut(OutMessage(Channel.MODEL, bytes(1 << 20), 1, 0))
    flood = ((outer(0, 0, one.frag_index, one.frag_last), one.payload()) for one in pieces)
    with pytest.raises(LimitExceededError):
        press(inbox, flood)
    assert inbox.held <= CREDIT_INITIAL_BYTES + PIECE_MAX_BYTES + FRAGMENT_COST_BYTES


def test_empty_messages_out_of_turn_use_credit_up() -> None:
    inbox = Inbox(CREDIT_INITIAL_BYTES)
    pieces = (next(cut(OutMessage(Channel.TER, b"", one, 0))) for one in range(1, 10**6))
    with pytest.raises(LimitExceededError):
        press(inbox, ((outer(), one.payload()) for one in pieces))
    assert inbox.held <= CREDIT_INITIAL_BYTES + FRAGMENT_COST_BYTES


def test_messages_larger_than_a_mebibyte_are_refused() -> None:
    piece = encode_fragment_header(FragmentHeader(Channel.MODEL, 0, 0, 1, b"tagg")) + bytes(8000)
    with pytest.raises(LimitExceededError):
        press(Inbox(64 << 20), ((outer(0, 0, index, 255), piece) for index in range(256)))


@pytest.mark.parametrize("change", [{"chunks": 3}, {"tag": b"else"}, {"sequence": 1}, {"last": 2}])
def test_fragments_that_disagree_are_refused(change: dict[str, object]) -> None:
    inbox = Inbox(4 << 20)
    header = FragmentHeader(Channel.MODEL, 0, 0, 2, b"tagg")
    inbox.receive(outer(0, 0, 0, 1), encode_fragment_header(header) + b"x")
    sequence = int(str(change.pop("sequence", 0)))
    last = int(str(change.pop("last", 1)))
    other = header._replace(**change)  # type: ignore[arg-type] # values fit their fields
    with pytest.raises(MalformedError):
        inbox.receive(outer(0, sequence, 1, last), encode_fragment_header(other) + b"y")


def test_message_numbers_continue_beyond_32_bits() -> None:
    inbox = Inbox(4 << 20)
    stream_start = 2**32 - 2
    (piece,) = cut(OutMessage(Channel.TER, b"warm up", 0, 0))
    inbox.receive(outer(), piece.payload())
    inbox._streams[Channel.TER].expected = stream_start
    got = []
    for number in (2**32 - 2, 0, 2**32 - 1, 1):
        (piece,) = cut(OutMessage(Channel.TER, b"%d" % number, number, 0))
        got += [data for _, data in inbox.receive(outer(), piece.payload())]
    assert got == [b"4294967294", b"4294967295", b"0", b"1"]


def test_a_complete_message_with_another_tag_is_refused() -> None:
    header = FragmentHeader(Channel.TER, 0, 0, 1, message_tag(b"this"))
    with pytest.raises(MalformedError):
        Inbox(4 << 20).receive(outer(), encode_fragment_header(header) + b"that")


def test_what_arrived_after_all_is_not_sent_again() -> None:
    outbox = offered((Channel.TER, b"once"), (Channel.TER, b"twice"))
    first, second = drain(outbox)
    outbox.put_back(first)
    outbox.put_back(second)
    outbox.on_arrived(first)
    assert drain(outbox) == [second]


def kinds(effects: list[Effect]) -> list[PacketType]:
    return [decode_header(one.data).kind for one in effects if isinstance(one, Transmit)]


def test_messages_are_delivered_before_their_ack_and_a_batch_is_acknowledged_once() -> None:
    world, edge, validator = pair()
    world.run(2 * SECOND)
    datagrams = []
    for number in range(10):
        effects = edge.endpoint.send(validator.name, Channel.TER, b"%d" % number, world.now)
        datagrams += [(one.data, edge.address) for one in effects if isinstance(one, Transmit)]
    effects = validator.endpoint.receive_batch(datagrams, world.now)
    assert [type(effect) for effect in effects] == [MessageReceived] * 10 + [Transmit]
    assert kinds(effects) == [PacketType.ACK]


def test_vitals_reach_the_answering_end() -> None:
    world, edge, validator = pair()
    edge.endpoint.report(Vitals(7, 80, 1, 40, 65_535))
    world.run(MINUTE)
    assert VitalsReported(edge.name, 7, 80, 1, 40, 65_535) in validator.effects
    assert len(validator.of(VitalsReported)) <= 2


def test_vitals_set_before_the_session_are_in_its_first_heartbeat() -> None:
    world = World()
    edge, validator = world.add("edge-1"), world.add("validator-1")
    edge.endpoint.report(Vitals(9, 50, 0, 1, 2))
    world.connect(edge, validator)
    world.run(SECOND)
    assert validator.of(VitalsReported) == [VitalsReported(edge.name, 9, 50, 0, 1, 2)]


@pytest.mark.parametrize("wrong", [Vitals(2**32), Vitals(0, 256), Vitals(0, 0, -1)])
def test_vitals_that_do_not_fit_are_a_local_error(wrong: Vitals) -> None:
    _, edge, _ = pair()
    with pytest.raises(LocalError):
        edge.endpoint.report(wrong)


def test_more_peers_than_the_limit_are_told_busy() -> None:
    world = World()
    validator = world.add("validator-1", HtpConfig(peers_max=2))
    edges = [world.add(f"edge-{number}") for number in range(3)]
    for edge in edges:
        world.connect(edge, validator)
        world.run(SECOND)
    assert validator.endpoint.peers == ("edge-0", "edge-1")
    world.execute(edges[0], edges[0].endpoint.close(validator.name, world.now))
    world.run(10 * MINUTE)
    assert validator.endpoint.peers == ("edge-1", "edge-2")


def test_unconfirmed_sessions_are_bounded() -> None:
    world = World()
    validator = world.add("validator-1", HtpConfig(unconfirmed_max=3, attest_burst=100))
    for number in range(6):
        edge = world.add(f"edge-{number}")
        data: list[Effect] = edge.endpoint.connect(validator.pin(), world.now)
        for host, source in ((validator, edge), (edge, validator), (validator, edge)):
            data = [
                effect
                for one in data
                if isinstance(one, Transmit)
                for effect in host.endpoint.receive_datagram(one.data, source.address, world.now)
            ]
    assert len(validator.endpoint._table.pending) == 3
    assert len(validator.endpoint._table.sessions) == 3


def test_used_cookies_are_bounded() -> None:
    world = World()
    config = HtpConfig(used_cookies_max=4, attest_burst=100)
    validator = world.add("validator-1", config)
    for number in range(10):
        world.connect(world.add(f"edge-{number}"), validator)
        world.run(SECOND)
    assert len(validator.endpoint.peers) == 10
    assert len(validator.endpoint._responder._used) == 4


def test_an_address_that_is_none_is_dropped() -> None:
    world, edge, validator = pair()
    hello = next(data for _, _, data in world.wire)
    bad = edge.address._replace(host="not an address")
    effects = validator.endpoint.receive_datagram(hello, bad, world.now)
    assert effects == [Dropped(DropReason.MALFORMED)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"retry_initial_us": 0},
        {"suites_offered": 4},
        {"heartbeat_s": 14},
        {"heartbeat_s": 121},
        {"rekey_us": 5000 * SECOND},
        {"send_queue_max_bytes": 1 << 20},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        HtpConfig(**wrong)
