"""What the transport needs from the rest of a node, as protocols it is given.

The transport knows neither the directory nor the weights; the node adapts them to these seams.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from hookprobe.crypto.agreement import AgreementKey, Kem
from hookprobe.crypto.noise import SymmetricState
from hookprobe.crypto.signing import SignatureScheme, Signer
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import Address
from hookprobe.htp.keys import Entropy, SessionKeys
from hookprobe.htp.trust import FullTrust, TrustSource
from hookprobe.wire.identifiers import NodeId


class PinnedPeer(NamedTuple):
    """Whom to dial: the 32-byte X25519 key is known beforehand and authenticates the answer."""

    node: NodeId
    address: Address
    static_key: bytes


class RegisteredPeer(NamedTuple):
    """What the registry says about a node that dials.

    Attributes:
        public_key: Ed25519, 32 bytes.
        active: Whether the node may have a session now.
        w_fingerprints: The fingerprints it may present, 64 bytes each; None where weights are not
            checked in handshakes.
    """

    public_key: bytes
    active: bool
    w_fingerprints: tuple[bytes, ...] | None


class Registry(Protocol):
    """Who may dial us."""

    def find(self, node: NodeId) -> RegisteredPeer | None: ...


class ResonanceSource(Protocol):
    """The dialling node's own weights.

    `challenge` is 64 bytes: the RDV key (32 zero bytes in ATTEST, the session's exporter key
    afterwards) and the transcript hash that PoSF signs together with RDV.
    """

    def w_fingerprint(self) -> bytes:
        """SHA-512 of the weights, 64 bytes."""
        ...

    def respond(self, challenge: bytes) -> tuple[bytes, bytes]:
        """Return (RDV, PoSF), 32 bytes each."""
        ...


class ResonanceCheck(Protocol):
    """The answering node's view of a peer's weights."""

    def check(
        self, node: NodeId, fingerprint: bytes, challenge: bytes, rdv: bytes, posf: bytes
    ) -> bool:
        """Whether RDV and PoSF are those of the node's weights under this challenge."""
        ...


@dataclass(frozen=True, slots=True)
class Worker:
    """Which of several processes on one port this is (HTP spec 3.4).

    The host gives a packet to worker `token[0] mod count`, and a HELLO, which has no token, to
    worker `client_random[0] mod count`. Tokens are chosen to come back to who chose them.

    Attributes:
        index: From 0 on.
        count: How many there are, 256 at most.
        cookie_root: 32 secret bytes that all of them have, so that any may check what another one
            sent; empty for a worker that is alone.
    """

    index: int = 0
    count: int = 1
    cookie_root: bytes = b""

    def own(self, token: bytes) -> bytes:
        """Return a random token changed so that its packets come to this worker."""
        first = token[0] - token[0] % self.count + self.index
        return bytes((first if first < 256 else first - self.count,)) + token[1:]


@dataclass(frozen=True, slots=True)
class LocalIdentity:
    """Who we are.

    Attributes:
        node: Our name.
        signer: The Ed25519 key the registries of others know.
        static_key: The X25519 key that peers pin when they dial us.
        reset_key: 32 bytes kept over restarts, so that peers of the last run can be told.
        worker: Our place among several processes on one port.
    """

    node: NodeId
    signer: Signer
    static_key: AgreementKey
    reset_key: bytes
    worker: Worker = Worker()


class KeyLog(Protocol):
    """Where keys are written down, if an operator ordered that."""

    def note_handshake(self, message: bytes, key: bytes, nonce: bytes, transcript: bytes) -> None:
        """Take what opens the body of a whole ATTEST, ACCEPT or sealed REJECT."""
        ...

    def note(self, token: bytes, key: bytes, salt: bytes) -> None:
        """Take the key of session packets that carry `token`."""
        ...


@dataclass(frozen=True, slots=True)
class Seams:
    """The collaborators of an endpoint."""

    registry: Registry
    source: ResonanceSource
    check: ResonanceCheck
    signatures: SignatureScheme
    kem: Kem
    trust: TrustSource = field(default_factory=FullTrust)
    keylog: KeyLog | None = None

    def note_handshake(self, message: bytes, state: SymmetricState) -> None:
        """Write down what opens the message that `state` sealed or opened last, if ordered."""
        if self.keylog is not None:
            self.keylog.note_handshake(message, *state.terms())


class LinkTools(NamedTuple):
    """What every link of an endpoint shares."""

    config: HtpConfig
    seams: Seams
    entropy: Entropy

    def note_keys(self, keys: SessionKeys, dialler_token: bytes, answerer_token: bytes) -> None:
        """Write a new session's keys down, where that was ordered."""
        keylog = self.seams.keylog
        if keylog is not None:
            keylog.note(answerer_token, keys.dialler_key, keys.dialler_salt)
            keylog.note(dialler_token, keys.answerer_key, keys.answerer_salt)
