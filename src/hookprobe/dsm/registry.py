"""Who becomes a validator and who ceases to be one: read from final checkpoints (DSM spec 2.7).

The registry reads epoch after epoch, each with its governance blocks in the order of the epoch tree
and the offenders that its evidence proves. What it reads in epoch e takes effect in epoch e+2: the
header of e+1 names the set, so that everybody knows it before the first vote of e+2.

| rule | |
|---|---|
| admission | APPLY by a node enrolled as validator, proof of possession valid, then APPROVE by q |
| rotation | APPLY by a validator; signed with its current key it needs no approval |
| removal | REMOVE by q, or one's own; or evidence, which needs no vote |
| speed | at most max(1, f) changes an epoch: removals first, then applications by age |
| floor | never below 4 members unless the mesh is for development; a removal waits for that |
| for ever | keys that left are tombstones: no set holds them again |
| revocation | of a node and, from genesis version 2 on, of its keys under any name: `dead_keys` |

Votes count while their voter is a member, until q of them have decided; a decision stands.
Removing whom evidence convicts keeps faulty <= f: each step takes one from the faulty and at most
one from f. Everything is a function of final checkpoints, so all validators hold the same registry;
one that lacks blocks of a final epoch waits with it and neither proposes nor votes until they are
here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hookprobe.dsm.court import Court
from hookprobe.dsm.dead_keys import KeyBook, KeyUse
from hookprobe.dsm.genesis import FAULT_TOLERANT_MIN
from hookprobe.dsm.governance import Act, Apply, Approve, Remove, Revoke, revocation_statement
from hookprobe.dsm.store import StoreReader, Table, Write, prefix_end
from hookprobe.dsm.validators import VALIDATORS_MAX, ValidatorEntry, ValidatorSet, parse_entry
from hookprobe.wire import canonical
from hookprobe.wire.canonical import Json, JsonObject
from hookprobe.wire.identifiers import NodeId

STATE_KEY = b"registry"
EPOCH_KEY = b"registry epoch"
TOMB_PREFIX = b"tombstone/"
REVOKED_PREFIX = b"revoked/"
ROWS_MAX = 1_000_000
APPLICATIONS_MAX = 64
APPLIES_PER_EPOCH_MAX = 64


@dataclass(frozen=True, slots=True)
class Application:
    """One APPLY that is not decided yet.

    Args:
        block_id: The block's id, which approvals name.
        entry: The entry that it would make.
        epoch: When it became final.
        decided: q approved, or it rotates a validator's keys and is signed with the current one.
        approvals: Who approved.
    """

    block_id: bytes
    entry: ValidatorEntry
    epoch: int
    decided: bool = False
    approvals: tuple[NodeId, ...] = ()

    def to_json(self) -> JsonObject:
        approvals: list[Json] = list(self.approvals)
        return {
            "approvals": approvals,
            "block": self.block_id.hex(),
            "decided": self.decided,
            "entry": self.entry.to_json(),
            "epoch": self.epoch,
        }


class Registry:
    """The set in force, the one that follows, and everything pending.

    Args:
        court: The court of the genesis document.
        reader: The store as it was left.
        dev: Whether fewer than four validators are allowed.
        patience_epochs: After how many epochs a pending application lapses.
        by_key: Whether keys are revoked with their nodes.
    """

    def __init__(
        self,
        court: Court,
        reader: StoreReader,
        *,
        dev: bool,
        patience_epochs: int,
        by_key: bool = False,
    ) -> None:
        self.next_epoch = 0
        self.current = self.following = court.validators
        self.applications: dict[bytes, Application] = {}
        self.removals: dict[NodeId, tuple[NodeId, ...]] = {}
        self.doomed: dict[NodeId, bool] = {}
        self.revoked: dict[NodeId, int] = {}
        self._tombstones: dict[bytes, bool] = {}
        self._court = court
        self._least = 1 if dev else FAULT_TOLERANT_MIN
        self._patience = patience_epochs
        founders = [KeyUse(item.validator_id, item.key) for item in court.validators.members]
        self._keys = KeyBook(founders, reader) if by_key else None
        self._load(reader)
        self._stored = self._encode()

    # -- storage ------------------------------------------------------------------------------

    def _load(self, reader: StoreReader) -> None:
        epoch = reader.get(Table.META, EPOCH_KEY)
        state = reader.get(Table.META, STATE_KEY)
        self.next_epoch = int.from_bytes(epoch, "big") if epoch is not None else 0
        if state is not None:
            self._decode(canonical.decode_object(state))
        for key, _ in reader.scan(Table.META, TOMB_PREFIX, prefix_end(TOMB_PREFIX), ROWS_MAX):
            self._tombstones[key[len(TOMB_PREFIX) :]] = True
        rows = reader.scan(Table.META, REVOKED_PREFIX, prefix_end(REVOKED_PREFIX), ROWS_MAX)
        for key, value in rows:
            node = NodeId(key[len(REVOKED_PREFIX) :].decode())
            self.revoked[node] = int.from_bytes(value, "big")

    def _encode(self) -> bytes:
        applications: list[Json] = [item.to_json() for item in self.applications.values()]
        removals: list[Json] = [[node, *votes] for node, votes in sorted(self.removals.items())]
        doomed: list[Json] = [*sorted(self.doomed)]
        sets = [canonical.decode(item.encode()) for item in (self.current, self.following)]
        return canonical.encode(
            {"applications": applications, "doomed": doomed, "removals": removals, "sets": sets}
        )

    def _decode(self, state: JsonObject) -> None:
        # Written by `_encode`: asserted, not checked.
        for item in _items(state["applications"]):
            assert isinstance(item, dict)
            block_id = bytes.fromhex(str(item["block"]))
            assert isinstance(item["epoch"], int)
            approvals = tuple(NodeId(str(node)) for node in _items(item["approvals"]))
            self.applications[block_id] = Application(
                block_id,
                parse_entry(item["entry"]),
                item["epoch"],
                item["decided"] is True,
                approvals,
            )
        for vote in _items(state["removals"]):
            target, *voters = [NodeId(str(node)) for node in _items(vote)]
            self.removals[target] = tuple(voters)
        self.doomed = {NodeId(str(node)): True for node in _items(state["doomed"])}
        self.current, self.following = (
            ValidatorSet([parse_entry(entry) for entry in _items(found)])
            for found in _items(state["sets"])
        )

    # -- reading ------------------------------------------------------------------------------

    @property
    def dead_keys(self) -> Mapping[bytes, int]:
        """The keys that nobody may use any more, with the epoch that decided it."""
        return self._keys.dead if self._keys is not None else {}

    def read(
        self, acts: Iterable[Act], offenders: Iterable[str], uses: Sequence[KeyUse] = ()
    ) -> list[Write]:
        """Read the next epoch.

        Args:
            acts: Its governance blocks in order.
            offenders: Whom its evidence convicts.
            uses: The keys of its first blocks, and those that its evidence convicts.

        Returns:
            The rows that keep what changed.
        """
        epoch, offenders = self.next_epoch, tuple(offenders)
        writes = self._learn(uses, offenders, epoch)
        applies = 0
        for act in acts:
            applies += isinstance(act.what, Apply)
            if act.node_id in self.revoked or applies > APPLIES_PER_EPOCH_MAX:
                continue
            writes += self._take(act, epoch)
        for offender in offenders:
            if self.following.place(offender) is not None:
                self.doomed[NodeId(offender)] = True
        self._lapse(epoch)
        decided, tombstones = self._decide()
        writes += [(Table.META, TOMB_PREFIX + key, b"") for key in tombstones]
        self._tombstones |= dict.fromkeys(tombstones, True)
        self.current, self.following = self.following, decided
        self.next_epoch = epoch + 1
        writes.append((Table.META, EPOCH_KEY, self.next_epoch.to_bytes(8, "big")))
        encoded = self._encode()
        if encoded != self._stored:
            self._stored = encoded
            writes.append((Table.META, STATE_KEY, encoded))
        return writes

    def _learn(self, uses: Sequence[KeyUse], offenders: Sequence[str], epoch: int) -> list[Write]:
        if self._keys is None:
            return []
        kept, revoked = self._keys.learn(uses, epoch)
        # The convicted are in quarantine already; those who share their keys are revoked.
        buried, shared = self._keys.bury([NodeId(node) for node in offenders], epoch)
        fallen = [node for node in (*revoked, *shared) if node not in offenders]
        return kept + buried + self._revoke_nodes(fallen, epoch)

    def _revoke_nodes(self, nodes: Iterable[NodeId], epoch: int) -> list[Write]:
        fresh = sorted(dict.fromkeys(node for node in nodes if node not in self.revoked))
        self.revoked |= dict.fromkeys(fresh, epoch)
        number = epoch.to_bytes(8, "big")
        return [(Table.META, REVOKED_PREFIX + node.encode(), number) for node in fresh]

    def _take(self, act: Act, epoch: int) -> list[Write]:
        match act.what:
            case Apply():
                self._apply(act, act.what, epoch)
            case Approve(application):
                found = self.applications.get(application)
                if found is not None and self._votes(act) and act.node_id not in found.approvals:
                    approvals = tuple(sorted((*found.approvals, act.node_id)))
                    self.applications[application] = replace(found, approvals=approvals)
            case Remove(target):
                voters = self.removals.get(target, ())
                known = self.following.place(target) is not None
                if known and self._votes(act) and act.node_id not in voters:
                    self.removals[target] = tuple(sorted((*voters, act.node_id)))
            case Revoke():
                return self._revoke(act.what, epoch)
        return []

    def _votes(self, act: Act) -> bool:
        """Tell whether an act is a validator's, signed with its key in the set."""
        entry = self.following.entry(act.node_id)
        return entry is not None and entry.key == act.author.certificate.key

    def _apply(self, act: Act, what: Apply, epoch: int) -> None:
        certificate = act.author.certificate
        entry = ValidatorEntry(act.node_id, certificate.key, what.vote_key, what.possession_proof)
        full = len(self.applications) >= APPLICATIONS_MAX
        known = [
            key for key, item in self.applications.items() if item.entry.validator_id == act.node_id
        ]
        if certificate.role != "validator" or (full and not known):
            return
        if not self._admissible(entry, self.following):
            return
        if not self._court.votes.check_key(entry.vote_key, entry.possession_proof):
            return
        for key in known:
            del self.applications[key]
        self.applications[act.block_id] = Application(
            act.block_id, entry, epoch, decided=self._votes(act)
        )

    def _revoke(self, what: Revoke, epoch: int) -> list[Write]:
        if what.ca_key not in self._court.ca_keys or what.node_id in self.revoked:
            return []
        statement = revocation_statement(self._court.chain, what.node_id)
        if not self._court.signatures.verify(what.ca_key, statement, what.ca_signature):
            return []
        if self._keys is None:
            return self._revoke_nodes([what.node_id], epoch)
        buried, fallen = self._keys.bury([what.node_id], epoch)
        return buried + self._revoke_nodes(fallen, epoch)

    def _lapse(self, epoch: int) -> None:
        self.applications = {
            key: item
            for key, item in self.applications.items()
            if epoch - item.epoch < self._patience and item.entry.validator_id not in self.revoked
        }

    # -- deciding -----------------------------------------------------------------------------

    def _admissible(self, entry: ValidatorEntry, members: ValidatorSet) -> bool:
        """Tell whether an entry may replace that of its id, or join, by its keys."""
        if entry.key in self._tombstones or entry.vote_key in self._tombstones:
            return False
        if entry.key in self.dead_keys:
            return False
        others = [item for item in members.members if item.validator_id != entry.validator_id]
        if any(entry.key == item.key or entry.vote_key == item.vote_key for item in others):
            return False
        return entry != members.entry(entry.validator_id)

    def _decide(self) -> tuple[ValidatorSet, list[bytes]]:
        """Return the set of epoch e+2 and the keys that leave with it."""
        members = {entry.validator_id: entry for entry in self.following.members}
        left: list[bytes] = []
        room = max(1, self.following.faults)
        self._count_votes()
        for node in sorted(self.doomed):
            if room and len(members) > self._least:
                gone = members.pop(node)
                left += [gone.key, gone.vote_key]
                room -= 1
        for application in self._joining():
            entry, replaced = application.entry, members.get(application.entry.validator_id)
            candidate = ValidatorSet(sorted(members.values(), key=_by_id))
            if not room or (replaced is None and len(members) >= VALIDATORS_MAX):
                break
            if (
                entry.vote_key in left
                or entry.key in left
                or not self._admissible(entry, candidate)
            ):
                continue
            if replaced is not None:
                left += [key for key in _keys(replaced) if key not in _keys(entry)]
            members[entry.validator_id] = entry
            room -= 1
        decided = ValidatorSet(sorted(members.values(), key=_by_id))
        self._settle(decided)
        return decided, left

    def _count_votes(self) -> None:
        """Turn what q members of the set voted for into decisions."""
        for node, voters in self.removals.items():
            if node in voters or self._has_quorum(voters):
                self.doomed[node] = True
        for key, item in self.applications.items():
            if not item.decided and self._has_quorum(item.approvals):
                self.applications[key] = replace(item, decided=True)

    def _joining(self) -> Sequence[Application]:
        ready = [
            item
            for item in self.applications.values()
            if item.decided and item.entry.validator_id not in self.doomed
        ]
        return sorted(ready, key=lambda item: (item.epoch, item.block_id))

    def _has_quorum(self, voters: Sequence[NodeId]) -> bool:
        members = sum(self.following.place(node) is not None for node in voters)
        return members >= self.following.quorum

    def _settle(self, decided: ValidatorSet) -> None:
        """Forget what is done."""
        self.doomed = {node: True for node in self.doomed if decided.place(node) is not None}
        self.removals = {
            node: voters
            for node, voters in self.removals.items()
            if decided.place(node) is not None
        }
        self.applications = {
            key: item
            for key, item in self.applications.items()
            if decided.entry(item.entry.validator_id) != item.entry
        }


def _keys(entry: ValidatorEntry) -> tuple[bytes, bytes]:
    return entry.key, entry.vote_key


def _by_id(entry: ValidatorEntry) -> NodeId:
    return entry.validator_id


def _items(value: Json) -> list[Json]:
    assert isinstance(value, list)
    return value
