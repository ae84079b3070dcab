"""ML-DSA-44 (FIPS 204), verified: signatures of witnesses that outlast quantum computers.

The library's own implementation does the work; nothing of the mesh signs with it. Verification
needs no side-channel care, so pure public inputs are all that passes through here.
"""

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from hookprobe.errors import LocalError

PUBLIC_KEY_BYTES = 1312
SIGNATURE_BYTES = 2420


def verify(public_key: bytes, message: bytes, signature: bytes, context: bytes = b"") -> bool:
    """Tell whether a key signed a message in a context.

    Raises:
        LocalError: This host's build of the library knows no ML-DSA: nothing is verified.
    """
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        MLDSA44PublicKey.from_public_bytes(public_key).verify(signature, message, context)
    except (InvalidSignature, ValueError):
        return False
    except UnsupportedAlgorithm as error:
        raise LocalError(
            "this build of the package cryptography cannot verify ML-DSA-44",
            hint="install its wheel, or name no ML-DSA-44 witness in dsm.log.witnesses",
        ) from error
    return True
