"""Readings in one step against the plain ones that they replaced."""

import hmac
from collections.abc import Callable
from ipaddress import ip_address
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from hookprobe.crypto.agreement import (
    expand_keys,
    hkdf_expand,
    hkdf_extract,
    hkdf_keys,
    hkdf_pair,
    mac_short,
)
from hookprobe.errors import MalformedError
from hookprobe.htp.acks import BURST_DELAY_US, BURST_PACKETS, EARLY_PACKETS, AckTracker
from hookprobe.htp.admission import pack_host
from hookprobe.htp.bulk import RUN_MAX as SEGMENTS_MAX
from hookprobe.htp.bulk import RUN_MAX_BYTES
from hookprobe.htp.effects import Address, Transmit
from hookprobe.htp.exchange import read_repeated
from hookprobe.htp.messages import (
    AcceptBody,
    AttestBody,
    Hello,
    decode_accept_body,
    decode_attest_body,
    decode_hello,
)
from hookprobe.htp.packet import (
    ZERO_RESONANCE,
    ZERO_TOKEN,
    PacketType,
    decode_body,
    decode_header,
    encode_body,
    encode_header,
)
from hookprobe.runtime.udp import _runs
from hookprobe.wire.identifiers import unpack_node_id
from hookprobe.wire.instant import Instant
from hookprobe.wire.reader import Reader

NOW = Instant(1_000_000)


def plain_hello(payload: bytes) -> Hello:
    reader = Reader(payload, "HELLO")
    fields = (reader.take(32), reader.take(8), reader.u16(), reader.u16(), reader.u16())
    hello = Hello(*fields, reader.take(8))
    reader.finish()
    return hello


def plain_attest(plain: bytes) -> AttestBody:
    resonance, payload = decode_body(plain)
    reader = Reader(payload, "ATTEST")
    node = unpack_node_id(reader.take(32))
    body = AttestBody(resonance, node, reader.take(64), reader.take(64), reader.u64())
    reader.finish()
    return body


def plain_accept(plain: bytes) -> AcceptBody:
    resonance, payload = decode_body(plain)
    reader = Reader(payload, "ACCEPT")
    secrets = (reader.take(32), reader.take(8), reader.take(16))
    numbers = (reader.u16(), reader.u16(), reader.u32(), reader.u16(), reader.u64())
    reader.finish()
    return AcceptBody(resonance, *secrets, *numbers)


def plain_repeated(data: bytes) -> tuple[bytes, int, int, bytes]:
    reader = Reader(data[32:84], "ATTEST")
    found = (reader.take(16), reader.u16(), reader.u16(), reader.take(32))
    if found[2] not in (1, 2) or data[12:20] != found[0][:8]:
        raise MalformedError("ATTEST")
    return found


def outcome(read: Callable[[bytes], object], data: bytes) -> object:
    try:
        return read(data)
    except MalformedError:
        return None


def read_hello(payload: bytes) -> Hello:
    data = encode_header(PacketType.HELLO, 0, 0, ZERO_TOKEN, 0, 0)
    data += encode_body(ZERO_RESONANCE, payload, 1184 - 100) + bytes(16)
    return decode_hello(decode_header(data), data)


@given(st.integers(32, 1183), st.integers(0, 255), st.booleans())
def test_hello_bodies_read_as_before(at: int, value: int, longer: bool) -> None:
    payload = bytes(range(54))
    data = encode_header(PacketType.HELLO, 0, 0, ZERO_TOKEN, 0, 0)
    data += encode_body(ZERO_RESONANCE, payload, 1184 - 100) + bytes(16)
    if longer:  # the length inside covers the changed byte
        data = data[:96] + (1084).to_bytes(4) + data[100:]
    data = data[:at] + bytes((value,)) + data[at + 1 :]

    def plain(data: bytes) -> Hello:
        resonance, payload = decode_body(data[32:1184])
        if resonance != ZERO_RESONANCE:
            raise MalformedError("HELLO")
        return plain_hello(payload)

    assert outcome(lambda data: decode_hello(decode_header(data), data), data) == outcome(
        plain, data
    )


@given(st.binary(max_size=80) | st.binary(min_size=54, max_size=54))
def test_hello_reads_as_before(payload: bytes) -> None:
    assert outcome(read_hello, payload) == outcome(plain_hello, payload)


@given(
    st.binary(min_size=64, max_size=64),
    st.sampled_from([b"edge-1", b"a", b"UPPER", b"", b"in\0side", b"\xff"]),
    st.binary(min_size=136, max_size=136),
    st.sampled_from([167, 168, 169, 2**32 - 1]),
    st.integers(-2, 2),
)
def test_attest_bodies_read_as_before(
    resonance: bytes, name: bytes, tail: bytes, length: int, change: int
) -> None:
    plain = resonance + length.to_bytes(4) + name.ljust(32, b"\0") + tail
    plain = plain[:change] if change < 0 else plain + b"x" * change
    assert outcome(decode_attest_body, plain) == outcome(plain_attest, plain)


