"""The seam between ledger and transport, with a ledger that does as it is told."""

from hookprobe.crypto.agreement import AgreementKey, MlKem
from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.dsm.effects import Disconnect, Effect, Send
from hookprobe.dsm.frames import encode
from hookprobe.dsm.messages import GetHeads
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import Address, SessionUp, Transmit
from hookprobe.htp.endpoint import Endpoint
from hookprobe.htp.seams import LocalIdentity, PinnedPeer, RegisteredPeer, Seams
from hookprobe.node.host import Effect as NodeEffect
from hookprobe.node.links import MeshLinks
from hookprobe.node.observations import MessageSent
from hookprobe.node.rooms import LedgerRoom, carried
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import SECOND, Instant

ALICE, BOB = NodeId("alice"), NodeId("bob")
START = Instant(1_800_000_000 * SECOND)


class ToldLedger:
    """Answers with what the test has put into `answers`; remembers what it was told."""

    def __init__(self) -> None:
        self.answers: list[Effect] = []
        self.told: list[tuple[str, NodeId]] = []
        self.frames: list[bytes] = []

    def _answer(self) -> list[Effect]:
        answers, self.answers = self.answers, []
        return answers

    def start(self, now: Instant) -> list[Effect]:
        return []

    def peer_connected(self, node_id: NodeId, now: Instant) -> list[Effect]:
        self.told.append(("up", node_id))
        return self._answer()

    def peer_disconnected(self, node_id: NodeId, now: Instant) -> list[Effect]:
        self.told.append(("down", node_id))
        return []

    def receive_frame(self, node_id: NodeId, frame: bytes, now: Instant) -> list[Effect]:
        self.frames.append(frame)
        return self._answer()

    def next_timeout(self) -> Instant | None:
        return None

    def handle_timeout(self, now: Instant) -> list[Effect]:
        return []


class Everyone:
    """A registry and resonance for two nodes that trust each other."""

    def find(self, node: NodeId) -> RegisteredPeer | None:
        return RegisteredPeer(signer(node).public_key, True, None)

    def w_fingerprint(self) -> bytes:
        return bytes(64)

    def respond(self, challenge: bytes) -> tuple[bytes, bytes]:
        return bytes(32), bytes(32)

    def check(
        self, node: NodeId, fingerprint: bytes, challenge: bytes, rdv: bytes, posf: bytes
    ) -> bool:
        return True


def signer(node: NodeId) -> Ed25519Signer:
    return Ed25519Signer(node.encode().ljust(32, b"s"))


class Pair:
    """Two nodes' links on one wire."""

    def __init__(self) -> None:
        self.now = START
        self.addresses = {ALICE: Address("10.0.0.1", 1), BOB: Address("10.0.0.2", 1)}
        self.ledgers = {ALICE: ToldLedger(), BOB: ToldLedger()}
        key = AgreementKey(b"k" * 32)
        pinned = PinnedPeer(BOB, self.addresses[BOB], key.public_key)
        self.links = {
            node: MeshLinks(self.endpoint(node, key), [LedgerRoom(self.ledgers[node])], dials)
            for node, dials in ((ALICE, [pinned]), (BOB, []))
        }
        self.seen: list[NodeEffect] = []
        for node in (BOB, ALICE):
            self.carry(node, self.links[node].start(self.now))

    def endpoint(self, node: NodeId, key: AgreementKey) -> Endpoint:
        drawn = iter(range(1, 1 << 30))
        everyone = Everyone()
        return Endpoint(
            HtpConfig(),
            LocalIdentity(node, signer(node), key, bytes(32)),
            Seams(everyone, everyone, everyone, Ed25519(), MlKem()),
            lambda count: (node.encode() + next(drawn).to_bytes(8, "big")).ljust(count, b"r")[
                :count
            ],
            START,
        )

    def carry(self, sender: NodeId, effects: list[NodeEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Transmit):
                target = next(n for n, at in self.addresses.items() if at == effect.address)
                source = self.addresses[sender]
                answer = self.links[target].receive_datagram(effect.data, source, self.now)
                self.carry(target, answer)
            else:
                self.seen.append(effect)

    def wait(self, seconds: int) -> None:
        end = Instant(self.now + seconds * SECOND)
        while self.now < end:
            due = [links.next_timeout() for links in self.links.values()]
            self.now = Instant(min([end, *(at for at in due if at is not None and at > self.now)]))
            for node, links in self.links.items():
                self.carry(node, links.handle_timeout(self.now))


def test_sessions_and_messages_reach_the_ledger() -> None:
    pair = Pair()
    pair.wait(1)
    assert ("up", BOB) in pair.ledgers[ALICE].told
    assert ("up", ALICE) in pair.ledgers[BOB].told
    sent = pair.links[ALICE].carry(carried([Send(BOB, GetHeads())]), pair.now)
    pair.carry(ALICE, sent)
    assert pair.ledgers[BOB].frames == [encode(GetHeads())]
    assert [item.data for item in sent if isinstance(item, MessageSent)] == [encode(GetHeads())]


def test_a_peer_sent_away_is_dialled_again_when_its_time_is_over() -> None:
    pair = Pair()
    pair.wait(1)
    until = Instant(pair.now + 20 * SECOND)
    pair.carry(ALICE, pair.links[ALICE].carry(carried([Disconnect(BOB, until)]), pair.now))
    assert pair.ledgers[ALICE].told[-1] == ("down", BOB)
    pair.wait(10)
    assert pair.links[ALICE].peers == ()
    pair.seen.clear()
    pair.wait(15)
    assert pair.links[ALICE].peers == (BOB,)
    assert any(isinstance(item, SessionUp) and item.peer == BOB for item in pair.seen)
