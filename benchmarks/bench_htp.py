"""What the transport costs: handshakes, sealed packets, heartbeats, messages, memory.

Everything runs in one process without sockets, on CPU time of the side that is named. Figures are
the best of several rounds.
"""

import contextlib
import gc
import hashlib
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from hookprobe.crypto.agreement import AgreementKey, MlKem
from hookprobe.crypto.sealing import CipherCache
from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.htp.bulk import BulkQueue
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import SUITE_HYBRID, HtpConfig
from hookprobe.htp.effects import (
    Address,
    Effect,
    MessageReceived,
    Transmit,
    TransmitRun,
    each_datagram,
)
from hookprobe.htp.endpoint import Endpoint
from hookprobe.htp.keys import SessionKeys
from hookprobe.htp.packet import PacketType, decode_header
from hookprobe.htp.path import each_received
from hookprobe.htp.seams import LocalIdentity, PinnedPeer, RegisteredPeer, Seams
from hookprobe.htp.session import Session, SessionNames
from hookprobe.runtime.udp import UdpSocket
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant

ROUNDS = 3
NOW = Instant(1_800_000_000 * SECOND)
FINGERPRINT = b"f" * 64
VALIDATOR = Address("10.0.0.1", 4719)
LIMITS = HtpConfig(attest_rate_per_s=10**6, attest_burst=10**6, unconfirmed_max=10**6,
                   peers_max=10**6, reset_rate_per_s=10**6)  # fmt: skip

Row = tuple[str, float, str]


class Plain:
    """Registry, source and check in one; resonance costs nothing here."""

    def __init__(self) -> None:
        self.peers: dict[NodeId, RegisteredPeer] = {}

    def find(self, node: NodeId) -> RegisteredPeer | None:
        return self.peers.get(node)

    def w_fingerprint(self) -> bytes:
        return FINGERPRINT

    def respond(self, challenge: bytes) -> tuple[bytes, bytes]:
        digest = hashlib.sha256(challenge).digest()
        return digest, digest

    def check(
        self, node: NodeId, fingerprint: bytes, challenge: bytes, rdv: bytes, posf: bytes
    ) -> bool:
        del node, fingerprint
        return rdv == posf == hashlib.sha256(challenge).digest()


def seeded(label: str) -> Callable[[int], bytes]:
    counter = 0

    def draw(count: int) -> bytes:
        nonlocal counter
        counter += 1
        return hashlib.shake_256(f"{label}/{counter}".encode()).digest(count)

    return draw


def endpoint(
    name: str, plain: Plain, config: HtpConfig = LIMITS, now: Instant = NOW
) -> tuple[Endpoint, LocalIdentity]:
    seed = hashlib.sha256(name.encode()).digest()
    identity = LocalIdentity(NodeId(name), Ed25519Signer(seed), AgreementKey(seed), seed)
    plain.peers[identity.node] = RegisteredPeer(identity.signer.public_key, True, (FINGERPRINT,))
    seams = Seams(plain, plain, plain, Ed25519(), MlKem())
    return Endpoint(config, identity, seams, seeded(name), now), identity


def datagrams(effects: list[Effect]) -> list[bytes]:
    leaving = (one for one in effects if isinstance(one, Transmit | TransmitRun))
    return [one.data for one in each_datagram(leaving)]


