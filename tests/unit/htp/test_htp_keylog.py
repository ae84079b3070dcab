"""Keys written down on order, and packets explained with them."""

import pytest
from tests.unit.htp.htp_moves import data_packet, flipped, seal_as
from tests.unit.htp.htp_pair import Host, World

from hookprobe.errors import MalformedError
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import SessionRenewed
from hookprobe.htp.explain import explain
from hookprobe.htp.keylog import NOTICE, KeyRing, format_line
from hookprobe.htp.messages import CloseCode, encode_close
from hookprobe.htp.packet import SESSION_TYPES, PacketType, decode_header
from hookprobe.htp.seams import Seams
from hookprobe.wire.instant import HOUR, SECOND


class Pages:
    """A key log in memory."""

    def __init__(self) -> None:
        self.text = NOTICE

    def note(self, token: bytes, key: bytes, salt: bytes) -> None:
        self.text += format_line(token, key, salt)


def noted(which: str, config: HtpConfig | None = None) -> tuple[World, Host, Host, Pages]:
    """A pair of which one end writes its keys down."""
    world = World()
    edge, validator = world.add("edge-1", config), world.add("validator-1", config)
    pages, host = Pages(), {"edge": edge, "validator": validator}[which]
    old = host.seams
    host.seams = Seams(
        old.registry, old.source, old.check, old.signatures, old.kem, old.trust, pages
    )
    host.boot(world.now)
    world.connect(edge, validator)
    world.run(2 * SECOND)
    return world, edge, validator, pages


@pytest.mark.parametrize("which", ["edge", "validator"])
def test_either_end_writes_what_opens_both_directions(which: str) -> None:
    world, edge, validator, pages = noted(which)
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"up", world.now))
    world.execute(validator, validator.endpoint.send(edge.name, Channel.GOSSIP, b"dn", world.now))
    world.run(HOUR * 5 // 4)
    assert edge.of(SessionRenewed)
    ring = KeyRing(pages.text)
    assert len(ring) >= 4, "renewed keys are written down too"
    sealed = [data for _, _, data in world.wire if decode_header(data).kind in SESSION_TYPES]
    assert len(sealed) > 200
    for data in sealed:
        opened = ring.open(data)
        assert opened is not None
        rows = explain(data, opened)
        assert not any(row.field == "sealed" for row in rows)
        assert sum(row.length for row in rows) == len(data)


def test_behind_the_veil_of_ghost() -> None:
    world, edge, _, pages = noted("edge", HtpConfig().ghosting(24_000))
    ring = KeyRing(pages.text)
    kinds = set()
    for _, _, data in world.wire:
        opened = ring.open(data)
        if opened is not None:
            rows = explain(data, opened)
            assert sum(row.length for row in rows) == len(data)
            kinds |= {row.value for row in rows if row.field == "hidden_type"}
    assert kinds == {"HEARTBEAT", "ACK"}
    assert edge.endpoint.peers


def test_without_the_order_nothing_is_written() -> None:
    _, edge, _, pages = noted("validator")
    assert edge.seams.keylog is None
    assert pages.text.count("HTP2") == 2


def test_what_inspect_shows_of_an_opened_packet() -> None:
    world, edge, validator, pages = noted("edge")
    ring = KeyRing(pages.text)
    data = data_packet(world, edge, validator, b"the words")
    shown = {row.field: row.value for row in explain(data, ring.open(data))}
    assert (shown["kind"], shown["piece"]) == ("TER", b"the words".hex())
    packet = seal_as(edge, validator, PacketType.CLOSE, encode_close(CloseCode.NORMAL), world)
    assert dict.fromkeys(row.field for row in explain(packet, ring.open(packet)))
    for bit in range(0, 8 * len(data), 97):
        assert ring.open(flipped(data, bit)) is None
    assert ring.open(data[:100]) is None
    assert ring.open(b"") is None
    assert KeyRing("").open(data) is None


@pytest.mark.parametrize(
    "line",
    [
        "HTP2",
        "HTP2 00 11 22",
        "HTP1 " + "00" * 8 + " " + "11" * 32 + " " + "22" * 4,
        "HTP2 " + "00" * 8 + " " + "11" * 31 + " " + "22" * 4,
        "HTP2 " + "00" * 8 + " " + "zz" * 32 + " " + "22" * 4,
        "HTP2 " + "00" * 8 + " " + "11" * 32 + " " + "22" * 4 + " 33",
    ],
)
def test_other_files_are_refused_without_quoting_them(line: str) -> None:
    with pytest.raises(MalformedError) as caught:
        KeyRing(NOTICE + line)
    assert "line 3" in caught.value.message
    assert "11" not in caught.value.message
