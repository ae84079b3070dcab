"""`hookprobe replay FILE`: the whole chain on the user's own capture or sensor output."""

import asyncio
import gzip
import tempfile
import zlib
from pathlib import Path

import click

from hookprobe.cli.configuration import form_option
from hookprobe.cli.evidence import export_state
from hookprobe.cli.leaks import addresses_in, search
from hookprobe.cli.output import Row
from hookprobe.cli.screen import Screen
from hookprobe.cli.watch import MeshFacts, MeshWatch, percentile
from hookprobe.crypto.bls import Bls
from hookprobe.crypto.signing import Ed25519
from hookprobe.dsm.bundle import BundleVerifier
from hookprobe.dsm.court import Schemes
from hookprobe.errors import ConfigError, HostError, MalformedError
from hookprobe.runtime.keystore import write_atomically
from hookprobe.runtime.ledger_store import StorePlace
from hookprobe.runtime.local_mesh import EGRESS_FILE, VERIFIER, LocalMesh, LogLine, MeshShape
from hookprobe.runtime.suricata_program import is_capture, read_capture
from hookprobe.wire.identifiers import NodeId

EDGE = "edge"
VALIDATORS = tuple(f"validator-{i}" for i in (1, 2, 3, 4))
SETTINGS: dict[str, dict[str, object]] = {
    "dsm": {"propose_grace_ms": 150, "view_timeout_ms": 2_000, "epoch_gap_ms": 200},
    "sensors": {"suricata": ["eve.json"], "start": "beginning", "idle_ms": 1_000},
}
INPUT_MAX_BYTES = 1 << 30


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--evidence", type=click.Path(path_type=Path), help="Write the bundle here.")
@form_option
def replay(file: Path, evidence: Path | None, form: str | None) -> None:
    """Run FILE (pcap, pcapng or eve.json, may be .gz) through a mesh of this machine."""
    output = sensor_output(file)
    with tempfile.TemporaryDirectory(prefix="hookprobe-") as folder:
        asyncio.run(_Replay(Path(folder), output, evidence, Screen(form)).run())


def sensor_output(file: Path) -> bytes:
    """Return EVE lines for a capture or an EVE file.

    Raises:
        ConfigError: There is no such file.
        MalformedError: It is neither.
        HostError: Suricata is wanted and cannot be used, or the file is too large.
    """
    if not file.is_file():
        raise ConfigError([f"{file}: no such file"])
    if file.stat().st_size > INPUT_MAX_BYTES:
        raise HostError(f"{file}: larger than {INPUT_MAX_BYTES >> 20} MiB")
    with file.open("rb") as opened:
        head = opened.read(4)
    if is_capture(head):
        return read_capture(file)
    data = file.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = _unpack(data, file)
    if not data.lstrip()[:1] == b"{":
        raise MalformedError(
            f"{file}: neither a packet capture nor EVE JSON lines",
            hint="give a .pcap, a .pcapng or Suricata's eve.json",
        )
    return data if data.endswith(b"\n") else data + b"\n"


def _unpack(data: bytes, file: Path) -> bytes:
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacker.decompress(data, INPUT_MAX_BYTES)
    except (zlib.error, gzip.BadGzipFile) as error:
        raise MalformedError(f"{file}: not a whole gzip file") from error
    if not unpacker.eof:
        raise MalformedError(f"{file}: cut off, or larger than {INPUT_MAX_BYTES >> 20} MiB")
    return unpacked


class _Replay:
    """One mesh, one edge, one file."""

    def __init__(self, folder: Path, output: bytes, evidence: Path | None, screen: Screen) -> None:
        self._output = output
        self._evidence = evidence
        self._screen = screen
        shape = MeshShape(len(VALIDATORS), ((EDGE, "you"),), 1_000, SETTINGS)
        self._mesh = LocalMesh(folder / "mesh", shape)
        self._watch = MeshWatch(self._mesh, self._hear)
        self._rows: dict[str, Row] = {}
        self._caught_up = False

    def _hear(self, line: LogLine, facts: MeshFacts) -> None:
        fields = line.fields
        if line.event == "SensorCaughtUp":
            self._caught_up = True
        if line.event == "IncidentRecorded":
            key = str(fields["key"])
            techniques = fields["techniques"]
            self._rows[key] = {
                "severity": str(fields["severity"]),
                "incident": str(fields["title"]),
                "techniques": techniques if isinstance(techniques, list) else [],
                "count": int(str(fields["count"])),
                "source": facts.sources.get(key, ""),
                "block": int(str(fields["seq"])),
            }

    async def run(self) -> None:
        screen = self._screen
        events = self._output.count(b"\n")
        screen.step(f"{events} sensor events through 1 edge, 4 validators and a verifier")
        try:
            await self._mesh.start([*VALIDATORS, VERIFIER, EDGE])
            self._mesh.feed(EDGE, self._output)
            await self._watch.until(lambda _: self._caught_up, 120 + events / 5_000, "reading")
            await self._watch.during(2.5)  # silence closes the incidents, which tells final counts
            await self._watch.until(
                lambda facts: facts.proven.get(EDGE, 0) >= facts.blocks[EDGE] > 0,
                60,
                "the blocks were not certified",
            )
            data = export_state(
                self._mesh.folder / EDGE, StorePlace(self._mesh.state_of(EDGE)), NodeId(EDGE)
            )
        finally:
            await self._mesh.stop()
        self._show(data)

    def _show(self, data: bytes) -> None:
        screen, facts = self._screen, self._watch.facts
        order = ("critical", "high", "medium", "low")
        rows = sorted(
            self._rows.values(),
            key=lambda row: (order.index(str(row["severity"])), str(row["incident"])),
        )
        screen.table(f"{len(rows)} incidents", rows)
        report = BundleVerifier(Schemes(Ed25519(), Bls())).check(data)
        left, leaked = search(self._mesh.folder / EDGE / EGRESS_FILE, addresses_in(self._output))
        if self._evidence is not None:
            write_atomically(self._evidence, data)
            screen.good(f"{self._evidence}: {len(data)} bytes, verified")
        screen.table(
            "What it became",
            [
                {
                    "blocks": report.blocks,
                    "checkpoints": len(report.epochs),
                    "certified by": f"{report.voters} of {report.validators}",
                    "finality p50 ms": round(percentile(facts.latencies_us, 0.5) / 1000, 1),
                    "bytes left": left,
                    "raw addresses left": len(leaked),
                }
            ],
        )
