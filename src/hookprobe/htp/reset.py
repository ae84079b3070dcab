"""Stateless reset (HTP spec 3.4): telling a peer that its session is unknown here.

    reset_token = HMAC(K_reset, validator_token)[0:16], given to the dialler in its ACCEPT
    reset       = header of type CLOSE with the trigger's flow_token | random fill | reset_token

A reset has the size of the smallest session packet and is caused only by larger ones, so two
endpoints can never reset each other's resets, and no answer exceeds its question.
"""

import hmac

from hookprobe.htp.admission import RateLimiter, pack_host, prefix_of
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import Address
from hookprobe.htp.keys import RESET_TOKEN_BYTES, Entropy, reset_token
from hookprobe.htp.packet import SEALED_OVERHEAD_BYTES, Header, PacketType, encode_header
from hookprobe.wire.instant import Instant

RESET_BYTES = SEALED_OVERHEAD_BYTES


class StatelessReset:
    """Writes resets, within a rate per address prefix.

    Args:
        reset_key: K_reset, kept over restarts.
        config: The rate.
        entropy: For the fill.
    """

    __slots__ = ("_entropy", "_key", "_limiter")

    def __init__(self, reset_key: bytes, config: HtpConfig, entropy: Entropy) -> None:
        self._key = reset_key
        self._entropy = entropy
        rate = config.reset_rate_per_s
        self._limiter = RateLimiter(rate, rate, config.prefixes_max)

    def answer(self, header: Header, size: int, address: Address, now: Instant) -> bytes | None:
        """Return the reset for a packet of an unknown session, or None.

        Args:
            header: Of that packet.
            size: Of that packet, in bytes.
            address: Where it came from.
            now: The time.

        Raises:
            MalformedError: The address is not one.
        """
        if size <= RESET_BYTES or not self._limiter.allow(prefix_of(pack_host(address)), now):
            return None
        fill = self._entropy.draw(RESET_BYTES, now)
        number = int.from_bytes(fill[:8])
        front = encode_header(PacketType.CLOSE, 0, 0, header.flow_token, number, 0)
        token = reset_token(self._key, header.flow_token)
        return front + fill[len(front) : -RESET_TOKEN_BYTES] + token


def is_reset(data: bytes, token: bytes) -> bool:
    """Whether a CLOSE ends in the token that our ACCEPT gave us, compared in constant time."""
    return hmac.compare_digest(data[-RESET_TOKEN_BYTES:], token)
