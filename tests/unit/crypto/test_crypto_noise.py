"""The Noise symmetric state under public vectors: patterns interpreted here, state from there."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from hookprobe.crypto.agreement import AgreementKey
from hookprobe.crypto.noise import SymmetricState
from hookprobe.errors import VerificationError

VECTORS = json.loads(Path("tests/data/noise/cacophony_subset.json").read_text())["vectors"]

PATTERNS: dict[str, tuple[list[str], list[str]]] = {
    "NK": (["rs"], ["e es", "e ee"]),
    "IK": (["rs"], ["e es s ss", "e ee se"]),
    "XX": ([], ["e", "e ee s es", "s se"]),
    "XXpsk3": ([], ["e", "e ee s es", "s se psk"]),
}


class Party:
    """One end of a Noise handshake, driving the symmetric state of the product."""

    def __init__(self, vector: dict[str, Any], *, initiator: bool) -> None:
        side = "init" if initiator else "resp"
        name = vector["protocol_name"]
        self.initiator = initiator
        self.keyed = False
        self.pattern = name.split("_")[1]
        self.state = SymmetricState(name.encode(), name.split("_")[-1].lower())
        self.own = {
            kind: AgreementKey(bytes.fromhex(vector[f"{side}_{word}"]))
            for kind, word in (("s", "static"), ("e", "ephemeral"))
            if f"{side}_{word}" in vector
        }
        self.theirs: dict[str, bytes] = {}
        self.psks = [bytes.fromhex(psk) for psk in vector.get(f"{side}_psks", [])]
        if initiator and "init_remote_static" in vector:
            self.theirs["s"] = bytes.fromhex(vector["init_remote_static"])
        self.state.mix_hash(bytes.fromhex(vector[f"{side}_prologue"]))
        if "rs" in PATTERNS[self.pattern][0]:
            known = self.theirs["s"] if initiator else self.own["s"].public_key
            self.state.mix_hash(known)

    def _mix(self, token: str) -> None:
        if token == "psk":
            self.state.mix_key_and_hash(self.psks.pop(0))
            return
        self.keyed = True
        mine, other = (token[0], token[1]) if self.initiator else (token[1], token[0])
        self.state.mix_key(self.own[mine].exchange(self.theirs[other]))

    def _mix_ephemeral(self, public: bytes) -> None:
        self.state.mix_hash(public)
        if "psk" in self.pattern:
            self.keyed = True
            self.state.mix_key(public)

    def write(self, tokens: str, payload: bytes) -> bytes:
        out = b""
        for token in tokens.split():
            if token == "e":
                out += self.own["e"].public_key
                self._mix_ephemeral(self.own["e"].public_key)
            elif token == "s":
                out += self.state.encrypt_and_hash(self.own["s"].public_key)
            else:
                self._mix(token)
        return out + self.state.encrypt_and_hash(payload)

    def read(self, tokens: str, message: bytes) -> bytes:
        for token in tokens.split():
            if token == "e":
                self.theirs["e"], message = message[:32], message[32:]
                self._mix_ephemeral(self.theirs["e"])
            elif token == "s":
                size = 48 if self.keyed else 32
                self.theirs["s"] = self.state.decrypt_and_hash(message[:size])
                message = message[size:]
            else:
                self._mix(token)
        return self.state.decrypt_and_hash(message)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["protocol_name"]))
def test_public_vectors(vector: dict[str, Any]) -> None:
    parties = [Party(vector, initiator=True), Party(vector, initiator=False)]
    messages = vector["messages"]
    turns = PATTERNS[parties[0].pattern][1]
    for turn, tokens in enumerate(turns):
        writer, reader = parties[turn % 2], parties[1 - turn % 2]
        payload = bytes.fromhex(messages[turn]["payload"])
        written = writer.write(tokens, payload)
        assert written.hex() == messages[turn]["ciphertext"]
        assert reader.read(tokens, written) == payload
    for party in parties:
        assert party.state.transcript.hex() == vector["handshake_hash"]
    assert parties[0].state.split() == parties[1].state.split()
    ciphers = [ChaCha20Poly1305(key) for key in parties[0].state.split()]
    counters = [0, 0]
    for turn, message in enumerate(messages[len(turns) :], start=len(turns)):
        side = turn % 2
        nonce = bytes(4) + counters[side].to_bytes(8, "little")
        sealed = ciphers[side].encrypt(nonce, bytes.fromhex(message["payload"]), b"")
        assert sealed.hex() == message["ciphertext"]
        counters[side] += 1


def two_states() -> tuple[SymmetricState, SymmetricState]:
    states = SymmetricState(b"test"), SymmetricState(b"test")
    for state in states:
        state.mix_hash(b"prologue")
        state.mix_key(b"k" * 32)
    return states


def test_another_transcript_does_not_open() -> None:
    one, other = two_states()
    other.mix_hash(b"one message more")
    with pytest.raises(VerificationError):
        other.decrypt_and_hash(one.encrypt_and_hash(b"text"))


def test_a_copy_fails_alone() -> None:
    one, other = two_states()
    sealed = one.encrypt_and_hash(b"text")
    with pytest.raises(VerificationError):
        other.copy().decrypt_and_hash(sealed[:-1] + bytes((sealed[-1] ^ 1,)))
    assert other.decrypt_and_hash(sealed) == b"text"
    assert one.transcript == other.transcript


def test_equal_plaintexts_seal_differently_in_turn() -> None:
    one, _ = two_states()
    assert one.encrypt_and_hash(b"text") != one.encrypt_and_hash(b"text")
