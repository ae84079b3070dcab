"""The ledger under the names of the public documents; each is a thin face over the room's own."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from hookprobe.config.agreement import quorum_problem
from hookprobe.config.load import load
from hookprobe.crypto import merkle
from hookprobe.crypto.signing import Ed25519Signer
from hookprobe.dsm.certificate import quorum
from hookprobe.dsm.enrolment import parse_enrolment
from hookprobe.dsm.genesis import decode_genesis
from hookprobe.dsm.store import Table
from hookprobe.errors import (
    ConfigError,
    LocalError,
    MalformedError,
    NotFoundError,
    UnauthorizedError,
    UnavailableError,
    VerificationError,
)
from hookprobe.runtime import control, folders, record_desk
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.keystore import read_file
from hookprobe.runtime.ledger_answers import read_block, show_checkpoint
from hookprobe.runtime.ledger_checks import AnswerChecker, trusted_court
from hookprobe.runtime.ledger_query import LedgerQuery
from hookprobe.runtime.ledger_store import open_store, place_of
from hookprobe.wire import canonical
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.identifiers import parse_block_id, parse_epoch, parse_node_id
from hookprobe.wire.instant import SECOND

LOOK_EVERY_S = 0.2


def bft_quorum_required(total_validators: int) -> int:
    """Return how many of so many validators must agree: n - (n-1)//3.

    Raises:
        LocalError: No validators.
    """
    if total_validators < 1:
        raise LocalError(f"a quorum of {total_validators} validators")
    return quorum(total_validators)


class MerkleTree:
    """The RFC 6962 tree over block ids, in the order given.

    Args:
        block_ids: 64 hex digits each.
    """

    def __init__(self, block_ids: Sequence[str]) -> None:
        self._leaves = [bytes.fromhex(parse_block_id(item)) for item in block_ids]

    def root(self) -> str:
        """Return the root, 64 hex digits; of no blocks it is SHA-256 of nothing."""
        return merkle.root(self._leaves).hex()

    def prove(self, index: int) -> list[str]:
        """Return the path from a block to the root, lowest sibling first.

        Raises:
            LocalError: No such block.
        """
        return [item.hex() for item in merkle.prove_inclusion(self._leaves, index)]

    def verify(self, block_id: str, index: int, path: Sequence[str]) -> bool:
        """Say whether a path shows that a block stands at this index."""
        proof = [bytes.fromhex(parse_block_id(item)) for item in path]
        leaf = bytes.fromhex(parse_block_id(block_id))
        expected = merkle.root(self._leaves)
        try:
            merkle.check_inclusion(leaf, index, len(self._leaves), proof, expected)
        except VerificationError:
            return False
        return True


class NodeIdentity:
    """Who a node of this machine is; every node is software-attested, and says so.

    Args:
        folder: The node's folder, with `node.key` and `enrolment.json`.

    Raises:
        HostError: A document is missing, or readable by others.
        RemoteError: A document does not hold.
    """

    attestation = "software-attested"

    def __init__(self, folder: Path) -> None:
        documents = folders.read_node(folder)
        self.enrolment = parse_enrolment(canonical.decode_object(documents.enrolment))
        self.node_id = documents.secrets.node
        self._signer = Ed25519Signer(documents.secrets.signing)
        if self.enrolment.certificate.key != self._signer.public_key:
            raise VerificationError(f"{self.node_id}: certificate of another key")

    @property
    def certificate(self) -> JsonObject:
        """What a certificate authority of the mesh says about this node."""
        return self.enrolment.certificate.to_json()

    def attest(self) -> JsonObject:
        """Return what this node can show about itself: its certificate, and no TPM's quote."""
        return {
            "attestation": self.attestation,
            "certificate": self.enrolment.to_body(),
            "pcr_values": {},
            "quote": None,
        }


class DSMNode:
    """A running edge of this machine, for programs beside it that have something to report.

    Args:
        node_id: The edge's name.
        key_path: Its `node.key`; settings and state are found beside it.

    Raises:
        ConfigError: Its settings are wrong, or of another node.
    """

    def __init__(self, node_id: str, key_path: str | Path) -> None:
        path = Path(key_path)
        folder = path if path.is_dir() else path.parent
        self._config = load(folder / folders.SETTINGS_FILE, os.environ, {})
        if self._config.text("dsm.node.id") != parse_node_id(node_id):
            raise ConfigError([f"{folder}: is the folder of {self._config.text('dsm.node.id')}"])
        self.node_id = node_id
        self._state = self._config.file("state.path")

    def create_microblock(self, payload: JsonObject, event_type: str) -> JsonObject:
        """Have the running edge write an event down; it is durable when this returns.

        Args:
            payload: The fields of a shared event: nothing else may leave an edge.
            event_type: ids_alert, mitigation, threat_intel or policy_update.

        Returns:
            The block.

        Raises:
            MalformedError: Not a shared event.
            UnavailableError: The edge does not run, or does not know yet where its chain ends.
        """
        request: JsonObject = {"event": payload, "event_type": event_type, "op": "record"}
        *_, last = control.ask(self._state, record_desk.SOCKET_FILE, request)
        result = last.get("result")
        if not isinstance(result, list):
            kind = MalformedError if last.get("error") == MalformedError.code else UnavailableError
            raise kind(str(last.get("message")), hint=str(last.get("hint") or ""))
        block: JsonObject = result[-1]
        return block

    def announce(self, microblock: JsonObject) -> None:
        """Make sure that a block is one of this edge's: the edge sends those to validators itself.

        Raises:
            NotFoundError: It is not.
        """
        signed, _ = read_block(microblock)
        store = open_store(place_of(self._config), read_only=True)
        try:
            if store.get(Table.BLOCKS, signed.row_key()) is None:
                raise NotFoundError(f"{self.node_id} has no block {signed.id.hex()[:16]}")
        finally:
            store.close()


