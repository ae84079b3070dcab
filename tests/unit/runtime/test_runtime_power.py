"""What a host runs on, from trees like /sys/class/power_supply."""

from pathlib import Path

import pytest

from hookprobe.runtime.power import read_battery


def supply(folder: Path, name: str, **facts: str) -> None:
    (folder / name).mkdir()
    for fact, value in facts.items():
        (folder / name / fact).write_text(value + "\n")


@pytest.mark.parametrize(
    ("facts", "percent"),
    [
        ({"type": "Battery", "status": "Discharging", "capacity": "41"}, 41),
        ({"type": "Battery", "status": "Discharging", "capacity": "180"}, 100),
        ({"type": "Battery", "status": "Charging", "capacity": "41"}, 255),
        ({"type": "Mains", "online": "1"}, 255),
        ({"type": "Battery", "status": "Discharging", "capacity": "much"}, 255),
        ({"type": "Battery", "status": "Discharging"}, 255),
        (
            {"type": "Battery", "status": "Discharging", "capacity": "3", "scope": "Device"},
            255,
        ),
    ],
)
def test_one_supply(tmp_path: Path, facts: dict[str, str], percent: int) -> None:
    supply(tmp_path, "BAT0", **facts)
    assert read_battery(tmp_path) == percent


def test_none_and_several(tmp_path: Path) -> None:
    assert read_battery(tmp_path / "nowhere") == 255
    assert read_battery(tmp_path) == 255
    for name, charge in (("BAT0", "12"), ("BAT1", "80")):
        supply(tmp_path, name, type="Battery", status="Discharging", capacity=charge)
    assert read_battery(tmp_path) == 80
