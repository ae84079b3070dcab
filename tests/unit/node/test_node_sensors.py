"""Where an edge reads, over rotations and restarts."""

from hookprobe.detection.event import Sensor
from hookprobe.detection.stream import Line, LineSkipped
from hookprobe.dsm.store import MemoryStore, Persist
from hookprobe.node.sensors import Place, SensorFeed

SENSOR = Sensor("suricata")


def feed(store: MemoryStore) -> SensorFeed:
    return SensorFeed(SENSOR, "eve.json", store)


def keep(store: MemoryStore, of: SensorFeed, watermark: int) -> None:
    writes = of.keep(watermark)
    if writes:
        store.apply(Persist(tuple(writes)))


def test_positions_grow_over_rotations() -> None:
    store = MemoryStore()
    ours = feed(store)
    ours.receive_rotation(11)
    assert ours.receive_bytes(b"one\ntwo\n") == [Line(0, b"one"), Line(4, b"two")]
    ours.receive_rotation(12)
    assert ours.receive_bytes(b"three\n") == [Line(8, b"three")]


def test_a_half_line_at_rotation_is_named_with_its_position() -> None:
    ours = feed(MemoryStore())
    ours.receive_rotation(11)
    ours.receive_bytes(b"one\nhal")
    assert ours.receive_rotation(12) == [LineSkipped(4, "cut-off")]


def test_a_restart_reads_from_the_oldest_open_evidence() -> None:
    store = MemoryStore()
    ours = feed(store)
    assert ours.place == Place(0, 0)
    ours.receive_rotation(11)
    ours.receive_bytes(b"one\ntwo\n")
    keep(store, ours, 4)
    assert feed(store).place == Place(11, 4)


def test_a_watermark_in_the_file_before_goes_back_to_that_file() -> None:
    store = MemoryStore()
    ours = feed(store)
    ours.receive_rotation(11)
    ours.receive_bytes(b"one\ntwo\n")
    ours.receive_rotation(12)
    ours.receive_bytes(b"three\n")
    keep(store, ours, 4)
    assert feed(store).place == Place(11, 4)
    keep(store, ours, 8)
    assert feed(store).place == Place(12, 0)


def test_nothing_is_written_while_nothing_moves() -> None:
    store = MemoryStore()
    ours = feed(store)
    ours.receive_rotation(11)
    ours.receive_bytes(b"one\n")
    assert ours.keep(4) != []
    assert ours.keep(4) == []


def test_after_a_restart_positions_go_on_in_the_same_file() -> None:
    store = MemoryStore()
    ours = feed(store)
    ours.receive_rotation(11)
    ours.receive_bytes(b"one\ntwo\n")
    keep(store, ours, 4)
    again = feed(store)
    assert again.receive_bytes(b"two\nfour\n") == [Line(4, b"two"), Line(8, b"four")]
    keep(store, again, 8)
    assert feed(store).place == Place(11, 8)
