"""Keys written down on order, and packets explained with them."""

import pytest
from tests.unit.htp.htp_moves import data_packet, flipped, seal_as
from tests.unit.htp.htp_pair import Host, World

from hookprobe.errors import MalformedError
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import SUITE_CLASSICAL, SUITE_HYBRID, HtpConfig
from hookprobe.htp.effects import RejectCode, SessionRenewed
from hookprobe.htp.explain import explain
from hookprobe.htp.keylog import NOTICE, KeyRing, format_handshake, format_line
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

    def note_handshake(self, message: bytes, key: bytes, nonce: bytes, transcript: bytes) -> None:
        self.text += format_handshake(message, key, nonce, transcript)


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
    assert (pages.text.count("HTP2 "), pages.text.count("HTP2-HANDSHAKE ")) == (2, 2)


SUITES = pytest.mark.parametrize("suites", [SUITE_CLASSICAL, SUITE_HYBRID])
ENDS = pytest.mark.parametrize("which", ["edge", "validator"])


def bodies(world: World, kind: PacketType) -> list[bytes]:
    """The datagrams of a kind that end with a body."""
    found = [(decode_header(data), data) for _, _, data in world.wire]
    return [data for head, data in found if head.kind is kind and head.frag_index == head.frag_last]


@SUITES
@ENDS
def test_either_end_writes_what_opens_attest_and_accept(which: str, suites: int) -> None:
    world, edge, _, pages = noted(which, HtpConfig(suites_offered=suites))
    ring = KeyRing(pages.text)
    (attest,), (accept,) = bodies(world, PacketType.ATTEST), bodies(world, PacketType.ACCEPT)
    for data, wanted in (
        (attest, {"node_id", "W_fingerprint", "signature", "capabilities"}),
        (accept, {"secret_seed", "validator_token", "trust", "rekey_s", "unix_ms"}),
    ):
        assert not wanted & {row.field for row in explain(data)}
        rows = explain(data, ring.open(data))
        assert sum(row.length for row in rows) == len(data)
        assert [row.offset for row in rows] == sorted(row.offset for row in rows)
        assert wanted <= {row.field for row in rows}
    shown = {row.field: row.value for row in explain(attest, ring.open(attest))}
    assert shown["node_id"] == edge.name
    assert shown["W_fingerprint"].startswith(edge.weights.fingerprint.hex()[:32])
    shown = {row.field: row.value for row in explain(accept, ring.open(accept))}
    assert (shown["trust"], shown["rekey_s"], shown["heartbeat_s"]) == ("65535", "3600", "30")


@SUITES
@ENDS
def test_a_sealed_refusal_opens_too(which: str, suites: int) -> None:
    world, edge, validator, pages = noted(which, HtpConfig(suites_offered=suites))
    world.book.entries[edge.name] = edge.enlist(active=False)
    validator.boot(world.now)
    world.run(200 * SECOND)
    (refusal, *_) = bodies(world, PacketType.REJECT)
    rows = {row.field: row for row in explain(refusal, KeyRing(pages.text).open(refusal))}
    assert int(rows["code"].value) == RejectCode.NOT_ACTIVE.value
    assert rows["tag"].offset + rows["tag"].length == len(refusal)


@SUITES
def test_no_other_handshake_opens_and_no_changed_one(suites: int) -> None:
    world, _, _, pages = noted("edge", HtpConfig(suites_offered=suites))
    _, _, _, other = noted("validator", HtpConfig(suites_offered=suites))
    assert len(KeyRing(other.text)) == 4
    ring, others = KeyRing(pages.text), KeyRing(other.text)
    for kind in (PacketType.ATTEST, PacketType.ACCEPT):
        (data,) = bodies(world, kind)
        assert ring.open(data) is not None
        assert others.open(data) is None
        for bit in range(8 * len(data)):
            assert ring.open(flipped(data, bit)) is None
        assert ring.open(data[:-1]) is None
        assert ring.open(data + b"\0") is None


@SUITES
def test_a_handshake_does_not_open_with_a_wrong_key(suites: int) -> None:
    world, _, _, pages = noted("edge", HtpConfig(suites_offered=suites))
    (data,) = bodies(world, PacketType.ATTEST)
    for column in (2, 3, 4):  # key, nonce, transcript
        lines = [line.split() for line in pages.text.splitlines() if line.startswith("HTP2-HAND")]
        for words in lines:
            words[column] = ("1" if words[column][0] == "0" else "0") + words[column][1:]
        assert KeyRing("\n".join(" ".join(words) for words in lines)).open(data) is None


def test_the_log_of_one_session_opens_no_other() -> None:
    world, edge, _, pages = noted("edge")
    before = pages.text
    world.run(HOUR * 5 // 4)
    assert edge.of(SessionRenewed)
    renewed = [data for kind in (PacketType.ATTEST, PacketType.ACCEPT)
               for data in bodies(world, kind)[1:]]  # fmt: skip
    assert renewed
    for data in renewed:
        assert KeyRing(before).open(data) is None
        assert KeyRing(pages.text).open(data) is not None


def test_what_a_log_holds_of_a_handshake_is_no_key_of_its_session() -> None:
    _, _, _, pages = noted("edge")
    lines = [line.split() for line in pages.text.splitlines() if not line.startswith("#")]
    sessions = {words[2] for words in lines if words[0] == "HTP2"}
    assert not sessions & {words[2] for words in lines if words[0] == "HTP2-HANDSHAKE"}


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
        "HTP2-HANDSHAKE " + "00" * 8 + " " + "11" * 32 + " " + "22" * 4,
        "HTP2-HANDSHAKE " + "00" * 32 + " " + "11" * 32 + " " + "22" * 12 + " " + "33" * 31,
        "HTP2-HANDSHAKE " + "00" * 32 + " " + "11" * 32 + " " + "22" * 12 + " " + "zz" * 32,
    ],
)
def test_other_files_are_refused_without_quoting_them(line: str) -> None:
    with pytest.raises(MalformedError) as caught:
        KeyRing(NOTICE + line)
    assert "line 3" in caught.value.message
    assert "11" not in caught.value.message
