"""Install the programs that tests drive, where we may; otherwise say what will not be tested.

Suricata (for `hookprobe replay FILE.pcap`) is in Debian's backports suite for Debian 12 and in the
main suite from Debian 13 on. As root this asks apt-get, with a source list of its own that is
removed again; nothing else on the machine changes.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAMS = {"suricata": "suricata"}  # program: Debian package
SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))


def missing() -> list[str]:
    """Return the programs that are not there."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def codename() -> str:
    """Return Debian's release name, or an empty text elsewhere."""
    release = Path("/etc/os-release")
    text = release.read_text(encoding="utf-8") if release.exists() else ""
    found = re.search(r"^VERSION_CODENAME=(\w+)", text, re.MULTILINE)
    return found[1] if found and re.search(r"^ID=debian", text, re.MULTILINE) else ""


def debian_mirror(release: str) -> str:
    """Return the mirror that this machine already uses for its release."""
    files = [SOURCES[0], *sorted(SOURCES[1].glob("*"))] if SOURCES[1].exists() else [SOURCES[0]]
    for path in files:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        one_line = re.search(rf"^deb\s+(?:\[.*?\]\s+)?(\S+)\s+{release}\s", text, re.MULTILINE)
        if one_line:
            return one_line[1]
        for stanza in text.split("\n\n"):
            uri = re.search(r"^URIs:\s*(\S+)", stanza, re.MULTILINE)
            suites = re.search(r"^Suites:(.*)$", stanza, re.MULTILINE)
            if uri and suites and release in suites[1].split():
                return uri[1]
    return ""


def install(programs: list[str]) -> None:
    """Ask apt-get for the packages, from the release and its backports."""
    release = codename()
    mirror = debian_mirror(release)
    if not mirror:
        return
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    signed = f"[signed-by={keyring}] " if Path(keyring).exists() else ""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "debian.list"
        suites = [release, f"{release}-updates", f"{release}-backports"]
        lines = [f"deb {signed}{mirror} {suite} main\n" for suite in suites]
        listed.write_text("".join(lines), encoding="utf-8")
        apt = ["apt-get", "-q", "-o", f"Dir::Etc::SourceList={listed}"]
        apt += ["-o", f"Dir::Etc::SourceParts={folder}/none", "-o", "APT::Get::List-Cleanup=0"]
        packages = [PROGRAMS[program] for program in programs]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        quiet = subprocess.DEVNULL
        subprocess.run([*apt, "update"], check=False, stdout=quiet, env=environment)
        command = [*apt, "install", "-y", "--no-install-recommends", "-t", suites[-1], *packages]
        subprocess.run(command, check=False, stdout=quiet, env=environment)


def main() -> None:
    """Install what is missing and name what stays missing."""
    wanted = missing()
    if wanted and os.geteuid() == 0 and shutil.which("apt-get"):
        print("prerequisites: installing", ", ".join(wanted), file=sys.stderr, flush=True)
        install(wanted)
    for program in missing():
        print(
            f"prerequisites: no {program}; the tests that need it are skipped"
            f" (as root: apt-get install {PROGRAMS[program]})",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
