"""The history of HP-NEURO-1 section 7.5, for every test that needs a real one."""

import hashlib
from collections.abc import Iterator

from hookprobe.neuro import posf, ter
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.weights import derive_seed
from hookprobe.wire.instant import Instant

INTEGRITY = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4")
PROVISIONED_US = 1765000000000000
DEVICE = bytes.fromhex("00112233445566778899aabbccddeeff")


def vector_seed() -> bytes:
    hardware = hashlib.sha256(b"hp-test-hardware").digest()
    return derive_seed(bytes(range(32)), hardware, PROVISIONED_US, 0)


def vector_stream(count: int) -> Iterator[ter.Ter]:
    at = PROVISIONED_US
    previous = None
    for i in range(count):
        if i:
            at += 60_000_000 + 1000 * i
        entropy = hashlib.sha256(b"tv-ent" + i.to_bytes(4, "big")).digest()
        previous = ter.following(previous, entropy, INTEGRITY, Instant(at))
        yield previous


def vector_ters(count: int) -> list[ter.Ter]:
    return list(vector_stream(count))


def integers(masters: bytes) -> list[int]:
    return [
        int.from_bytes(masters[at : at + 8], "big", signed=True) for at in range(0, len(masters), 8)
    ]


def vector_proof(state: NeuroState) -> str:
    context = posf.Context(
        device=DEVICE,
        epoch=0,
        index=state.count - 1,
        verifier=b"\xaa" * 16,
        message_hash=hashlib.sha256(b"hello").digest(),
        nonce=b"\x01" * 16,
    )
    return posf.sign(state, context).hex()
