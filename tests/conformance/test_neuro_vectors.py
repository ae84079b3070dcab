"""HP-NEURO-1 section 7.5: the published vectors, step by step."""

import hashlib

import pytest

from hookprobe.neuro import network, posf, ter
from hookprobe.neuro.fixedpoint import decay, learning_rate
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.weights import WEIGHT_COUNT, derive_seed, encode_weights, weight_root
from hookprobe.wire.instant import Instant

INTEGRITY = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4")
PROVISIONED_US = 1765000000000000
SECOND = 1_000_000


def vector_seed() -> bytes:
    hardware = hashlib.sha256(b"hp-test-hardware").digest()
    return derive_seed(bytes(range(32)), hardware, PROVISIONED_US, 0)


def vector_ters(count: int) -> list[ter.Ter]:
    records: list[ter.Ter] = []
    at = PROVISIONED_US
    for i in range(count):
        if i:
            at += 60_000_000 + 1000 * i
        entropy = hashlib.sha256(b"tv-ent" + i.to_bytes(4, "big")).digest()
        previous = records[-1] if records else None
        records.append(ter.following(previous, entropy, INTEGRITY, Instant(at)))
    return records


def masters(state: NeuroState) -> list[int]:
    data = encode_weights(state.layers)
    return [int.from_bytes(data[at : at + 8], "big", signed=True) for at in range(0, len(data), 8)]


def proof(state: NeuroState) -> str:
    context = posf.Context(
        device=bytes.fromhex("00112233445566778899aabbccddeeff"),
        epoch=0,
        index=state.count - 1,
        verifier=b"\xaa" * 16,
        message_hash=hashlib.sha256(b"hello").digest(),
        nonce=b"\x01" * 16,
    )
    return posf.sign(state, context).hex()


def test_seed_chain_and_initial_weights() -> None:
    seed = vector_seed()
    assert seed.hex() == "380105f85762a2f39c3dd18971a2fdfd18b5b829ae993158e5b0d7d83b3d5aca"
    state = NeuroState(seed)
    assert state.chain.hex() == "7ce8fda445a03c0ca4b473ef9d344734782cd02fe7dc628bb2e7fac24e147808"
    found = masters(state)
    assert len(found) == WEIGHT_COUNT == 18_656
    assert found[:3] == [-379567664, -115545441, 601325206]
    assert (found[8320], found[16576]) == (258208655, 575078751)
    assert (
        weight_root(state.layers)
        .hex()
        .startswith("3560f1a0f7e2eb0bb44897000b34b207c19cb298744db95c")
    )


def test_decay_and_learning_rate() -> None:
    seconds = (0, 1, 60, 3600, 7200, 86400, 165000)
    assert [decay(s * SECOND) for s in seconds] == [
        4294967296, 4294370814, 4259324619, 2605029347, 1580030169, 26389, 0,
    ]  # fmt: skip
    assert [learning_rate(s * SECOND) for s in (0, 60, 7200, 86400)] == [429497, 425933, 158003, 3]


def test_records() -> None:
    first, second, third = vector_ters(3)
    assert first.encode().hex() == (
        "d59d998cf41461021ee34d592ca808f5a4ecd8142465ea30fdd48b4823c56c85"
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4000645421607500000000000"
    )
    crcs = [f"{ter.checksum(record.encode()):04x}" for record in (first, second, third)]
    assert crcs == ["e548", "1485", "2ab9"]
    assert (second.chain, third.chain) == (0xE548, 0x1485)


def test_first_step_in_detail() -> None:
    state = NeuroState(vector_seed())
    first = vector_ters(1)[0]
    seen = state.apply(first)
    example = network.drive(state.chain, first.h_integrity)
    assert example.x[:4] == [-16666, 28280, -12308, -55082]
    assert example.y[:4] == [19458, 24411, 23450, 3331]
    assert example.r[:4] == [-34750, 37924, -44104, -17586]
    assert example.k == 291444
    assert [z[:3] for z in seen.z] == [
        [-19408, -37484, 3690], [11184, -26639, 15036], [5616, -926, 31302],
    ]  # fmt: skip


def test_state_after_one_record() -> None:
    state = NeuroState(vector_seed())
    state.apply(vector_ters(1)[0])
    assert state.chain.hex() == "9b82a8c0d099ac515ecd6a76cf72f69af9e2a60b610402f0a344cfe51df3b533"
    found = masters(state)
    assert found[:3] == [-379582553, -115520176, 601314210]
    assert found[-1] == 173015
    public = state.commitments()
    assert public.w_fingerprint.hex().startswith("1d497228abd25c57501c99b0d889b8dd")
    assert public.key.hex() == "bfcdb1253b7873828af21cb7ae4951651cbece7156474cd0f89ec32eb77ef2ab"
    assert proof(state) == "b4258115d8adb5dc679eb631f6c3df1fe266f5f6c74b49e821f73c3f61cf9fec"


@pytest.mark.parametrize(
    ("count", "first_masters", "fingerprint", "signature"),
    [
        (
            3,
            [-379610280, -115566905, 601272530],
            "",
            "9938d2b7b9d13f79ae5609d175419e6cc61af0fa5a2f63ecdc5dd2a0efe16533",
        ),
        (
            100,
            [-379753872, -112619472, 601854716],
            "bc4bf4862639f872fe039b93",
            "6dcb5b9bc0a9e9a4235da0e1a21def40ac01908b9ab9c5dce6028f6d23056274",
        ),
        (
            1000,
            [-383478973, -113160927, 592766142],
            "c4e10d8a1467b458552ea778",
            "0cb30ccd06441af43a87bc2a663b2b20c72e4437a6b0a56ebd18999cce1c4a0f",
        ),
    ],
)
def test_state_after_many_records(
    count: int, first_masters: list[int], fingerprint: str, signature: str
) -> None:
    state = NeuroState(vector_seed())
    for record in vector_ters(count):
        state.apply(record)
    assert masters(state)[:3] == first_masters
    assert state.commitments().w_fingerprint.hex().startswith(fingerprint)
    assert proof(state) == signature
