#!/usr/bin/env python3
"""Verify HookProbe evidence bundles with nothing but Python's standard library.

    python3 verify_bundle.py BUNDLE ... [--trust CHAIN_ID | --trust genesis.json]

Exit status 0: every line holds. 1: something does not; the first fault of each bundle is named.
2: wrong usage.

This file shares no code with the product and needs no network, so that a bundle can be judged by
somebody who trusts neither. It is written to be read from top to bottom:

    1  canonical JSON and fields                 RFC 8785, restricted
    2  labelled hashes and Merkle range proofs   RFC 6962 section 2.1
    3  Ed25519, strictly and cofactorless        RFC 8032 section 5.1
    4  BLS12-381: fields, curves, pairing        draft-irtf-cfrg-bls-signature-05, min-pk, PoP
    5  hashing to its second group               RFC 9380 sections 5.3.1, 6.6.2, 8.8.2
    6  the bundle, line by line                  docs/protocol/bundle.md

Nothing secret is handled here, so nothing is constant-time. It is slow: each BLS check costs a
noticeable part of a second. Bundles of one mesh share checkpoints and blocks; what was asked of the
curves once is remembered.
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

REMEMBERED = 1 << 17


class BundleError(Exception):
    """Something in the bundle that does not hold."""


def need(holds: bool, otherwise: str) -> None:
    """Raise a fault unless a condition holds."""
    if not holds:
        raise BundleError(otherwise)


# --- 1. Canonical JSON -----------------------------------------------------------------------
# Bytes count only in their one canonical form: what is read, written again, gives the same bytes.
# That also catches repeated keys, spaces, other escapes and other orders.

INTEGER_MAX, DEPTH_MAX = 2**53 - 1, 8
Test = Callable[[Any], bool]
Shape = dict[str, Test]


def write_json(value: Any) -> bytes:
    """Return the canonical bytes of a value of the profile."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8")


def read_json(data: bytes, limit: int) -> Any:
    """Return the value of canonical bytes: no floats, integers below 2^53, ASCII keys."""
    need(len(data) <= limit, f"{len(data)} bytes, limit {limit}")
    try:
        value = json.loads(data.decode("utf-8"))
        check_profile(value, DEPTH_MAX)
        need(write_json(value) == data, "JSON, but not in canonical form")
    except (ValueError, RecursionError) as error:
        raise BundleError("not JSON of the profile") from error
    return value


def check_profile(value: Any, depth: int) -> None:
    """Refuse what the profile leaves out."""
    if type(value) is int:
        need(abs(value) <= INTEGER_MAX, "integer of 2^53 or more")
    elif isinstance(value, dict | list):
        need(depth > 0, f"JSON deeper than {DEPTH_MAX} levels")
        need(all(key.isascii() for key in value if type(value) is dict), "key is not ASCII")
        for item in value.values() if isinstance(value, dict) else value:
            check_profile(item, depth - 1)
    else:
        need(value is None or type(value) in (str, bool), "floats are not part of the profile")


def check_shape(document: Any, what: str, shape: Shape) -> None:
    """Check that an object has exactly the fields of a shape and each passes its test."""
    need(type(document) is dict, f"{what}: an object is wanted")
    differing = sorted(document.keys() ^ shape.keys())
    need(not differing, f"{what}: missing or unknown field {', '.join(differing)[:80]}")
    for name, test in shape.items():
        need(test(document[name]), f"{what}: field {name} is not what it must be")


def matching(pattern: str) -> Test:
    """Text of one form."""
    return lambda value: type(value) is str and re.fullmatch(pattern, value) is not None


def hexed(low: int, high: int) -> Test:
    """From `low` to `high` bytes in lower-case hex digits."""
    return matching(f"([0-9a-f]{{2}}){{{low},{high}}}")


def same(wanted: str | int) -> Test:
    """The one value that is allowed."""
    return lambda value: type(value) is type(wanted) and bool(value == wanted)


def whole(low: int, high: int) -> Test:
    """An integer between bounds."""
    return lambda value: type(value) is int and low <= value <= high


def sized(kind: type[str] | type[list[Any]], limit: int) -> Test:
    """A text or list of at most `limit` characters or items."""
    return lambda value: isinstance(value, kind) and len(value) <= limit


def canonical(limit: int) -> Test:
    """An object of at most `limit` bytes."""
    return lambda value: type(value) is dict and len(write_json(value)) <= limit


def flag(value: Any) -> bool:
    """True or false."""
    return type(value) is bool


