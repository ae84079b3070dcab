"""The answers of the query API: what each route reads, and what of it this caller may see."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from hookprobe.detection.attack import Category
from hookprobe.detection.privacy import SharedEvent
from hookprobe.dsm.bundle_lines import certificate_document
from hookprobe.dsm.checkpoint import FinalCheckpoint
from hookprobe.dsm.microblock import Payload, SignedBlock
from hookprobe.errors import MalformedError, NotFoundError, RemoteError
from hookprobe.node.casebook import EVENT_TYPE
from hookprobe.runtime.access import Caller
from hookprobe.runtime.api_routes import PAGE_DEFAULT, Value
from hookprobe.runtime.ledger_answers import (
    show_block,
    show_change,
    show_checkpoint,
    show_proof,
    show_receipt,
    show_time,
)
from hookprobe.runtime.ledger_query import Ask, Found, Inclusion, LedgerQuery
from hookprobe.wire.canonical import Json, JsonObject
from hookprobe.wire.identifiers import INTEGER_MAX, NodeId, parse_node_id
from hookprobe.wire.instant import DAY, MILLISECOND, Instant

CHECKPOINTS_MAX = 50
CHANGES_MAX = 100
# The words of the documents, beside the categories themselves.
THREAT_NAMES = {
    "c2": Category.COMMAND_AND_CONTROL,
    "scan": Category.RECONNAISSANCE,
    "exploit": Category.EXPLOITATION,
    "anomaly": Category.SUSPICIOUS,
}


@dataclass(frozen=True, slots=True)
class Question:
    """Who asks what, when."""

    caller: Caller
    values: Mapping[str, Value]
    now: Instant

    def number(self, name: str, default: int = 0) -> int:
        value = self.values.get(name, default)
        assert isinstance(value, int), name
        return value

    def text(self, name: str) -> str:
        return str(self.values.get(name, ""))

    def place(self) -> tuple[int, int]:
        value = self.values.get("cursor", (0, 0))
        assert isinstance(value, tuple), "cursor"
        return value


Handler: TypeAlias = Callable[[LedgerQuery, Question], JsonObject | bytes]


def genesis(query: LedgerQuery, question: Question) -> JsonObject:
    """Answer with the genesis document; whoever pins its id can check all else."""
    del question
    return {
        "canonical": query.genesis.encode().decode(),
        "chain": query.genesis.chain_id().hex(),
        "epoch_duration_ms": query.genesis.epoch_duration_us // MILLISECOND,
        "start": show_time(query.genesis.start // MILLISECOND),
    }


def validators(query: LedgerQuery, question: Question) -> JsonObject:
    """Answer with the validator set and those convicted by evidence."""
    del question
    members = query.validators()
    convicted = query.settled()
    listed: list[Json] = [
        {
            "key": member.key.hex(),
            "status": "convicted" if member.validator_id in convicted else "active",
            "validator_id": member.validator_id,
            "vote_key": member.vote_key.hex(),
        }
        for member in members.members
    ]
    offences: list[Json] = [
        {"epoch": epoch, "fault": fault.name.lower(), "offender": offender}
        for offender, (epoch, fault) in convicted.items()
    ]
    return {
        "convicted": offences,
        "faults_tolerated": members.faults,
        "quorum": members.quorum,
        "validators": listed,
        "validators_hash": members.hash.hex(),
    }


def changes(query: LedgerQuery, question: Question) -> JsonObject:
    """Answer with the proofs of all changes of the validator set since an epoch."""
    found = query.changes(question.number("from_epoch"))[:CHANGES_MAX]
    items: list[Json] = [show_change(change) for change in found]
    return {"items": items, "complete": len(items) < CHANGES_MAX}


def node(query: LedgerQuery, question: Question) -> JsonObject:
    """Answer with the first blocks of a node's chains."""
    name = _visible_node(query, question)
    blocks: list[Json] = [show_block(signed) for signed in query.enrolments(name)]
    if not blocks:
        raise _no_such_node(name)
    return {"enrolments": blocks, "node_id": name, "tenant": query.tenant(name)}


