"""`hookprobe neuro`: a device's history, its measurement, what is golden, and what tampering does.

Every surface says `software-attested`: without a TPM quote a root user who feeds the agent the
expected measurement is not detected.
"""

import contextlib
import os
import secrets
import sys
from pathlib import Path

import click

from hookprobe.cli import trajectory
from hookprobe.cli.configuration import config_option, form_option
from hookprobe.cli.output import Exit, emit, emit_one, message
from hookprobe.config.load import Config, load
from hookprobe.crypto.signing import Ed25519Signer
from hookprobe.errors import ConfigError
from hookprobe.identity import fingerprint
from hookprobe.neuro import baseline as baselines
from hookprobe.neuro import manifest as manifests
from hookprobe.neuro import ter
from hookprobe.neuro.attester import Attester, AttesterConfig, check_log
from hookprobe.neuro.backends.selection import BACKENDS, load_backend
from hookprobe.neuro.baseline import Baseline
from hookprobe.neuro.batch import BATCH_MAX_BYTES, decode_batch
from hookprobe.neuro.effects import AppendRecord
from hookprobe.neuro.manifest import Manifest
from hookprobe.neuro.replay import Job
from hookprobe.neuro.replay import replay as replay_all
from hookprobe.neuro.snapshot import Snapshot
from hookprobe.neuro.ter import INTEGRITY_BYTES, TER_BYTES, Ter
from hookprobe.neuro.verdict import SOFTWARE_ATTESTED, Verdict
from hookprobe.runtime import folders
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.hardware import collect
from hookprobe.runtime.keystore import load_secrets, read_file, write_atomically
from hookprobe.runtime.ledger_store import open_store, place_of
from hookprobe.runtime.neuro_check import self_check
from hookprobe.runtime.neuro_device import DeviceStore, HostCapture, host_capture
from hookprobe.wire import canonical
from hookprobe.wire.instant import HOUR, Instant, format_iso, parse_iso

BASELINE_FILE = "neuro.baseline"
_BASELINE_MAX_BYTES = 1 << 14
_FINGERPRINT_MAX_BYTES = 1 << 15
_YEAR_10000 = 253_402_300_800_000_000

backend_option = click.option(
    "--backend", type=click.Choice(BACKENDS), default="pure", show_default=True,
    help="Arithmetic; all give the same bits.",
)  # fmt: skip


@click.group()
def neuro() -> None:
    """A device's history of measurements and the weights it leads to (software-attested)."""


def _open(
    path: Path | None, backend: str, *, read_only: bool = True
) -> tuple[Config, DeviceStore, Snapshot, tuple[Ter, ...]]:
    config = load(path, os.environ, {})
    store = DeviceStore(config.file("state.path"))
    ours = load_secrets(config.file("identity.path"))
    start, records = store.open(ours, load_backend(backend), read_only=read_only)
    check_log(start, records)
    return config, store, start, records


@neuro.command()
@config_option
@form_option
def status(path: Path | None, form: str | None) -> None:
    """Show how far this device's history goes, from its files."""
    _, _, start, records = _open(path, "pure")
    last = records[-1] if records else start.state.previous
    emit_one(
        {
            "attestation": SOFTWARE_ATTESTED,
            "epoch": start.epoch,
            "records": start.state.count + len(records),
            "snapshot_at": start.state.count,
            "last_record": format_iso(last.timestamp) if last else None,
            "h_integrity": last.h_integrity.hex() if last else None,
        },
        form,
    )


@neuro.command()
@config_option
@form_option
@click.option("--record", is_flag=True, help="Append a record and evolve; the node must not run.")
def capture(path: Path | None, form: str | None, record: bool) -> None:
    """Measure this host; with --record also make it a record of its history."""
    made = host_capture(path, secrets.token_bytes)
    if record:
        place = place_of(load(path, os.environ, {}))
        # A record made beside a running node would be a second device with its state.
        with contextlib.closing(open_store(place)):
            emit_one(_recorded(path, made), form)
        return
    found = made.capture(Clock().now(), full=True)
    emit_one(
        {
            "attestation": SOFTWARE_ATTESTED,
            "h_integrity": found.reading.h_integrity.hex(),
            "kernel": found.components.kernel.hex(),
            "binary": found.components.binary.hex(),
            "config": found.components.config.hex(),
            "clock_trusted": found.reading.clock_trusted,
            "absent_counters": found.opening.counters.absent(),
        },
        form,
    )


