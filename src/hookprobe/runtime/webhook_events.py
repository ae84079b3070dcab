"""Which observations become webhook events, and what is told: one table.

    {"type": "checkpoint_finalized", "timestamp": "...Z",
     "data": {"node_id": ..., "chain": ..., and the fields of the event}}

Nothing here carries an address, a payload or a secret. Slack's form has one line of text.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hookprobe.dsm import effects as ledger
from hookprobe.node.observations import IncidentRecorded, Observation
from hookprobe.wire.instant import Instant, format_iso

TEST_EVENT = "webhook_test"
_SLACK_MARKS = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


@dataclass(frozen=True, slots=True)
class EventKind:
    """One event.

    Attributes:
        name: As in `events:` of the settings.
        about: One line for people.
        data: What is told of an observation.
        text: The same in one sentence.
        when: Which observations of its type are this event.
    """

    name: str
    about: str
    data: Callable[[Any], dict[str, object]]
    text: Callable[[Any], str]
    when: Callable[[Any], bool] = lambda _: True


@dataclass(frozen=True, slots=True)
class Event:
    """Something to tell."""

    name: str
    data: Mapping[str, object]
    text: str
    at: Instant


KINDS: Mapping[type[object], tuple[EventKind, ...]] = {
    ledger.CheckpointFinalized: (
        EventKind(
            "checkpoint_finalized",
            "An epoch is decided.",
            lambda seen: {
                "epoch": seen.epoch,
                "hash": seen.header_hash.hex(),
                "microblock_count": seen.blocks,
                "validator_count": seen.voters,
            },
            lambda seen: (
                f"checkpoint {seen.epoch} is final: {seen.blocks} blocks, {seen.voters} validators"
            ),
        ),
    ),
    ledger.QuorumLost: (
        EventKind(
            "validator_quorum_lost",
            "An open epoch finds no quorum.",
            lambda seen: {"epoch": seen.epoch, "heard": seen.heard, "needed": seen.needed},
            lambda seen: (
                f"no quorum for epoch {seen.epoch}: {seen.heard} of {seen.needed} validators"
            ),
        ),
    ),
    ledger.ForkDetected: (
        EventKind(
            "fork_detected",
            "A node signed two blocks with one number.",
            lambda seen: {"inc": seen.lane[1], "offender": seen.lane[0], "seq": seen.seq},
            lambda seen: (
                f"{seen.lane[0]} signed two blocks with number {seen.seq}:"
                " it was cloned or compromised"
            ),
        ),
    ),
    ledger.NodeQuarantined: (
        EventKind(
            "node_quarantined",
            "From this checkpoint on no block of a node counts.",
            lambda seen: {"epoch": seen.epoch, "offender": seen.node_id},
            lambda seen: f"{seen.node_id} is quarantined from checkpoint {seen.epoch} on",
        ),
    ),
    ledger.MisbehaviourDetected: (
        EventKind(
            "validator_misbehaved",
            "There is evidence that a validator contradicted itself.",
            lambda seen: {"fault": seen.fault.lower(), "offender": seen.offender},
            lambda seen: f"evidence against validator {seen.offender}: {seen.fault.lower()}",
        ),
    ),
    ledger.ValidatorSetChanged: (
        EventKind(
            "validator_removed",
            "Validators left the set, by vote, by themselves or by evidence.",
            lambda seen: {"epoch": seen.epoch, "validators": list(seen.removed)},
            lambda seen: f"from epoch {seen.epoch} on no validator: {', '.join(seen.removed)}",
            lambda seen: bool(seen.removed),
        ),
        EventKind(
            "validator_admitted",
            "Validators joined the set.",
            lambda seen: {"epoch": seen.epoch, "validators": list(seen.added)},
            lambda seen: f"from epoch {seen.epoch} on validators: {', '.join(seen.added)}",
            lambda seen: bool(seen.added),
        ),
        EventKind(
            "validator_rotated",
            "Validators use other keys.",
            lambda seen: {"epoch": seen.epoch, "validators": list(seen.rotated)},
            lambda seen: f"from epoch {seen.epoch} on with other keys: {', '.join(seen.rotated)}",
            lambda seen: bool(seen.rotated),
        ),
    ),
    ledger.ValidatorApplied: (
        EventKind(
            "validator_applied",
            "A node asks to become a validator.",
            lambda seen: {
                "application": seen.application.hex(),
                "epoch": seen.epoch,
                "validator": seen.validator_id,
            },
            lambda seen: f"{seen.validator_id} asks to become a validator",
        ),
    ),
    ledger.SlashDue: (
        EventKind(
            "slash_due",
            "Evidence against a validator is final: whoever holds its stake may act.",
            lambda seen: {
                "epoch": seen.epoch,
                "evidence_id": seen.evidence_id.hex(),
                "fault": seen.fault.lower(),
                "offender": seen.validator_id,
            },
            lambda seen: f"evidence against {seen.validator_id} is final: {seen.fault.lower()}",
        ),
    ),
    ledger.NodeRevoked: (
        EventKind(
            "node_revoked",
            "An authority revoked a node.",
            lambda seen: {"epoch": seen.epoch, "node": seen.node_id},
            lambda seen: f"{seen.node_id} is revoked from checkpoint {seen.epoch} on",
        ),
    ),
    ledger.VotingSuspended: (
        EventKind(
            "voting_suspended",
            "This validator abstains, for its vote log is older than what others saw.",
            lambda seen: {"until_epoch": seen.until},
            lambda seen: (
                f"this validator abstains before epoch {seen.until}: was a backup restored?"
            ),
        ),
    ),
    IncidentRecorded: (
        EventKind(
            "incident_recorded",
            "An incident became a block of this edge's chain.",
            lambda seen: {
                "block_id": seen.block_id.hex(),
                "count": seen.count,
                "final": seen.final,
                "seq": seen.seq,
                "severity": seen.severity,
                "techniques": list(seen.techniques),
                "title": seen.title,
            },
            lambda seen: f"{seen.severity}: {seen.title} ({seen.count}x)",
        ),
    ),
}
NAMES = tuple(sorted(kind.name for kinds in KINDS.values() for kind in kinds))


def events_of(observation: Observation, now: Instant) -> list[Event]:
    """Return the events that an observation is; none for those that are not told."""
    return [
        Event(kind.name, kind.data(observation), kind.text(observation), now)
        for kind in KINDS.get(type(observation), ())
        if kind.when(observation)
    ]


@dataclass(frozen=True, slots=True)
class Sender:
    """Who tells."""

    node_id: str
    chain: str


def render(event: Event, sender: Sender, form: str) -> bytes:
    """Return the body to post.

    Args:
        event: What happened.
        sender: Who tells.
        form: json or slack.
    """
    if form == "slack":
        text = f"HookProbe {sender.node_id}: {event.text}"
        for mark, escaped in _SLACK_MARKS.items():
            text = text.replace(mark, escaped)
        return _json({"text": text})
    data = {"chain": sender.chain, "node_id": sender.node_id, **event.data}
    return _json({"data": data, "timestamp": format_iso(event.at), "type": event.name})


def _json(document: dict[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
