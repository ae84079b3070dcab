"""The fuzz lane: mutated real traffic into every decoder, seeded and repeatable.

`python -m tests.fuzz.lane --seconds 60 --seed 0` (or `make fuzz SECONDS=60`). The corpus is what
real nodes say to each other: datagrams, ledger frames, blocks, bundles, sensor lines. A decoder may
refuse with `RemoteError` and nothing else; an endpoint may not raise at all.
"""

import argparse
import gzip
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.unit.neuro.paper_tpm import PaperTpm
from tests.unit.node.mesh import START, VERIFIER, MemoryMesh

from hookprobe.crypto.signing import Ed25519
from hookprobe.detection.config import DetectionConfig
from hookprobe.detection.event import Format, Sensor
from hookprobe.detection.pipeline import Detection
from hookprobe.dsm.bundle import BundleVerifier, export_bundle
from hookprobe.dsm.checkpoint import decode_content, decode_sealed
from hookprobe.dsm.frames import decode as decode_message
from hookprobe.dsm.genesis import decode_genesis
from hookprobe.dsm.microblock import decode_block
from hookprobe.dsm.receipts import decode_receipt
from hookprobe.dsm.store import Table
from hookprobe.errors import RemoteError
from hookprobe.htp.channels import Channel
from hookprobe.htp.effects import Address
from hookprobe.htp.explain import explain
from hookprobe.identity.directory import accept
from hookprobe.neuro import ter
from hookprobe.node.build import SCHEMES
from hookprobe.node.observations import MessageSent
from hookprobe.node.seats import (
    Terms,
    encode_attestation,
    judge_attestation,
    past_of,
    seat_of,
)
from hookprobe.wire import canonical
from hookprobe.wire.identifiers import NodeId

EVE = Path(__file__).parents[1] / "data/sensors/eve"
ZEEK = Path(__file__).parents[1] / "data/sensors/zeek"
STRANGER = Address("192.0.2.99", 9)
BOUNDARIES = (b"\0", b"\xff", b"\x7f", b"\0\0\0\0", b"\xff\xff\xff\xff", b"{", b'"', b"\n", b"-0")


@dataclass(frozen=True)
class Target:
    """A decoder, good inputs for it, and whether it may refuse by raising."""

    name: str
    feed: Callable[[bytes], object]
    corpus: list[bytes]
    may_refuse: bool = True


