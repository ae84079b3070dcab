"""Cryptography with one right way: digests under labels, RFC 6962 trees, signatures, BLS, AEAD."""
