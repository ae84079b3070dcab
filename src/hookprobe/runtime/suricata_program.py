"""Run the Suricata program over a capture file and hand back its EVE output."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from hookprobe.errors import HostError

SETTINGS = Path("/etc/suricata/suricata.yaml")
_WAIT_S = 600
# pcap (both byte orders, micro- and nanoseconds) and pcapng.
_MAGICS = (
    b"\xa1\xb2\xc3\xd4",
    b"\xd4\xc3\xb2\xa1",
    b"\xa1\xb2\x3c\x4d",
    b"\x4d\x3c\xb2\xa1",
    b"\x0a\x0d\x0d\x0a",
)


def is_capture(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a packet capture."""
    return head[:4] in _MAGICS


def read_capture(capture: Path) -> bytes:
    """Return the EVE lines Suricata writes about a capture.

    Raises:
        HostError: Suricata is not installed, has no settings, or failed.
    """
    program = shutil.which("suricata")
    if program is None:
        raise HostError(
            "a packet capture needs Suricata, which is not installed",
            hint="apt-get install suricata (Debian 12: from bookworm-backports), or replay an"
            " eve.json",
        )
    if not SETTINGS.exists():
        raise HostError(f"Suricata has no settings in {SETTINGS}", hint="reinstall suricata")
    with tempfile.TemporaryDirectory(prefix="hookprobe-") as folder:
        command = [program, "-r", str(capture), "-l", folder, "-k", "none", "-c", str(SETTINGS)]
        try:
            done = subprocess.run(  # noqa: S603 (the sensor itself, on the user's file)
                command, capture_output=True, text=True, timeout=_WAIT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise HostError(f"suricata did not finish within {_WAIT_S} s") from error
        output = Path(folder) / "eve.json"
        if done.returncode != 0 or not output.exists():
            said = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise HostError(f"suricata failed on {capture}: {' '.join(said)[:300]}")
        return output.read_bytes()
