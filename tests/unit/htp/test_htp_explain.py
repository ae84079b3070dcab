"""Explaining packets: right fields at right places, also for what is broken."""

from tests.unit.htp.htp_pair import World, pair

from hookprobe.htp.channels import Channel
from hookprobe.htp.explain import explain
from hookprobe.htp.packet import PacketType, decode_header
from hookprobe.wire.instant import SECOND


def first(world: World, kind: PacketType) -> bytes:
    return next(data for _, _, data in world.wire if decode_header(data).kind is kind)


def table(data: bytes, opened: bytes | None = None) -> dict[str, str]:
    return {row.field: row.value for row in explain(data, opened)}


def test_a_hello_is_explained_field_by_field() -> None:
    world, _, validator = pair()
    rows = explain(first(world, PacketType.HELLO))
    assert [(row.offset, row.field) for row in rows[10:]] == [
        (32, "RDV"), (64, "PoSF"), (96, "payload_length"), (100, "client_random"),
        (132, "key_id"), (140, "suites"), (142, "ver_min"), (144, "ver_max"),
        (146, "edge_token"), (154, "padding"), (1184, "mac1"),
    ]  # fmt: skip
    values = {row.field: row.value for row in rows}
    assert (values["type"], values["payload_length"], values["suites"]) == ("HELLO", "54", "2")
    assert values["padding"] == "1030 zero bytes"
    assert len(validator.endpoint.peers) == 1


def test_sealed_packets_show_only_what_is_clear() -> None:
    world, edge, validator = pair()
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"secret", world.now))
    data = first(world, PacketType.DATA)
    values = table(data)
    assert (values["type"], values["flags"], values["mode"]) == ("DATA", "ACK_ELICITING", "NORMAL")
    assert {"sealed", "tag"} <= set(values)
    assert "piece" not in values


def test_opened_packets_show_everything() -> None:
    world, edge, validator = pair()
    world.execute(edge, edge.endpoint.send(validator.name, Channel.QSECBIT, b"secret", world.now))
    world.run(SECOND)
    for kind, wanted in (
        (PacketType.DATA, {"kind": "QSECBIT", "chunks": "1", "piece": b"secret".hex()}),
        (PacketType.HEARTBEAT, {"battery": "255", "probe": "8 zero bytes"}),
        (PacketType.ACK, {"acknowledged": "0", "heartbeat_s": "30"}),
    ):
        data = first(world, kind)
        sender = (
            edge
            if decode_header(data).flow_token in validator.endpoint._table.sessions
            else validator
        )
        receiver = validator if sender is edge else edge
        (session,) = receiver.endpoint._table.sessions.values()
        opened = session._opening.open(decode_header(data).nonce, data[32:], data[:32])
        values = table(data, opened)
        assert wanted.items() <= values.items()
        rows = explain(data, opened)
        assert sum(row.length for row in rows) == len(data)


def test_attest_and_accept_show_their_clear_front() -> None:
    world, _, _ = pair()
    assert {"cookie", "hello_hash", "e_E", "sealed to the validator"} <= set(
        table(first(world, PacketType.ATTEST))
    )
    assert {"e_V", "sealed to the edge"} <= set(table(first(world, PacketType.ACCEPT)))
    assert table(first(world, PacketType.CHALLENGE))["suite"] == "2"


def test_broken_packets_are_explained_as_far_as_they_go() -> None:
    assert explain(b"") == [(0, 0, "problem", "packet: 0 bytes, a header has 32")]
    assert table(b"\0\1" + bytes(40))["problem"] == "packet: not HTP version 2"
    assert "problem" in table(b"\0\2\0\x77" + bytes(40))
