"""Search what left an edge for addresses of its input: the promise "0 left", checked on bytes.

Every address in the sensor output is looked for in two places of the egress record: in the plain
messages before sealing, as text, as hex and as packed bytes; and in the datagrams as they went to
the network, as text and hex (sealed bytes are random, so any four of them appear by chance).
"""

import ipaddress
import re
from pathlib import Path

from hookprobe.runtime import egress

_QUOTED = re.compile(rb'"(?:src_ip|dest_ip|ip|rdata)":"([0-9a-fA-F.:]{2,45})"')


def addresses_in(sensor_output: bytes) -> list[str]:
    """Return the addresses of a sensor's output, sorted, without the unspecified ones."""
    found: dict[str, None] = {}
    for match in _QUOTED.findall(sensor_output):
        try:
            address = ipaddress.ip_address(match.decode("ascii"))
        except ValueError:
            continue
        if not address.is_unspecified:
            found[str(address)] = None
    return sorted(found)


def search(record: Path, addresses: list[str]) -> tuple[int, list[str]]:
    """Return the bytes of datagrams that left, and each address found in what left."""
    messages: list[bytes] = []
    datagrams: list[bytes] = []
    for kind, data in egress.read(record):
        (messages if kind == egress.MESSAGE else datagrams).append(data)
    plain, wire = b"\n".join(messages), b"\n".join(datagrams)
    lowered = plain.lower(), wire.lower()
    leaked = []
    for text in addresses:
        packed = ipaddress.ip_address(text).packed
        readable = (text.encode().lower(), packed.hex().encode())
        if packed in plain or any(form in part for form in readable for part in lowered):
            leaked.append(text)
    return sum(len(datagram) for datagram in datagrams), leaked
