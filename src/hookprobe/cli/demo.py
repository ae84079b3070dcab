"""`hookprobe demo`: a whole mesh on this machine, fed with recorded sensor output, told as a story.

Nothing is played: four validators, a verifier and five edges of five tenants run as real processes
over loopback UDP. No root and no network is needed. Everything is written into one folder.
"""

import asyncio
import gzip
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import resources
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
from hookprobe.errors import RemoteError, UnavailableError
from hookprobe.runtime.control import ask
from hookprobe.runtime.folders import SETTINGS_FILE
from hookprobe.runtime.keystore import write_atomically
from hookprobe.runtime.ledger_store import StorePlace
from hookprobe.runtime.local_mesh import EGRESS_FILE, VERIFIER, LocalMesh, LogLine, MeshShape
from hookprobe.runtime.verifier_desk import SOCKET_FILE
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.identifiers import NodeId

EPOCH_MS = 1_000
VIEW_TIMEOUT_MS = 700
QUORUM_ALARM_MS = 3_000
RECORD_MS = 2_000  # one a minute outside of a demonstration
VALIDATORS = tuple(f"validator-{i}" for i in (1, 2, 3, 4))
SETTINGS = {
    "dsm": {
        "propose_grace_ms": 150,
        "view_timeout_ms": VIEW_TIMEOUT_MS,
        "quorum_alarm_ms": QUORUM_ALARM_MS,
        "epoch_gap_ms": 200,
    },
    "neuro": {"interval_ms": RECORD_MS},
}
SCHEMES = Schemes(Ed25519(), Bls())


@dataclass(frozen=True, slots=True)
class Site:
    """An edge of the demonstration and what its sensor recorded."""

    edge: str
    tenant: str
    recording: str
    about: str


SITES = (
    Site("clinic", "st-mary", "scan-syn-vertical", "a SYN scan of 1,000 ports; no rule fires"),
    Site("school", "north-high", "scan-service-nse", "nmap service and script scan"),
    Site("bakery", "miller", "brute-http-basic", "password guessing"),
    Site("harbour", "port-auth", "c2-beacon-tls", "malware beacon over TLS; no rule fires"),
    Site("library", "city", "benign-mix", "ordinary traffic, nothing wrong"),
)


def recording(name: str) -> bytes:
    """Return a recorded EVE file of the demonstration."""
    folder = resources.files("hookprobe.cli").joinpath("recordings")
    return gzip.decompress(folder.joinpath(f"{name}.eve.json.gz").read_bytes())


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Where everything goes; an earlier demonstration there is replaced.",
)
@form_option
def demo(folder: Path, form: str | None) -> None:
    """Watch a real mesh turn sensor output into evidence that a sceptic verifies offline."""
    _clear(folder)
    asyncio.run(_Story(folder, Screen(form)).tell())