def _recorded(path: Path | None, made: HostCapture) -> dict[str, str | int]:
    config, store, start, records = _open(path, "pure", read_only=False)
    ours = load_secrets(config.file("identity.path"))
    now = Clock().now()
    signer = Ed25519Signer(ours.signing)
    # Nothing is sent from here, so the verifier's name does not matter.
    who = AttesterConfig(ours.node, ours.node, signer, Instant(0), ours.provisioned)
    device = Attester(who, start, records)
    found = made.capture(now, full=True)
    index = device.state.count
    for effect in device.measure(found.reading, now):
        if isinstance(effect, AppendRecord):
            store.openings.keep(effect.epoch, index, found.opening, effect.record.timestamp)
            store.execute(effect)
            device.receive_appended(index)
    return {
        "attestation": SOFTWARE_ATTESTED,
        "records": device.state.count,
        "h_integrity": found.reading.h_integrity.hex(),
        "w_fingerprint": device.state.commitments().w_fingerprint.hex(),
    }


@neuro.command()
@config_option
@form_option
@backend_option
def replay(path: Path | None, form: str | None, backend: str) -> None:
    """Replay this device's log from its snapshot and show the fingerprint it leads to."""
    _, _, start, records = _open(path, backend)
    state = start.state
    began = Clock()
    start_us = began.now()
    replay_all([Job(state, records)])
    emit_one(
        {
            "backend": backend,
            "records": state.count,
            "replayed": len(records),
            "took_us": began.now() - start_us,
            "w_fingerprint": state.commitments().w_fingerprint.hex(),
        },
        form,
    )


@neuro.command()
@config_option
@form_option
@backend_option
def check(path: Path | None, form: str | None, backend: str) -> None:
    """Judge this device's own history as a verifier would; exit 1 unless it is resonant.

    From the snapshot on, against the accepted baseline. A verifier elsewhere judges the same; what
    neither can see is a root user who feeds the agent golden measurements.
    """
    config, _, start, records = _open(path, backend)
    place = config.file("state.path") / BASELINE_FILE
    if not place.exists():
        raise ConfigError(
            [f"{place}: no baseline yet"], hint="run: hookprobe neuro baseline accept"
        )
    data = read_file(place, limit=_BASELINE_MAX_BYTES)
    golden = baselines.from_json(canonical.decode_object(data))
    ours = load_secrets(config.file("identity.path"))
    found = self_check(ours, start, records, (golden, Clock().now()))
    emit(
        [
            {
                "attestation": SOFTWARE_ATTESTED,
                "verdict": item.verdict.value,
                "records": item.next_index,
                "first_bad": item.first_bad,
            }
            for item in found
        ],
        form,
    )
    if any(item.verdict is not Verdict.RESONANT for item in found):
        sys.exit(Exit.FAILED)


@neuro.command()
@config_option
@form_option
@click.option("--save", type=click.Path(path_type=Path), help="Write the keyed hashes into a file.")
@click.option("--against", type=click.Path(path_type=Path), help="Compare with such a file.")
def hardware(path: Path | None, form: str | None, save: Path | None, against: Path | None) -> None:
    """Show which hardware this host can be known by; identifiers are never shown."""
    config = load(path, os.environ, {})
    ours = load_secrets(config.file("identity.path"))
    seen = fingerprint.take(collect(), ours.tenant)
    row: dict[str, str | int] = {name: len(values) for name, values in seen.components}
    row["digest"] = seen.digest().hex()
    if save is not None:
        write_atomically(save, seen.encode())
    if against is not None:
        enrolled = fingerprint.decode(read_file(against, limit=_FINGERPRINT_MAX_BYTES))
        row["score_bp"] = fingerprint.score(enrolled, seen)
        row["match"] = fingerprint.judge(enrolled, seen).value
    emit_one(row, form)


