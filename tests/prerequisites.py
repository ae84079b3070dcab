"""Install the programs that tests drive, where we may; otherwise say what will not be tested.

Suricata (for `hookprobe replay FILE.pcap`) is in Debian's backports suite for Debian 12 and in the
main suite from Debian 13 on; systemd-analyze reads the units that we ship. As root this asks
apt-get, with a source list of its own that is removed again; nothing else on the machine changes.
PostgreSQL, Redis and Prometheus are started and stopped by the tests that need them.
swtpm and what compiles tpm2-pytss come from the main suite; tpm2-pytss goes into the virtual
environment, from its hashed lock file.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAMS = {  # program: Debian packages
    "suricata": ("suricata",),
    "ip": ("iproute2",),
    "nft": ("nftables",),
    "swtpm": ("swtpm", "libtss2-tcti-swtpm0"),
    "swtpm_setup": ("swtpm-tools",),
    "systemd-analyze": ("systemd",),
    "faketime": ("faketime",),
    "gcc": ("gcc", "libc6-dev"),
    "initdb": ("postgresql",),
    "redis-server": ("redis-server",),
    "prometheus": ("prometheus",),
}
COMPILING = ("gcc", "libc6-dev", "libtss2-dev", "pkg-config", "python3-dev")
ROOT = Path(__file__).resolve().parents[1]
SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))


def missing() -> list[str]:
    """Return the programs that are not there."""
    # Debian keeps the programs of PostgreSQL's server out of the usual places.
    apart = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, apart)])
    return [program for program in PROGRAMS if shutil.which(program, path=path) is None]


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
        packages = [package for program in programs for package in PROGRAMS[program]]
        if not has_module("tpm2_pytss"):
            packages += COMPILING
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        quiet = subprocess.DEVNULL
        subprocess.run([*apt, "update"], check=False, stdout=quiet, env=environment)
        command = [*apt, "install", "-y", "--no-install-recommends", "-t", suites[-1], *packages]
        subprocess.run(command, check=False, stdout=quiet, env=environment)


def has_module(name: str) -> bool:
    """Return whether the interpreter of the tests has a module."""
    return importlib.util.find_spec(name) is not None


def compile_tpm_library() -> None:
    """Put tpm2-pytss into the virtual environment; it exists as source only."""
    (pip,) = (ROOT / "tools").glob("pip-*.whl")
    command = [sys.executable, str(pip / "pip"), "--disable-pip-version-check", "-q", "install"]
    command += ["--require-hashes", "-r", str(ROOT / "requirements" / "tpm.txt")]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)


def main() -> None:
    """Install what is missing and name what stays missing."""
    wanted = missing()
    if not has_module("tpm2_pytss"):
        wanted.append("tpm2-pytss")
    if wanted and os.geteuid() == 0 and shutil.which("apt-get"):
        print("prerequisites: installing", ", ".join(wanted), file=sys.stderr, flush=True)
        install([name for name in wanted if name in PROGRAMS])
    if not has_module("tpm2_pytss"):
        compile_tpm_library()
    for program in missing():
        print(
            f"prerequisites: no {program}; the tests that need it are skipped"
            f" (as root: apt-get install {' '.join(PROGRAMS[program])})",
            file=sys.stderr,
        )
    if not has_module("tpm2_pytss"):
        needed = " ".join(COMPILING)
        print(
            "prerequisites: no tpm2-pytss; the tests that need it are skipped"
            f" (as root: apt-get install {needed})",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