def _clear(folder: Path) -> None:
    """Remove an earlier demonstration, and nothing else."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / "mesh" / "authority.key").exists():
        raise UnavailableError(
            f"{folder} is not empty and not an earlier demonstration", hint="name another --folder"
        )
    shutil.rmtree(folder)


class _Story:
    """The acts, in order."""

    def __init__(self, folder: Path, screen: Screen) -> None:
        self._folder = folder
        self._screen = screen
        edges = tuple((site.edge, site.tenant) for site in SITES)
        shape = MeshShape(len(VALIDATORS), edges, EPOCH_MS, SETTINGS)
        self._mesh = LocalMesh(folder / "mesh", shape)
        self._watch = MeshWatch(self._mesh, self._hear)
        self._healthy_latencies: list[int] = []

    async def tell(self) -> None:
        try:
            await self._start()
            await self._detect()
            await self._prove()
            await self._tamper()
            await self._lose_one()
            await self._lose_two()
        finally:
            await self._mesh.stop()
        self._tally()

    def _hear(self, line: LogLine, facts: MeshFacts) -> None:
        if line.event == "IncidentRecorded" and not line.fields["final"]:
            source = facts.sources.get(str(line.fields["key"]), "")
            self._screen.incident(line.node, line.fields, source)
        if line.event == "CheckpointFinalized" and line.node == VALIDATORS[0]:
            self._hear_checkpoint(line)

    def _hear_checkpoint(self, line: LogLine) -> None:
        fields = line.fields
        latency = fields["latency_us"]
        took = f", {latency / 1000:.0f} ms" if isinstance(latency, int) and latency else ""
        self._screen.info(
            f"epoch {fields['epoch']} final: {fields['blocks']} blocks,"
            f" {fields['voters']} of {len(VALIDATORS)} votes{took}"
        )

    async def _start(self) -> None:
        screen = self._screen
        screen.step("A mesh: 4 validators (one may fail or lie), a verifier, 5 edges of 5 tenants")
        await self._mesh.start([*VALIDATORS, VERIFIER, *(site.edge for site in SITES)])
        edges = [site.edge for site in SITES]
        await self._watch.until(
            lambda facts: (
                all(facts.sessions[name] >= 3 for name in (*VALIDATORS, *edges))
                and all(facts.standing.get((VALIDATORS[0], edge)) == "resonant" for edge in edges)
            ),
            60,
            "the nodes did not connect",
        )
        screen.good("every node is a process of its own; sessions are sealed, post-quantum hybrid")
        screen.good("every edge proved its history to the verifier (software-attested, no TPM)")

    async def _detect(self) -> None:
        screen = self._screen
        screen.step("Each edge reads what its sensor recorded (Suricata EVE)")
        for site in SITES:
            screen.info(f"{site.edge:<8} {site.about}")
        for site in SITES:
            self._mesh.feed(site.edge, recording(site.recording))
        attacked = [site.edge for site in SITES if site.recording != "benign-mix"]
        await self._watch.until(
            lambda facts: all(
                facts.incidents[edge] and facts.proven.get(edge, 0) >= facts.blocks[edge] > 1
                for edge in attacked
            ),
            60,
            "the incidents were not certified",
        )
        await self._watch.during(2 * EPOCH_MS / 1000)
        facts = self._watch.facts
        self._healthy_latencies = list(facts.latencies_us)
        screen.good(f"every incident is a signed block, certified by 3 of 4: {_total(facts)}")
        if not facts.incidents["library"]:
            screen.good("library: ordinary traffic raised alerts, but no incident")

    async def _prove(self) -> None:
        screen = self._screen
        site = SITES[1]
        screen.step(f"Evidence of {site.edge}: exported, verified offline, then forged")
        mesh = self._mesh
        data = export_state(
            mesh.folder / site.edge, StorePlace(mesh.state_of(site.edge)), NodeId(site.edge)
        )
        path = self._folder / "evidence.hpe"
        write_atomically(path, data)
        chain = BundleVerifier(SCHEMES).check(data).chain
        report = BundleVerifier(SCHEMES, chain).check(data)
        screen.good(
            f"{path}: {len(data)} bytes, {report.blocks} blocks in epochs"
            f" {', '.join(map(str, report.epochs))}: VERIFIED"
        )
        await self._second_opinion(path, chain, wanted=True)
        forged = bytearray(data)
        at = data.rindex(b'"payload":"') + 40
        forged[at] = ord("1") if forged[at] == ord("0") else ord("0")
        forged_path = self._folder / "forged.hpe"
        write_atomically(forged_path, bytes(forged))
        try:
            BundleVerifier(SCHEMES, chain).check(bytes(forged))
        except RemoteError as error:
            screen.good(f"one byte changed: FAIL, {error.message}")
        else:
            raise UnavailableError("a forged bundle was accepted; this must never happen")
        await self._second_opinion(forged_path, chain, wanted=False)

    async def _second_opinion(self, path: Path, chain: bytes, *, wanted: bool) -> None:
        """Ask the verifier that imports nothing of ours, where this is a checkout that has it."""
        program = Path(__file__).parents[3] / "tools" / "verify_bundle.py"
        if not program.exists():
            self._screen.info("the second verifier is in the source repository: tools/")
            return
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-I", str(program), str(path), "--trust", chain.hex()],
            capture_output=True,
            text=True,
            check=False,
        )
        said = (done.stdout.strip().splitlines() or [done.stderr.strip()])[0]
        if (done.returncode == 0) is not wanted:
            raise UnavailableError(f"the second verifier disagrees: {said}")
        self._screen.good(f"second verifier (one file, nothing of ours): {said}")

    async def _tamper(self) -> None:
        screen, watched = self._screen, SITES[2].edge
        screen.step(f"Tampering: a line is added to {watched}'s configuration")
        with (self._mesh.folder / watched / SETTINGS_FILE).open("a", encoding="utf-8") as file:
            file.write("# an intruder was here\n")
        await self._watch.until(
            lambda facts: all(
                facts.standing.get((name, watched)) == "tamper-reported" for name in VALIDATORS
            ),
            60,
            "nobody noticed the tampering",
        )
        screen.bad(f"{watched} measures something else now; its reports stop counting at once,")
        screen.info("even if it measures as before again. An operator looks and accepts:")
        await self._accept(watched)
        await self._watch.until(
            lambda facts: facts.standing.get((VALIDATORS[0], watched)) == "resonant",
            60,
            "the accepted measurement does not count",
        )
        screen.good(f"hookprobe verifier accept {watched}: resonant again")

    async def _accept(self, edge: str) -> None:
        request: JsonObject = {"op": "accept", "node": edge}
        state = self._mesh.state_of(VERIFIER)
        for said in await asyncio.to_thread(lambda: list(ask(state, SOCKET_FILE, request))):
            if "error" in said:
                raise UnavailableError(f"the verifier refused: {said['message']}")

    async def _lose_one(self) -> None:
        screen, facts = self._screen, self._watch.facts
        screen.step("kill -9 of validator-4: one of four may fail")
        await self._mesh.kill(VALIDATORS[3])
        before = facts.epochs.get(VALIDATORS[0], 0)
        await self._watch.until(
            lambda facts: facts.epochs.get(VALIDATORS[0], 0) >= before + 5, 60, "epochs stopped"
        )
        screen.good("epochs go on with three")

    async def _lose_two(self) -> None:
        screen = self._screen
        screen.step("kill -9 of validator-3: two of four are gone")
        await self._mesh.kill(VALIDATORS[2])
        await self._watch.until(
            lambda facts: all(name in facts.quorum_lost for name in VALIDATORS[:2]),
            60,
            "nobody noticed that the quorum is lost",
        )
        screen.bad("validator-1 and validator-2 say: quorum lost, 2 of the 3 needed. Nothing is")
        screen.info("certified, nothing is pretended; edges keep their blocks.")
        await self._mesh.start([VALIDATORS[2]])
        before = self._watch.facts.epochs.get(VALIDATORS[0], 0)
        await self._watch.until(
            lambda facts: facts.epochs.get(VALIDATORS[0], 0) > before + 1, 60, "no recovery"
        )
        screen.good("validator-3 is back, remembers its votes, and epochs go on")

    def _tally(self) -> None:
        facts = self._watch.facts
        rows: list[Row] = []
        leaks = 0
        for site in SITES:
            output = recording(site.recording)
            record = self._mesh.folder / site.edge / EGRESS_FILE
            left, leaked = search(record, addresses_in(output))
            leaks += len(leaked)
            rows.append(
                {
                    "edge": site.edge,
                    "events": output.count(b"\n"),
                    "incidents": facts.incidents[site.edge],
                    "blocks": facts.blocks[site.edge],
                    "proven": facts.proven.get(site.edge, 0),
                    "bytes left": left,
                    "addresses in": len(addresses_in(output)),
                    "addresses left": len(leaked),
                }
            )
        self._screen.table("What each edge saw and said", rows)
        latencies = self._healthy_latencies
        self._screen.table(
            "The mesh",
            [
                {
                    "epochs": max(facts.certified, default=0) + 1,
                    "finality p50 ms": round(percentile(latencies, 0.50) / 1000, 1),
                    "finality p99 ms": round(percentile(latencies, 0.99) / 1000, 1),
                    "raw addresses left": leaks,
                }
            ],
        )
        if leaks:
            raise UnavailableError("raw addresses left an edge; this must never happen")
        self._screen.info(f"all of it is in {self._folder}; no process is left")
        self._screen.info("your own capture: hookprobe replay some.pcap")


def _total(facts: MeshFacts) -> str:
    incidents, blocks = sum(facts.incidents.values()), sum(facts.blocks.values())
    return f"{incidents} incidents, {blocks} blocks"