def _visible_node(query: LedgerQuery, question: Question) -> NodeId:
    name = parse_node_id(question.text("node_id"))
    # Another tenant's node and none at all are one answer: names of others are not told.
    if not question.caller.sees_node(query.tenant(name)):
        raise _no_such_node(name)
    return name


def _no_such_node(name: NodeId) -> NotFoundError:
    return NotFoundError(f"no blocks of node {name} that you may see")


# -- checkpoints --------------------------------------------------------------------------------


def checkpoint(query: LedgerQuery, question: Question) -> JsonObject:
    """Answer with one final checkpoint."""
    return _shown(query, question, query.checkpoint(question.number("epoch")))


def latest_checkpoint(query: LedgerQuery, question: Question) -> JsonObject:
    """Answer with the last final checkpoint."""
    return _shown(query, question, query.checkpoint(max(0, query.next_epoch() - 1)))


def checkpoints(query: LedgerQuery, question: Question) -> JsonObject:
    """Answer with a page of final checkpoints; `next_epoch` is where to go on."""
    first = question.number("from_epoch")
    since = question.number("since")
    if since:
        first = max(first, query.epoch_at(since // MILLISECOND))
    limit = min(question.number("limit", PAGE_DEFAULT), CHECKPOINTS_MAX)
    finals = query.checkpoints(first, limit)
    items: list[Json] = [_shown(query, question, final) for final in finals]
    following = min(first + limit, query.next_epoch())
    more = following < query.next_epoch()
    return {"items": items, "next_epoch": following if more else None}


def _shown(query: LedgerQuery, question: Question, final: FinalCheckpoint) -> JsonObject:
    ranges = final.checkpoint.content.ranges
    caller = question.caller
    visible = [item for item in ranges if caller.sees_node(query.tenant(item.node_id))]
    return show_checkpoint(final, visible) | {"ranges_hidden": len(ranges) - len(visible)}


def inclusion(query: LedgerQuery, question: Question) -> JsonObject:
    """Answer with a block and its path to the root of a checkpoint."""
    found = _included(query, question)
    return {
        "block": show_block(found.signed, _disclosed(query, question, found.signed)),
        "canonical": found.final.checkpoint.raw.decode(),
        "certificate": certificate_document(found.final.certificate),
        "epoch": found.final.checkpoint.header.epoch,
        "index": found.index,
        "path": show_proof(found.path),
    }


def log_proof(query: LedgerQuery, question: Question) -> bytes:
    """Answer with the text that leads from the log's checkpoint to a block."""
    return query.log_proof(_included(query, question))


def _included(query: LedgerQuery, question: Question) -> Inclusion:
    block_id = bytes.fromhex(question.text("block_id"))
    found = query.inclusion(question.number("epoch"), block_id)
    tenant = query.tenant(found.signed.block.node_id)
    if not question.caller.sees_node(tenant):
        raise NotFoundError(f"no block {block_id.hex()[:16]} that you may see")
    return found


def receipt(query: LedgerQuery, question: Question) -> JsonObject:
    """Answer with the range proof of a chain in an epoch."""
    name = _visible_node(query, question)
    return show_receipt(query.receipt(question.number("epoch"), name, question.number("inc")))


def consistency(query: LedgerQuery, question: Question) -> JsonObject:
    """Answer with a consistency proof between two sizes of the history."""
    found = query.consistency(question.number("old"), question.number("new"))
    return {
        "new": found.new,
        "new_root": found.new_root.hex(),
        "old": found.old,
        "old_root": found.old_root.hex(),
        "proof": show_proof(found.proof),
    }


# -- blocks -------------------------------------------------------------------------------------


def microblocks(query: LedgerQuery, question: Question) -> JsonObject:
    """Answer with a page of blocks."""
    values, caller = question.values, question.caller
    event_type, until = question.text("event_type"), question.number("until", INTEGER_MAX)
    since_ms = question.number("since") // MILLISECOND

    def wanted(signed: SignedBlock) -> bool:
        block = signed.block
        return (
            (not event_type or block.event_type == event_type)
            and block.timestamp_ms * MILLISECOND < until
            and caller.sees_node(query.tenant(block.node_id))
        )

    ask = Ask(question.place(), question.number("limit", PAGE_DEFAULT), wanted)
    if "node_id" in values:
        name = _visible_node(query, question)
        span = (question.number("start_seq", 1), question.number("end_seq", INTEGER_MAX - 1))
        if not 0 < span[0] <= span[1] < INTEGER_MAX:
            raise MalformedError("start_seq and end_seq: 1 <= start <= end is wanted")
        if since_ms:
            raise MalformedError("since: not together with node_id; use start_seq")
        page = query.by_chain(name, span, ask)
    elif "start_seq" in values or "end_seq" in values:
        raise MalformedError("start_seq and end_seq need node_id")
    else:
        page = query.by_epoch(INTEGER_MAX, _from(query, ask, since_ms))
    items: list[Json] = [_show_found(query, question, found) for found in page.items]
    return {"items": items, "next": page.next or None}


def _from(query: LedgerQuery, ask: Ask, since_ms: int) -> Ask:
    if not since_ms or ask.start != (0, 0):
        return ask
    return Ask((query.epoch_at(since_ms), 0), ask.limit, ask.wanted)


def _show_found(query: LedgerQuery, question: Question, found: Found) -> JsonObject:
    shown = show_block(found.signed, _disclosed(query, question, found.signed))
    if found.epoch >= 0:
        shown |= {"epoch": found.epoch, "index": found.index}
    return shown


def _disclosed(query: LedgerQuery, question: Question, signed: SignedBlock) -> Payload | None:
    if not question.caller.sees_payload(query.tenant(signed.block.node_id)):
        return None
    return query.payload(signed.id)


def threat_intel(query: LedgerQuery, question: Question) -> JsonObject:
    """Answer with incidents that are in final checkpoints and disclosed to the caller."""
    wanted_category = threat_category(question.text("threat_type"))
    since_ms = (question.now - question.number("time_range", DAY)) // MILLISECOND

    def wanted(signed: SignedBlock) -> bool:
        if signed.block.event_type != EVENT_TYPE:
            return False
        payload = _disclosed(query, question, signed)
        event = read_event(payload) if payload is not None else None
        return event is not None and wanted_category in {None, event.category}

    ask = Ask(question.place(), question.number("limit", PAGE_DEFAULT), wanted)
    page = query.by_epoch(INTEGER_MAX, _from(query, ask, since_ms))
    items: list[Json] = [_show_found(query, question, found) for found in page.items]
    return {"items": items, "next": page.next or None}


def threat_category(name: str) -> Category | None:
    """Return the category that a threat type means; None for an empty one.

    Raises:
        MalformedError: There is no such type.
    """
    if not name:
        return None
    known = THREAT_NAMES | {category.value: category for category in Category}
    if name not in known:
        raise MalformedError(
            f"threat_type: unknown type {name!r}", hint=f"one of {', '.join(sorted(known))}"
        )
    return known[name]


def read_event(payload: Payload) -> SharedEvent | None:
    """Return the incident in a payload; None where it is something else."""
    try:
        return SharedEvent.decode(payload.data)
    except RemoteError:
        return None


HANDLERS: Mapping[str, Handler] = {
    "genesis": genesis,
    "validators": validators,
    "changes": changes,
    "node": node,
    "checkpoint": checkpoint,
    "latest_checkpoint": latest_checkpoint,
    "checkpoints": checkpoints,
    "inclusion": inclusion,
    "log_proof": log_proof,
    "receipt": receipt,
    "consistency": consistency,
    "microblocks": microblocks,
    "threat_intel": threat_intel,
}
