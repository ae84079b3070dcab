"""TPM 2.0 as a verifier sees it: public keys, quotes, secrets only one TPM opens; bytes only.

No TPM library is needed to verify. The structures are those of the TPM 2.0 Library specification,
part 2 (TPMT_PUBLIC 12.2.4, TPMS_ATTEST 10.12.8, TPMT_SIGNATURE 11.3.4) and part 1 (credentials: 24,
KDFa: 11.4.10.2, KDFe: 11.4.10.3). Accepted is one profile of it:

    attestation key   ECC P-256, restricted, signing, fixedTPM, fixedParent, born in the TPM
    endorsement key   ECC P-256 or RSA 2048, restricted, decrypting, AES-128-CFB, name SHA-256
    quote             ECDSA SHA-256 over SHA-256 PCRs

A credential binds the two keys: only the TPM that holds the endorsement key AND the attestation key
of that name gives the secret out. So a quote over the secret comes from that very TPM.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from hookprobe.errors import LimitExceededError, MalformedError, VerificationError
from hookprobe.wire.instant import SECOND, Instant
from hookprobe.wire.reader import Reader, Writer

PUBLIC_MAX_BYTES = 1024
ATTEST_MAX_BYTES = 1024
SECRET_BYTES = 32
PCR_BYTES = 32
PCRS = 24

_ALG_RSA, _ALG_AES, _ALG_SHA256, _ALG_NULL = 0x0001, 0x0006, 0x000B, 0x0010
_ALG_ECDSA, _ALG_ECC, _ALG_CFB = 0x0018, 0x0023, 0x0043
_CURVE_P256 = 0x0003
_MAGIC, _ATTEST_QUOTE = 0xFF544347, 0x8018
_FIXED_TPM, _FIXED_PARENT, _ORIGIN = 1 << 1, 1 << 4, 1 << 5
_RESTRICTED, _DECRYPT, _SIGN = 1 << 16, 1 << 17, 1 << 18
_IN_TPM = _FIXED_TPM | _FIXED_PARENT | _ORIGIN | _RESTRICTED
_RSA_BITS, _RSA_EXPONENT = 2048, 65537
_SEED_BYTES = 32


@dataclass(frozen=True, slots=True)
class TpmKey:
    """A TPM's public key.

    Attributes:
        key: P-256 or RSA.
        name: 34 bytes: SHA-256's number, then the hash of the public area.
    """

    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    name: bytes


@dataclass(frozen=True, slots=True)
class Quote:
    """What a checked quote says.

    Attributes:
        pcrs: SHA-256 PCR values by number, as signed.
        resets: How often the TPM was reset: one more after each boot.
        restarts: How often it was restarted without a reset (suspend).
    """

    pcrs: Mapping[int, bytes]
    resets: int
    restarts: int


def parse_attestation_key(public: bytes) -> TpmKey:
    """Read the TPMT_PUBLIC of an attestation key.

    Raises:
        MalformedError: Not one.
        VerificationError: A key of another kind: it could sign what a TPM did not measure.
    """
    reader, kind, attributes = _public_head(public)
    if kind != _ALG_ECC or attributes & (_IN_TPM | _SIGN | _DECRYPT) != _IN_TPM | _SIGN:
        raise VerificationError("TPM attestation key: not a restricted signing key of a TPM")
    if reader.u16() != _ALG_NULL:  # symmetric
        raise MalformedError("TPM attestation key: a signing key has no symmetric part")
    if (reader.u16(), reader.u16()) != (_ALG_ECDSA, _ALG_SHA256):
        raise VerificationError("TPM attestation key: not ECDSA with SHA-256")
    return TpmKey(_point(reader), _name(public))


def parse_endorsement_key(public: bytes) -> TpmKey:
    """Read the TPMT_PUBLIC of an endorsement key.

    Raises:
        MalformedError: Not one.
        VerificationError: A key of another kind.
    """
    reader, kind, attributes = _public_head(public)
    if attributes & (_IN_TPM | _SIGN | _DECRYPT) != _IN_TPM | _DECRYPT:
        raise VerificationError("TPM endorsement key: not a restricted decryption key of a TPM")
    if (reader.u16(), reader.u16(), reader.u16()) != (_ALG_AES, 128, _ALG_CFB):
        raise VerificationError("TPM endorsement key: not with AES-128-CFB")
    if reader.u16() != _ALG_NULL:  # scheme
        raise MalformedError("TPM endorsement key: a decryption key has no signing scheme")
    if kind == _ALG_ECC:
        return TpmKey(_point(reader), _name(public))
    return TpmKey(_modulus(reader), _name(public))


def _public_head(public: bytes) -> tuple[Reader, int, int]:
    if len(public) > PUBLIC_MAX_BYTES:
        raise LimitExceededError(f"TPM public key of {len(public)} bytes")
    reader = Reader(public, "TPM public key")
    kind, name_algorithm, attributes = reader.u16(), reader.u16(), reader.u32()
    if kind not in {_ALG_ECC, _ALG_RSA} or name_algorithm != _ALG_SHA256:
        raise VerificationError("TPM public key: neither ECC nor RSA, or not named by SHA-256")
    reader.block16(64)  # authPolicy: who may use the key is the device's business
    return reader, kind, attributes


def _point(reader: Reader) -> ec.EllipticCurvePublicKey:
    curve, scheme = reader.u16(), reader.u16()
    if curve != _CURVE_P256 or scheme != _ALG_NULL:
        raise VerificationError("TPM public key: another curve than P-256")
    x, y = reader.block16(32), reader.block16(32)
    reader.finish()
    try:
        numbers = ec.EllipticCurvePublicNumbers(_number(x), _number(y), ec.SECP256R1())
        return numbers.public_key()
    except ValueError as error:
        raise MalformedError("TPM public key: the point is not on the curve") from error


def _modulus(reader: Reader) -> rsa.RSAPublicKey:
    bits, exponent = reader.u16(), reader.u32()
    modulus = reader.block16(_RSA_BITS // 8)
    reader.finish()
    if bits != _RSA_BITS or exponent not in {0, _RSA_EXPONENT} or _number(modulus) >> 2047 != 1:
        raise VerificationError("TPM public key: not RSA 2048 with exponent 65537")
    try:
        return rsa.RSAPublicNumbers(_RSA_EXPONENT, _number(modulus)).public_key()
    except ValueError as error:
        raise MalformedError("TPM public key: not an RSA modulus") from error


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _name(public: bytes) -> bytes:
    return _ALG_SHA256.to_bytes(2, "big") + hashlib.sha256(public).digest()


# -- quotes -------------------------------------------------------------------------------------


def check_quote(
    key: TpmKey, attest: bytes, signature: bytes, qualifying: bytes, pcrs: Mapping[int, bytes]
) -> Quote:
    """Check a quote and return what it says.

    Args:
        key: The attestation key.
        attest: TPMS_ATTEST as the TPM signed it.
        signature: TPMT_SIGNATURE.
        qualifying: What the quote must be about: the verifier's nonce, hashed with what it binds.
        pcrs: The PCR values that the device claims, by number.

    Raises:
        MalformedError: Not a quote.
        VerificationError: Signed by another key, about something else, or over other PCR values.
    """
    _check_signature(key, attest, signature)
    if len(attest) > ATTEST_MAX_BYTES:
        raise LimitExceededError(f"TPM quote of {len(attest)} bytes")
    reader = Reader(attest, "TPM quote")
    if reader.u32() != _MAGIC or reader.u16() != _ATTEST_QUOTE:
        # A restricted key signs nothing that begins like this unless the TPM made it itself.
        raise VerificationError("TPM quote: the TPM attests something else")
    reader.block16(68)  # qualifiedSigner
    if not hmac.compare_digest(reader.block16(64), qualifying):
        raise VerificationError("TPM quote: about something else than was asked")
    reader.u64()  # clock: milliseconds since it was made, not a time
    resets, restarts = reader.u32(), reader.u32()
    reader.u8()  # safe
    reader.u64()  # firmware version
    selected, digest = _selection(reader), reader.block16(32)
    reader.finish()
    if selected != tuple(sorted(pcrs)):
        raise VerificationError("TPM quote: over other PCRs than were sent")
    joined = b"".join(pcrs[number] for number in selected)
    if len(joined) != PCR_BYTES * len(selected):
        raise MalformedError("TPM quote: a PCR value has not 32 bytes")
    if not hmac.compare_digest(hashlib.sha256(joined).digest(), digest):
        raise VerificationError("TPM quote: over other PCR values than were sent")
    return Quote(dict(sorted(pcrs.items())), resets, restarts)


def _check_signature(key: TpmKey, attest: bytes, signature: bytes) -> None:
    reader = Reader(signature, "TPM signature")
    if (reader.u16(), reader.u16()) != (_ALG_ECDSA, _ALG_SHA256):
        raise VerificationError("TPM quote: not signed with ECDSA and SHA-256")
    r, s = _number(reader.block16(32)), _number(reader.block16(32))
    reader.finish()
    assert isinstance(key.key, ec.EllipticCurvePublicKey), "attestation keys are P-256"
    try:
        key.key.verify(encode_dss_signature(r, s), attest, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise VerificationError("TPM quote: signed by another key") from error


def _selection(reader: Reader) -> tuple[int, ...]:
    if reader.u32() != 1 or reader.u16() != _ALG_SHA256:
        raise VerificationError("TPM quote: not over exactly one bank, SHA-256")
    mask = reader.take(reader.u8())
    chosen = int.from_bytes(mask, "little")
    if chosen >> PCRS:
        raise MalformedError("TPM quote: there are 24 PCRs")
    return tuple(number for number in range(PCRS) if chosen >> number & 1)


def check_maker(
    certificate: bytes, endorsement: TpmKey, roots: Sequence[bytes], now: Instant
) -> None:
    """Check that a maker's certificate is about an endorsement key.

    Args:
        certificate: DER, as the TPM keeps it.
        endorsement: The key that the device claims.
        roots: Certificates (DER) of makers that are believed, with their intermediates.
        now: Decides about the validity.

    Raises:
        MalformedError: Not a certificate.
        VerificationError: About another key, not valid now, or issued by nobody we believe.
    """
    from cryptography import x509  # 1.3 MiB that only verifiers of TPMs need

    def issued(root: bytes) -> bool:
        try:
            found.verify_directly_issued_by(x509.load_der_x509_certificate(root))
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False
        return True

    try:
        found = x509.load_der_x509_certificate(certificate)
        key = found.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedError("TPM certificate: cannot be read") from error
    assert isinstance(endorsement.key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    if key != endorsement.key:
        raise VerificationError("TPM certificate: about another key")
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    if not begins.timestamp() <= now / SECOND <= ends.timestamp():
        raise VerificationError("TPM certificate: not valid now")
    if not any(map(issued, roots)):
        raise VerificationError("TPM certificate: issued by nobody this verifier believes")


# -- credentials --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret that one TPM can open, for one key in it.

    Attributes:
        blob: TPMS_ID_OBJECT: integrity and encrypted secret.
        seed: The encrypted seed, TPM2B_ENCRYPTED_SECRET without its length.
    """

    blob: bytes
    seed: bytes


