"""Carries out what an edge asks of its host for NEURO: measure, write records, open, quote.

A measurement hashes files when something moved and a TPM takes its time, so both run in threads;
everything else is short.
The opening of a record is on disk before the record, and the record before the node goes on from
it.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hookprobe.config.load import Config
from hookprobe.crypto.signing import Ed25519Signer
from hookprobe.errors import HostError
from hookprobe.identity import fingerprint
from hookprobe.identity.secrets import NodeSecrets
from hookprobe.neuro.backends.engine import EngineFactory
from hookprobe.neuro.effects import AppendRecord, AskTpm, FindOpening, HostRequest, MeasureHost
from hookprobe.neuro.measurement import Opening
from hookprobe.neuro.quote_documents import Claim, QuoteAnswer
from hookprobe.neuro.quotes import qualify
from hookprobe.node.build import DeviceHistory
from hookprobe.node.edge import EdgeNode
from hookprobe.node.host import Effect
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.hardware import collect
from hookprobe.runtime.neuro_device import Capture, DeviceStore, host_capture
from hookprobe.runtime.tpm import Tpm
from hookprobe.wire.instant import Instant


class Measuring(Protocol):
    """What measures the host; see `runtime.neuro_device.HostCapture`."""

    def capture(self, now: Instant, *, full: bool = False) -> Capture: ...


@dataclass(frozen=True, slots=True)
class Machine:
    """What an edge runs on.

    Attributes:
        store: Its records.
        capture: Measures it.
        key: The edge's Ed25519 public key, which a TPM's quote is tied to.
        tpm: Its TPM; None where there is none.
    """

    store: DeviceStore
    capture: Measuring
    key: bytes
    tpm: Tpm | None


def machine_of(config: Config, ours: NodeSecrets) -> Machine:
    """Return the machine that an edge's settings describe.

    Raises:
        ConfigError: A TPM is named, but its library is not installed.
    """
    place = config.text("identity.tpm")
    return Machine(
        store=DeviceStore(config.file("state.path")),
        capture=host_capture(config.path, secrets.token_bytes),
        key=Ed25519Signer(ours.signing).public_key,
        tpm=Tpm(place) if place else None,
    )


def read_history(machine: Machine, ours: NodeSecrets, engine: EngineFactory) -> DeviceHistory:
    """Return a device's history from its disk, and what the device runs on.

    Raises:
        HostError: The disk or the TPM failed.
        MalformedError: Snapshot or log is damaged.
    """
    start, records = machine.store.open(ours, engine)
    facts, claim = collect(), b""
    if machine.tpm is not None:
        who = machine.tpm.identify()
        facts[fingerprint.TPM] = [hashlib.sha256(who.endorsement).hexdigest()]
        claim = Claim(who.endorsement, who.attestation, who.certificate).encode()
    hardware = fingerprint.take(facts, ours.tenant)
    return DeviceHistory(start, records, hardware.encode(), claim)


class DeviceHost:
    """The host of one edge.

    Args:
        node: The edge.
        machine: What it runs on.
        clock: Says what time it is.
        complain: Told why a measurement or a quote failed; the next one is tried all the same.
    """

    def __init__(
        self,
        node: EdgeNode,
        machine: Machine,
        clock: Clock,
        complain: Callable[[HostError], None],
    ) -> None:
        self._node = node
        self._store = machine.store
        self._capture = machine.capture
        self._machine = machine
        self._clock = clock
        self._complain = complain
        self._quoting: asyncio.Task[None] | None = None
        self._opening: Opening | None = None
        self._measuring: asyncio.Task[None] | None = None
        self._challenged = False
        self.execute: Callable[[Sequence[Effect]], None] = lambda _: None

    def perform(self, request: HostRequest) -> None:
        """Do what the node asks.

        Raises:
            HostError: The disk failed; the node must stop.
        """
        match request:
            case MeasureHost():
                if self._measuring is None or self._measuring.done():
                    self._measuring = asyncio.create_task(self._measure())
            case AppendRecord(epoch, index, record):
                assert self._opening is not None, "a record is made of a measurement"
                self._store.openings.keep(epoch, index, self._opening, record.timestamp)
                self._store.execute(request)
                self.execute(self._node.receive_appended(index, self._clock.now()))
            case FindOpening(place):
                self._challenged = True  # whoever looks closely gets a full hash next
                found = self._store.openings.find(place.epoch, place.index) or b""
                self.execute(self._node.receive_opening(place, found, self._clock.now()))
            case AskTpm():
                if self._quoting is None or self._quoting.done():
                    self._quoting = asyncio.create_task(self._quote(request))
            case _:
                self._store.execute(request)

    async def _measure(self) -> None:
        full, self._challenged = self._challenged, False
        try:
            found = await asyncio.to_thread(self._capture.capture, self._clock.now(), full=full)
        except HostError as error:
            self._complain(error)
            return
        self._opening = found.opening
        self.execute(self._node.receive_reading(found.reading, self._clock.now()))

    async def _quote(self, asked: AskTpm) -> None:
        try:
            found = await asyncio.to_thread(answer, self._machine, asked)
        except HostError as error:
            self._complain(error)  # the verifier asks again, and the label runs out meanwhile
            return
        self.execute(self._node.receive_quote(found, self._clock.now()))

    async def run(self) -> None:
        """End with the error of a measurement or quote that broke the node; else never."""
        while True:
            for task in (self._measuring, self._quoting):
                if task is not None and task.done():
                    task.result()
            await asyncio.sleep(1)


def answer(machine: Machine, asked: AskTpm) -> QuoteAnswer:
    """Have the TPM open the verifier's secret, and quote over it.

    Raises:
        HostError: The secret is not for this TPM, or the TPM failed.
    """
    assert machine.tpm is not None, "only a device that showed a TPM is asked"
    secret = machine.tpm.activate(asked.challenge.credential)
    about = qualify(asked.challenge, secret, asked.w_fingerprint, machine.key)
    found = machine.tpm.quote(about)
    return QuoteAnswer(found.attest, found.signature, found.pcrs)
