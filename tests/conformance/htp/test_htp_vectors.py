"""Frozen handshakes and packets of wire version 2, computed twice.

`straight_line` below follows the specification with hashes, HMAC and the primitives of the
cryptography package only; it shares no code with the product. Both computations have to agree with
each other and with the frozen bytes in `htp_vectors.json`. Changing that file changes the protocol.
"""

import hashlib
import hmac
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from hookprobe.crypto.agreement import AgreementKey, MlKemKey
from hookprobe.crypto.sealing import CipherCache
from hookprobe.crypto.signing import Ed25519Signer
from hookprobe.htp.exchange import (
    AnswererExchange,
    AttestPrefix,
    DiallerExchange,
    signed_statement,
)
from hookprobe.htp.keys import derive_session_keys
from hookprobe.htp.messages import AcceptBody, AttestBody, Challenge, Hello
from hookprobe.htp.packet import PacketType, encode_header
from hookprobe.htp.session import Session, SessionNames
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, Instant

FROZEN = Path(__file__).with_name("htp_vectors.json")

STATIC, EDGE, E_E, E_V = b"\x11" * 32, b"\x22" * 32, b"\x33" * 32, b"\x44" * 32
KEM_SEED = b"\x55" * 64
COOKIE, GENERATION = bytes(range(16)), 0x0102
EDGE_TOKEN, VALIDATOR_TOKEN = b"edgetokn", b"valitokn"
NODE = "edge-1"
FINGERPRINT, RDV, POSF = b"\x77" * 64, b"\x88" * 32, b"\x99" * 32
SECRET_SEED, RESET = b"\xaa" * 32, b"\xbb" * 16
PAYLOAD = b"first words"


class FrozenKem:
    """Encapsulation draws from the operating system, so its result is frozen with the vectors."""

    def __init__(self, secret: bytes, ciphertext: bytes) -> None:
        self.secret, self.ciphertext = secret, ciphertext

    def generate(self, seed: bytes) -> MlKemKey:
        return MlKemKey(seed)

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        del public_key
        return self.secret, self.ciphertext


def hello_fields() -> bytes:
    static = X25519PrivateKey.from_private_bytes(STATIC).public_key().public_bytes_raw()
    return (
        b"\xcc" * 32
        + hashlib.sha256(static).digest()[:8]
        + bytes.fromhex("000300020002")
        + EDGE_TOKEN
    )


def straight_line(suite: int, frozen_kem: tuple[bytes, bytes]) -> dict[str, str]:
    """Compute everything from the specification's text."""
    static = X25519PrivateKey.from_private_bytes(STATIC)
    s_v = static.public_key().public_bytes_raw()
    hello = bytes.fromhex("00020001") + bytes(28) + bytes(64) + (54).to_bytes(4, "big")
    hello += hello_fields()
    hello += bytes(1184 - len(hello))
    mac_key = hashlib.blake2s(b"htp2 mac1" + s_v).digest()
    hello += hashlib.blake2s(hello, key=mac_key, digest_size=16).digest()
    challenge = bytes.fromhex("00020002") + bytes(8) + EDGE_TOKEN + bytes(12) + bytes(64)
    challenge += (20).to_bytes(4, "big") + COOKIE + GENERATION.to_bytes(2, "big")
    challenge += suite.to_bytes(2, "big")

    name = {
        1: b"HTP2_NK_25519_ChaChaPoly_SHA256",
        2: b"HTP2_NKhfs_25519+MLKEM768_ChaChaPoly_SHA256",
    }[suite]
    h = name.ljust(32, b"\0") if len(name) <= 32 else hashlib.sha256(name).digest()
    ck, k, n = h, b"", 0

    def mix_hash(data: bytes) -> None:
        nonlocal h
        h = hashlib.sha256(h + data).digest()

    def mix_key(secret: bytes) -> None:
        nonlocal ck, k, n
        temp = hmac.new(ck, secret, "sha256").digest()
        ck = hmac.new(temp, b"\x01", "sha256").digest()
        k = hmac.new(temp, ck + b"\x02", "sha256").digest()
        n = 0

    def encrypt(plain: bytes) -> bytes:
        nonlocal n
        sealed = ChaCha20Poly1305(k).encrypt(bytes(4) + n.to_bytes(8, "little"), plain, h)
        n += 1
        mix_hash(sealed)
        return sealed

    def public(seed: bytes) -> bytes:
        return X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()

    def dh(seed: bytes, peer: bytes) -> bytes:
        return X25519PrivateKey.from_private_bytes(seed).exchange(
            X25519PublicKey.from_public_bytes(peer)
        )

    attest = bytes.fromhex("0002000300000001") + bytes(4) + COOKIE[:8] + bytes(12)
    attest += COOKIE + GENERATION.to_bytes(2, "big") + suite.to_bytes(2, "big")
    attest += hashlib.sha256(hello).digest() + EDGE_TOKEN
    mix_hash(attest)
    mix_hash(s_v)
    attest += public(E_E)
    mix_hash(public(E_E))
    mix_key(dh(E_E, s_v))
    if suite == 2:
        ek = MLKEM768PrivateKey.from_seed_bytes(KEM_SEED).public_key().public_bytes_raw()
        attest += encrypt(ek)
    node = NODE.encode().ljust(32, b"\0")
    statement = b"HTP2 attest\0" + h + COOKIE + FINGERPRINT + RDV + POSF + node
    signature = Ed25519PrivateKey.from_private_bytes(EDGE).sign(statement)
    body = RDV + POSF + (168).to_bytes(4, "big") + node + FINGERPRINT + signature + bytes(8)
    attest += encrypt(body)

    accept = bytes.fromhex("0002000400000001") + bytes(4) + EDGE_TOKEN + bytes(12)
    mix_hash(accept)
    accept += public(E_V)
    mix_hash(public(E_V))
    mix_key(dh(E_V, public(E_E)))
    if suite == 2:
        secret, ciphertext = frozen_kem
        accept += encrypt(ciphertext)
        mix_key(secret)
    grant = SECRET_SEED + VALIDATOR_TOKEN + RESET + bytes.fromhex("ffff001e00000e1004b0")
    grant += (1_800_000_000_000).to_bytes(8, "big")
    accept += encrypt(RDV + bytes(32) + (74).to_bytes(4, "big") + grant)

    session_secret = hmac.new(ck, b"htp2 session secret" + h + SECRET_SEED, "sha256").digest()
    key = hashlib.sha256(session_secret + FINGERPRINT).digest()
    okm, block = b"", b""
    for index in range(1, 5):
        info = b"htp2 keys" + h + bytes((index,))
        block = hmac.new(key, block + info, "sha256").digest()
        okm += block
    k_ev, salt_ev = okm[:32], okm[64:68]
    header = bytes.fromhex("00020010") + (7).to_bytes(4, "big") + (1500).to_bytes(4, "big")
    header += VALIDATOR_TOKEN + bytes(8) + bytes.fromhex("01000000")
    plain = RDV + POSF + len(PAYLOAD).to_bytes(4, "big") + PAYLOAD
    packet = header + ChaCha20Poly1305(k_ev).encrypt(salt_ev + bytes(8), plain, header)
    return {
        "hello": hello.hex(),
        "challenge": challenge.hex(),
        "attest": attest.hex(),
        "accept": accept.hex(),
        "h": h.hex(),
        "okm": okm[:104].hex(),
        "data": packet.hex(),
    }


