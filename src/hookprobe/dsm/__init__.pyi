from hookprobe.runtime.ledger_client import AsyncDSMClient as AsyncDSMClient
from hookprobe.runtime.ledger_client import DSMClient as DSMClient
from hookprobe.runtime.ledger_faces import ConsensusEngine as ConsensusEngine
from hookprobe.runtime.ledger_faces import DSMNode as DSMNode
from hookprobe.runtime.ledger_faces import DSMValidator as DSMValidator
from hookprobe.runtime.ledger_faces import MerkleTree as MerkleTree
from hookprobe.runtime.ledger_faces import NodeIdentity as NodeIdentity
from hookprobe.runtime.ledger_faces import ValidatorRegistry as ValidatorRegistry
from hookprobe.runtime.ledger_faces import bft_quorum_required as bft_quorum_required

FACES: dict[str, str]
