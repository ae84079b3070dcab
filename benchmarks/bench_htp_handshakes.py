"""What a handshake costs either end, beside aioquic, qh3 and the operations it cannot do without.

Everything runs in one process without sockets, on CPU time of the side that is named. Figures are
the best of several rounds, in which all take their turns.
"""

import hashlib
import importlib
import ssl
import tempfile
import time
from pathlib import Path

from benchmarks.bench_htp import (
    NOW,
    ROUNDS,
    VALIDATOR,
    Meter,
    Plain,
    Row,
    datagrams,
    endpoint,
    uncollected,
)
from benchmarks.certificates import certify

from hookprobe.crypto.agreement import AgreementKey, MlKem
from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.htp.config import SUITE_CLASSICAL, SUITE_HYBRID, HtpConfig
from hookprobe.htp.effects import Address
from hookprobe.htp.seams import PinnedPeer

WAVE = 20


def handshakes(suite: int, count: int) -> tuple[float, float]:
    """Return handshakes a second of CPU: (answering side, dialling side).

    They come in waves, as a listening process of its own would meet them: one side works off what
    all of a wave have sent before it is the other's turn. The same goes for the others below.
    """
    plain = Plain()
    validator, identity = endpoint("validator", plain)
    pinned = PinnedPeer(identity.node, VALIDATOR, identity.static_key.public_key)
    answering, dialling = Meter(), Meter()
    config = HtpConfig(suites_offered=suite)
    for wave in range(0, count, WAVE):
        names = range(wave, min(wave + WAVE, count))
        edges = [endpoint(f"edge-{number}", plain, config)[0] for number in names]
        homes = [Address(f"10.1.{number >> 8}.{number & 255}", 4719) for number in names]
        begin = time.process_time()
        packets = [datagrams(edge.connect(pinned, NOW)) for edge in edges]
        dialling.spent += time.process_time() - begin
        for _ in range(3):
            packets = answering.answer_wave(validator, packets, homes)
            packets = dialling.feed_wave(edges, packets, [VALIDATOR] * len(edges))
    assert len(validator.peers) == count
    return count / answering.spent, count / dialling.spent


def primitives(count: int) -> float:
    """Return how often a second of CPU the operations no hybrid answer can do without are done.

    They are two Diffie-Hellman exchanges, a fresh key pair, one signature checked and one secret
    encapsulated, each time for another peer. Hashing and sealing, 25 us, are not counted.
    """
    scheme, kem, static = Ed25519(), MlKem(), AgreementKey(bytes(31) + b"1")
    given = []
    for number in range(count):
        seed = hashlib.sha256(number.to_bytes(8)).digest()
        signer, message = Ed25519Signer(seed), bytes(300)
        given.append((AgreementKey(seed).public_key, kem.generate(seed * 2).public_key,
                      signer.public_key, message, signer.sign(message), seed[::-1]))  # fmt: skip
    begin = time.process_time()
    for theirs, kem_public, public_key, message, signature, seed in given:
        static.exchange(theirs)
        assert scheme.verify(public_key, message, signature)
        AgreementKey(seed).exchange(theirs)
        kem.encapsulate(kem_public)
    return count / (time.process_time() - begin)


def quic_handshakes(kind: str, count: int) -> float:
    """Return handshakes a second of CPU of the answering side of aioquic or qh3."""
    module = importlib.import_module(f"{kind}.quic.connection")
    settings = importlib.import_module(f"{kind}.quic.configuration").QuicConfiguration
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = certify(Path(folder))
        answering = settings(is_client=False, alpn_protocols=["bench"])
        answering.load_cert_chain(certificate, key)
    dialling = settings(is_client=True, alpn_protocols=["bench"], verify_mode=ssl.CERT_NONE)
    spent, here, there = 0.0, ("10.0.0.2", 4719), ("10.0.0.1", 4719)
    for wave in range(0, count, WAVE):
        clients = [module.QuicConnection(configuration=dialling)
                   for _ in range(wave, min(wave + WAVE, count))]  # fmt: skip
        for client in clients:
            client.connect(there, now=0.0)
        begin = time.process_time()
        servers = [module.QuicConnection(
            configuration=answering,
            original_destination_connection_id=client.original_destination_connection_id,
        ) for client in clients]  # fmt: skip
        spent += time.process_time() - begin
        for _ in range(4):
            waiting = [client.datagrams_to_send(now=0.0) for client in clients]
            begin = time.process_time()
            for server, packets in zip(servers, waiting, strict=True):
                for data, _ in packets:
                    server.receive_datagram(data, here, now=0.0)
            answers = [server.datagrams_to_send(now=0.0) for server in servers]
            spent += time.process_time() - begin
            for client, packets in zip(clients, answers, strict=True):
                for data, _ in packets:
                    client.receive_datagram(data, there, now=0.0)
    return count / spent


def run() -> list[Row]:
    """Measure handshakes of ours and of others in turn."""
    suites = {"classical": SUITE_CLASSICAL, "hybrid": SUITE_HYBRID}
    ours: dict[str, list[tuple[float, float]]] = {name: [] for name in suites}
    others: dict[str, list[float]] = {"aioquic": [], "qh3": []}
    floor: list[float] = []
    for _ in range(ROUNDS):
        with uncollected():
            for name, suite in suites.items():
                ours[name].append(handshakes(suite, 200))
            for peer, found in others.items():
                found.append(quic_handshakes(peer, 60))
            floor.append(primitives(200))
    rows: list[Row] = []
    for name, figures in ours.items():
        answering, dialling = (max(column) for column in zip(*figures, strict=True))
        rows.append((f"HTP handshakes answered, {name}", answering, "/s of CPU"))
        for peer, found in others.items():
            ratio = answering / max(found)
            rows.append((f"HTP handshakes answered, {name} / {peer}", ratio, "x"))
        rows.append((f"HTP handshakes dialled, {name}", dialling, "/s of CPU"))
    hybrid = max(answered for answered, _ in ours["hybrid"])
    ratio = hybrid / max(floor)
    rows.append(("HTP handshakes answered, hybrid / its primitives alone", ratio, "x"))
    return rows


if __name__ == "__main__":
    for what, value, unit in run():
        print(f"{what:60} {value:12,.1f} {unit}")
