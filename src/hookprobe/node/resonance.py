"""A device's NEURO state at the places that carry it: ATTEST, heartbeats, blocks.

    RDV  = HMAC-SHA256(key, u32 epoch || w_fingerprint || chain commitment || u64 records)
    PoSF = HP-NEURO-1 proof over SHA-256(transcript hash || RDV)

(HTP spec 3.4; `key` and transcript hash are the two halves of the handshake's challenge.) The
chain commitment is SHA-256 of the secret chain value, so a beacon reveals nothing of it.

Two states are shown. Sessions carry the one that a verifier has certified last, because that is the
one that peers can know; blocks carry the live one, which the verifier reaches with the next batch.

PoSF is symmetric: only the holder of the enrolment secret can check it, and validators do not hold
it. They compare fingerprints: with the enrolled one, or with those that a verifier has certified
(`node.appraisals`). Checking proofs is the verifier's work.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from hookprobe.dsm.microblock import NeuroBinding
from hookprobe.identity.directory import Directory
from hookprobe.identity.grant import DeviceGrant
from hookprobe.identity.secrets import NodeSecrets
from hookprobe.neuro import posf
from hookprobe.neuro.backends.engine import EngineFactory
from hookprobe.neuro.backends.pure_engine import PureEngine
from hookprobe.neuro.batch import short_name
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.ter import NO_RECORD, Ter, hash_record
from hookprobe.neuro.weights import derive_seed
from hookprobe.wire.identifiers import NodeId

FIRST_EPOCH = 0
_SESSION_VERIFIER = hashlib.sha256(b"hookprobe/htp").digest()[:16]
_LEDGER_VERIFIER = hashlib.sha256(b"hookprobe/dsm").digest()[:16]


def device_state(
    grant: NodeSecrets | DeviceGrant, epoch: int = FIRST_EPOCH, engine: EngineFactory = PureEngine
) -> NeuroState:
    """Return the weights a device starts an epoch with."""
    return NeuroState(derive_seed(grant.neuro, grant.salt, grant.provisioned, epoch), engine)


class DeviceResonance:
    """Answers for a device's weights: in handshakes and under blocks.

    Args:
        node: The device.
        state: Its state now.
        epoch: Its weight epoch.
    """

    def __init__(self, node: NodeId, state: NeuroState, epoch: int = FIRST_EPOCH) -> None:
        self._device = short_name(node)
        self._live = self._shown = state
        self._live_epoch = self._shown_epoch = epoch

    def live(self, state: NeuroState, epoch: int) -> None:
        """Go on with another state under blocks."""
        self._live, self._live_epoch = state, epoch

    def show(self, state: NeuroState, epoch: int) -> None:
        """Go on with another state in sessions: one that peers can know."""
        self._shown, self._shown_epoch = state, epoch

    def w_fingerprint(self) -> bytes:
        return self._shown.commitments().w_fingerprint

    def respond(self, challenge: bytes) -> tuple[bytes, bytes]:
        """Return (RDV, PoSF) for a 64-byte challenge: RDV key, then transcript hash."""
        key, transcript = challenge[:32], challenge[32:]
        beacon = (
            self._shown_epoch.to_bytes(4, "big")
            + self.w_fingerprint()
            + hashlib.sha256(self._shown.chain).digest()
            + self._shown.count.to_bytes(8, "big")
        )
        rdv = hmac.digest(key, beacon, "sha256")
        message_hash = hashlib.sha256(transcript + rdv).digest()
        context = posf.Context(
            device=self._device,
            epoch=self._shown_epoch,
            index=max(self._shown.count - 1, 0),
            verifier=_SESSION_VERIFIER,
            message_hash=message_hash,
            nonce=transcript[:16],
        )
        return rdv, posf.sign(self._shown, context)

    def bind(self, payload_hash: bytes, prev: bytes, seq: int) -> NeuroBinding:
        """Bind a microblock to the live weights (HP-NEURO-1, section 3).

        The nonce is SHA-256(prev || u64 seq), cut to 16 bytes: no two blocks of a chain share it.

        Args:
            payload_hash: The 32-byte salted payload hash of the block.
            prev: Id of the block before it, 32 bytes.
            seq: Its number in the chain.
        """
        state = self._live
        name = DeviceName(self._device, self._live_epoch)
        context = block_context(name, state.count, payload_hash, block_nonce(prev, seq))
        return NeuroBinding(
            ter_hash=hash_record(state.previous).hex(),
            w_fingerprint=state.commitments().w_fingerprint.hex(),
            posf_signature=posf.sign(state, context).hex(),
        )


class DeviceName(NamedTuple):
    """A device's 16-byte name and its weight epoch, as proofs name them."""

    device: bytes
    epoch: int