class Meter:
    """CPU seconds spent inside measured calls."""

    def __init__(self) -> None:
        self.spent = 0.0

    def feed(
        self, target: Endpoint, packets: list[bytes], source: Address, now: Instant = NOW
    ) -> list[bytes]:
        begin = time.process_time()
        out = [
            data for packet in packets
            for data in datagrams(target.receive_datagram(packet, source, now))
        ]  # fmt: skip
        self.spent += time.process_time() - begin
        return out

    def answer_wave(
        self, answering: Endpoint, waiting: list[list[bytes]], sources: list[Address]
    ) -> list[list[bytes]]:
        """Feed what all of them have sent, as one read of the socket brings it; as `feed_wave`."""
        arrived = [(data, source) for packets, source in zip(waiting, sources, strict=True)
                   for data in packets]  # fmt: skip
        begin = time.process_time()
        effects = answering.receive_batch(arrived, NOW)
        self.spent += time.process_time() - begin
        out: dict[Address, list[bytes]] = {source: [] for source in sources}
        for effect in effects:
            if isinstance(effect, Transmit):
                out[effect.address].append(effect.data)
        return list(out.values())

    def feed_wave(
        self, targets: list[Endpoint], waiting: list[list[bytes]], sources: list[Address]
    ) -> list[list[bytes]]:
        """Feed to each what waits for it; return what each has to say."""
        begin = time.process_time()
        out = [
            [data for packet in packets
             for data in datagrams(target.receive_datagram(packet, source, NOW))]
            for target, packets, source in zip(targets, waiting, sources, strict=True)
        ]  # fmt: skip
        self.spent += time.process_time() - begin
        return out


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector away, as timeit does.

    The other ends live in the same process, and most of what it would walk is theirs. In a server
    of its own it takes less than one per cent.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def best(measure: Callable[[], float]) -> float:
    return max(measure() for _ in range(ROUNDS))


def session_pair() -> tuple[Session, Session]:
    keys = SessionKeys(b"1" * 32, b"2" * 32, b"3" * 4, b"4" * 4, b"5" * 32, b"6" * 32)
    names = SessionNames(NodeId("peer"), True, b"a" * 8, b"b" * 8, b"", SUITE_HYBRID)
    ciphers = CipherCache(8)
    mirrored = names._replace(dialled=False, local_token=b"b" * 8, remote_token=b"a" * 8)
    return Session(keys, names, ciphers, 10, NOW), Session(keys, mirrored, ciphers, 10, NOW)


def sealed_packets(count: int) -> tuple[float, float]:
    """Return full-size packets a second: (sealed, opened)."""
    sender, receiver = session_pair()
    payload = bytes(1084)
    begin = time.process_time()
    packets = [sender.seal(PacketType.DATA, payload, NOW) for _ in range(count)]
    sealed = count / (time.process_time() - begin)
    begin = time.process_time()
    for packet in packets:
        receiver.open(decode_header(packet), packet)
    return sealed, count / (time.process_time() - begin)


