"""The decentralized security mesh: microblock chains, agreed checkpoints, proofs."""