# --- 2. Hashes and Merkle trees --------------------------------------------------------------


def labelled(label: str, data: bytes) -> bytes:
    """H(label, data): bytes hashed for one purpose never stand for another."""
    return hashlib.sha256(f"hookprobe/{label}/v1".encode() + b"\0" + data).digest()


def check_range(ids: list[bytes], start: int, size: int, proof: list[bytes], root: bytes) -> None:
    """Check that `ids` are the leaves start.. of the tree of `size` leaves with this root.

    The proof holds, level by level from the leaves up, the left and then the right neighbour of
    the known nodes where the tree has one and pairing needs it. A lone last node moves up as it is.
    """
    need(0 <= start < start + len(ids) <= size, f"range proof: {start} in {size} leaves")
    left_over = list(proof)
    nodes = [hashlib.sha256(b"\0" + leaf).digest() for leaf in ids]
    while size > 1:
        if start % 2:
            need(bool(left_over), "range proof: too short")
            nodes.insert(0, left_over.pop(0))
            start -= 1
        if len(nodes) % 2 and start + len(nodes) < size:
            need(bool(left_over), "range proof: too short")
            nodes.append(left_over.pop(0))
        pairs = [nodes[at : at + 2] for at in range(0, len(nodes), 2)]
        nodes = [
            hashlib.sha256(b"\1" + b"".join(pair)).digest() if len(pair) == 2 else pair[0]
            for pair in pairs
        ]
        start, size = start // 2, (size + 1) // 2
    need(not left_over, "range proof: hashes left over")
    need(nodes == [root], "range proof: it leads to another root")


# --- 3. Ed25519 ------------------------------------------------------------------------------
# -x^2 + y^2 = 1 + d x^2 y^2 over the integers modulo q; points are (X, Y, Z, T) with x = X/Z,
# y = Y/Z, T = XY/Z. The addition below is complete: it has no exceptions (RFC 8032 5.1.4).

Q = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, Q) % Q
Edwards = tuple[int, int, int, int]
ZERO: Edwards = (0, 1, 1, 0)


def ed_add(p: Edwards, q: Edwards) -> Edwards:
    """Add two points."""
    a, b = (p[1] - p[0]) * (q[1] - q[0]), (p[1] + p[0]) * (q[1] + q[0])
    c, d = 2 * p[3] * q[3] * D % Q, 2 * p[2] * q[2]
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % Q, g * h % Q, f * g % Q, e * h % Q)


def ed_times(n: int, p: Edwards) -> Edwards:
    """Return n times p."""
    total = ZERO
    for bit in f"{n:b}":
        total = ed_add(total, total)
        total = ed_add(total, p) if bit == "1" else total
    return total


def ed_is_zero(p: Edwards) -> bool:
    """Tell whether a point is the neutral one."""
    return p[0] % Q == 0 and (p[1] - p[2]) % Q == 0