class DSMValidator(DSMNode):
    """A running validator of this machine, and the checkpoints that it has made with the others.

    Args:
        node_id: The validator's name.
        key_path: Its `node.key`.

    Raises:
        ConfigError: Its settings are wrong, or of another node.
        UnauthorizedError: It is not in the validator set.
    """

    def __init__(self, node_id: str, key_path: str | Path) -> None:
        super().__init__(node_id, key_path)
        raw = read_file(self._config.file("identity.path") / folders.GENESIS_FILE, limit=1 << 20)
        self._genesis = decode_genesis(raw)
        self._court = trusted_court(raw, None)
        store = open_store(place_of(self._config), read_only=True)
        try:
            members = LedgerQuery(self._genesis, self._court, store).validators()
        finally:
            store.close()
        if members.place(node_id) is None:
            raise UnauthorizedError(f"{node_id} is not a validator of this mesh")

    def build_checkpoint(self, epoch: int, timeout_s: float = 60.0) -> JsonObject:
        """Wait for the checkpoint of an epoch, which no validator can make alone; it was checked.

        Raises:
            UnavailableError: It is not final in time.
            RemoteError: What is stored does not hold.
        """
        store = open_store(place_of(self._config), read_only=True)
        try:
            query = LedgerQuery(self._genesis, self._court, store)
            return self._wait(query, parse_epoch(epoch), timeout_s)
        finally:
            store.close()

    def _wait(self, query: LedgerQuery, epoch: int, timeout_s: float) -> JsonObject:
        clock, pause = Clock(), threading.Event()
        until = clock.now() + int(timeout_s * SECOND)
        while True:
            try:
                final = query.checkpoint(epoch)
            except NotFoundError as error:
                if clock.now() >= until:
                    raise UnavailableError(f"checkpoint {epoch} is not final") from error
                pause.wait(LOOK_EVERY_S)
                continue
            shown = show_checkpoint(final, final.checkpoint.content.ranges)
            checker = AnswerChecker(self._court)
            for change in query.changes(0):
                checker.roll.accept(change)
            checker.check_checkpoint(shown | {"ranges_hidden": 0}, epoch)
            return shown


class ConsensusEngine:
    """What a mesh's validators must have signed for a checkpoint to count.

    Args:
        genesis: The path of the mesh's genesis.json.
        quorum_threshold: Read for old programs; the quorum is n - (n-1)//3.

    Raises:
        ConfigError: The threshold is below that quorum.
        RemoteError: The genesis document does not hold.
    """

    def __init__(self, genesis: str | Path, quorum_threshold: float = 0.67) -> None:
        court = trusted_court(read_file(Path(genesis), limit=1 << 20), None)
        problem = quorum_problem(str(quorum_threshold), court.validators.size)
        if problem:
            raise ConfigError([f"quorum_threshold: {problem}"])
        self.quorum = court.validators.quorum
        self.validators = list(court.validators.ids)
        self._checker = AnswerChecker(court)

    def collect_validator_signatures(self, checkpoint: JsonObject) -> JsonObject:
        """Return a checkpoint that a quorum has signed: validators collect votes among themselves.

        Raises:
            RemoteError: No quorum signed this very checkpoint.
        """
        self._checker.check_checkpoint(checkpoint)
        return checkpoint


class ValidatorRegistry:
    """The validators of a mesh as its genesis document names them.

    Args:
        genesis: The path of the mesh's genesis.json.
    """

    def __init__(self, genesis: str | Path) -> None:
        court = trusted_court(read_file(Path(genesis), limit=1 << 20), None)
        self.validators = {
            entry.validator_id: entry.to_json() for entry in court.validators.members
        }

    def apply_for_validator(self, node_identity: NodeIdentity) -> None:
        """Refuse: an application stands in the applicant's own chain, which only it can write.

        Raises:
            UnavailableError: Always.
        """
        raise UnavailableError(
            f"{node_identity.node_id}: applications are not made from beside a node",
            hint="hookprobe validator apply --help",
        )
