"""RIPEMD-160: the vectors of its authors, on our own implementation and on the host's."""

import hashlib

import pytest

from hookprobe.crypto import ripemd

VECTORS = [
    (b"", "9c1185a5c5e9fc54612808977ee8f548b2258d31"),
    (b"a", "0bdc9d2d256b3ee9daae347be6f4dc835a467ffe"),
    (b"abc", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"),
    (b"message digest", "5d0689ef49d2fae572b881b123a85ffa21595f36"),
    (b"abcdefghijklmnopqrstuvwxyz", "f71c27109c692c1b56bbdceb5b9d2865b3708dbc"),
    (
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "12a053384a9c0c88e405a06c27dcf49ada62eb2b",
    ),
    (
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
        "b0e20b6e3116640286ed3a87a5713079b21f5189",
    ),
    (b"1234567890" * 8, "9b752e45573d4b39f4dbd3323cab82bf63326bfb"),
]


@pytest.mark.parametrize(("data", "expected"), VECTORS)
def test_vectors(data: bytes, expected: str) -> None:
    assert ripemd.pure_ripemd160(data).hex() == expected
    assert ripemd.ripemd160(data).hex() == expected


def test_every_padding_length_agrees_with_the_host() -> None:
    if not ripemd.host_has_ripemd160():
        pytest.skip("this host has no RIPEMD-160 to compare with")
    for size in range(130):
        data = bytes(range(size))
        assert ripemd.pure_ripemd160(data) == hashlib.new("ripemd160", data).digest()


class WrongAnswer:
    def digest(self) -> bytes:
        return bytes(20)


@pytest.mark.parametrize("broken", ["absent", "wrong"])
def test_a_host_without_it_or_with_a_wrong_one_is_not_used(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def new(name: str, data: bytes, *, usedforsecurity: bool = True) -> WrongAnswer:
        if broken == "absent":
            raise ValueError("unsupported hash type ripemd160")
        return WrongAnswer()

    ripemd.host_has_ripemd160.cache_clear()
    monkeypatch.setattr(hashlib, "new", new)
    try:
        assert not ripemd.host_has_ripemd160()
        assert ripemd.ripemd160(b"").hex() == VECTORS[0][1]
    finally:
        ripemd.host_has_ripemd160.cache_clear()
