"""The key exchange inside ATTEST and ACCEPT: Noise NK, and NK with ML-KEM-768 (HTP spec 3.2).

    ATTEST   0 header 32 | 32 cookie 16 | 48 gen 2 | 50 suite 2 | 52 hello_hash 32 | 84 edge_token 8
             92 e_E 32 | suite 2: AEAD(mlkem_ek) 1200 | AEAD(attest body 236) 252
    ACCEPT   0 header 32 | 32 e_V 32 | suite 2: AEAD(mlkem_ct) 1104 | AEAD(accept body 142) 158

    MixHash(ATTEST[0:92])  MixHash(S_V)  MixHash(e_E)  MixKey(DH(e_E, s_V))  [EncryptAndHash(ek)]
    h_s = h; the signature covers h_s; EncryptAndHash(attest body)
    MixHash(ACCEPT header)  MixHash(e_V)  MixKey(DH(e_E, e_V))
    [EncryptAndHash(ct)  MixKey(ss)]  EncryptAndHash(accept body)

Messages longer than a datagram travel in two equal parts that both carry the clear prefix; the
fragment fields of the header count as zero in the transcript. REJECT is an ACCEPT of another type,
bound by the header, and of the same size.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.crypto.agreement import (
    KEM_CIPHERTEXT_BYTES,
    KEM_PUBLIC_BYTES,
    X25519_BYTES,
    AgreementKey,
    Kem,
    KemKey,
)
from hookprobe.crypto.domains import Domain
from hookprobe.crypto.noise import SymmetricState
from hookprobe.errors import MalformedError
from hookprobe.htp.config import DATAGRAM_BYTES, SUITE_CLASSICAL, SUITE_HYBRID
from hookprobe.htp.messages import ACCEPT_PAYLOAD_BYTES, ATTEST_PAYLOAD_BYTES, AttestBody
from hookprobe.htp.packet import HEADER_BYTES, TAG_BYTES, TOKEN_BYTES, PacketType, encode_header
from hookprobe.wire.identifiers import NodeId, pack_node_id
from hookprobe.wire.reader import Reader, Writer

ATTEST_REPEATED_BYTES = 84  # what both datagrams of an ATTEST carry: enough to check the cookie
ACCEPT_REPEATED_BYTES = HEADER_BYTES
ATTEST_BYTES = {SUITE_CLASSICAL: 376, SUITE_HYBRID: 1576}
ACCEPT_BYTES = {SUITE_CLASSICAL: 222, SUITE_HYBRID: 1326}
ATTEST_BODY_BYTES = 64 + 4 + ATTEST_PAYLOAD_BYTES
ACCEPT_BODY_BYTES = 64 + 4 + ACCEPT_PAYLOAD_BYTES

_NAMES = {
    SUITE_CLASSICAL: b"HTP2_NK_25519_ChaChaPoly_SHA256",
    SUITE_HYBRID: b"HTP2_NKhfs_25519+MLKEM768_ChaChaPoly_SHA256",
}
_SIGNED = Domain.HTP_ATTEST.value + b"\0"
_PREFIX_BYTES = ATTEST_REPEATED_BYTES + TOKEN_BYTES
_REPEATED = struct.Struct(">16sHH32s")
_SEALED_START = _PREFIX_BYTES + X25519_BYTES
_SEALED_KEY_BYTES = KEM_PUBLIC_BYTES + TAG_BYTES


@dataclass(frozen=True, slots=True)
class AttestPrefix:
    """The clear fields in front of an ATTEST."""

    cookie: bytes
    generation: int
    suite: int
    hello_hash: bytes
    edge_token: bytes

    def encode(self) -> bytes:
        """Return the 92 bytes that open the transcript."""
        writer = Writer().put(
            encode_header(PacketType.ATTEST, 1, 0, self.cookie[:TOKEN_BYTES], 0, 0)
        )
        writer.put(self.cookie).u16(self.generation).u16(self.suite)
        return writer.put(self.hello_hash).put(self.edge_token).finish()


def read_repeated(data: bytes) -> tuple[bytes, int, int, bytes]:
    """Return (cookie, generation, suite, hello_hash) from the front of any ATTEST datagram.

    Raises:
        MalformedError: Too short, an unknown suite, or a flow token that is not the cookie's.
    """
    if len(data) < ATTEST_REPEATED_BYTES:
        raise MalformedError(f"ATTEST: {len(data)} bytes, {ATTEST_REPEATED_BYTES} at least")
    cookie, generation, suite, hello_hash = _REPEATED.unpack_from(data, HEADER_BYTES)
    if suite not in _NAMES or data[12:20] != cookie[:TOKEN_BYTES]:
        raise MalformedError("ATTEST: unknown suite, or flow token and cookie differ")
    return cookie, generation, suite, hello_hash


def signed_statement(
    transcript: bytes, cookie: bytes, fingerprint: bytes, resonance: bytes, node: NodeId
) -> bytes:
    """Return "HTP2 attest" 0x00 || h_s || cookie || W_fp || RDV || PoSF || node_id."""
    return b"".join((_SIGNED, transcript, cookie, fingerprint, resonance, pack_node_id(node)))


class DiallerExchange:
    """One ATTEST of ours and the reading of its answer.

    Args:
        prefix: The clear fields.
        static_key: S_V, the pinned key of the peer.
        ephemeral: A fresh key pair.
        kem_key: A fresh pair for suite 2, None for suite 1.

    Raises:
        VerificationError: The pinned key is a point of low order.
    """

    __slots__ = ("_ephemeral", "_head", "_kem_key", "state", "suite", "transcript")

    def __init__(
        self,
        prefix: AttestPrefix,
        static_key: bytes,
        ephemeral: AgreementKey,
        kem_key: KemKey | None,
    ) -> None:
        self.suite = prefix.suite
        self._ephemeral = ephemeral
        self._kem_key = kem_key
        state = SymmetricState(_NAMES[prefix.suite])
        clear = prefix.encode()
        state.mix_hash(clear)
        state.mix_hash(static_key)
        state.mix_hash(ephemeral.public_key)
        state.mix_key(ephemeral.exchange(static_key))
        self._head = clear + ephemeral.public_key
        if kem_key is not None:
            self._head += state.encrypt_and_hash(kem_key.public_key)
        self.state = state
        self.transcript = state.transcript

    def write(self, body: AttestBody) -> bytes:
        """Return the whole ATTEST; called once."""
        return self._head + self.state.encrypt_and_hash(body.encode())

    def read(self, message: bytes) -> tuple[SymmetricState, bytes]:
        """Open an ACCEPT or sealed REJECT: (final state, body). May be tried again after a failure.

        Raises:
            MalformedError: Wrong size for the suite.
            VerificationError: Not an answer to this ATTEST by the owner of the pinned key.
        """
        if len(message) != ACCEPT_BYTES[self.suite]:
            raise MalformedError(f"ACCEPT: {len(message)} bytes, want {ACCEPT_BYTES[self.suite]}")
        state = self.state.copy()
        reader = Reader(message, "ACCEPT")
        state.mix_hash(reader.take(HEADER_BYTES))
        theirs = reader.take(X25519_BYTES)
        state.mix_hash(theirs)
        state.mix_key(self._ephemeral.exchange(theirs))
        if self._kem_key is not None:
            ciphertext = state.decrypt_and_hash(reader.take(KEM_CIPHERTEXT_BYTES + TAG_BYTES))
            state.mix_key(self._kem_key.decapsulate(ciphertext))
        return state, state.decrypt_and_hash(reader.rest())


class AnswererExchange:
    """A received ATTEST, opened, and the writing of its answer.

    Args:
        message: The whole ATTEST, of a valid cookie.
        suite: As in its prefix.
        static_key: Our pair whose public half the dialler pinned.

    Raises:
        MalformedError: Wrong size for the suite.
        VerificationError: Not made for our key, or changed on the way.
    """

    __slots__ = ("_kem_public", "_theirs", "body", "edge_token", "state", "suite", "transcript")

    def __init__(self, message: bytes, suite: int, static_key: AgreementKey) -> None:
        if len(message) != ATTEST_BYTES[suite]:
            raise MalformedError(f"ATTEST: {len(message)} bytes, want {ATTEST_BYTES[suite]}")
        self.suite = suite
        state = SymmetricState(_NAMES[suite])
        self.edge_token = message[ATTEST_REPEATED_BYTES:_PREFIX_BYTES]
        state.mix_hash(message[:_PREFIX_BYTES])
        state.mix_hash(static_key.public_key)
        self._theirs = message[_PREFIX_BYTES:_SEALED_START]
        state.mix_hash(self._theirs)
        state.mix_key(static_key.exchange(self._theirs))
        self._kem_public, start = b"", _SEALED_START
        if suite == SUITE_HYBRID:
            start += _SEALED_KEY_BYTES
            self._kem_public = state.decrypt_and_hash(message[_SEALED_START:start])
        self.transcript = state.transcript
        self.body = state.decrypt_and_hash(message[start:])
        self.state = state

    def answer(
        self, header: bytes, ephemeral: AgreementKey, kem: Kem, body: bytes
    ) -> tuple[SymmetricState, bytes]:
        """Return (final state, whole message); called once.

        Raises:
            MalformedError: The dialler's ML-KEM key is not one.
            VerificationError: The dialler's X25519 key is of low order.
        """
        state = self.state
        state.mix_hash(header)
        state.mix_hash(ephemeral.public_key)
        state.mix_key(ephemeral.exchange(self._theirs))
        message = header + ephemeral.public_key
        if self.suite == SUITE_HYBRID:
            secret, ciphertext = kem.encapsulate(self._kem_public)
            message += state.encrypt_and_hash(ciphertext)
            state.mix_key(secret)
        return state, message + state.encrypt_and_hash(body.ljust(ACCEPT_BODY_BYTES, b"\0"))


def split_message(message: bytes, repeated: int) -> list[bytes]:
    """Return one datagram, or two equal ones that both begin with the first `repeated` bytes."""
    if len(message) <= DATAGRAM_BYTES:
        return [message]
    half = repeated + (len(message) - repeated + 1) // 2
    front = message[: HEADER_BYTES - 2]
    rest = message[HEADER_BYTES:repeated]
    return [
        front + b"\x00\x01" + rest + message[repeated:half],
        front + b"\x01\x01" + rest + message[half:],
    ]


def join_message(parts: Sequence[bytes], repeated: int) -> bytes:
    """Undo `split_message`; the fragment fields come back as zero."""
    first = parts[0]
    return b"".join(
        (
            first[: HEADER_BYTES - 2],
            b"\0\0",
            first[HEADER_BYTES:],
            *(part[repeated:] for part in parts[1:]),
        )
    )
