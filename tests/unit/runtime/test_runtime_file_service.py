"""Two file services over a wire that fills up, breaks, and brings what nobody asked for."""

import asyncio
import hashlib
import os
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hookprobe.errors import UnauthorizedError, UnavailableError, VerificationError
from hookprobe.htp import transfer_codec as codec
from hookprobe.htp.channels import Channel
from hookprobe.htp.effects import (
    Address,
    BulkFragment,
    DownReason,
    FragmentsReceived,
    LevelChanged,
    MessageReceived,
    SessionDown,
    SessionUp,
    TrustReported,
)
from hookprobe.htp.transfer_codec import (
    CHUNK_BYTES,
    FileError,
    FileFacts,
    FileFlags,
    FileOperation,
    FileRefusedError,
)
from hookprobe.htp.trust import FULL_FROM, Level
from hookprobe.node.doubts import ASTRAY, EXPIRED, UNCERTIFIED, Doubt, doubt_of_score
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.file_pump import CHUNK_ROOM_BYTES, Room
from hookprobe.runtime.file_service import FileService
from hookprobe.runtime.file_store import StoreLimits
from hookprobe.runtime.file_transfer import HTPFileTransfer, WriteTarget
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

EDGE, VALIDATOR = NodeId("edge-1"), NodeId("validator-1")
LIMITS = StoreLimits(64 << 20, extensions=(".txt", ".bin"))
DATA = b"".join(hashlib.sha256(i.to_bytes(4, "big")).digest() for i in range(160_000))  # 79 chunks