def mutate(data: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """Return a damaged copy: flips, cuts, insertions, repetitions, splices."""
    damaged = bytearray(data)
    for _ in range(dice.randrange(1, 5)):
        at = dice.randrange(len(damaged) + 1)
        match dice.randrange(6):
            case 0 if at < len(damaged):
                damaged[at] ^= 1 << dice.randrange(8)
            case 1:
                del damaged[at : at + dice.randrange(1, 9)]
            case 2:
                damaged[at:at] = dice.choice(BOUNDARIES)
            case 3:
                piece = dice.choice(BOUNDARIES)
                damaged[at : at + len(piece)] = piece
            case 4:
                damaged[at:at] = damaged[at : at + dice.randrange(1, 64)]
            case _:
                other = dice.choice(others)
                damaged[at:] = other[dice.randrange(len(other) + 1) :]
    return bytes(damaged[: 1 << 17])


def seat_target(mesh: MemoryMesh) -> Target:
    """Return the judge of applicants' attestations, which tells and never raises."""
    history, device = mesh.hosts["validator-1"].validator.ledger.history, PaperTpm()
    past, seat = (
        past_of(history, mesh.now),
        seat_of(history.court.chain, mesh.mesh.genesis.validators[0]),
    )
    anchor = past.anchor(past.epoch)
    assert anchor is not None
    good = encode_attestation(
        anchor, device.attestation(), device.quote(seat.about(anchor.checkpoint))
    )
    assert judge_attestation(good, seat, past, Terms()).tpm_key

    def judge(data: bytes) -> object:
        return judge_attestation(data, seat, past, Terms())

    return Target("attestation", judge, [good], may_refuse=False)


def targets() -> list[Target]:
    """Let a small mesh talk and make every target from what it said."""
    mesh = MemoryMesh(("edge-a",), verified=True)
    mesh.run(3)
    scan = gzip.decompress((EVE / "brute-http-basic.eve.json.gz").read_bytes())
    mesh.feed("edge-a", scan)
    mesh.run(5)
    edge, validator = mesh.hosts["edge-a"], mesh.hosts["validator-1"]
    sent = [item for host in mesh.hosts.values() for item in host.of(MessageSent)]
    genesis = mesh.mesh.genesis
    bundle = export_bundle(genesis, NodeId("edge-a"), edge.store)
    verifier = BundleVerifier(SCHEMES)
    verifier.check(bundle)
    ca_keys = genesis.ca_keys

    def rows(host: str, table: Table) -> list[bytes]:
        return [value for _, value in mesh.hosts[host].store.scan(table, b"", b"\xff" * 90, 99)]

    def to_validator(data: bytes) -> object:
        assert validator.node is not None
        source = mesh.hosts["edge-a"].address if data[:1] == b"\0" else STRANGER
        return validator.node.receive_datagram(data, source, mesh.now)

    said = [item.data for item in sent if item.channel == Channel.TER]

    def to_room(host: str) -> Callable[[bytes], object]:
        rooms = {
            "edge-a": mesh.hosts["edge-a"].edge.attestation,
            "validator-1": mesh.hosts["validator-1"].validator.appraisals,
            VERIFIER: mesh.hosts[VERIFIER].verifier.verification,
        }
        room = rooms[host]
        assert room is not None
        peer = NodeId(VERIFIER if host == "edge-a" else "edge-a")
        return lambda data: room.receive(peer, Channel.TER, data, mesh.now)

    detection = Detection(DetectionConfig(), lambda _: bytes(32))

    def to_sensor(form: Format, log: str = "") -> Callable[[bytes], object]:
        sensor = Sensor(form.value, form, log)
        return lambda data: detection.receive_line(sensor, data.replace(b"\n", b""), 0, mesh.now)

    zeek = [line for path in sorted(ZEEK.iterdir()) for line in path.read_bytes().splitlines()]
    return [
        Target("datagram", to_validator, edge.datagrams[-400:], may_refuse=False),
        Target("explain", explain, edge.datagrams[:50], may_refuse=False),
        Target("ledger frame", decode_message, [item.data for item in sent]),
        Target("microblock", decode_block, rows("edge-a", Table.BLOCKS)),
        Target("receipt", decode_receipt, rows("edge-a", Table.RECEIPTS)),
        Target("checkpoint", decode_sealed, rows("validator-1", Table.CHECKPOINTS)),
        Target("content", decode_content, rows("validator-1", Table.CONTENTS)),
        Target("bundle", verifier.check, [bundle]),
        Target("genesis", decode_genesis, [genesis.encode()]),
        Target(
            "directory",
            lambda data: accept(data, ca_keys, Ed25519(), START),
            [mesh.mesh.directory],
        ),
        Target("canonical JSON", canonical.decode, [genesis.encode(), bundle.split(b"\n")[2]]),
        Target("TER", ter.decode, [bytes(64)]),
        seat_target(mesh),
        Target("NEURO at a device", to_room("edge-a"), said, may_refuse=False),
        Target("NEURO at a validator", to_room("validator-1"), said, may_refuse=False),
        Target("NEURO at a verifier", to_room(VERIFIER), said, may_refuse=False),
        Target("EVE line", to_sensor(Format.EVE), scan.splitlines(), may_refuse=False),
        Target("Zeek JSON", to_sensor(Format.ZEEK_JSON, "conn"), zeek, may_refuse=False),
        Target("Zeek TSV", to_sensor(Format.ZEEK_TSV, "conn"), zeek, may_refuse=False),
    ]


def attack(target: Target, dice: random.Random) -> bool:
    """Feed one mutated input; return whether it was taken."""
    data = mutate(dice.choice(target.corpus), dice, target.corpus)
    try:
        target.feed(data)
    except RemoteError:
        if not target.may_refuse:
            raise
        return False
    except Exception:
        sys.stderr.write(f"{target.name}: {data.hex()}\n")
        raise
    return True


def main() -> None:
    """Fuzz for a while and say how much was tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.lane")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice, lanes = random.Random(options.seed), targets()
    end, tried = time.monotonic() + options.seconds, 0
    while time.monotonic() < end:
        for lane in lanes:
            for _ in range(50):
                attack(lane, dice)
                tried += 1
    sys.stdout.write(f"{tried} inputs into {len(lanes)} decoders, seed {options.seed}: ok\n")


if __name__ == "__main__":
    main()
