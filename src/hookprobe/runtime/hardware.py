"""Collects what a Linux host says about its hardware; every source may be missing.

Hypervisors and containers hide most of it, a Raspberry Pi has a serial in its device tree, a PC has
a UUID that only root reads. Values that makers put in by the thousand count as absent.
"""

from pathlib import Path

from hookprobe.runtime.host_sensors import PROC, SYS, matching, read_lines, read_text

ETC = Path("/etc")
_LOCALLY_ADMINISTERED = 0x02
_DISK_FIELDS = ("device/serial", "device/cid", "device/wwid", "wwid", "serial")
_PLACEHOLDERS = ("", "none", "default string", "to be filled by o.e.m.", "not specified", "0")


def collect(proc: Path = PROC, sys: Path = SYS, etc: Path = ETC) -> dict[str, list[str]]:
    """Return the identifiers of each component of `identity.fingerprint`, sorted."""
    facts = {
        "serial": _serials(proc, sys),
        "macs": _macs(sys),
        "disks": _disks(sys),
        "machine-id": [read_text(etc / "machine-id")],
        "model": [" ".join(_models(proc, sys))],
    }
    return {name: sorted(filter(_telling, values)) for name, values in facts.items()}


def _telling(value: str) -> bool:
    return value.lower() not in _PLACEHOLDERS and value.strip("0-: ") != ""


def _processor(proc: Path, *names: str) -> list[str]:
    rows = [line.partition(":") for line in read_lines(proc / "cpuinfo")]
    return list(dict.fromkeys(row[2].strip() for row in rows if row[0].strip() in names))


def _serials(proc: Path, sys: Path) -> list[str]:
    tree = read_text(proc / "device-tree/serial-number")
    found = [*_processor(proc, "Serial"), tree, read_text(sys / "class/dmi/id/product_uuid")]
    return next(([value] for value in found if _telling(value)), [])


def _macs(sys: Path) -> list[str]:
    found = []
    for device in matching(sys / "class/net", "*/device"):
        address = read_text(device.parent / "address")
        permanent = read_text(device.parent / "addr_assign_type") == "0"
        if permanent and not _is_local(address):
            found.append(address)
    return found


def _is_local(address: str) -> bool:
    head = address[:2]
    return not all(digit in "0123456789abcdefABCDEF" for digit in head) or bool(
        int(head or "0", 16) & _LOCALLY_ADMINISTERED
    )


def _disks(sys: Path) -> list[str]:
    found = []
    for disk in matching(sys / "block", "*"):
        values = [read_text(disk / name) for name in _DISK_FIELDS]
        found += [value for value in values if _telling(value)][:1]
    return found


def _models(proc: Path, sys: Path) -> list[str]:
    board = read_text(proc / "device-tree/model") or read_text(sys / "class/dmi/id/board_name")
    processors = _processor(proc, "model name")[:1]
    return [name for name in (*processors, board) if name]
