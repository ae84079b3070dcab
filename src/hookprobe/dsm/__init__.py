"""The decentralized security mesh: microblock chains, agreed checkpoints, proofs.

The names of the public documents can be imported from here. What does input or output lives in
`runtime` and is looked up on first use, so that importing the room stays pure.
"""

from hookprobe.faces import find_face

FACES = {
    "AsyncDSMClient": "hookprobe.runtime.ledger_client:AsyncDSMClient",
    "ConsensusEngine": "hookprobe.runtime.ledger_faces:ConsensusEngine",
    "DSMClient": "hookprobe.runtime.ledger_client:DSMClient",
    "DSMNode": "hookprobe.runtime.ledger_faces:DSMNode",
    "DSMValidator": "hookprobe.runtime.ledger_faces:DSMValidator",
    "MerkleTree": "hookprobe.runtime.ledger_faces:MerkleTree",
    "NodeIdentity": "hookprobe.runtime.ledger_faces:NodeIdentity",
    "ValidatorRegistry": "hookprobe.runtime.ledger_faces:ValidatorRegistry",
    "bft_quorum_required": "hookprobe.runtime.ledger_faces:bft_quorum_required",
}


def __getattr__(name: str) -> object:
    return find_face(__name__, FACES, name)
