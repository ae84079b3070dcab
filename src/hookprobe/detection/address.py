"""IP addresses as opaque values: easy to compare, impossible to serialise by accident.

An address is personal data. `Address` is therefore neither text, bytes, a dataclass nor picklable:
every encoder refuses it, and so refuses each raw record that holds one. Whoever needs the text
(the operator's screen, the packet filter) asks for it by name.
"""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import NoReturn, final

from hookprobe.errors import MalformedError

# Enough for the busiest minute of an edge; each entry costs about 250 bytes.
_CACHE_MAX = 1 << 13
_TEXT_MAX = 64

# 224.0.0.0/4 (RFC 5771) up to 240.0.0.0/4, and ff00::/8 (RFC 4291 section 2.7).
_MULTICAST4, _RESERVED4, _MULTICAST6 = 224, 240, 0xFF
_NOBODY = (bytes(4), b"\xff" * 4, bytes(16))

HOME_NETWORKS = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "127.0.0.0/8",
    "fc00::/7",
    "fe80::/10",
    "::1/128",
)


@final
class Address:
    """An IPv4 or IPv6 address; IPv4 inside IPv6 counts as IPv4.

    Args:
        packed: 4 or 16 bytes.
    """

    __slots__ = ("packed",)

    def __init__(self, packed: bytes) -> None:
        self.packed = packed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and self.packed == other.packed

    # Tables are keyed by `packed`, whose hash is computed in C.
    __hash__ = None  # type: ignore[assignment]  # mypy models "unhashable" as an override

    def __repr__(self) -> str:
        # Values end up in logs through their repr; an address must not.
        return f"<Address v{4 if len(self.packed) == 4 else 6}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an address has no serialised form")

    def text(self) -> str:
        """Return the canonical text, for local eyes and the packet filter only."""
        return str(ipaddress.ip_address(self.packed))

    @property
    def is_group(self) -> bool:
        """Multicast, broadcast or unspecified: nobody in particular."""
        packed = self.packed
        if len(packed) == 4:
            return _MULTICAST4 <= packed[0] < _RESERVED4 or packed in _NOBODY
        return packed[0] == _MULTICAST6 or packed in _NOBODY

    def network24(self) -> bytes:
        """Return the /24 (IPv4) or /64 (IPv6) network that the address is in."""
        return self.packed[:3] if len(self.packed) == 4 else self.packed[:8]

    def indicator(self) -> bytes:
        """Return the canonical indicator, the input of the keyed pseudonym.

        A single IPv6 host changes its low 64 bits at will, so the /64 is what identifies it.
        """
        if len(self.packed) == 4:
            return b"ip4:" + self.text().encode("ascii")
        network = ipaddress.ip_address(self.packed[:8] + bytes(8))
        return b"ip6net64:" + str(network).encode("ascii")


@lru_cache(maxsize=_CACHE_MAX)
def parse_address(text: str) -> Address:
    """Read an address as sensors write it.

    Raises:
        MalformedError: Not an IPv4 or IPv6 address, or one with a zone.
    """
    try:
        parsed = ipaddress.ip_address(text[:_TEXT_MAX])
    except ValueError as error:
        raise MalformedError("sensor line: not an IP address") from error
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.scope_id is not None:
            raise MalformedError("sensor line: address with a zone")
        if parsed.ipv4_mapped is not None:
            return Address(parsed.ipv4_mapped.packed)
    return Address(parsed.packed)


class Networks:
    """A short list of networks, for questions of membership.

    Args:
        networks: CIDR text, IPv4 and IPv6 mixed.

    Raises:
        MalformedError: One of them is not a network.
    """

    def __init__(self, networks: Sequence[str] = HOME_NETWORKS) -> None:
        try:
            parsed = [ipaddress.ip_network(text) for text in networks]
        except ValueError as error:
            raise MalformedError(f"not a network: {error}") from error
        self._spans = [(net.network_address.packed, net.broadcast_address.packed) for net in parsed]

    def __contains__(self, address: Address) -> bool:
        packed = address.packed
        return any(len(low) == len(packed) and low <= packed <= high for low, high in self._spans)
