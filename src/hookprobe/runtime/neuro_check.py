"""A device judges its own history: attester and verifier in one process, on the real log.

Nothing is weakened for it: the records go through the same batches, proofs, nonces and rules as
between two machines. The device's own keys stand in for the verifier's.
"""

import secrets
from collections import deque
from collections.abc import Sequence

from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.identity.secrets import NodeSecrets
from hookprobe.neuro.attester import Attester, AttesterConfig
from hookprobe.neuro.baseline import Baseline
from hookprobe.neuro.effects import Appraised, Effect, SendAnswer, SendBatch
from hookprobe.neuro.snapshot import Snapshot
from hookprobe.neuro.standing import Standing
from hookprobe.neuro.ter import Ter
from hookprobe.neuro.trust import START_BP, Trust
from hookprobe.neuro.verifier import Verifier, VerifierIdentity
from hookprobe.wire.instant import Instant


def self_check(
    ours: NodeSecrets, start: Snapshot, records: Sequence[Ter], against: tuple[Baseline, Instant]
) -> list[Appraised]:
    """Return the verdict on each batch of a device's log; none for an empty log.

    Args:
        ours: The device's secrets.
        start: The snapshot before the records.
        records: The log from there on.
        against: What is golden, and the time now.

    Raises:
        VerificationError: The log does not continue the snapshot.
    """
    golden, now = against
    signer = Ed25519Signer(ours.signing)
    verifier = Verifier(VerifierIdentity(ours.node, signer, Ed25519()), secrets.token_bytes)
    trust = Trust(START_BP, now)
    verifier.enrol(
        Standing(ours.node, signer.public_key, start.epoch, start.state.copy(), golden, trust), now
    )
    who = AttesterConfig(ours.node, ours.node, signer, now, ours.provisioned)
    device = Attester(who, start, records)
    found: list[Appraised] = []
    waiting: deque[Effect] = deque(verifier.greet(ours.node))
    while waiting:
        match waiting.popleft():
            case Appraised() as verdict:
                found.append(verdict)
            case SendAnswer(answer=answer):
                waiting.extend(device.receive_answer(answer))
            case SendBatch(batch=batch):
                waiting.extend(verifier.receive_batch(ours.node, batch.encode(), now))
            case _:
                pass
    return found
