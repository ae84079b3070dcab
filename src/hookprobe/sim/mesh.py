"""Keys and genesis of one simulated mesh."""

from hookprobe.crypto.bls import Bls, BlsSigner, VoteScheme, VoteSigner
from hookprobe.crypto.signing import Ed25519, Ed25519Signer, SignatureScheme, Signer
from hookprobe.dsm.court import Schemes
from hookprobe.dsm.edge import EdgeKeys
from hookprobe.dsm.enrolment import Enrolment, NodeCertificate, issue
from hookprobe.dsm.genesis import VERSION, Genesis
from hookprobe.dsm.steps import ValidatorKeys
from hookprobe.dsm.validators import ValidatorEntry
from hookprobe.sim.dice import Dice
from hookprobe.sim.signatures import SimulatedSignatures, SimulatedVotes
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import DAY, MILLISECOND, SECOND, Instant

START = Instant(1_700_000_000 * SECOND)
EPOCH_US = SECOND


class Keys:
    """All keys of one simulated mesh, real or simulated."""

    def __init__(self, seed: int, *, real: bool) -> None:
        self._seed = seed
        self._real = real
        self._simulated = SimulatedSignatures()
        self._simulated_votes = SimulatedVotes()
        signatures: SignatureScheme = Ed25519() if real else self._simulated
        votes: VoteScheme = Bls() if real else self._simulated_votes
        self.schemes = Schemes(signatures, votes)

    def signer(self, name: str) -> Signer:
        return Ed25519Signer(self._secret(name)) if self._real else self._simulated.signer(name)

    def vote_signer(self, name: str) -> VoteSigner:
        if self._real:
            return BlsSigner(self._secret(name))
        return self._simulated_votes.signer(name)

    def _secret(self, name: str) -> bytes:
        return Dice(self._seed * 1_000_003 + int.from_bytes(name.encode(), "big")).bytes(32)


class Mesh:
    """Genesis and keys of one simulated mesh."""

    def __init__(self, size: int, keys: Keys) -> None:
        self.keys = keys
        self.names = tuple(NodeId(f"v{place:02}") for place in range(size))
        self.authority = keys.signer("authority")
        entries = []
        for name in self.names:
            voter = keys.vote_signer(name)
            public = keys.signer(name).public_key
            entries.append(ValidatorEntry(name, public, voter.public_key, voter.prove_possession()))
        self.genesis = Genesis(
            name="simulated",
            start=START,
            epoch_duration_us=EPOCH_US,
            ca_keys=(self.authority.public_key,),
            validators=tuple(entries),
            dev=size < 4,
            version=VERSION,
        )
        self.chain = self.genesis.chain_id()

    def validator_keys(self, name: NodeId) -> ValidatorKeys:
        signer, enrolment = self.keys.signer(name), self.enrolment(name, "validator")
        fresh = self.keys.vote_signer(name + "'")  # for a rotation
        spare = ((signer, fresh),)
        return ValidatorKeys(name, signer, self.keys.vote_signer(name), enrolment, spare)

    def edge_keys(self, name: NodeId) -> EdgeKeys:
        return EdgeKeys(name, self.keys.signer(name), self.enrolment(name, "edge"))

    def enrolment(self, name: NodeId, role: str) -> Enrolment:
        """Return what the authority says about a node."""
        signer = self.keys.signer(name)
        certificate = NodeCertificate(
            chain=self.chain,
            node_id=name,
            role=role,
            tenant="tenant",
            key=signer.public_key,
            not_before_ms=(START - DAY) // MILLISECOND,
            not_after_ms=(START + DAY) // MILLISECOND,
        )
        return issue(certificate, self.authority)
