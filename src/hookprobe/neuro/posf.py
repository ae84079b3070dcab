"""Proof-of-Sensor-Fusion: a signature that only the holder of the exact state can make (7.4).

    ctx  = TAG"PoSF" || device 16 || u32 epoch || u64 index || verifier 16 || message hash 32
           || nonce 16
    x    = 64 int16, times 2, from SHAKE256(TAG"S" || c || ctx)
    posf = HMAC-SHA256(K, ctx || 32 x int32 of L_X_SIG_07's raw output)

Security: K is a PRF output of a secret chain, so the proof is unforgeable if HMAC-SHA256 is a PRF,
whatever the network does. The network adds no cryptographic strength; to make a proof one must
hold every weight bit, the whole chain, and run the net. It is symmetric: who can check can forge,
so it stands beside Ed25519 and never replaces it.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass

from hookprobe.errors import LocalError
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.weights import INPUTS, OUTPUTS, TAG
from hookprobe.wire.reader import Writer

POSF_BYTES = 32
CONTEXT_BYTES = 107

_INPUT = struct.Struct(f">{INPUTS}h")
_OUTPUT = struct.Struct(f">{OUTPUTS}i")


@dataclass(frozen=True, slots=True)
class Context:
    """What a proof is about.

    Attributes:
        device: 16 bytes that name the device.
        epoch: Weight epoch.
        index: 0-based index of the last applied record.
        verifier: 16 bytes that name who asks.
        message_hash: SHA-256 of what is signed.
        nonce: 16 bytes, never repeated for one index.
    """

    device: bytes
    epoch: int
    index: int
    verifier: bytes
    message_hash: bytes
    nonce: bytes

    def encode(self) -> bytes:
        """Return the 107 context bytes.

        Raises:
            LocalError: A field has the wrong length.
        """
        encoded = (
            Writer()
            .put(TAG + b"PoSF")
            .put(self.device)
            .u32(self.epoch)
            .u64(self.index)
            .put(self.verifier)
            .put(self.message_hash)
            .put(self.nonce)
            .finish()
        )
        if len(encoded) != CONTEXT_BYTES:
            raise LocalError(f"PoSF context of {len(encoded)} bytes, {CONTEXT_BYTES} are wanted")
        return encoded


def sign(state: NeuroState, context: Context) -> bytes:
    """Return the 32-byte proof of `context` under the current state."""
    encoded = context.encode()
    drawn = hashlib.shake_256(TAG + b"S" + state.chain + encoded).digest(_INPUT.size)
    x = [2 * value for value in _INPUT.unpack(drawn)]
    output = state.output(x)
    return hmac.digest(state.commitments().key, encoded + _OUTPUT.pack(*output), "sha256")


def verify(state: NeuroState, context: Context, proof: bytes) -> bool:
    """Check a proof against a replayed state, in constant time."""
    return hmac.compare_digest(sign(state, context), proof)
