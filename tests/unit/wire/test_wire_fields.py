import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookprobe.errors import LimitExceededError, MalformedError
from hookprobe.wire import identifiers as ids
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.instant import DAY, Instant, between, format_iso, later, parse_iso
from hookprobe.wire.reader import Reader, Writer


def test_reader_reads_what_the_writer_wrote() -> None:
    data = Writer().u8(1).u16(2).u32(3).u64(4).block16(b"ab").block32(b"cde").put(b"z").finish()
    reader = Reader(data, "test")
    assert [reader.u8(), reader.u16(), reader.u32(), reader.u64()] == [1, 2, 3, 4]
    assert (reader.block16(2), reader.block32(3), reader.rest()) == (b"ab", b"cde", b"z")
    reader.finish()


def test_reader_refuses_missing_and_trailing_bytes() -> None:
    with pytest.raises(MalformedError, match="test: 4 bytes wanted at offset 0, 3 left"):
        Reader(b"abc", "test").u32()
    reader = Reader(b"abc", "test")
    reader.u8()
    with pytest.raises(MalformedError, match="2 bytes too many"):
        reader.finish()
    with pytest.raises(MalformedError):
        Reader(b"abc", "test").take(-1)


def test_reader_bounds_length_fields() -> None:
    with pytest.raises(LimitExceededError):
        Reader(Writer().block32(b"abc").finish(), "test").block32(2)


def test_writer_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Writer().u16(65536)


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2021-06-06T12:00:00.123456+0200", 1622973600123456),
        ("2021-06-06T10:00:00.123456Z", 1622973600123456),
        ("2021-06-06T05:00:00.123456-05:00", 1622973600123456),
        ("2021-06-06T10:00:00.1Z", 1622973600100000),
        ("2021-06-06T10:00:00.123456789Z", 1622973600123456),
    ],
)
def test_time_stamps(text: str, micros: int) -> None:
    assert parse_iso(text) == micros


@pytest.mark.parametrize(
    "text",
    [
        "", "2021-06-06", "2021-06-06T10:00:00", "2021-02-30T10:00:00Z", "2021-06-06T25:00:00Z",
        "1969-12-31T23:59:59Z", "XXXXXXXXXX.XXXXXX", "2021-06-06T10:00:00Zx",
        "٢021-06-06T10:00:00Z",
    ],
)  # fmt: skip
def test_wrong_time_stamps_are_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_iso(text)


@given(st.integers(0, 253_402_300_799_999_999))
@settings(deadline=None, derandomize=True)
def test_instants_round_trip(micros: int) -> None:
    assert parse_iso(format_iso(Instant(micros))) == micros


def test_spans() -> None:
    assert between(Instant(5), later(Instant(5), DAY)) == DAY


@pytest.mark.parametrize("name", ["edge-a1", "a", "validator-uuid-001", "x" * 32, "0.b"])
def test_node_ids_fit_their_field(name: str) -> None:
    node = ids.parse_node_id(name)
    assert ids.unpack_node_id(ids.pack_node_id(node)) == name


@pytest.mark.parametrize("name", ["", "A", "-a", "a" * 33, "a b", "a\n", "é", 5, None])
def test_wrong_node_ids_are_refused(name: object) -> None:
    with pytest.raises(MalformedError):
        ids.parse_node_id(name)


@pytest.mark.parametrize("field", [b"", b"a" * 33, bytes(32), b"a\0b" + bytes(29), b"\xff" * 32])
def test_wrong_node_id_fields_are_refused(field: bytes) -> None:
    with pytest.raises(MalformedError):
        ids.unpack_node_id(field)


def test_hashes_and_epochs() -> None:
    assert ids.parse_block_id("0" * 64) == ids.ZERO_ID
    assert ids.parse_chain_id("0" * 64) == ids.ZERO_ID
    for bad in ("0" * 63, "0" * 65, "A" * 64, 0):
        with pytest.raises(MalformedError):
            ids.parse_block_id(bad)
    assert ids.parse_epoch(3) == 3
    for wrong in (-1, True, "3", 2**53):
        with pytest.raises(MalformedError):
            ids.parse_epoch(wrong)


def test_fields_take_each_value_once() -> None:
    fields = Fields({"t": "x", "n": 7, "f": True, "h": "00ff", "o": {}, "a": [1]}, "doc")
    assert fields.text("t") == "x"
    assert fields.integer("n", low=7, high=7) == 7
    assert fields.flag("f") is True
    assert fields.hex("h", 2) == b"\x00\xff"
    assert fields.object("o") == {}
    assert fields.array("a", limit=1) == [1]
    fields.finish()
    with pytest.raises(MalformedError, match="doc: field 't' is missing"):
        fields.text("t")


@pytest.mark.parametrize(
    "text", ["00 f", " 0ff", "00f ", "0\t0f", "00FF", "00f", "00fff", "zzzz", ""]
)
def test_hex_has_one_spelling(text: str) -> None:
    # bytes.fromhex skips blanks: "00 f" would pass a length check and give another value.
    with pytest.raises(MalformedError, match="hex digits"):
        Fields({"h": text}, "doc").hex("h", 2)


def test_fields_refuse_wrong_types_bounds_and_strangers() -> None:
    source: JsonObject = {
        "t": "xx",
        "n": True,
        "h": "00FF",
        "g": "zz",
        "o": [],
        "a": {},
        "f": 1,
        "l": 2,
    }
    fields = Fields(source, "doc")
    with pytest.raises(MalformedError, match="unknown field a, f, g, h, l"):
        fields.finish()
    with pytest.raises(MalformedError):
        fields.text("t", limit=1)
    with pytest.raises(MalformedError):
        fields.integer("n")
    for name, size in (("h", 2), ("g", 1)):
        with pytest.raises(MalformedError):
            fields.hex(name, size)
    with pytest.raises(MalformedError):
        fields.object("o")
    with pytest.raises(MalformedError):
        fields.array("a", limit=1)
    with pytest.raises(MalformedError):
        fields.flag("f")
    with pytest.raises(MalformedError):
        fields.literal("l", 1)
