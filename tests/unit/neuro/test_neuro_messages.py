"""What devices and verifiers say to each other: forms and limits."""

import pytest

from hookprobe.errors import LimitExceededError, MalformedError
from hookprobe.identity.grant import DeviceGrant, decode_grants, encode_grants
from hookprobe.neuro import messages
from hookprobe.neuro.messages import LIMITS, Kind, Place
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant


def grant(name: str) -> DeviceGrant:
    return DeviceGrant(NodeId(name), "t-1", b"\x01" * 32, b"\x02" * 32, b"\x03" * 32, Instant(9))


def test_every_kind_has_a_form_and_a_limit() -> None:
    for kind in Kind:
        body = b"\x07" * LIMITS[kind]
        assert messages.decode(messages.encode(kind, body)) == (kind, body)
        with pytest.raises(LimitExceededError, match=kind.name):
            messages.decode(messages.encode(kind, body + b"\x07"))
    for bad in (b"", b"\x00", b"\xff rest"):
        with pytest.raises(MalformedError):
            messages.decode(bad)


def test_a_place_names_one_record() -> None:
    place = Place(3, 1 << 40)
    assert messages.decode_place(place.encode() + b"more") == (place, b"more")
    for cut in range(messages.PLACE_BYTES):
        with pytest.raises(MalformedError):
            messages.decode_place(place.encode()[:cut])


def test_grants_have_one_encoding_and_are_never_quoted() -> None:
    data = encode_grants([grant("b"), grant("a")])
    assert [item.node for item in decode_grants(data)] == ["a", "b"]
    assert "0202" not in repr(decode_grants(data))
    twice = encode_grants([grant("a"), grant("a")])
    for bad in (b"{}", data[:-1], data.replace(b"0202", b"02X2"), twice):
        with pytest.raises(MalformedError) as caught:
            decode_grants(bad)
        assert "0202" not in str(caught.value)
        assert caught.value.__cause__ is None
