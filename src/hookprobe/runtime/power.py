"""What the host runs on, for the energy that heartbeats cost: /sys/class/power_supply."""

import asyncio
from pathlib import Path

from hookprobe.htp.keepalive import ON_MAINS
from hookprobe.node.edge import EdgeNode

SUPPLIES = Path("/sys/class/power_supply")
POWER_EVERY_S = 60.0
_SIZE_MAX = 64


def read_battery(supplies: Path = SUPPLIES) -> int:
    """Return the charge in percent while a battery discharges; 255 on mains or without one.

    Of several batteries the fullest counts. A host that says nothing is on mains.
    """
    charges = []
    for supply in sorted(supplies.glob("*")):
        kind, status = _read(supply / "type"), _read(supply / "status")
        charge = _read(supply / "capacity")
        device = _read(supply / "scope") == "Device"  # a mouse's own
        if kind == "Battery" and status == "Discharging" and charge.isdecimal() and not device:
            charges.append(min(int(charge), 100))
    return max(charges, default=ON_MAINS)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_SIZE_MAX).decode(errors="replace").strip()
    except OSError:
        return ""


async def tell_power(node: EdgeNode) -> None:
    """Keep an edge informed."""
    while True:
        node.receive_battery(read_battery())
        await asyncio.sleep(POWER_EVERY_S)
