"""A device's NEURO state at the three places that carry it: HELLO's registry, ATTEST, blocks.

    RDV  = HMAC-SHA256(key, u32 epoch || w_fingerprint || chain commitment || u64 records)
    PoSF = HP-NEURO-1 proof over SHA-256(transcript hash || RDV)

(HTP spec 3.4; `key` and transcript hash are the two halves of the handshake's challenge.) The
chain commitment is SHA-256 of the secret chain value, so a beacon reveals nothing of it.

PoSF is symmetric: only the holder of the enrolment secret can check it, and validators do not hold
it. `EnrolledFingerprints` therefore compares the published fingerprint with the enrolled one, and
says so by its name; checking the proof itself is the NEURO verifier's work.
"""

import hashlib
import hmac

from hookprobe.dsm.microblock import NeuroBinding
from hookprobe.identity.directory import Directory
from hookprobe.identity.secrets import NodeSecrets
from hookprobe.neuro import posf
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.weights import derive_seed
from hookprobe.wire.identifiers import NodeId, pack_node_id

WEIGHT_EPOCH = 0
NO_RECORD = bytes(32)  # stands for the hash of the last TER while a device has none
_SESSION_VERIFIER = hashlib.sha256(b"hookprobe/htp").digest()[:16]
_LEDGER_VERIFIER = hashlib.sha256(b"hookprobe/dsm").digest()[:16]


def device_state(secrets: NodeSecrets) -> NeuroState:
    """Return the weights a device starts its epoch with."""
    seed = derive_seed(secrets.neuro, secrets.salt, secrets.provisioned, WEIGHT_EPOCH)
    return NeuroState(seed)


class DeviceResonance:
    """Answers for a device's weights: in handshakes and under blocks."""

    def __init__(self, node: NodeId, state: NeuroState) -> None:
        self._device = hashlib.sha256(pack_node_id(node)).digest()[:16]
        self._state = state
        self._last_record = NO_RECORD

    def w_fingerprint(self) -> bytes:
        return self._state.commitments().w_fingerprint

    def respond(self, challenge: bytes) -> tuple[bytes, bytes]:
        """Return (RDV, PoSF) for a 64-byte challenge: RDV key, then transcript hash."""
        key, transcript = challenge[:32], challenge[32:]
        beacon = (
            WEIGHT_EPOCH.to_bytes(4, "big")
            + self.w_fingerprint()
            + hashlib.sha256(self._state.chain).digest()
            + self._state.count.to_bytes(8, "big")
        )
        rdv = hmac.digest(key, beacon, "sha256")
        message_hash = hashlib.sha256(transcript + rdv).digest()
        return rdv, self._prove(_SESSION_VERIFIER, message_hash, transcript[:16])

    def bind(self, payload_hash: bytes, prev: bytes, seq: int) -> NeuroBinding:
        """Bind a microblock to the weights (HP-NEURO-1, section 3).

        The nonce is SHA-256(prev || u64 seq), cut to 16 bytes: no two blocks of a chain share it.

        Args:
            payload_hash: The 32-byte salted payload hash of the block.
            prev: Id of the block before it, 32 bytes.
            seq: Its number in the chain.
        """
        nonce = hashlib.sha256(prev + seq.to_bytes(8, "big")).digest()[:16]
        return NeuroBinding(
            ter_hash=self._last_record.hex(),
            w_fingerprint=self.w_fingerprint().hex(),
            posf_signature=self._prove(_LEDGER_VERIFIER, payload_hash, nonce).hex(),
        )

    def _prove(self, verifier: bytes, message_hash: bytes, nonce: bytes) -> bytes:
        context = posf.Context(
            device=self._device,
            epoch=WEIGHT_EPOCH,
            index=max(self._state.count - 1, 0),
            verifier=verifier,
            message_hash=message_hash,
            nonce=nonce,
        )
        return posf.sign(self._state, context)


class EnrolledFingerprints:
    """Accepts a peer whose published fingerprint is the one in the signed directory."""

    def __init__(self, directory: Directory) -> None:
        self._enrolled = {device.node: device.w_fingerprint for device in directory.devices}

    def check(
        self, node: NodeId, fingerprint: bytes, challenge: bytes, rdv: bytes, posf: bytes
    ) -> bool:
        """Compare in constant time; the proof (`challenge`, `rdv`, `posf`) is not ours to check."""
        del challenge, rdv, posf
        enrolled = self._enrolled.get(node)
        return enrolled is not None and hmac.compare_digest(enrolled, fingerprint)
