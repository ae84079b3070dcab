"""A TPM on paper: marshals, activates and quotes as the specification says, keys in the open.

The verifier is tried against a real implementation too (swtpm, `test_tpm.py`); this one can lie.
"""

import hashlib
import hmac
from dataclasses import dataclass, field

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from hookprobe.crypto.tpm import Credential, kdf_a
from hookprobe.neuro.quote_documents import Claim, QuoteAnswer
from hookprobe.wire.reader import Reader, Writer

SIGNING = 0x00050072  # sign, restricted, userWithAuth, sensitiveDataOrigin, fixedParent, fixedTPM
DECRYPTING = 0x000300B2  # decrypt, restricted, adminWithPolicy, ...
POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")


def p256(seed: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(seed, ec.SECP256R1())


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    numbers = key.public_key().public_numbers()
    writer = Writer().block16(numbers.x.to_bytes(32, "big"))
    return writer.block16(numbers.y.to_bytes(32, "big")).finish()


@dataclass
class PaperTpm:
    """One TPM; change its fields to make it lie."""

    seed: int = 7
    pcrs: dict[int, bytes] = field(default_factory=lambda: {n: bytes(32) for n in (0, 1, 7)})
    resets: int = 3
    signing: int = SIGNING
    magic: int = 0xFF544347
    certificate: bytes = b""

    @property
    def endorsement_key(self) -> ec.EllipticCurvePrivateKey:
        return p256(self.seed)

    @property
    def attestation_key(self) -> ec.EllipticCurvePrivateKey:
        return p256(self.seed + 1)

    def endorsement(self) -> bytes:
        head = Writer().u16(0x23).u16(0x0B).u32(DECRYPTING).block16(POLICY)
        head.u16(0x06).u16(128).u16(0x43).u16(0x10).u16(0x03).u16(0x10)
        return head.put(point(self.endorsement_key)).finish()

    def attestation(self) -> bytes:
        head = Writer().u16(0x23).u16(0x0B).u32(self.signing).block16(b"")
        head.u16(0x10).u16(0x18).u16(0x0B).u16(0x03).u16(0x10)
        return head.put(point(self.attestation_key)).finish()

    def name(self) -> bytes:
        return b"\x00\x0b" + hashlib.sha256(self.attestation()).digest()

    def claim(self) -> Claim:
        return Claim(self.endorsement(), self.attestation(), self.certificate)

    def activate(self, credential: Credential) -> bytes | None:
        """Return the secret, or nothing if the credential is not for these two keys."""
        reader = Reader(credential.seed, "seed")
        x, y = (int.from_bytes(reader.block16(32), "big") for _ in range(2))
        theirs = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        shared = self.endorsement_key.exchange(ec.ECDH(), theirs)
        ours = self.endorsement_key.public_key().public_numbers().x.to_bytes(32, "big")
        message = b"\0\0\0\1" + shared + b"IDENTITY\0" + x.to_bytes(32, "big") + ours
        seed = hashlib.sha256(message).digest()
        blob = Reader(credential.blob, "blob")
        integrity, hidden = blob.block16(32), blob.rest()
        key = kdf_a(seed, b"INTEGRITY", b"", 256)
        if not hmac.compare_digest(hmac.digest(key, hidden + self.name(), "sha256"), integrity):
            return None
        opener = Cipher(AES(kdf_a(seed, b"STORAGE", self.name(), 128)), CFB(bytes(16))).decryptor()
        return Reader(opener.update(hidden), "secret").block16(32)

    def attest(self, qualifying: bytes) -> bytes:
        joined = b"".join(value for _, value in sorted(self.pcrs.items()))
        mask = sum(1 << number for number in self.pcrs)
        writer = Writer().u32(self.magic).u16(0x8018).block16(b"\x00\x0b" + bytes(32))
        writer.block16(qualifying).u64(12345).u32(self.resets).u32(0).u8(1).u64(99)
        writer.u32(1).u16(0x0B).u8(3).put(mask.to_bytes(3, "little"))
        return writer.block16(hashlib.sha256(joined).digest()).finish()

    def sign(self, attest: bytes) -> bytes:
        r, s = decode_dss_signature(self.attestation_key.sign(attest, ec.ECDSA(hashes.SHA256())))
        writer = Writer().u16(0x18).u16(0x0B)
        return writer.block16(r.to_bytes(32, "big")).block16(s.to_bytes(32, "big")).finish()

    def quote(self, qualifying: bytes) -> QuoteAnswer:
        attest = self.attest(qualifying)
        return QuoteAnswer(attest, self.sign(attest), dict(self.pcrs))