def block_nonce(prev: bytes, seq: int) -> bytes:
    """Return the nonce of a block's proof, from the id before it and its number."""
    return hashlib.sha256(prev + seq.to_bytes(8, "big")).digest()[:16]


def block_context(
    name: DeviceName, records: int, payload_hash: bytes, nonce: bytes
) -> posf.Context:
    """Return what the proof in a block is about: its payload, after so many records."""
    return posf.Context(
        device=name.device,
        epoch=name.epoch,
        index=max(records - 1, 0),
        verifier=_LEDGER_VERIFIER,
        message_hash=payload_hash,
        nonce=nonce,
    )


@dataclass(frozen=True, slots=True)
class BlockProof:
    """What a microblock says about its author's weights, and what the proof covers."""

    payload_hash: bytes
    prev: bytes
    seq: int
    ter_hash: bytes
    w_fingerprint: bytes
    posf: bytes


class ProofFound(Enum):
    """What replaying a history says about the proof in a block."""

    HOLDS = "holds"
    UNKNOWN_RECORD = "names a record that was never verified, or is not kept"
    OTHER_STATE = "the history leads to another fingerprint"
    FORGED = "the fingerprint is right, the proof is not"


def check_block(
    name: DeviceName, state: NeuroState, records: Sequence[Ter], proof: BlockProof
) -> ProofFound:
    """Check the proof in a block against a device's verified history.

    Args:
        name: The device and its weight epoch.
        state: The state before `records`; evolved here.
        records: Verified records from there on.
        proof: What the block says.
    """
    hashes = [hash_record(record) for record in records]
    if proof.ter_hash == NO_RECORD and not state.count:
        behind = 0
    elif proof.ter_hash in hashes:
        behind = hashes.index(proof.ter_hash) + 1
    else:
        return ProofFound.UNKNOWN_RECORD
    state.advance(records[:behind])
    if not hmac.compare_digest(state.commitments().w_fingerprint, proof.w_fingerprint):
        return ProofFound.OTHER_STATE
    nonce = block_nonce(proof.prev, proof.seq)
    context = block_context(name, state.count, proof.payload_hash, nonce)
    return ProofFound.HOLDS if posf.verify(state, context, proof.posf) else ProofFound.FORGED


class Fingerprints(Protocol):
    """Which weight fingerprints a peer may present."""

    def of(self, node: NodeId) -> tuple[bytes, ...]:
        """Return them, 64 bytes each; none for a node nobody knows."""


class EnrolledFingerprints:
    """The fingerprint each node was enrolled with, from the signed directory."""

    def __init__(self, directory: Directory) -> None:
        self._enrolled = {device.node: device.w_fingerprint for device in directory.devices}

    def of(self, node: NodeId) -> tuple[bytes, ...]:
        enrolled = self._enrolled.get(node)
        return () if enrolled is None else (enrolled,)


class KnownFingerprints:
    """Accepts a peer whose fingerprint is a known one; that is a comparison, not a proof."""

    def __init__(self, known: Fingerprints) -> None:
        self._known = known

    def check(
        self, node: NodeId, fingerprint: bytes, challenge: bytes, rdv: bytes, posf: bytes
    ) -> bool:
        """Compare in constant time; the proof (`challenge`, `rdv`, `posf`) is not ours to check."""
        del challenge, rdv, posf
        return any(hmac.compare_digest(known, fingerprint) for known in self._known.of(node))
