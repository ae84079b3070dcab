"""RIPEMD-160 on every host: OpenSSL's where it answers correctly, else our own.

OpenSSL 3.0.0 to 3.0.6 ships without it, and some hosts disable it. So the host's implementation is
asked for a known answer once; if it has none, the integers below compute the same, slowly. Input
here is a hundred bytes, once a minute. Source: Dobbertin, Bosselaers, Preneel, "RIPEMD-160: A
strengthened version of RIPEMD" (1996), appendix A.
"""

import functools
import hashlib

DIGEST_BYTES = 20

_KNOWN = b"abc"
_KNOWN_DIGEST = bytes.fromhex("8eb208f7e05d987a9b044a8e98c6b087f15a0bfc")
_MASK = 0xFFFFFFFF
_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)


def _digits(text: str) -> tuple[int, ...]:
    return tuple(int(digit, 16) for digit in text)


# One hex digit for each of the 80 steps of a line: which word is read, how far is rotated.
_LEFT_WORDS = _digits(
    "0123456789abcdef74d1a6f3c0952eb83ae49f812706db5c19ba08c4d37fe56240597c2ae138b6fd"
)
_RIGHT_WORDS = _digits(
    "5e7092b4d6f81a3c6b370d5aef8c4912f5137e69b8c2a04d86413bf05c2d97aecfa4158762de039b"
)
_LEFT_TURNS = _digits(
    "befc5879bdef6798768db97f7cf9b7dcbd67e9dfe8d65c75bcefef989e56865c9f5b68dc5cdeb856"
)
_RIGHT_TURNS = _digits(
    "899bdff5778beec69df7c89b77c76fdb97fb866ecd5edd75f58bee6e69c9c5f885c9c5e68d65fdbb"
)
_LEFT_ADDED = (0x00000000, 0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xA953FD4E)
_RIGHT_ADDED = (0x50A28BE6, 0x5C4DD124, 0x6D703EF3, 0x7A6D76E9, 0x00000000)


def ripemd160(data: bytes) -> bytes:
    """Return the 20-byte digest."""
    if host_has_ripemd160():
        return hashlib.new("ripemd160", data, usedforsecurity=False).digest()
    return pure_ripemd160(data)


@functools.cache
def host_has_ripemd160() -> bool:
    """Whether the host's library computes a known answer."""
    try:
        found = hashlib.new("ripemd160", _KNOWN, usedforsecurity=False).digest()
    except ValueError:
        return False
    return found == _KNOWN_DIGEST


def pure_ripemd160(data: bytes) -> bytes:
    """Return the digest without the host's help."""
    padding = b"\x80" + bytes(-(len(data) + 9) % 64)
    padded = data + padding + (8 * len(data)).to_bytes(8, "little")
    state: tuple[int, ...] = _START
    for at in range(0, len(padded), 64):
        block = padded[at : at + 64]
        words = tuple(int.from_bytes(block[i : i + 4], "little") for i in range(0, 64, 4))
        left = _line(state, words, False)
        right = _line(state, words, True)
        state = tuple(
            (state[(i + 1) % 5] + left[(i + 2) % 5] + right[(i + 3) % 5]) & _MASK for i in range(5)
        )
    return b"".join(word.to_bytes(4, "little") for word in state)


def _line(state: tuple[int, ...], words: tuple[int, ...], right: bool) -> tuple[int, ...]:
    a, b, c, d, e = state
    order = _RIGHT_WORDS if right else _LEFT_WORDS
    turns = _RIGHT_TURNS if right else _LEFT_TURNS
    added = _RIGHT_ADDED if right else _LEFT_ADDED
    for step in range(80):
        stage = step // 16
        mixed = _mix(4 - stage if right else stage, b, c, d)
        total = (a + mixed + words[order[step]] + added[stage]) & _MASK
        a, e, d, c, b = e, d, _turn(c, 10), b, (_turn(total, turns[step]) + e) & _MASK
    return a, b, c, d, e


def _mix(stage: int, x: int, y: int, z: int) -> int:
    match stage:
        case 0:
            return x ^ y ^ z
        case 1:
            return (x & y) | (~x & z)
        case 2:
            return (x | (~y & _MASK)) ^ z
        case 3:
            return (x & z) | (y & ~z)
        case _:
            return x ^ (y | (~z & _MASK))


def _turn(value: int, places: int) -> int:
    return ((value << places) | (value >> (32 - places))) & _MASK