def ed_decode(data: bytes) -> Edwards | None:
    """Return the point of 32 bytes; None for a non-canonical y or no point."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= Q:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, Q) % Q
    x = pow(square, (Q + 3) // 8, Q)
    if x * x % Q != square:
        x = x * pow(2, (Q - 1) // 4, Q) % Q
    if x * x % Q != square or (x == 0 and sign):
        return None
    x = Q - x if x % 2 != sign else x
    return (x, y, 1, x * y % Q)


def ed_encode(p: Edwards) -> bytes:
    """Return the 32 bytes of a point."""
    inverse = pow(p[2], -1, Q)
    x, y = p[0] * inverse % Q, p[1] * inverse % Q
    return (y | (x % 2) << 255).to_bytes(32, "little")


BASE = ed_decode((4 * pow(5, -1, Q) % Q).to_bytes(32, "little")) or ZERO


@lru_cache(REMEMBERED)
def ed25519_holds(key: bytes, message: bytes, signature: bytes) -> bool:
    """Check [S]B = R + [k]A byte for byte; A and R of small order and S >= L are refused."""
    a = ed_decode(key)
    s = int.from_bytes(signature[32:], "little")
    if a is None or s >= L or ed_is_zero(ed_times(8, a)):
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    minus_a = (Q - a[0], a[1], a[2], Q - a[3])
    r = ed_add(ed_times(s, BASE), ed_times(k, minus_a))
    return ed_encode(r) == signature[:32] and not ed_is_zero(ed_times(8, r))


# --- 4. BLS12-381 ----------------------------------------------------------------------------
# Numbers modulo P. F2 adds u with u^2 = -1: a pair (a, b) is a + bu. Both groups live on curves
# over F2: G1 on y^2 = x^3 + 4 with coordinates (a, 0), G2 on y^2 = x^3 + 4(1 + u).
# None is the point at infinity.

X = -0xD201000000010000
R = X**4 - X**2 + 1
P = (X - 1) ** 2 * R // 3 + X
F2 = tuple[int, int]
Point = tuple[F2, F2] | None


def add2(a: F2, b: F2) -> F2:
    """Return a + b."""
    return ((a[0] + b[0]) % P, (a[1] + b[1]) % P)


def sub2(a: F2, b: F2) -> F2:
    """Return a - b."""
    return ((a[0] - b[0]) % P, (a[1] - b[1]) % P)


def mul2(a: F2, b: F2) -> F2:
    """Return a * b."""
    return ((a[0] * b[0] - a[1] * b[1]) % P, (a[0] * b[1] + a[1] * b[0]) % P)


def inverse2(a: F2) -> F2:
    """Return 1 / a, and 0 for 0."""
    norm = (a[0] * a[0] + a[1] * a[1]) % P
    norm = norm and pow(norm, -1, P)
    return (a[0] * norm % P, -a[1] * norm % P)


def power2(a: F2, n: int) -> F2:
    """Return a to the n-th."""
    result = (1, 0)
    for bit in f"{n:b}":
        result = mul2(result, result)
        result = mul2(result, a) if bit == "1" else result
    return result


def root2(a: F2) -> F2 | None:
    """Return a square root, or None: Adj and Rodriguez-Henriquez, algorithm 9."""
    half = power2(a, (P - 3) // 4)
    root = mul2(half, a)
    ratio = mul2(half, root)
    if ratio == (P - 1, 0):
        root = (-root[1] % P, root[0])
    else:
        root = mul2(power2(add2((1, 0), ratio), (P - 1) // 2), root)
    return root if mul2(root, root) == a else None


def slope(p: tuple[F2, F2], q: tuple[F2, F2]) -> F2:
    """Return the slope of the line through two points, of the tangent where they are one."""
    if p == q:
        return mul2(mul2((3, 0), mul2(p[0], p[0])), inverse2(add2(p[1], p[1])))
    return mul2(sub2(q[1], p[1]), inverse2(sub2(q[0], p[0])))


def add(p: Point, q: Point) -> Point:
    """Add two points of a curve y^2 = x^3 + b."""
    if p is None or q is None:
        return q if p is None else p
    if p[0] == q[0] and add2(p[1], q[1]) == (0, 0):
        return None
    m = slope(p, q)
    x = sub2(sub2(mul2(m, m), p[0]), q[0])
    return (x, sub2(mul2(m, sub2(p[0], x)), p[1]))


def times(n: int, p: Point) -> Point:
    """Return n times p."""
    total: Point = None
    for bit in f"{n:b}":
        total = add(total, total)
        total = add(total, p) if bit == "1" else total
    return total


@lru_cache(REMEMBERED)
def decompress(data: bytes, b: F2) -> Point:
    """Return a point of order R from 48 (G1) or 96 (G2) bytes; None if they are not one.

    Only the canonical form is taken: the three top bits are compressed 1, infinity 0, sign; every
    coordinate is below P; infinity is refused, being nobody's key and nobody's signature.
    """
    halves = [int.from_bytes(data[at : at + 48], "big") for at in range(0, len(data), 48)]
    flags, halves[0] = halves[0] >> 381, halves[0] % 2**381
    if flags not in (0b100, 0b101) or max(halves) >= P:
        return None
    x = (halves[-1], halves[0] if len(halves) == 2 else 0)
    y = root2(add2(mul2(mul2(x, x), x), b))
    if y is None or (len(halves) == 1 and y[1]):
        return None
    other = sub2((0, 0), y)
    is_larger = (y[1], y[0]) > (other[1], other[0])
    point = (x, y if is_larger == (flags == 0b101) else other)
    return point if times(R, point) is None else None


G1_B, G2_B = (4, 0), (4, 4)
# The generator of G1 but for the sign bit: published as 97f1..., its negative is b7f1...
MINUS_G1 = decompress(
    bytes.fromhex(
        "b7f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905"
        "a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb"
    ),
    G1_B,
)

# F12 adds w with w^6 = 1 + u to F2: six coefficients. (x, y) of G2 stands for (x/w^2, y/w^3).
F12 = list[F2]
ONE: F12 = [(1, 0)] + [(0, 0)] * 5


def mul12(a: F12, b: F12) -> F12:
    """Return a * b: multiply as polynomials, then fold w^6 = 1 + u."""
    low, high = [0] * 12, [0] * 12
    for i, (a0, a1) in enumerate(a):
        for j, (b0, b1) in enumerate(b):
            if b0 or b1:
                low[i + j] += a0 * b0 - a1 * b1
                high[i + j] += a0 * b1 + a1 * b0
    return [
        ((low[k] + low[k + 6] - high[k + 6]) % P, (high[k] + low[k + 6] + high[k + 6]) % P)
        for k in range(6)
    ]


def line(t: tuple[F2, F2], q: tuple[F2, F2], p: tuple[F2, F2]) -> F12:
    """Return the line through t and q of G2 at p of G1, times w^3, which changes no result."""
    m = slope(t, q)
    constant = sub2(mul2(m, t[0]), t[1])
    return [constant, (0, 0), sub2((0, 0), mul2(m, p[0])), p[1], (0, 0), (0, 0)]


def miller(p: Point, q: Point) -> F12:
    """Return the ate pairing before the final power, or its inverse, since X < 0."""
    if p is None or q is None:
        return ONE
    f, t = ONE, q
    for bit in f"{-X:b}"[1:]:
        f = mul12(mul12(f, f), line(t, t, p))
        t = add(t, t) or t
        if bit == "1":
            f = mul12(f, line(t, q, p))
            t = add(t, q) or t
    return f


GAMMA = power2((1, 1), (P * P - 1) // 6)


def pairings_cancel(p1: Point, q1: Point, p2: Point, q2: Point) -> bool:
    """Check e(p1, q1) * e(p2, q2) = 1, that is f^((P^12 - 1) / R) = 1.

    (P^12 - 1)/R = (P^6 - 1) * h with h = (P^2 + 1) * (P^4 - P^2 + 1)/R. Raising to P^6 negates w,
    so the power is 1 exactly if f^h has no odd coefficients. Raising to P^2 multiplies w by GAMMA.
    """
    f = mul12(miller(p1, q1), miller(p2, q2))
    f = mul12(f, [mul2(item, power2(GAMMA, place)) for place, item in enumerate(f)])
    result = ONE
    for bit in f"{(P**4 - P**2 + 1) // R:b}":
        result = mul12(result, result)
        result = mul12(result, f) if bit == "1" else result
    return result[1::2] == [(0, 0)] * 3


@lru_cache(REMEMBERED)
def bls_holds(key: Point, message: bytes, tag: bytes, signature: bytes) -> bool:
    """Check e(key, H(message)) = e(G1, signature)."""
    point = decompress(signature, G2_B)
    if key is None or point is None:
        return False
    return pairings_cancel(key, hash_to_g2(message, tag), MINUS_G1, point)


# --- 5. Hashing to G2 (suite BLS12381G2_XMD:SHA-256_SSWU_RO_) --------------------------------

ISO_A, ISO_B, SSWU_Z = (0, 240), (1012, 1012), (P - 2, P - 1)
COFACTOR = (X**8 - 4 * X**7 + 5 * X**6 - 4 * X**4 + 6 * X**3 - 4 * X**2 - 4 * X + 13) // 9


def expand(message: bytes, tag: bytes, size: int) -> bytes:
    """Return expand_message_xmd with SHA-256 (RFC 9380 section 5.3.1)."""
    suffix = tag + bytes([len(tag)])
    first = hashlib.sha256(bytes(64) + message + size.to_bytes(2, "big") + b"\0" + suffix).digest()
    block, output = bytes(32), b""
    for count in range(1, size // 32 + 1):
        mixed = bytes(a ^ b for a, b in zip(first, block, strict=True))
        block = hashlib.sha256(mixed + bytes([count]) + suffix).digest()
        output += block
    return output


def map_to_curve(t: F2) -> Point:
    """Map a number to the curve: simplified SWU (6.6.2), then the isogeny of appendix E.3.

    SWU yields a point of y^2 = x^3 + Ax + B. The isogeny of degree 3 has the kernel x = -6 + 6u;
    Velu's formulas, scaled by 1/9 and -1/27, are the polynomials that the RFC lists.
    """
    zt = mul2(SSWU_Z, mul2(t, t))
    ratio = inverse2(add2(mul2(zt, zt), zt))
    x = mul2(mul2(sub2((0, 0), ISO_B), inverse2(ISO_A)), add2((1, 0), ratio))
    if ratio == (0, 0):
        x = mul2(ISO_B, inverse2(mul2(SSWU_Z, ISO_A)))
    y = root2(iso_curve(x))
    if y is None:
        x = mul2(zt, x)
        y = root2(iso_curve(x))
    assert y is not None, "one of the two always has a root"
    if sign2(y) != sign2(t):
        y = sub2((0, 0), y)
    v, w, d = (0, 48), (16, 16), inverse2(add2(x, (6, -6)))
    d2 = mul2(d, d)
    image_x = add2(add2(x, mul2(v, d)), mul2(w, d2))
    image_y = sub2(sub2((1, 0), mul2(v, d2)), mul2(add2(w, w), mul2(d2, d)))
    image_y = mul2(mul2(y, image_y), (pow(-27, -1, P), 0))
    return (mul2(image_x, (pow(9, -1, P), 0)), image_y)


def iso_curve(x: F2) -> F2:
    """Return x^3 + Ax + B."""
    return add2(mul2(add2(mul2(x, x), ISO_A), x), ISO_B)


def sign2(a: F2) -> int:
    """Return the sign of a number (RFC 9380 section 4.1)."""
    return (a[0] or a[1]) % 2


def hash_to_g2(message: bytes, tag: bytes) -> Point:
    """Return the point of a message: two maps, added, and the cofactor cleared."""
    stream = expand(message, tag, 256)
    n = [int.from_bytes(stream[at : at + 64], "big") % P for at in range(0, 256, 64)]
    return times(
        3 * (X**2 - 1) * COFACTOR, add(map_to_curve((n[0], n[1])), map_to_curve((n[2], n[3])))
    )


# --- 6. The bundle ---------------------------------------------------------------------------
# What the fields of each object must look like. Any field more or less is a fault.

BUNDLE_BYTES_MAX, LINE_BYTES_MAX, GENESIS_BYTES_MAX = 256 << 20, 1 << 20, 1 << 17
COUNT, FROM_1, U32 = whole(0, INTEGER_MAX), whole(1, INTEGER_MAX), whole(1, 2**32 - 1)
H16, H32, H48, H64, H96 = (hexed(size, size) for size in (16, 32, 48, 64, 96))
NAME = matching("[a-z0-9][a-z0-9.-]{0,31}")
V1 = same(1)
# fmt: off
MANIFEST = {"type": same("hookprobe-bundle"), "v": V1, "chain": H32, "blocks": COUNT,
            "receipts": COUNT, "digest": H32}
GENESIS_LINE = {"type": same("genesis"), "document": canonical(GENESIS_BYTES_MAX)}
GENESIS = {"type": same("G"), "v": whole(1, 2), "name": NAME, "start": COUNT, "dev": flag,
           "epoch_duration_us": whole(100_000, 86_400_000_000), "floor_cap": whole(1, 50_000),
           "ca_keys": sized(list, 16), "validators": sized(list, 128)}
VALIDATOR = {"id": NAME, "key": H32, "vote_key": H48, "possession": H96}
CHANGE = {"type": same("change"), "header": canonical(4 << 10),
          "certificate": canonical(LINE_BYTES_MAX), "validators": sized(list, 128)}
RECEIPT = {"type": same("receipt"), "node_id": NAME, "inc": U32, "first": FROM_1, "last": FROM_1,
           "header": canonical(4 << 10), "certificate": canonical(LINE_BYTES_MAX),
           "start": COUNT, "proof": sized(list, 128)}
CERTIFICATE = {"view": U32, "bitmap": hexed(0, 16), "signature": H96}
HEADER = {"type": same("C"), "v": V1, "chain": H32, "epoch": COUNT, "prev": H32,
          "timestamp": COUNT, "merkle_root": H32, "count": COUNT, "ranges_root": H32,
          "cuts_root": H32, "evidence_root": H32, "history_root": H32, "history_size": COUNT,
          "validators_hash": H32, "next_validators_hash": H32, "validator_id": NAME}
BLOCK_LINE = {"type": same("block"), "block": canonical(12 << 10), "signature": H64}
DISCLOSURE = {"payload": hexed(0, LINE_BYTES_MAX), "salt": H16}
BLOCK = {"type": same("M"), "v": V1, "chain": H32, "node_id": NAME, "inc": U32, "seq": FROM_1,
         "prev": H32, "timestamp": COUNT, "event_type": sized(str, 64), "payload_hash": H32}
BLOCK_OPTIONS = {"neuro": canonical(12 << 10), "body": canonical(8 << 10)}
NEURO = dict.fromkeys(("ter_hash", "w_fingerprint", "posf_signature"), hexed(0, 128))
ENROL = {"kind": same("enrol"), "certificate": canonical(8 << 10), "ca_key": H32,
         "ca_signature": H64}
RECOVER = ENROL | {"kind": same("recover"), "last_inc": whole(0, 2**32 - 1), "last_seq": COUNT,
                   "last_head": H32}
NODE = {"type": same("N"), "v": V1, "chain": H32, "node_id": NAME, "key": H32,
        "role": matching("edge|validator"), "tenant": sized(str, 64), "not_before": COUNT,
        "not_after": COUNT}
# fmt: on
VOTE_TAG = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
POSSESSION_TAG = b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
unhex = bytes.fromhex


class Term:
    """The validators that decide from an epoch on; keys new in the set must be proven."""

    def __init__(self, since: int, members: list[Any], known: list[Any]) -> None:
        self.since, self.members = since, members
        self.hash = labelled("dsm/validators", write_json(members)).hex()
        self.keys: list[Point] = []
        for member in members:
            key, possession = unhex(member["vote_key"]), unhex(member["possession"])
            self.keys.append(decompress(key, G1_B))
            held = member in known or bls_holds(self.keys[-1], key, POSSESSION_TAG, possession)
            need(held, f"validator {member['id']} does not prove possession of its vote key")


class Bundle:
    """A bundle as far as it has been read; each method takes the next part of it.

    Args:
        data: The file.
        trusted: The chain id that the reader trusts, or None.
    """

    def __init__(self, data: bytes, trusted: str | None) -> None:
        self.data, self.trusted = data, trusted
        *self.lines, self.incomplete = data.split(b"\n")
        self.number = 1  # of the line being judged
        self.taken = 0
        self.receipts = self.blocks = self.disclosed = 0
        self.epochs: set[int] = set()
        self.terms: list[Term] = []
        self.fewest, self.of = 1 << 30, 0
        self.keys: dict[tuple[str, int], bytes] = {}
        self.place: tuple[str, int, int] = ("", 0, 0)
        self.parent: tuple[str, int, int, str] = ("", 0, 0, "")

    def verify(self) -> None:
        """Check everything; the message names the first line at fault."""
        try:
            self.check()
        except BundleError as error:
            raise BundleError(f"line {self.number}: {error}") from error

    def next_line(self, what: str) -> Any:
        """Return what the next line holds."""
        if self.taken == len(self.lines):
            self.number = max(1, self.taken + bool(self.incomplete))
            raise BundleError(f"{what}: missing or not complete, the bundle ends here")
        self.taken += 1
        self.number = self.taken
        return read_json(self.lines[self.taken - 1], LINE_BYTES_MAX)

    def check(self) -> None:
        """Take line after line, then compare with the first one."""
        need(len(self.data) <= BUNDLE_BYTES_MAX, "the bundle is too large")
        manifest = self.next_line("manifest")
        check_shape(manifest, "manifest", MANIFEST)
        line = self.next_line("genesis document")
        check_shape(line, "genesis line", GENESIS_LINE)
        self.take_genesis(line["document"])
        if manifest["chain"] != self.chain:
            self.number = 1
            raise BundleError("manifest: the genesis document is of another chain")
        while self.taken < len(self.lines):
            line = self.next_line("receipt")
            if not self.receipts and type(line) is dict and line.get("type") == "change":
                self.take_change(line)
            else:
                self.take_receipt(line)
        self.number += bool(self.incomplete)
        need(not self.incomplete, "the last line is not complete")
        need(self.receipts > 0, "the bundle proves nothing")
        self.number = 1
        need(manifest["blocks"] == self.blocks, "manifest: another number of blocks")
        need(manifest["receipts"] == self.receipts, "manifest: another number of receipts")
        rest = self.data[len(self.lines[0]) + 1 :]
        found = hashlib.sha256(rest).hexdigest()
        need(manifest["digest"] == found, "manifest: digest of other lines")

    def take_genesis(self, document: Any) -> None:
        """Check the genesis document: its hash is the chain id, its keys are sound."""
        check_shape(document, "genesis", GENESIS)
        authorities, members = document["ca_keys"], document["validators"]
        need(all(map(H32, authorities)), "genesis: a CA key is 32 bytes")
        check_members(members)
        distinct = authorities != [] and authorities == sorted(set(authorities))
        need(distinct, "genesis: not sorted or not distinct")
        need(len(members) >= 4 or document["dev"], "genesis: too few validators")
        self.chain = labelled("identity/genesis", write_json(document)).hex()
        self.authorities = authorities
        need(self.trusted in (None, self.chain), "genesis: not of the trusted chain")
        self.terms = [Term(0, members, [])]

    def take_change(self, line: Any) -> None:
        """Check a header that names other validators, and take them from the next epoch on."""
        check_shape(line, "set change", CHANGE)
        check_shape(line["certificate"], "certificate", CERTIFICATE)
        check_shape(line["header"], "checkpoint header", HEADER)
        header, members, last = line["header"], line["validators"], self.terms[-1]
        check_members(members)
        need(header["epoch"] >= last.since, "set change: out of order")
        self.check_header(header, line["certificate"])
        need(header["next_validators_hash"] != last.hash, "set change: it changes nothing")
        term = Term(header["epoch"] + 1, members, last.members)
        need(header["next_validators_hash"] == term.hash, "set change: of other validators")
        self.terms.append(term)

    def take_receipt(self, receipt: Any) -> None:
        """Check a receipt and the blocks behind it."""
        check_shape(receipt, "receipt", RECEIPT)
        check_shape(receipt["certificate"], "certificate", CERTIFICATE)
        check_shape(receipt["header"], "checkpoint header", HEADER)
        need(all(map(H32, receipt["proof"])), "receipt: a proof is of hashes")
        lane, header = (receipt["node_id"], receipt["inc"]), receipt["header"]
        first, last = receipt["first"], receipt["last"]
        need(first <= last, "receipt: last block before the first")
        need((*lane, first) > self.place, "receipt: out of order")
        need(first == 1 or lane in self.keys, "receipt: the chain must begin at block 1")
        self.place = (*lane, last)
        ids: list[bytes] = []
        while first + len(ids) <= last:
            ids.append(self.take_block(lane, first + len(ids)))
        proof = [unhex(item) for item in receipt["proof"]]
        check_range(ids, receipt["start"], header["count"], proof, unhex(header["merkle_root"]))
        count, size = self.check_header(header, receipt["certificate"])
        if count < self.fewest:
            self.fewest, self.of = count, size
        self.epochs.add(header["epoch"])
        self.receipts += 1

    def check_header(self, header: Any, certificate: Any) -> tuple[int, int]:
        """Check that the validators of its epoch made a header final; return how many of how many.

        It takes FINALIZE votes of n - f of the n validators, f = (n - 1) // 3.
        """
        need(header["chain"] == self.chain, "checkpoint header: of another chain")
        term = [term for term in self.terms if term.since <= header["epoch"]][-1]
        need(header["validators_hash"] == term.hash, "checkpoint header: of other validators")
        size, bitmap = len(term.members), unhex(certificate["bitmap"])
        bits = int.from_bytes(bitmap, "little")  # bit i stands for validator i
        need(len(bitmap) == (size + 7) // 8 and not bits >> size, "certificate: wrong bitmap")
        count, needed = bits.bit_count(), size - (size - 1) // 3
        need(count >= needed, f"certificate: {count} validators, {needed} are needed")
        total: Point = None
        for place, key in enumerate(term.keys):
            total = add(total, key) if bits >> place & 1 else total
        message = b"HPDSM1\0\0" + unhex(self.chain) + b"\3"
        message += header["epoch"].to_bytes(8, "big") + certificate["view"].to_bytes(4, "big")
        message += labelled("dsm/checkpoint", write_json(header))
        held = bls_holds(total, message, VOTE_TAG, unhex(certificate["signature"]))
        need(held, f"certificate of epoch {header['epoch']}: signature does not hold")
        return count, size

    def take_block(self, lane: tuple[str, int], seq: int) -> bytes:
        """Check one block against its place, its parent and its signature; return its id."""
        what = f"block {lane[0]}/{lane[1]}/{seq}"
        line = self.next_line(what)
        shown = type(line) is dict and "payload" in line
        check_shape(line, "block line", BLOCK_LINE | DISCLOSURE if shown else BLOCK_LINE)
        block = line["block"]
        check_block(block)
        here = (block["node_id"], block["inc"], block["seq"])
        need(here == (*lane, seq), f"{what} is wanted here")
        need(block["chain"] == self.chain, f"{what}: of another chain")
        if self.parent[:3] == (*lane, seq - 1):
            need(block["prev"] == self.parent[3], f"{what}: it does not follow its parent")
        if lane not in self.keys:
            self.keys[lane] = self.enrolled_key(block)
        block_id = labelled("dsm/microblock", write_json(block))
        signed = labelled("dsm/microblock-sig", block_id)
        held = ed25519_holds(self.keys[lane], signed, unhex(line["signature"]))
        need(held, f"{what}: signature does not hold")
        if shown:
            payload = labelled("dsm/payload", unhex(line["salt"]) + unhex(line["payload"]))
            need(payload.hex() == block["payload_hash"], f"{what}: signed with another payload")
        self.disclosed += shown
        self.parent = (*lane, seq, block_id.hex())
        self.blocks += 1
        return block_id

    def enrolled_key(self, block: Any) -> bytes:
        """Return the key that the certificate in a chain's first block gives its node."""
        body = block.get("body", {})
        check_shape(body, "enrolment", RECOVER if body.get("kind") == "recover" else ENROL)
        node = body["certificate"]
        check_shape(node, "node certificate", NODE)
        need(node["chain"] == self.chain, "node certificate: of another chain")
        need(node["node_id"] == block["node_id"], "node certificate: of another node")
        need(body["ca_key"] in self.authorities, "node certificate: unknown authority")
        in_time = node["not_before"] <= block["timestamp"] <= node["not_after"]
        need(in_time, "node certificate: not valid at the time of the block")
        hashed = labelled("identity/certificate", write_json(node))
        held = ed25519_holds(unhex(body["ca_key"]), hashed, unhex(body["ca_signature"]))
        need(held, "node certificate: signature does not hold")
        return unhex(node["key"])


