"""From a finished handshake to the keys of a session (HTP spec 3.2).

    session_secret = HMAC-SHA256(ck, "htp2 session secret" || h || secret_seed)
    k   = SHA256(session_secret || W_fingerprint)
    OKM = HKDF-Expand(k, "htp2 keys" || h, 104)
        = k_EV (32) || k_VE (32) || salt_EV (4) || salt_VE (4) || k_exp (32)

EV is the direction from the dialling end (E) to the answering end (V).
"""

from collections.abc import Callable
from hashlib import sha256, shake_256
from typing import NamedTuple

from hookprobe.crypto.agreement import expand_keys, mac_short
from hookprobe.crypto.noise import SymmetricState
from hookprobe.wire.instant import Instant

KEY_ID_BYTES = 8
RESET_TOKEN_BYTES = 16


class SessionKeys(NamedTuple):
    """The output of the key schedule; `transcript` is h, public but unique to the session."""

    dialler_key: bytes
    answerer_key: bytes
    dialler_salt: bytes
    answerer_salt: bytes
    exporter: bytes
    transcript: bytes

    def __repr__(self) -> str:
        return "SessionKeys(secret)"  # a tuple would show them


def derive_session_keys(
    state: SymmetricState, secret_seed: bytes, fingerprint: bytes
) -> SessionKeys:
    """Apply the formulas above to the state after the last handshake message."""
    transcript = state.transcript
    secret = mac_short(state.chaining_key, b"htp2 session secret" + transcript + secret_seed)
    key = sha256(secret + fingerprint).digest()
    okm = expand_keys(key, b"htp2 keys" + transcript, 104)
    return SessionKeys(okm[:32], okm[32:64], okm[64:68], okm[68:72], okm[72:], transcript)


def key_id(static_key: bytes) -> bytes:
    """SHA256(S_V)[0:8]: which key a HELLO was made for."""
    return sha256(static_key).digest()[:KEY_ID_BYTES]


def reset_token(reset_key: bytes, validator_token: bytes) -> bytes:
    """HMAC(K_reset, validator_token)[0:16]."""
    return mac_short(reset_key, validator_token)[:RESET_TOKEN_BYTES]


class Entropy:
    """Random bytes hedged against a source that repeats itself.

    Each draw is SHAKE-256(HMAC(first draw, random || counter || now), n): if the source fails
    after the first draw, or a cloned virtual machine repeats it, outputs within a run still differ.
    """

    __slots__ = ("_counter", "_key", "_random_bytes")

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._key = random_bytes(32)
        self._counter = 0

    def draw(self, count: int, now: Instant) -> bytes:
        """Return `count` bytes, fit for keys."""
        self._counter += 1
        moment = self._counter.to_bytes(8) + now.to_bytes(16, signed=True)
        seed = mac_short(self._key, self._random_bytes(32) + moment)
        return shake_256(b"htp2 entropy" + seed).digest(count)

    def jitter(self, span: int, now: Instant) -> int:
        """Return a whole number from 0 to `span`."""
        return int.from_bytes(self.draw(8, now)) % (span + 1)