def sealed_runs(count: int) -> float:
    """Return full-size packets a second of bulk data, cut and sealed in runs."""
    sender, _ = session_pair()
    queue = BulkQueue(count * 9000)
    for _ in range(count // 8):
        queue.offer(bytes(16), bytes(8192))
    begin, sealed = time.process_time(), 0
    while queue:
        run = queue.take(1 << 20, 1200)
        sealed += len(sender.seal_run(run, NOW))
    return sealed / (time.process_time() - begin)


def heartbeats(peers: int, beats: int) -> float:
    """Return heartbeats with fresh beacons answered a second of CPU, by one end for many peers."""
    plain = Plain()
    validator, identity = endpoint("validator", plain)
    pinned = PinnedPeer(identity.node, VALIDATOR, identity.static_key.public_key)
    meter, edges = Meter(), []
    for number in range(peers):
        edge, _ = endpoint(f"edge-{number}", plain)
        source = Address(f"10.1.{number >> 8}.{number & 255}", 4719)
        packets = datagrams(edge.connect(pinned, NOW))
        for turn in range(8):
            target, at = (validator, source) if turn % 2 == 0 else (edge, VALIDATOR)
            packets = meter.feed(target, packets, at)
        edges.append((edge, source))
    spent, answered = 0.0, 0
    for beat in range(1, beats + 1):
        now = Instant(NOW + beat * 30 * SECOND)
        waiting = [(data, source) for edge, source in edges
                   for data in datagrams(edge.handle_timeout(now))]  # fmt: skip
        begin = time.process_time()
        answers = [effect for start in range(0, len(waiting), 64)
                   for effect in validator.receive_batch(waiting[start : start + 64], now)
                   if isinstance(effect, Transmit)]  # fmt: skip
        spent += time.process_time() - begin
        answered += len(answers)
        homes = {source: edge for edge, source in edges}
        for answer in answers:
            homes[answer.address].receive_datagram(answer.data, VALIDATOR, now)
    assert answered == peers * beats
    return answered / spent


def datagrams_answered(rounds: int, *, many: bool) -> float:
    """Return datagrams of 64 peers received and answered a second of CPU, on the loopback."""
    here = UdpSocket(Address("127.0.0.1", 0))
    if not many:
        here.many = None
    peers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(64)]
    for peer in peers:
        peer.connect(here.address)
    spent = []
    for _ in range(rounds):
        for peer in peers:
            peer.send(bytes(149))
        begin = time.process_time()
        here.send_batch([Transmit(at, bytes(170)) for _, at in each_received(here.drain())])
        spent.append(time.process_time() - begin)
        for peer in peers:
            peer.recv(200)
    for peer in peers:
        peer.close()
    here.shut()
    return len(peers) / sorted(spent)[rounds // 10]


def connected(plain: Plain) -> tuple[Endpoint, Endpoint, NodeId]:
    validator, identity = endpoint("validator", plain)
    edge, _ = endpoint("edge", plain)
    pinned = PinnedPeer(identity.node, VALIDATOR, identity.static_key.public_key)
    meter, source = Meter(), Address("10.0.0.2", 4719)
    packets = datagrams(edge.connect(pinned, NOW))
    for turn in range(8):
        target, at = (validator, source) if turn % 2 == 0 else (edge, VALIDATOR)
        packets = meter.feed(target, packets, at)
    return edge, validator, identity.node


def messages(size: int, count: int) -> float:
    """Return messages a second of CPU of both ends together, over a lossless link."""
    edge, validator, node = connected(Plain())
    now, source, delivered, sent = NOW, Address("10.0.0.2", 4719), 0, 0
    packets: list[bytes] = []
    payload = bytes(size)
    begin = time.process_time()
    while delivered < count:
        now = Instant(now + MILLISECOND)
        while sent < count and sent - delivered < 64:
            packets += datagrams(edge.send(node, Channel.TER, payload, now))
            sent += 1
        effects = validator.receive_batch([(data, source) for data in packets], now)
        effects += validator.handle_timeout(now)
        delivered += sum(isinstance(effect, MessageReceived) for effect in effects)
        back = [(data, VALIDATOR) for data in datagrams(effects)]
        packets = datagrams(edge.receive_batch(back, now) + edge.handle_timeout(now))
    return count / (time.process_time() - begin)


def round_trips(count: int) -> float:
    """Return the microseconds both ends spend on a 200-byte question and its answer."""
    edge, validator, node = connected(Plain())
    source, now = Address("10.0.0.2", 4719), NOW
    begin = time.process_time()
    for _ in range(count):
        now = Instant(now + MILLISECOND)
        for data in datagrams(edge.send(node, Channel.CONSENSUS, bytes(200), now)):
            effects = validator.receive_datagram(data, source, now)
            effects += validator.send(NodeId("edge"), Channel.CONSENSUS, bytes(200), now)
            for back in datagrams(effects):
                edge.receive_datagram(back, VALIDATOR, now)
        edge.handle_timeout(now)
    return (time.process_time() - begin) / count * 1e6


def meet(validator: Endpoint, edge: Endpoint, pinned: PinnedPeer) -> None:
    """Play a handshake and the heartbeat that confirms it."""
    meter, packets = Meter(), datagrams(edge.connect(pinned, NOW))
    for turn in range(6):
        at = Address("10.0.0.2", 4719) if turn % 2 == 0 else VALIDATOR
        packets = meter.feed(validator if turn % 2 == 0 else edge, packets, at)


def session_bytes(count: int) -> float:
    """Return the bytes an answering endpoint holds for one idle peer."""
    plain = Plain()
    validator, identity = endpoint("validator", plain, HtpConfig(
        attest_rate_per_s=10**6, attest_burst=10**6, unconfirmed_max=10**6, used_cookies_max=1,
        prefixes_max=1, ciphers_max=2, awake_max=1))  # fmt: skip
    pinned = PinnedPeer(identity.node, VALIDATOR, identity.static_key.public_key)
    meet(validator, endpoint("first", plain)[0], pinned)  # libraries load what they need
    edges = [endpoint(f"edge-{number}", plain)[0] for number in range(count)]
    tracemalloc.start()  # behind the registry, which is not part of a session
    while edges:
        meet(validator, edges.pop(), pinned)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held / count


def flood(kind: str, count: int) -> float:
    """Return the microseconds that one hostile datagram costs."""
    plain = Plain()
    validator, identity = endpoint("validator", plain)
    edge, _ = endpoint("edge", plain)
    pinned = PinnedPeer(identity.node, VALIDATOR, identity.static_key.public_key)
    (hello,) = datagrams(edge.connect(pinned, NOW))
    data = {
        "junk HELLO": hello[:-1] + b"\0",
        "valid HELLO": hello,
        "bad cookie": b"\0\2\0\3\0\0\0\1" + bytes(42) + b"\0\1" + bytes(324),
    }[kind]
    meter, source = Meter(), Address("10.0.0.2", 4719)
    meter.feed(validator, [data] * count, source)
    return meter.spent / count * 1e6


def host_rows() -> list[Row]:
    """Return what the two operations cost here that tell hosts apart for the transport."""
    cipher, text, bound = ChaCha20Poly1305(bytes(32)), bytes(1152), bytes(32)
    own, theirs = AgreementKey(bytes(31) + b"1"), AgreementKey(bytes(31) + b"2").public_key

    def spent(work: Callable[[], object], count: int) -> float:
        begin = time.process_time()
        for _ in range(count):
            work()
        return (time.process_time() - begin) / count * 1e6

    seal = min(spent(lambda: cipher.encrypt(bytes(12), text, bound), 20_000) for _ in range(ROUNDS))
    agree = min(spent(lambda: own.exchange(theirs), 1000) for _ in range(ROUNDS))
    return [("this host: ChaCha20-Poly1305, 1152 B sealed", seal, "us"),
            ("this host: X25519 exchange", agree, "us")]  # fmt: skip


def run() -> list[Row]:
    """Measure everything."""
    rows = host_rows()
    sealing = [sealed_packets(20_000) for _ in range(ROUNDS)]
    rows.append(("HTP packets sealed, 1200 B", max(one[0] for one in sealing), "/s of CPU"))
    rows.append(("HTP packets opened, 1200 B", max(one[1] for one in sealing), "/s of CPU"))
    rows.append(("HTP bulk packets cut and sealed, 1156 B", best(lambda: sealed_runs(40_000)),
                 "/s of CPU"))  # fmt: skip
    with uncollected():
        rows.append(("HTP heartbeats answered", best(lambda: heartbeats(400, 10)), "/s of CPU"))
    for many, label in ((True, "one call for all"), (False, "a call for each")):
        value = best(lambda many=many: datagrams_answered(200, many=many))  # type: ignore[misc] # loop value bound
        rows.append((f"UDP, 64 peers heard and answered, {label}", value, "/s of CPU"))
    for size, count in ((100, 10_000), (10_000, 1000), (100_000, 150)):
        value = best(lambda size=size, count=count: messages(size, count))  # type: ignore[misc] # loop values bound
        rows.append((f"HTP messages of {size} B, both ends", value, "/s of CPU"))
    rows.append(("HTP question and answer, both ends", -best(lambda: -round_trips(3000)), "us"))
    for kind in ("junk HELLO", "valid HELLO", "bad cookie"):
        cost = -best(lambda kind=kind: -flood(kind, 5000))  # type: ignore[misc] # loop value bound
        rows.append((f"HTP flood: {kind}", cost, "us each"))
    rows.append(("HTP memory of an idle session", session_bytes(150), "bytes"))
    return rows


if __name__ == "__main__":
    for label, value, unit in run():
        print(f"{label:45} {value:12,.1f} {unit}")