def check_members(members: list[Any]) -> None:
    """Check the form of a validator set."""
    for member in members:
        check_shape(member, "validator", VALIDATOR)
    ids = [member["id"] for member in members]
    need(ids != [] and ids == sorted(set(ids)), "validators: not sorted or not distinct")
    for name in ("key", "vote_key"):
        distinct = {member[name] for member in members}
        need(len(distinct) == len(members), f"validators: one {name} of two")


def check_block(block: Any) -> None:
    """Check the form of a block."""
    options = {name: test for name, test in BLOCK_OPTIONS.items() if name in block}
    check_shape(block, "block", BLOCK | options)
    if "neuro" in block:
        check_shape(block["neuro"], "neuro binding", NEURO)
    is_first, has_none = block["seq"] == 1, block["prev"] == "0" * 64
    need(is_first == has_none, "block: exactly the first one has no parent")


def verify(data: bytes, trusted: str | None = None) -> str:
    """Return what a bundle proves, in words; raise `BundleError` at the first fault."""
    bundle = Bundle(data, trusted)
    bundle.verify()
    pinned = "trusted" if trusted else "not pinned: compare this id, or use --trust"
    return (
        f"VERIFIED {bundle.blocks} blocks of {', '.join(sorted({lane[0] for lane in bundle.keys}))}"
        f"\nchain {bundle.chain} ({pinned})\ncheckpoints {sorted(bundle.epochs)},"
        f" certified by at least {bundle.fewest} of {bundle.of} validators"
        f"\npayloads in the bundle {bundle.disclosed}\n"
    )