def product(suite: int, frozen_kem: tuple[bytes, bytes]) -> dict[str, str]:
    """Compute the same with the product's code, both ends of it."""
    static = AgreementKey(STATIC)
    fields = hello_fields()
    hello = Hello(fields[:32], fields[32:40], 3, 2, 2, EDGE_TOKEN).encode(static.public_key)
    challenge = Challenge(EDGE_TOKEN, COOKIE, GENERATION, suite).encode()
    prefix = AttestPrefix(COOKIE, GENERATION, suite, hashlib.sha256(hello).digest(), EDGE_TOKEN)
    kem_key = MlKemKey(KEM_SEED) if suite == 2 else None
    dialler = DiallerExchange(prefix, static.public_key, AgreementKey(E_E), kem_key)
    node = NodeId(NODE)
    statement = signed_statement(dialler.transcript, COOKIE, FINGERPRINT, RDV + POSF, node)
    signature = Ed25519Signer(EDGE).sign(statement)
    attest = dialler.write(AttestBody(RDV + POSF, node, FINGERPRINT, signature, 0))
    answerer = AnswererExchange(attest, suite, static)
    header = encode_header(PacketType.ACCEPT, 1, 0, EDGE_TOKEN, 0, 0)
    grant = AcceptBody(
        RDV + bytes(32),
        SECRET_SEED,
        VALIDATOR_TOKEN,
        RESET,
        0xFFFF,
        30,
        3600,
        1200,
        1_800_000_000_000,
    )
    end, accept = answerer.answer(header, AgreementKey(E_V), FrozenKem(*frozen_kem), grant.encode())
    mirrored, _ = dialler.read(accept)
    assert mirrored.transcript == end.transcript
    keys = derive_session_keys(end, SECRET_SEED, FINGERPRINT)
    names = SessionNames(node, True, EDGE_TOKEN, VALIDATOR_TOKEN, RESET, suite)
    session = Session(keys, names, CipherCache(2), 10, Instant(0))
    session.resonance = RDV + POSF
    packet = session.seal(PacketType.DATA, PAYLOAD, Instant(1500 * MILLISECOND), 7)
    okm = keys.dialler_key + keys.answerer_key + keys.dialler_salt + keys.answerer_salt
    return {
        "hello": hello.hex(),
        "challenge": challenge.hex(),
        "attest": attest.hex(),
        "accept": accept.hex(),
        "h": end.transcript.hex(),
        "okm": (okm + keys.exporter).hex(),
        "data": packet.hex(),
    }


@pytest.mark.parametrize("suite", [1, 2])
def test_both_computations_give_the_frozen_bytes(suite: int) -> None:
    frozen = json.loads(FROZEN.read_text())[f"suite {suite}"]
    kem = (
        bytes.fromhex(frozen.pop("kem_secret", "")),
        bytes.fromhex(frozen.pop("kem_ciphertext", "")),
    )
    assert straight_line(suite, kem) == frozen
    assert product(suite, kem) == frozen


def test_the_frozen_encapsulation_is_a_real_one() -> None:
    frozen = json.loads(FROZEN.read_text())["suite 2"]
    key = MLKEM768PrivateKey.from_seed_bytes(KEM_SEED)
    ciphertext = bytes.fromhex(frozen["kem_ciphertext"])
    assert key.decapsulate(ciphertext).hex() == frozen["kem_secret"]


def test_sizes_are_those_of_the_specification() -> None:
    frozen = json.loads(FROZEN.read_text())
    sizes = {
        suite: [len(entry[name]) // 2 for name in ("hello", "challenge", "attest", "accept")]
        for suite, entry in frozen.items()
    }
    assert sizes == {"suite 1": [1200, 120, 376, 222], "suite 2": [1200, 120, 1576, 1326]}
