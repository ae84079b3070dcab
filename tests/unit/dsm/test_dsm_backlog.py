"""Catching up: a certified head vouches for bytes, not for the signatures beside them."""

from dataclasses import replace

import pytest
from tests.unit.dsm.kit import EDGE, Net, chain_of, enrolment_of, mesh_of
from tests.unit.dsm.ledger_net import V0, V1, V2, V3, running, validator
from tests.unit.dsm.test_dsm_changes import later

from hookprobe.dsm.effects import Effect, RangeFilled, Send
from hookprobe.dsm.linked import link
from hookprobe.dsm.messages import GetPack, Pack, PackEntry
from hookprobe.dsm.microblock import Microblock, sign_block
from hookprobe.dsm.peers import Peer
from hookprobe.dsm.pending import pending_of
from hookprobe.dsm.store import MemoryStore, Table
from hookprobe.errors import MalformedError

MESH = mesh_of(4)
BLOCKS = chain_of(MESH, 4)


def test_the_end_of_a_block_says_what_the_whole_of_it_says() -> None:
    for signed in BLOCKS:
        linked = link(signed.lane, signed.raw, signed.signature)
        assert (linked.id, linked.seq, linked.prev) == (signed.id, signed.seq, signed.prev)
        assert linked.payload_hash == signed.block.payload_hash
        assert linked.row_key() == signed.row_key()
        assert linked.encode() == signed.encode()
        assert linked.parse() == signed
        assert linked.has_body == (signed.block.body is not None)


def test_a_link_cannot_be_feigned_inside_a_block() -> None:
    feigned = b',"payload_hash":"' + b"0" * 64 + b'","prev":"' + b"1" * 64
    feigned += b'","seq":9,"timestamp":1,"type":"M","v":1}'
    text = feigned.decode()
    base = BLOCKS[1].block
    for block in (
        replace(base, event_type=text[:64]),
        replace(base, body={"kind": text}),
        replace(base, body={"payload_hash": "0" * 64, "prev": "1" * 64, "seq": 9, "v": 1}),
    ):
        signed = sign_block(block, MESH.keys.signer(EDGE))
        linked = link(signed.lane, signed.raw, signed.signature)
        assert (linked.seq, linked.prev) == (2, BLOCKS[0].id)
    for wrong in (b"", feigned[:-1], feigned + b"}", BLOCKS[1].raw + b" "):
        with pytest.raises(MalformedError):
            link(BLOCKS[1].lane, wrong, bytes(64))
    with pytest.raises(MalformedError):
        link(("other", 1), BLOCKS[1].raw, bytes(64)).parse()  # type: ignore[arg-type]


def lagging() -> Net:
    """Three validators with final blocks, and a fourth that has lost everything."""
    net, edge = running(6)
    net.kill(V3)
    net.write(edge, *(b"later %d" % number for number in range(40)))
    later(net)
    net.stores[V3] = MemoryStore()
    return net