def fragments(frame: bytes) -> tuple[BulkFragment, ...]:
    """Cut a chunk's message as the transport does, and let its fragments overtake each other."""
    head, data = frame[:16], frame[16:]
    count = -(-len(data) // 1068)
    step = -(-len(data) // count)
    found = [
        BulkFragment(head, place, count - 1, (data[place * step : (place + 1) * step],))
        for place in range(count)
    ]
    return (*found[1::2], *found[::2], found[0])


class WireEnd:
    """The carrier of one end."""

    def __init__(self, wire: "Wire", source: NodeId, target: NodeId) -> None:
        self.wire = wire
        self.source = source
        self.target = target

    def message(self, peer: NodeId, data: bytes) -> Room:
        assert peer == self.target
        if self.wire.on_way >= self.wire.room:
            self.wire.full += 1
            return Room.FULL
        self.wire.put(self.source, self.target, data, bulk=False)
        return Room.SENT

    def room(self, peer: NodeId) -> int:
        assert peer == self.target
        free = self.wire.room - self.wire.on_way
        self.wire.full += free <= 0
        return free * CHUNK_ROOM_BYTES

    def chunks(self, peer: NodeId, chunks: list[tuple[bytes, bytes]]) -> None:
        assert peer == self.target
        for head, data in chunks:
            self.wire.put(self.source, self.target, head + data, bulk=True)


class Wire:
    """Both services; `room` messages may be on the way for `delay_s`, `cut_after` ends it."""

    def __init__(
        self, folder: Path, *, room: int = 4, delay_s: float = 0.0, served: bool = True
    ) -> None:
        self.room = room
        self.delay_s = delay_s
        self.queue: deque[tuple[NodeId, NodeId, bytes, bool]] = deque()
        self.cut_after: int | None = None
        self.change: Callable[[bytes], bytes] = lambda data: data
        self.on_way = self.full = self.carried = 0
        clock = Clock()
        root = folder / "served" if served else None
        self.edge = FileService(WireEnd(self, EDGE, VALIDATOR), None, LIMITS, clock)
        self.validator = FileService(WireEnd(self, VALIDATOR, EDGE), root, LIMITS, clock)
        self.root = folder / "served" / EDGE
        self.up()

    def up(self) -> None:
        self.edge.report(SessionUp(VALIDATOR, Address("192.0.2.1", 1), True, 2))
        self.validator.report(SessionUp(EDGE, Address("192.0.2.2", 1), False, 2))

    def down(self) -> None:
        self.edge.report(SessionDown(VALIDATOR, DownReason.SILENT))
        self.validator.report(SessionDown(EDGE, DownReason.SILENT))

    def _arrive(self) -> None:
        source, target, frame, bulk = self.queue.popleft()
        self.on_way -= 1
        service = self.edge if target == EDGE else self.validator
        if bulk:
            service.report(FragmentsReceived(source, fragments(frame)))
        else:
            service.report(MessageReceived(source, Channel.FILE, frame))

    def put(self, source: NodeId, target: NodeId, frame: bytes, *, bulk: bool) -> None:
        self.on_way += 1
        self.carried += 1
        self.queue.append((source, target, self.change(frame), bulk))
        asyncio.get_running_loop().call_later(self.delay_s, self._arrive)
        if self.carried == self.cut_after:
            asyncio.get_running_loop().call_later(self.delay_s, self.down)

    def transfer(self) -> HTPFileTransfer:
        return HTPFileTransfer(self.edge.session(VALIDATOR))


def play(folder: Path, story: Callable[[Wire], Awaitable[None]], **how: float) -> None:
    async def run() -> None:
        wire = Wire(folder, **how)  # type: ignore[arg-type]
        await story(wire)
        await wire.edge.end()
        await wire.validator.end()

    asyncio.run(run())


def files_below(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


async def refused(reason: FileError, work: Awaitable[object]) -> None:
    with pytest.raises(FileRefusedError) as caught:
        await work
    assert caught.value.reason is reason


def test_the_documented_calls(tmp_path: Path) -> None:
    async def story(wire: Wire) -> None:
        async with wire.transfer() as ft:
            await ft.create("/remote/path/file.txt", b"file contents")
            assert await ft.read("/remote/path/file.txt") == b"file contents"
            await ft.update("/remote/path/file.txt", b"new contents")
            assert await ft.read("/remote/path/file.txt") == b"new contents"
            metadata = await ft.stat("/remote/path/file.txt")
            assert metadata.facts == FileFacts(12, hashlib.sha256(b"new contents").digest())
            entries = await ft.list("/remote/path/")
            assert [(entry.name, entry.size) for entry in entries] == [("file.txt", 12)]
            await ft.delete("/remote/path/file.txt")
            assert await ft.list("/remote/path/") == []
            await refused(FileError.NOT_FOUND, ft.read("/remote/path/file.txt"))

    play(tmp_path, story)


@pytest.mark.parametrize(
    "data", [b"", b"x", DATA, bytes(500_000)], ids=["0", "1", "noise", "zeros"]
)
def test_content_of_all_sizes_over_a_wire_that_is_often_full(tmp_path: Path, data: bytes) -> None:
    async def story(wire: Wire) -> None:
        ft = wire.transfer()
        await ft.create("a.bin", data)
        assert (wire.root / "a.bin").read_bytes() == data
        assert await ft.read("a.bin") == data

    play(tmp_path, story, room=2, delay_s=0.0005)


def test_sixteen_transfers_at_once_share_the_wire(tmp_path: Path) -> None:
    async def story(wire: Wire) -> None:
        ft = wire.transfer()
        await asyncio.gather(*(ft.create(f"{i}.bin", DATA[i : i + 50_000]) for i in range(16)))
        for i in range(16):
            assert (wire.root / f"{i}.bin").read_bytes() == DATA[i : i + 50_000]
        assert wire.full > 0, "the wire was full at times, and nothing was lost"

    play(tmp_path, story, room=8, delay_s=0.001)


def test_attack_39_the_seventeenth_is_told_to_wait(tmp_path: Path) -> None:
    async def story(wire: Wire) -> None:
        ft = wire.transfer()
        results = await asyncio.gather(
            *(ft.create(f"{i}.bin", DATA[: 2 << 20]) for i in range(17)), return_exceptions=True
        )
        found = [result for result in results if result is not None]
        assert [error.reason for error in found if isinstance(error, FileRefusedError)] == [
            FileError.BUSY
        ]
        assert len(found) == 1
        await ft.create("16.bin", DATA)

    play(tmp_path, story, room=8)


def test_peers_have_a_folder_each_and_none_where_none_is_served(tmp_path: Path) -> None:
    async def story(wire: Wire) -> None:
        other = HTPFileTransfer(wire.validator.session(EDGE))
        await refused(FileError.FORBIDDEN, other.create("a.txt", b"x"))
        await refused(FileError.FORBIDDEN, other.list("/"))
        await wire.transfer().create("a.txt", b"x")
        assert (tmp_path / "served/edge-1/a.txt").read_bytes() == b"x"

    play(tmp_path, story)


def test_without_the_trust_that_files_need_nobody_waits_for_an_answer(tmp_path: Path) -> None:
    async def story(wire: Wire) -> None:
        wire.edge.report(LevelChanged(VALIDATOR, Level.ATTESTING))
        wire.edge.report(TrustReported(VALIDATOR, FULL_FROM - 1))
        with pytest.raises(UnavailableError, match="trusts this node with 59 %, files need 60 %"):
            wire.transfer()
        wire.edge.report(LevelChanged(VALIDATOR, Level.FULL))
        await wire.transfer().create("a.txt", b"x")

    play(tmp_path, story)


SCORED = doubt_of_score("this verifier gives", 5_999)


@pytest.mark.parametrize("doubt", [UNCERTIFIED, EXPIRED, ASTRAY, SCORED])
def test_who_refuses_a_device_says_what_is_held_against_it(tmp_path: Path, doubt: Doubt) -> None:
    asked: list[tuple[NodeId, Instant]] = []

    def held(peer: NodeId, now: Instant) -> Doubt | None:
        asked.append((peer, now))
        return doubt

    async def story(wire: Wire) -> None:
        end = WireEnd(wire, VALIDATOR, EDGE)
        service = FileService(end, tmp_path, LIMITS, Clock(), held)
        service.report(SessionUp(EDGE, Address("192.0.2.2", 1), False, 2))
        service.report(LevelChanged(EDGE, Level.ATTESTING))
        with pytest.raises(UnavailableError) as caught:
            service.session(EDGE)
        assert caught.value.message == f"{EDGE} may not move files: {doubt.reason}"
        assert caught.value.hint == doubt.hint

    play(tmp_path, story)
    assert [peer for peer, _ in asked] == [EDGE]


def test_a_score_that_suffices_is_no_doubt() -> None:
    assert doubt_of_score("its certificate gives", 6_000) is None
    doubt = doubt_of_score("its certificate gives", 5_999)
    assert doubt is not None
    assert doubt.reason == "its certificate gives it a trust of 59 %, 60 % are wanted"


def test_attack_33_paths_are_refused_at_both_ends(tmp_path: Path) -> None:
    async def story(wire: Wire) -> None:
        ft = wire.transfer()
        with pytest.raises(UnauthorizedError):
            await ft.create("../outside.txt", b"x")
        await refused(FileError.FORBIDDEN, ft.create("run.sh", b"x"))
        honest = "aa/outside.txt"
        wire.change = lambda data: data.replace(b"aa/outside.txt", b"../outside.txt")
        await refused(FileError.FORBIDDEN, ft.create(honest, b"x"))

    play(tmp_path, story)
    assert not list(tmp_path.rglob("*outside*"))


def test_attack_36_content_changed_on_the_way(tmp_path: Path) -> None:
    async def story(wire: Wire) -> None:
        ft = HTPFileTransfer(wire.edge.session(VALIDATOR), compress=False)
        wire.change = lambda data: data[:-1] + b"!" if data[0] == FileOperation.CHUNK else data
        await refused(FileError.HASH, ft.create("a.bin", DATA))
        assert files_below(wire.root) == []
        wire.change = lambda data: data
        await ft.create("a.bin", DATA)
        wire.change = lambda data: data[:-1] + b"!" if data[0] == FileOperation.CHUNK else data
        with pytest.raises(VerificationError, match="SHA-256"):
            await ft.read("a.bin")
        local = tmp_path / "local.bin"
        await refused(FileError.HASH, ft.get("a.bin", local))
        assert not local.exists()

    play(tmp_path, story)


def test_attack_38_put_resumes_where_the_session_ended(tmp_path: Path) -> None:
    local = tmp_path / "local.bin"
    local.write_bytes(DATA)
    seen: list[tuple[int, int]] = []

    async def story(wire: Wire) -> None:
        wire.cut_after = 40
        with pytest.raises(UnavailableError):
            await wire.transfer().put(local, WriteTarget("a.bin"))
        with pytest.raises(UnavailableError, match="no session"):
            wire.transfer()
        await asyncio.sleep(0.05)
        wire.up()
        carried = wire.carried
        await wire.transfer().put(
            local, WriteTarget("a.bin"), lambda done, size: seen.append((done, size))
        )
        assert wire.carried - carried < 60, "what was there was not sent again"
        assert (wire.root / "a.bin").read_bytes() == DATA

    play(tmp_path, story)
    assert seen[0][0] > 30 * CHUNK_BYTES
    assert seen[-1] == (len(DATA), len(DATA))


def test_attack_38_get_resumes_and_notices_a_changed_source(tmp_path: Path) -> None:
    local = tmp_path / "local.bin"
    seen: list[int] = []

    async def story(wire: Wire) -> None:
        await wire.transfer().create("a.bin", DATA)
        wire.cut_after = wire.carried + 40
        with pytest.raises(UnavailableError):
            await wire.transfer().get("a.bin", local)
        assert not local.exists()
        await asyncio.sleep(0.05)
        wire.up()
        await wire.transfer().get("a.bin", local, progress=lambda done, _: seen.append(done))
        assert local.read_bytes() == DATA
        assert seen[0] > 20 * CHUNK_BYTES
        await refused(FileError.EXISTS, wire.transfer().get("a.bin", local))
        await wire.transfer().update("a.bin", DATA[:100_000])
        wire.cut_after = None

        def swap(data: bytes) -> bytes:
            # The file is replaced between our STAT and our READ.
            if data[0] == FileOperation.READ and not data[1] & FileFlags.RESPONSE:
                (wire.root / "a.bin").write_bytes(b"something else")
            return data

        wire.change = swap
        await refused(FileError.CONFLICT, wire.transfer().get("a.bin", local, replace=True))
        assert local.read_bytes() == DATA

    play(tmp_path, story)
    assert list(tmp_path.glob(".*.part")) == []


def test_attack_38_a_source_that_changes_under_way_is_not_published(tmp_path: Path) -> None:
    local = tmp_path / "local.bin"
    local.write_bytes(DATA)

    async def story(wire: Wire) -> None:
        def meddle(done: int, size: int) -> None:
            if done == size:
                local.write_bytes(DATA[::-1])

        await refused(FileError.CHANGED, wire.transfer().put(local, WriteTarget("a.bin"), meddle))
        await asyncio.sleep(0.05)
        assert not (wire.root / "a.bin").exists()

    play(tmp_path, story)


def test_attack_40_concurrent_updates_with_one_if_match(tmp_path: Path) -> None:
    async def story(wire: Wire) -> None:
        ft = wire.transfer()
        await ft.create("a.bin", b"old")
        old = hashlib.sha256(b"old").digest()
        results = await asyncio.gather(
            ft.update("a.bin", DATA, if_match=old),
            ft.update("a.bin", DATA[::-1], if_match=old),
            return_exceptions=True,
        )
        lost = [result for result in results if result is not None]
        assert len(lost) == 1
        assert isinstance(lost[0], FileRefusedError)
        assert lost[0].reason is FileError.CONFLICT
        assert (wire.root / "a.bin").read_bytes() in (DATA, DATA[::-1])

    play(tmp_path, story)


def test_a_file_too_large_for_us_is_refused_and_not_hung_upon(tmp_path: Path) -> None:
    async def story(wire: Wire) -> None:
        ft = wire.transfer()
        await ft.create("a.bin", b"x")
        os.truncate(wire.root / "a.bin", (1 << 30) + 1)
        await refused(FileError.TOO_LARGE, ft.update("a.bin", b"y"))
        await refused(FileError.TOO_LARGE, ft.stat("a.bin"))
        assert [entry.size for entry in await ft.list("/")] == [(1 << 30) + 1]

    play(tmp_path, story)


def test_a_cancelled_transfer_stops_and_lets_the_next_one_in(tmp_path: Path) -> None:
    local = tmp_path / "local.bin"
    local.write_bytes(DATA * 4)

    async def story(wire: Wire) -> None:
        work = asyncio.create_task(wire.transfer().put(local, WriteTarget("a.bin")))
        await asyncio.sleep(0.1)
        assert wire.carried > 3
        work.cancel()
        await asyncio.wait([work])
        await asyncio.sleep(0.05)
        carried = wire.carried
        await asyncio.sleep(0.05)
        assert wire.carried == carried, "nothing more is sent"
        wire.room = 8
        await wire.transfer().put(local, WriteTarget("a.bin"))
        assert (wire.root / "a.bin").stat().st_size == len(DATA) * 4

    play(tmp_path, story, room=1, delay_s=0.0005)


def test_answers_to_nothing_and_noise_are_dropped(tmp_path: Path) -> None:
    async def story(wire: Wire) -> None:
        session = wire.edge.session(VALIDATOR)
        for data in (b"", b"\x36", b"\x36\x08" + bytes(14), b"\xff" * 99, bytes(16)):
            session.receive(data)
        answer = codec.encode_error(77, FileError.BUSY, FileFlags.RESPONSE)
        session.receive(answer)
        await wire.transfer().create("a.txt", b"still works")

    play(tmp_path, story)