def trusted_chain(value: str) -> str:
    """Return the chain id of `--trust`: a genesis document in a file, or 64 hex digits."""
    if H32(value) and not Path(value).exists():
        return value
    document = read_json(Path(value).read_bytes(), GENESIS_BYTES_MAX)
    check_shape(document, "genesis", GENESIS)
    return labelled("identity/genesis", write_json(document)).hex()


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    names, trust = list(arguments), None
    if "--trust" in names[:-1]:
        place = names.index("--trust")
        trust = names.pop(place + 1)
        del names[place]
    if not names or any(name.startswith("-") for name in names):
        sys.stderr.write("usage: verify_bundle.py BUNDLE ... [--trust CHAIN_ID|genesis.json]\n")
        return 2
    try:
        trusted = trusted_chain(trust) if trust is not None else None
        return max([judge(Path(name), trusted, alone=len(names) == 1) for name in names])
    except (OSError, BundleError) as error:
        sys.stderr.write(f"{error}\n")
        return 2


def judge(path: Path, trusted: str | None, *, alone: bool) -> int:
    """Verify one bundle, say what came of it, and return the exit status."""
    data = path.read_bytes()
    if not alone:
        sys.stdout.write(f"{path}: ")
    try:
        sys.stdout.write(verify(data, trusted))
    except BundleError as error:
        sys.stdout.write(f"FAIL {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
