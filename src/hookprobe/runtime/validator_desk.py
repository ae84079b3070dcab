"""What `hookprobe validator` may ask of the running validator; see `runtime.control`.

    status                       the set, what is pending and what it is attested by
    checkpoint                   the last final checkpoint, for an attestation to be bound to
    apply   [attestation, spare] ask to become a validator, or to vote with the spare key
    approve application          vote for an application, by its id
    remove  validator            vote to remove a validator; one's own name is a resignation
    revoke  body                 write an authority's revocation of a node on chain
    witness note                 keep the cosignatures of witnesses on a checkpoint of the log

What is ordered becomes a block of this validator's own chain; it counts once it is in a final
checkpoint. The block is durable before the asker hears of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hookprobe.crypto.bls import VoteSigner
from hookprobe.dsm.effects import BlockAppended
from hookprobe.dsm.governance import (
    Apply,
    Approve,
    Governance,
    Remove,
    Revoke,
    parse_governance,
    revocation_statement,
)
from hookprobe.dsm.notes import NOTE_MAX_BYTES
from hookprobe.dsm.registry import Application, Registry
from hookprobe.errors import (
    LocalError,
    MalformedError,
    UnauthorizedError,
    UnavailableError,
    VerificationError,
)
from hookprobe.neuro.verdict import TPM_ATTESTED
from hookprobe.node.host import Effect
from hookprobe.node.seats import (
    NOT_ATTESTED,
    Judgement,
    Terms,
    judge_attestation,
    past_of,
    seat_of,
)
from hookprobe.node.validator import ValidatorNode
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.control import Row, Say
from hookprobe.runtime.log_publisher import LogPublisher
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import parse_node_id

SOCKET_FILE = "validator.sock"
_ATTESTATION_DIGITS_MAX = 6 << 10


@dataclass(frozen=True, slots=True)
class Admission:
    """What this operator asks of applicants.

    Attributes:
        terms: Which TPM keys the operator vouches for, and how fresh attestations must be.
        require_tpm: Approve nobody who is not tpm-attested.
    """

    terms: Terms = field(default_factory=Terms)
    require_tpm: bool = False


class ValidatorDesk:
    """Takes an operator's orders for a running validator.

    Args:
        node: The validator.
        log: Its log.
        clock: Says what time it is.
        admission: What is asked of applicants.
    """

    def __init__(
        self,
        node: ValidatorNode,
        log: LogPublisher,
        clock: Clock,
        admission: Admission = Admission(),
    ) -> None:
        self._admission = admission
        self._node = node
        self._log = log
        self._clock = clock
        self.execute: Callable[[Sequence[Effect]], None] = lambda _: None

    async def perform(self, fields: Fields, say: Say) -> list[Row]:
        """Carry out one order.

        Raises:
            HookProbeError: It cannot be.
        """
        del say
        operation = fields.text("op")
        match operation:
            case "status":
                fields.finish()
                return [*self._members(), *self._pending()]
            case "checkpoint":
                fields.finish()
                return [self._checkpoint()]
            case "apply":
                return self._write(self._application(fields))
            case "approve":
                application = fields.hex("application", 32)
                fields.finish()
                return self._write(self._approval(application))
            case "remove":
                target = parse_node_id(fields.text("validator"))
                fields.finish()
                return self._write(self._removal(target))
            case "revoke":
                body = fields.object("body")
                fields.finish()
                return self._write(self._revocation(body))
            case "witness":
                digits = fields.text("note", limit=2 * NOTE_MAX_BYTES)
                note = Fields({"note": digits}, "request").hex("note", len(digits) // 2)
                fields.finish()
                return [{"cosignatures": self._log.accept(note)}]
            case _:
                raise MalformedError(f"request: no order {operation[:20]!r}")

    @property
    def _registry(self) -> Registry:
        return self._node.ledger.history.registry

    def _members(self) -> list[Row]:
        ledger, registry = self._node.ledger, self._registry
        following = registry.following
        return [
            {
                "validator": node,
                "state": "leaving" if following.place(node) is None else "member",
                "here": node == ledger.keys.validator_id,
                "epoch": ledger.history.next_epoch,
                "votes": len(registry.removals.get(node, ())),
                "application": "",
                "attestation": "",
                "tpm_key": "",
                "age_epochs": None,
                "age_s": None,
            }
            for node in registry.current.ids
        ]

    def _checkpoint(self) -> Row:
        history = self._node.ledger.history
        sealed = history.sealed(history.next_epoch - 1) if history.next_epoch else None
        if sealed is None:
            raise UnavailableError(
                "no checkpoint is final here yet", hint="wait for the first epoch to end"
            )
        return {
            "epoch": sealed.header.epoch,
            "checkpoint": sealed.hash.hex(),
            "time_ms": sealed.header.timestamp_ms,
        }

    def _judge(self, item: Application) -> Judgement:
        ledger = self._node.ledger
        block = ledger.history.relic(item.epoch, item.block_id)
        what = parse_governance(block.block.body or {}) if block is not None else None
        if not isinstance(what, Apply):
            return Judgement(NOT_ATTESTED, "its block is not held here")
        seat = seat_of(ledger.history.court.chain, item.entry)
        past = past_of(ledger.history, self._clock.now())
        return judge_attestation(what.attestation, seat, past, self._admission.terms)

    def _pending(self) -> list[Row]:
        return [self._applicant(item) for item in self._registry.applications.values()]

    def _applicant(self, item: Application) -> Row:
        node, judged = item.entry.validator_id, self._judge(item)
        return {
            "validator": node,
            "state": "approved" if item.decided else "applying",
            "here": node == self._node.ledger.keys.validator_id,
            "epoch": item.epoch,
            "votes": len(item.approvals),
            "application": item.block_id.hex(),
            "attestation": _told(judged),
            "tpm_key": judged.tpm_key,
            "age_epochs": judged.age.epochs if judged.age else None,
            "age_s": judged.age.seconds if judged.age else None,
        }

    def _application(self, fields: Fields) -> Apply:
        attestation = b""
        if fields.has("attestation"):
            text = fields.text("attestation", limit=_ATTESTATION_DIGITS_MAX)
            if len(text) % 2 or text.strip("0123456789abcdef"):
                raise MalformedError("attestation: lower-case hex digits are wanted")
            attestation = bytes.fromhex(text)
        keys = self._node.ledger.keys
        voter: VoteSigner = keys.vote_signer
        if fields.has("spare") and fields.flag("spare"):
            if not keys.spare:
                raise LocalError(
                    "there is no spare voting key", hint="hookprobe validator rotate, then restart"
                )
            voter = keys.spare[0][1]
        fields.finish()
        return Apply(voter.public_key, voter.prove_possession(), attestation)

    def _approval(self, application: bytes) -> Approve:
        found = self._registry.applications.get(application)
        if found is None:
            raise LocalError(
                f"no application {application.hex()[:16]} is pending: not found",
                hint="hookprobe validator status lists them",
            )
        judged = self._judge(found)
        if self._admission.require_tpm and judged.label != TPM_ATTESTED:
            raise UnauthorizedError(
                f"{found.entry.validator_id}: {_told(judged)}",
                hint="dsm.validator.require_tpm asks for more: a fresh attestation by a TPM key in"
                " dsm.validator.tpm_keys, compared at the machine",
            )
        return Approve(application)

    def _removal(self, target: str) -> Remove:
        if self._registry.following.place(target) is None:
            raise LocalError(f"{target} is no validator: not found")
        return Remove(parse_node_id(target))

    def _revocation(self, body: JsonObject) -> Revoke:
        what, court = parse_governance(body), self._node.ledger.history.court
        if not isinstance(what, Revoke) or what.ca_key not in court.ca_keys:
            raise UnauthorizedError("not a revocation by an authority of this mesh")
        said = revocation_statement(court.chain, what.node_id)
        if not court.signatures.verify(what.ca_key, said, what.ca_signature):
            raise VerificationError("revocation: the authority's signature does not hold")
        return what

    def _write(self, what: Governance) -> list[Row]:
        effects = self._node.act(what, self._clock.now())
        self.execute(effects)
        blocks = [effect.signed for effect in effects if isinstance(effect, BlockAppended)]
        # Without a block the order waits until the last head of our own chain is known.
        return [
            {
                "order": what.to_body()["kind"],
                "block": blocks[-1].id.hex() if blocks else "",
                "state": "written" if blocks else "waiting",
            }
        ]


def _told(judged: Judgement) -> str:
    return f"{judged.label}: {judged.reason}" if judged.reason else judged.label