@neuro.command()
@click.argument("digits", metavar="HEX")
@form_option
def explain(digits: str, form: str | None) -> None:
    """Explain a record (64 bytes) or a batch of records given as hex digits."""
    try:
        data = bytes.fromhex("".join(digits.split()).replace(":", ""))
    except ValueError as error:
        raise ConfigError(["HEX: not pairs of hex digits"]) from error
    if len(data) == TER_BYTES:
        emit([_row(ter.decode(data), None)], form)
        return
    batch = decode_batch(data[: BATCH_MAX_BYTES + 1])
    first = batch.head.first_index
    emit([_row(record, first + i) for i, record in enumerate(batch.records)], form)


def _row(record: Ter, index: int | None) -> dict[str, str | int | None]:
    return {
        "index": index,
        "sequence": record.sequence,
        "time": _time(record.timestamp),
        "h_integrity": record.h_integrity.hex(),
        "h_entropy": record.h_entropy.hex(),
        "chain": f"{record.chain:04x}",
        "crc_for_next": f"{ter.checksum(record.encode()):04x}",
    }


def _time(at: Instant) -> str:
    return format_iso(at) if at < _YEAR_10000 else f"{at} us"


@neuro.group()
def baseline() -> None:
    """What this device may measure."""


@baseline.command()
@config_option
@form_option
@click.option("--measurement", help="40 hex digits; without it this host is measured now.")
def accept(path: Path | None, form: str | None, measurement: str | None) -> None:
    """Make a measurement golden: you looked at the machine and it is as it should be."""
    config = load(path, os.environ, {})
    if measurement is None:
        found = host_capture(path, secrets.token_bytes).capture(Clock().now(), full=True)
        golden = found.reading.h_integrity
    else:
        golden = measured(measurement, "--measurement")
    place = config.file("state.path") / BASELINE_FILE
    held = Baseline(golden)
    if place.exists():
        data = read_file(place, limit=_BASELINE_MAX_BYTES)
        held = baselines.from_json(canonical.decode_object(data)).accept(golden)
    write_atomically(place, canonical.encode(held.to_json()), mode=0o600)
    emit_one({"golden": held.golden.hex(), "version": held.version, "file": str(place)}, form)


def measured(text: str, option: str) -> bytes:
    """Return the measurement an option gives in hex digits.

    Raises:
        ConfigError: It is none.
    """
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != INTEGRITY_BYTES:
        raise ConfigError([f"{option}: {2 * INTEGRITY_BYTES} hex digits are wanted"])
    return value


@neuro.group()
def manifest() -> None:
    """Approved updates."""


@manifest.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--authority", required=True, type=click.Path(path_type=Path, exists=True),
              help="Folder of the mesh authority, which signs.")  # fmt: skip
@click.option("--version", required=True, type=click.IntRange(1), help="Higher than any before.")
@click.option("--measurement", required=True, help="What the updated device will measure.")
@click.option("--replaces", required=True, multiple=True, help="What it measured; repeatable.")
@click.option("--from", "valid_from", help="RFC 3339 time; now if not given.")
@click.option("--window-hours", default=72, show_default=True, type=click.IntRange(0, 720))
def sign(
    out: Path,
    authority: Path,
    version: int,
    measurement: str,
    replaces: tuple[str, ...],
    valid_from: str | None,
    window_hours: int,
) -> None:
    """Sign an update manifest into OUT."""
    olds = [measured(text, "--replaces") for text in replaces]
    update = Manifest(
        version=version,
        h_integrity=measured(measurement, "--measurement"),
        replaces=tuple(sorted(dict.fromkeys(olds))),
        valid_from=parse_iso(valid_from) if valid_from else Clock().now(),
        window_us=window_hours * HOUR,
    )
    signer = folders.read_authority(authority).signer()
    write_atomically(out, manifests.sign_manifest(update, signer))
    message(f"{out}: version {version}, valid from {format_iso(update.valid_from)}")


@neuro.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--records", default=200, show_default=True, type=click.IntRange(2, 100_000))
@click.option("--tampered", default=20, show_default=True, type=click.IntRange(0))
@backend_option
def plot(out: Path, records: int, tampered: int, backend: str) -> None:
    """Draw into OUT (SVG) how far one tampered record drives the weights apart."""
    if tampered >= records:
        raise ConfigError([f"--tampered: {tampered} is not below {records}"])
    found = trajectory.distances(bytes(32), load_backend(backend), records, tampered)
    write_atomically(out, trajectory.draw(found, tampered).encode())
    message(f"{out}: after record {records - 1} the weights differ by {found[-1]:.1f} ulp rms")
