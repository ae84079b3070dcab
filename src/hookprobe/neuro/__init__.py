"""NEURO: a device turns its sensor history into a secret, deterministic weight trajectory."""