def seal_credential(
    endorsement: TpmKey, name: bytes, secret: bytes, random_bytes: Callable[[int], bytes]
) -> Credential:
    """Seal a secret for the TPM of an endorsement key and an attestation key of that name.

    Args:
        endorsement: From `parse_endorsement_key`.
        name: The attestation key's name.
        secret: At most 32 bytes.
        random_bytes: A cryptographic source.

    Raises:
        LimitExceededError: A longer secret.
    """
    if len(secret) > SECRET_BYTES:
        raise LimitExceededError(f"TPM credential of {len(secret)} bytes, limit {SECRET_BYTES}")
    seed, sealed_seed = _seal_seed(endorsement, random_bytes)
    sealer = Cipher(AES(kdf_a(seed, b"STORAGE", name, 128)), CFB(bytes(16))).encryptor()
    hidden = sealer.update(Writer().block16(secret).finish()) + sealer.finalize()
    integrity = hmac.digest(kdf_a(seed, b"INTEGRITY", b"", 256), hidden + name, "sha256")
    return Credential(Writer().block16(integrity).put(hidden).finish(), sealed_seed)


def _seal_seed(endorsement: TpmKey, random_bytes: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    if isinstance(endorsement.key, rsa.RSAPublicKey):
        seed = random_bytes(_SEED_BYTES)
        wrap = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\0")
        return seed, endorsement.key.encrypt(seed, wrap)
    private = ec.derive_private_key(_scalar(random_bytes), ec.SECP256R1())
    ours, theirs = private.public_key().public_numbers(), endorsement.key.public_numbers()
    shared = private.exchange(ec.ECDH(), endorsement.key)
    x = ours.x.to_bytes(32, "big")
    # KDFe with one round: SHA-256(counter || Z || label || 00 || our x || their x).
    seed = hashlib.sha256(
        b"\0\0\0\1" + shared + b"IDENTITY\0" + x + theirs.x.to_bytes(32, "big")
    ).digest()
    return seed, Writer().block16(x).block16(ours.y.to_bytes(32, "big")).finish()


def _scalar(random_bytes: Callable[[int], bytes]) -> int:
    # 64 bits more than the order has make the bias of the remainder negligible (FIPS 186-5 A.2.1).
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    return _number(random_bytes(40)) % (order - 1) + 1


def kdf_a(key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """Return at most 256 bits of KDFa: HMAC(key, counter || label || 00 || context || bits)."""
    message = b"\0\0\0\1" + label + b"\0" + context + bits.to_bytes(4, "big")
    return hmac.digest(key, message, "sha256")[: bits // 8]
