"""Signed canonical documents: {"document": {...}, "key": hex, "signature": hex}.

The signature covers H(domain, canonical bytes of the document), so a document of one kind never
passes for another. Used by update manifests, resonance certificates and epoch orders.
"""

from collections.abc import Sequence

from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.crypto.signing import (
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    SignatureScheme,
    Signer,
)
from hookprobe.errors import UnauthorizedError, VerificationError
from hookprobe.wire import canonical
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.fields import Fields

ENVELOPE_MAX_BYTES = 1 << 14


def seal(document: JsonObject, domain: Domain, signer: Signer) -> bytes:
    """Return the signed document."""
    signature = signer.sign(digest(domain, canonical.encode(document)))
    return canonical.encode(
        {"document": document, "key": signer.public_key.hex(), "signature": signature.hex()}
    )


def open_sealed(
    data: bytes, domain: Domain, keys: Sequence[bytes], scheme: SignatureScheme
) -> JsonObject:
    """Return the document of a sealed one.

    Args:
        data: The received bytes.
        domain: The kind of document that is expected.
        keys: Who may sign it.
        scheme: The signature scheme.

    Raises:
        MalformedError: Not a signed document.
        UnauthorizedError: Signed by somebody else.
        VerificationError: The signature does not hold.
    """
    fields = Fields(canonical.decode_object(data, limit=ENVELOPE_MAX_BYTES), "signed document")
    document = fields.object("document")
    key = fields.hex("key", PUBLIC_KEY_BYTES)
    signature = fields.hex("signature", SIGNATURE_BYTES)
    fields.finish()
    if key not in keys:
        raise UnauthorizedError("signed document: the signer has no authority over it")
    if not scheme.verify(key, digest(domain, canonical.encode(document)), signature):
        raise VerificationError("signed document: the signature does not hold")
    return document
