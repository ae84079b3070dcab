"""Durable blocks a second on each backend beside the disk's own fsync, and the memory that takes.

Each backend runs in a process of its own, so that its memory is its own; rates are of wall time,
for waiting for the disk is part of the price.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hookprobe.dsm.store import Persist, Table
from hookprobe.runtime.ledger_store import StorePlace, open_store

Row = tuple[str, float, str]
BACKENDS = ("sqlite", "rocksdb")
SYNCS = 400
GROUPS = 120
GROUP = 64
BLOCK = os.urandom(300) + bytes(300)
READS = 4_000


def raw_syncs(folder: Path) -> float:
    """Return how many appends of one block a second the disk makes durable."""
    with (folder / "raw").open("wb", buffering=0) as file:
        start = time.perf_counter()
        for _ in range(SYNCS):
            file.write(BLOCK)
            os.fdatasync(file.fileno())
        return SYNCS / (time.perf_counter() - start)


def resident_mib() -> float:
    """Return the memory of this process that is its own, without mapped files."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0


def batch(first: int, count: int) -> Persist:
    rows = []
    for number in range(first, first + count):
        key = b"edge".ljust(32, b"\0") + bytes(4) + number.to_bytes(8, "big") + bytes(32)
        rows.append((Table.BLOCKS, key, BLOCK))
        rows.append((Table.PAYLOADS, number.to_bytes(32, "big"), BLOCK[:200]))
    return Persist((*rows, (Table.CHAIN, b"head", first.to_bytes(8, "big"))))


def measure(backend: str, folder: Path) -> dict[str, float]:
    """Measure one backend in this process; raw syncs are taken before and after."""
    before, raw = resident_mib(), raw_syncs(folder)
    store = open_store(StorePlace(folder, backend))
    start = time.perf_counter()
    for number in range(SYNCS):
        store.apply([batch(number, 1)])
    single = SYNCS / (time.perf_counter() - start)
    start = time.perf_counter()
    for number in range(GROUPS):
        store.apply([batch(SYNCS + number * GROUP, GROUP)])
    grouped = GROUPS * GROUP / (time.perf_counter() - start)
    start = time.perf_counter()
    rows = store.scan(Table.BLOCKS, b"", b"\xff" * 80, READS)
    scanned = len(rows) / (time.perf_counter() - start)
    memory = resident_mib() - before
    store.close()
    raw = (raw + raw_syncs(folder)) / 2
    return {"raw": raw, "single": single, "grouped": grouped, "scan": scanned, "memory": memory}


def run() -> list[Row]:
    """Measure both backends."""
    rows: list[Row] = []
    for backend in BACKENDS:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            command = [sys.executable, __file__, backend, folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout)
        rows += [
            (f"{backend}: blocks made durable one by one", found["single"], "1/s"),
            (f"{backend}: one by one / raw fdatasync", found["single"] / found["raw"], "ratio"),
            (f"{backend}: blocks made durable in groups of 64", found["grouped"], "1/s"),
            (f"{backend}: groups / raw fdatasync", found["grouped"] / found["raw"], "ratio"),
            (f"{backend}: blocks scanned", found["scan"], "1/s"),
            (f"{backend}: memory after {SYNCS + GROUPS * GROUP} blocks", found["memory"], "MiB"),
        ]
    return rows


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
    else:
        for label, value, unit in run():
            print(f"{label:58} {value:12.2f} {unit}")
