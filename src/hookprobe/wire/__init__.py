"""Bytes in, bytes out: bounded readers and writers, canonical JSON, instants, identifiers."""