@given(st.binary(max_size=150) | st.binary(min_size=142, max_size=142), st.booleans())
def test_accept_bodies_read_as_before(plain: bytes, right: bool) -> None:
    if right:
        plain = plain[:64] + (74).to_bytes(4) + plain[68:]
    assert outcome(decode_accept_body, plain) == outcome(plain_accept, plain)


@given(st.binary(max_size=100), st.integers(0, 3), st.booleans())
def test_fronts_of_attests_read_as_before(data: bytes, suite: int, right: bool) -> None:
    if right:
        data = data[:12] + data[32:40] + data[20:50] + suite.to_bytes(2) + data[52:]
    assert outcome(read_repeated, data) == outcome(plain_repeated, data)


@given(st.binary(min_size=32, max_size=64), st.binary(max_size=64), st.binary(max_size=80),
       st.integers(1, 300))  # fmt: skip
def test_keys_in_one_go_are_those_of_rfc_5869(
    salt: bytes, secret: bytes, info: bytes, length: int
) -> None:
    assert hkdf_keys(salt, secret, info, length) == hkdf_expand(
        hkdf_extract(salt, secret), info, length
    )
    assert b"".join(hkdf_pair(salt[:32], secret)) == hkdf_expand(
        hkdf_extract(salt[:32], secret), b"", 64
    )
    assert expand_keys(salt, info, length) == hkdf_expand(salt, info, length)
    assert mac_short(salt, info) == hmac.digest(salt, info, "sha256")
    assert hkdf_keys(salt, secret, b"", 32) == hmac.digest(
        hmac.digest(salt, secret, "sha256"), b"\1", "sha256"
    )


@given(
    st.ip_addresses().map(str)
    | st.text("0123456789.:abcf %-+ ", max_size=20)
    | st.lists(st.integers(0, 300), min_size=3, max_size=5).map(lambda xs: ".".join(map(str, xs)))
)
@example("10.0.0.256")
@example("1.2.3.04")
@example("1.2.3.4\n")
@example("\u0661.2.3.4")
@example("::ffff:1.2.3.4")
def test_addresses_pack_as_the_library_says(text: str) -> None:
    def plain(_: bytes) -> bytes:
        try:
            host = ip_address(text)
        except ValueError as error:
            raise MalformedError("address") from error
        return host.packed if host.version == 6 else bytes(10) + b"\xff\xff" + host.packed

    assert outcome(lambda _: pack_host(Address(text, 1)), b"") == outcome(plain, b"")


@given(st.lists(st.integers(1, 70), max_size=12), st.booleans())
def test_runs_are_acknowledged_like_their_packets(counts: list[int], early: bool) -> None:
    one_by_one, together, waited = AckTracker(25_000, 8), AckTracker(25_000, 8), False
    for acks in (one_by_one, together):
        acks.ranges = [(0, 9)]
        acks._count = 0 if early else EARLY_PACKETS - 2
    for step, count in enumerate(counts):
        now = Instant(NOW + step * 1000)
        together.receive_next(step, now, count)
        for _ in range(count):
            one_by_one.receive_next(step, now)
        assert together.ranges == one_by_one.ranges
        assert together.freeze() == one_by_one.freeze()
        # Large bursts wait a moment for others, and never longer.
        waited = waited or count >= BURST_PACKETS
        assert (together.deadline is None) == (one_by_one.deadline is None)
        if not waited:
            assert together.deadline == one_by_one.deadline
        elif together.deadline is not None and one_by_one.deadline is not None:
            assert together.deadline <= one_by_one.deadline + BURST_DELAY_US
        if step % 3 == 0:
            waited = False
            together.sent()
            one_by_one.sent()


@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2]), st.sampled_from([1, 1156, 8952]), st.integers(1, 90)),
        min_size=1,
        max_size=8,
    )
)
def test_batches_are_cut_into_runs_that_hosts_take(parts: list[tuple[int, int, int]]) -> None:
    batch = [
        Transmit(Address("10.0.0.1", port), bytes(size))
        for port, size, count in parts
        for _ in range(count)
    ]
    runs = [(address, [len(one) for one in run]) for address, run in _runs(batch)]
    assert [(address, size) for address, sizes in runs for size in sizes] == [
        (address, len(data)) for address, data in batch
    ]
    for _, (size, *more) in runs:
        assert 1 + len(more) <= SEGMENTS_MAX
        assert size + sum(more) <= RUN_MAX_BYTES
        assert all(one == size for one in more[:-1])
        assert all(0 < one <= size for one in more[-1:])
    # No run ends without a reason: the next one has another address, is larger, or this one is full
    # or has its shorter end.
    for (here, sizes), (there, after) in pairwise(runs):
        full = len(sizes) == SEGMENTS_MAX or sizes[0] * (len(sizes) + 1) > RUN_MAX_BYTES
        assert here != there or after[0] > sizes[0] or full or sizes[-1] < sizes[0]
