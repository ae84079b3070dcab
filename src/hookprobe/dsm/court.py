"""What every judgement in one mesh depends on, and the same for all its members."""

from dataclasses import dataclass

from hookprobe.crypto.bls import VoteScheme
from hookprobe.crypto.signing import SignatureScheme
from hookprobe.dsm.genesis import Genesis
from hookprobe.dsm.validators import ValidatorSet


@dataclass(frozen=True, slots=True)
class Schemes:
    """How signatures and votes are checked."""

    signatures: SignatureScheme
    votes: VoteScheme


@dataclass(frozen=True, slots=True)
class Court:
    """The chain, its validators and CAs, and how signatures are checked."""

    chain: bytes
    validators: ValidatorSet
    ca_keys: tuple[bytes, ...]
    signatures: SignatureScheme
    votes: VoteScheme


def convene(genesis: Genesis, schemes: Schemes) -> Court:
    """Check a genesis document and return the court of its chain.

    Raises:
        VerificationError: The document does not hold.
    """
    validators = genesis.check(schemes.votes)
    return Court(genesis.chain_id(), validators, genesis.ca_keys, schemes.signatures, schemes.votes)