def pack_bent_by(net: Net, name: str, bend: object, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = validator(net, name).backlog.receive_get_pack  # type: ignore[arg-type]

    def wrong(peer: Peer, message: GetPack) -> list[Effect]:
        (answer,) = honest(peer, message)
        assert isinstance(answer, Send)
        assert isinstance(answer.message, Pack)
        entries = bend(answer.message.entries)  # type: ignore[operator]
        return [Send(answer.peer, replace(answer.message, entries=entries))]

    monkeypatch.setattr(validator(net, name).backlog, "receive_get_pack", wrong)  # type: ignore[arg-type]


def test_a_late_validator_takes_ranges_by_their_heads_and_checks_them_afterwards() -> None:
    net = lagging()
    late = net.boot_validator(V3)
    later(net, 4)
    assert late.backlog.missing == late.backlog.trusted == {}
    assert net.of(RangeFilled, V3)
    stored = [net.stores[name].scan(Table.BLOCKS, b"", b"\xff" * 80, 999) for name in (V0, V3)]
    assert stored[0] == stored[1]
    assert len(stored[0]) == 47
    payloads = [net.stores[name].scan(Table.PAYLOADS, b"", b"\xff" * 80, 999) for name in (V0, V3)]
    assert payloads[0] == payloads[1]


def test_nothing_is_proven_before_all_signatures_are_checked() -> None:
    net = lagging()
    late = net.boot_validator(V3)
    late.backlog._turn_at = None
    late.backlog.start = lambda now: None  # type: ignore[method-assign]
    net.deliver()
    lane, ((epoch, covered), *_) = next(iter(late.backlog.trusted.items()))
    assert late.receipts.receipt(lane, epoch) is None
    late.backlog._check_some()
    while late.backlog.trusted:
        late.backlog._check_some()
    assert late.receipts.receipt(lane, epoch) is not None
    assert covered.count > 0


def spoil(entries: tuple[PackEntry, ...]) -> tuple[PackEntry, ...]:
    """Give all but the last block signatures that nobody made."""
    bad = [replace(item, signed=replace(item.signed, signature=bytes(64))) for item in entries[:-1]]
    return (*bad, *entries[-1:])


def test_false_signatures_are_found_and_the_range_is_fetched_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = lagging()
    pack_bent_by(net, V0, spoil, monkeypatch)
    late = net.boot_validator(V3)
    net.deliver()
    later(net, 8)  # who lends false signatures goes on doing so
    assert late.backlog.missing == late.backlog.trusted == {}
    stored = [net.stores[name].scan(Table.BLOCKS, b"", b"\xff" * 80, 999) for name in (V1, V3)]
    assert stored[0] == stored[1]


def break_head(entries: tuple[PackEntry, ...]) -> tuple[PackEntry, ...]:
    head = entries[-1]
    return (*entries[:-1], replace(head, signed=replace(head.signed, signature=bytes(64))))


@pytest.mark.parametrize("bend", [spoil, break_head, lambda entries: entries[1:]])
@pytest.mark.parametrize("liar", [V0, V1, V2])
def test_one_liar_does_not_keep_a_late_validator_from_completing(
    bend: object, liar: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = lagging()
    pack_bent_by(net, liar, bend, monkeypatch)
    late = net.boot_validator(V3)
    later(net, 2)
    assert late.backlog.missing == late.backlog.trusted == {}


@pytest.mark.parametrize("what", ["head signature", "bytes", "order", "gap"])
def test_what_does_not_lead_to_the_head_is_refused(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bend(entries: tuple[PackEntry, ...]) -> tuple[PackEntry, ...]:
        first = entries[0]
        match what:
            case "head signature":
                return break_head(entries)
            case "bytes":
                signed = first.signed.parse()
                other = sign_block(
                    replace(signed.block, event_type="other"), MESH.keys.signer(EDGE)
                )
                linked = link(other.lane, other.raw, other.signature)
                return (replace(first, signed=linked), *entries[1:])
            case "order":
                return entries[::-1]
            case _:
                return (*entries[:1], *entries[2:])

    net = lagging()
    for name in (V0, V1, V2):
        pack_bent_by(net, name, bend, monkeypatch)
    late = net.boot_validator(V3)
    net.deliver()
    assert not net.of(RangeFilled, V3)
    lacking = pending_of(late)["incomplete"]
    assert isinstance(lacking, int)
    assert 0 < lacking <= late.history.next_epoch
    monkeypatch.undo()
    later(net, 10)
    assert late.backlog.missing == {}
    assert pending_of(late)["incomplete"] == 0
    stored = [net.stores[name].scan(Table.BLOCKS, b"", b"\xff" * 80, 999) for name in (V1, V3)]
    assert stored[0] == stored[1]


def test_a_restart_goes_on_checking() -> None:
    net = lagging()
    late = net.boot_validator(V3)
    late.backlog.start = lambda now: None  # type: ignore[method-assign]
    late.backlog._turn_at = None
    net.deliver()
    held = late.backlog.trusted
    assert held
    net.kill(V3)
    again = net.boot_validator(V3)
    assert again.backlog.trusted == held
    later(net)
    assert again.backlog.trusted == {}


def test_a_first_block_with_another_enrolment_is_not_trusted() -> None:
    # The head vouches for bytes, so this takes a quorum of liars; the enrolment is checked anyway.
    forged = enrolment_of(mesh_of(4), "other").to_body()
    block = Microblock(
        **{
            name: getattr(BLOCKS[0].block, name)
            for name in ("chain", "node_id", "inc", "seq", "prev", "timestamp_ms", "event_type")
        },
        payload_hash=bytes(32),
        body=forged,
    )
    signed = sign_block(block, MESH.keys.signer(EDGE))
    linked = link(signed.lane, signed.raw, signed.signature)
    net, _ = running(1)
    book = validator(net, V0).book
    book._new_lane(signed.lane)
    with pytest.raises(Exception, match="enrolment"):
        book.trust([linked])
