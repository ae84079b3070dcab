"""Hosts in network namespaces on one bridge: real stacks, cut and joined at will. Root is needed.

Every host has one address in 10.77.0.0/24; nothing leads out of the bridge. Partitions drop frames
silently, as a broken switch does: carriers stay up. Whatever is made here is removed again.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence

import pytest

PREFIX = "hpt"


def needs_namespaces() -> None:
    """Skip where namespaces cannot be made; the reason says whose fault it is."""
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    if shutil.which("ip") is None or shutil.which("nft") is None:
        pytest.skip("ip or nft is not installed")
    probe = f"{PREFIX}-probe{os.getpid()}"
    made = subprocess.run(
        ["ip", "netns", "add", probe], capture_output=True, text=True, check=False
    )
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"kernel: no network namespaces here: {made.stderr.strip()}")


def run(*words: str, given: str | None = None) -> str:
    """Run a program that must succeed."""
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"
    return done.stdout


class Switch:
    """A bridge in a namespace of its own, and hosts on it.

    Args:
        names: The hosts.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._label = f"{PREFIX}{os.getpid() % 10_000}"
        self.addresses = {name: f"10.77.0.{place}" for place, name in enumerate(names, 1)}
        self._bridge = f"{self._label}-switch"
        self._spaces = {name: f"{self._label}-{place}" for place, name in enumerate(names, 1)}
        try:
            self._build()
        except AssertionError:
            self.close()
            raise

    def _build(self) -> None:
        run("ip", "netns", "add", self._bridge)
        run("ip", "-n", self._bridge, "link", "add", "switch0", "type", "bridge")
        run("ip", "-n", self._bridge, "link", "set", "switch0", "up")
        for place, (name, space) in enumerate(self._spaces.items(), 1):
            run("ip", "netns", "add", space)
            run("ip", "-n", space, "link", "set", "lo", "up")
            pair = ["link", "add", "eth0", "netns", space, "type", "veth"]
            run("ip", *pair, "peer", "name", f"port{place}", "netns", self._bridge)
            run("ip", "-n", self._bridge, "link", "set", f"port{place}", "master", "switch0", "up")
            run("ip", "-n", space, "addr", "add", f"{self.addresses[name]}/24", "dev", "eth0")
            run("ip", "-n", space, "link", "set", "eth0", "up")

    def within(self, name: str) -> list[str]:
        """Return the words that run a program on a host."""
        return ["ip", "netns", "exec", self._spaces[name]]

    def partition(self, *groups: Sequence[str]) -> None:
        """Let only hosts of one group reach each other."""
        for group in groups:
            others = [self.addresses[n] for n in self.addresses if n not in group]
            for name in group:
                self._drop(name, others)

    def heal(self) -> None:
        """Let everybody reach everybody."""
        for name in self.addresses:
            self._drop(name, [])

    def _drop(self, name: str, addresses: Sequence[str]) -> None:
        rule = f"ip saddr {{ {', '.join(addresses)} }} drop" if addresses else ""
        table = (
            "table inet cut\ndelete table inet cut\ntable inet cut {\n"
            f" chain in {{ type filter hook input priority 0; {rule}\n }}\n}}\n"
        )
        run(*self.within(name), "nft", "-f", "-", given=table)

    def close(self) -> None:
        """Remove everything; the kernel ends the links with the namespaces."""
        for space in (*self._spaces.values(), self._bridge):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
