"""A real NAT that forgets: network namespaces, nftables, conntrack with timeouts of a second.

    edge 100.64.0.4 --- 100.64.0.1 nat 203.0.113.1 --- 203.0.113.10 validator

The NAT masquerades with random ports, so each silence of more than a second gives the edge another
one. The namespaces have names of their own and are taken down whatever happens.
"""

import os
import secrets
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hookprobe.node import provision
from hookprobe.node.provision import NodePlan
from hookprobe.runtime import folders
from hookprobe.runtime.clock import Clock
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MINUTE

EDGE, VALIDATOR = "edge-1", "validator-1"
WAIT_S = 20
SPAN_S = 2.5  # more than the NAT remembers
NAT = """
table ip nat {
  chain post {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "out" masquerade random
  }
  chain through {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "in" oifname "out" accept
  }
}
"""

# Reads `TO TEXT` lines, sends TEXT; writes every message it gets, and at the validator, for each,
# where the edge is now.
PROGRAM = """
import sys, threading
from hookprobe.htp import HookProbeTransport

node, port, answering, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "yes", sys.argv[4]
transport = HookProbeTransport(node, port, is_validator=answering, folder=folder)

def read():
    while (received := transport.receive_data()) is not None:
        (meter,) = transport.sessions()
        print(received.data.decode(), meter.address.port, meter.received, flush=True)

threading.Thread(target=read, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    target, text = line.split()
    transport.send_data(text.encode(), target, timeout=20)
"""


def run(*command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


class Lab:
    """Three namespaces in a row."""

    def __init__(self) -> None:
        self.tag = f"hpnat{os.getpid()}"
        self.made: list[str] = []

    def space(self, name: str) -> str:
        return f"{self.tag}-{name}"

    def build(self) -> None:
        for name in ("edge", "nat", "val"):
            self.must("ip", "netns", "add", self.space(name))
            self.made.append(name)
            self.must("ip", "-n", self.space(name), "link", "set", "lo", "up")
        self.wire(("edge", "wan", "100.64.0.4/24"), ("nat", "in", "100.64.0.1/24"))
        self.wire(("nat", "out", "203.0.113.1/24"), ("val", "wan", "203.0.113.10/24"))
        gateway = ("route", "add", "default", "via", "100.64.0.1")
        self.must("ip", "-n", self.space("edge"), *gateway)
        self.inside("nat", "nft", "-f", "-", text=NAT)
        for setting in (
            "net.ipv4.ip_forward=1",
            "net.netfilter.nf_conntrack_udp_timeout=1",
            "net.netfilter.nf_conntrack_udp_timeout_stream=1",
        ):
            key, _, value = setting.partition("=")
            path = f"/proc/sys/{key.replace('.', '/')}"
            self.inside("nat", "sh", "-c", f"echo {value} > {path}")

    def wire(self, one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
        ends = ("name", one[1], "netns", self.space(one[0]))
        peer = ("peer", "name", other[1], "netns", self.space(other[0]))
        self.must("ip", "link", "add", *ends, "type", "veth", *peer)
        for name, device, address in (one, other):
            self.must("ip", "-n", self.space(name), "addr", "add", address, "dev", device)
            self.must("ip", "-n", self.space(name), "link", "set", device, "up")

    def must(self, *command: str, text: str | None = None) -> None:
        done = run(*command, text=text)
        assert done.returncode == 0, f"{command}: {done.stderr}"

    def inside(self, name: str, *command: str, text: str | None = None) -> None:
        self.must("ip", "netns", "exec", self.space(name), *command, text=text)

    def take_down(self) -> None:
        for name in self.made:
            run("ip", "netns", "del", self.space(name))

    def start(self, space: str, *arguments: str) -> "Speaker":
        command = ["ip", "netns", "exec", self.space(space), sys.executable, "-c", PROGRAM]
        return Speaker([*command, *arguments])


class Speaker:
    """A program with a transport in one namespace."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.line() == ["ready"]

    def say(self, target: str, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{target} {text}\n".encode())
        self.process.stdin.flush()

    def line(self) -> list[str]:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], WAIT_S)
        assert ready, f"nothing said: {self.process.poll()}"
        return self.process.stdout.readline().decode().split()

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0 or run("unshare", "-n", "true").returncode != 0:
        pytest.skip("kernel: no right to make network namespaces here")
    assert shutil.which("ip"), "iproute2 is missing: run tests/prerequisites.py"
    assert shutil.which("nft"), "nftables is missing: run tests/prerequisites.py"
    found = Lab()
    try:
        found.build()
        yield found
    finally:
        found.take_down()


def enrol(folder: Path) -> None:
    plans = [
        NodePlan(NodeId(VALIDATOR), "validator", "operator", "203.0.113.10:4719"),
        NodePlan(NodeId(EDGE), "edge", "tenant-a"),
    ]
    mesh = provision.found(NodeId("m"), plans, MINUTE, Clock().now(), secrets.token_bytes)
    for plan, enrolled in zip(plans, mesh.nodes, strict=True):
        documents = (mesh.genesis.encode(), mesh.directory)
        folders.write_node(folder / plan.node, enrolled, documents, {})


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_27_a_session_lives_through_mappings_that_expire(lab: Lab, tmp_path: Path) -> None:
    enrol(tmp_path)
    validator = lab.start("val", VALIDATOR, "4719", "yes", str(tmp_path / VALIDATOR))
    edge = lab.start("edge", EDGE, "0", "no", str(tmp_path / EDGE))
    ports, numbers = [], []
    try:
        for turn in range(4):
            edge.say(VALIDATOR, f"up{turn}")
            said, port, number = validator.line()
            assert said == f"up{turn}"
            ports.append(port)
            numbers.append(int(number))
            validator.say(EDGE, f"down{turn}")  # to the new port, while its mapping lives
            assert edge.line()[0] == f"down{turn}"
            time.sleep(SPAN_S)
        # Nothing reaches an edge whose mapping is gone; it comes when the edge speaks again.
        validator.say(EDGE, "late")
        time.sleep(SPAN_S)
        edge.say(VALIDATOR, "again")
        assert validator.line()[0] == "again"
        assert edge.line()[0] == "late"
    finally:
        edge.stop()
        validator.stop()
    assert len(set(ports)) >= 3, f"the NAT did not rebind: {ports}"
    assert numbers == sorted(numbers), "packets of one session: it was never made anew"
