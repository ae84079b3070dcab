"""What is asked of the units inside a booted machine: `check.py first`, and `again` after a boot.

Runs as root with nothing but Python's standard library. Each check prints its name when it holds.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

UNITS = Path("/etc/systemd/system")
STATE = Path("/var/lib/hookprobe")
MESH = STATE / "mesh"
VALIDATOR = "dsm-validator"
EDGE = "dsm-node"
VERIFIER = "neuro-verifier"
NODES = (VALIDATOR, VERIFIER, EDGE)
EVE = Path("/var/log/suricata/eve.json")
API = "http://127.0.0.1:4780"
WAIT_S = 60.0

PROBE = """
import ctypes, mmap, os, socket, sys
def refused(what, act):
    try:
        act()
    except OSError:
        return
    sys.exit("not refused: " + what)
def write(path):
    return lambda: open(path, "w")
def open_tpm():
    os.close(os.open("/dev/tpmrm0", os.O_RDWR))
refused("write to /usr", write("/usr/probe"))
refused("write to /etc/hookprobe", write("/etc/hookprobe/probe"))
refused("write beside the state", write("/var/lib/probe"))
refused("read a home", lambda: os.listdir("/root"))
refused("a packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
refused("a netlink socket", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
code = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
refused("memory to write and run", lambda: mmap.mmap(-1, 4096, flags, code))
refused("a namespace", lambda: os.unshare(os.CLONE_NEWUSER)) if hasattr(os, "unshare") else None
refused("a higher priority", lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))
refused("another process's memory", lambda: open("/proc/1/environ").read())
if sys.argv[1] == "tpm":
    open_tpm()
else:
    refused("a TPM", open_tpm)
open("/var/lib/hookprobe/probe", "w").close()
os.unlink("/var/lib/hookprobe/probe")
counters = lambda: open("/proc/stat").close()
counters() if sys.argv[2] == "counters" else refused("counters", counters)
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(("127.0.0.1", 0))
"""


def run(*words: str, status: int | None = 0) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if status is not None and done.returncode != status:
        sys.exit(f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def holds(what: str, condition: bool) -> None:
    if not condition:
        for unit in (*NODES, "dsm-api", "dsm-probe"):
            sys.stderr.write(run("systemctl", "status", "-n20", "--no-pager", unit, status=None))
        sys.exit(f"does not hold: {what}")
    sys.stdout.write(f"   {what}\n")
    sys.stdout.flush()


def until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            holds(what, False)
        time.sleep(0.2)
    holds(what, True)


def told(unit: str, name: str) -> str:
    return run("systemctl", "show", "--value", "-p", name, unit).strip()


def as_node(*words: str, status: int | None = 0) -> str:
    return run("runuser", "-u", "hookprobe", "--", "hookprobe", *words, status=status)


def epoch() -> int:
    try:
        shown = json.loads((STATE / "state/status.json").read_text())
    except FileNotFoundError:
        return -1
    return -1 if shown["last_epoch"] is None else int(shown["last_epoch"])


def healthy() -> bool:
    try:
        with urllib.request.urlopen(f"{API}/api/v1/health", timeout=5) as answer:
            return bool(json.load(answer)["status"] == "ok")
    except OSError:
        return False


def edge() -> dict[str, object]:
    """Return what the verifier's operator sees of the edge."""
    said = as_node("verifier", "devices", "-c", "/etc/hookprobe/verifier.yaml", "-o", "json")
    (row,) = json.loads(said)
    return dict(row)


def resonant() -> bool:
    return edge()["verdict"] == "resonant"


def drop_in(unit: str, name: str, text: str) -> None:
    folder = UNITS / f"{unit}.service.d"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    run("systemctl", "daemon-reload")


def settings(file: Path, home: str, node: str, role: str, more: str) -> None:
    """Write a node's settings as config/dsm.yaml has them."""
    file.write_text(
        f"state: {{path: {STATE / home / 'state'}}}\n"
        f"identity: {{path: {STATE / home / 'identity'}}}\n"
        f"dsm: {{node: {{id: {node}, role: {role}}}}}\n{more}"
    )


def found() -> None:
    """Found a mesh of a validator, a verifier and an edge on this machine, as an operator would."""
    shutil.rmtree(STATE, ignore_errors=True)
    STATE.mkdir(mode=0o700)
    shutil.chown(STATE, "hookprobe", "hookprobe")
    Path("/etc/hookprobe").mkdir(exist_ok=True)
    as_node(
        "init",
        "mesh",
        str(MESH),
        "--validators",
        "1",
        "--edge",
        "edge-1",
        "--epoch-ms",
        "500",
    )
    homes = (("", "validator-1"), ("verifier", "verifier-1"), ("edge", "edge-1"))
    for home, node in homes:
        (STATE / home).mkdir(exist_ok=True)
        shutil.copytree(MESH / node, STATE / home / "identity")
        run("chown", "-R", "hookprobe:hookprobe", str(STATE / home))
    etc = Path("/etc/hookprobe")
    settings(
        etc / "dsm.yaml", "", "validator-1", "validator", "htp: {listen: ['127.0.0.1:4719']}\n"
    )
    often = "neuro: {interval_ms: 1000}\n"
    settings(
        etc / "verifier.yaml",
        "verifier",
        "verifier-1",
        "verifier",
        f"htp: {{listen: ['127.0.0.1:4720']}}\n{often}",
    )
    settings(
        etc / "edge.yaml",
        "edge",
        "edge-1",
        "edge",
        "htp: {listen: ['127.0.0.1:0']}\n"
        f"sensors: {{suricata: [{EVE}], start: beginning}}\n{often}",
    )
    EVE.write_bytes(Path("/opt/source/brute-ssh.eve.json").read_bytes())
    shutil.chown(EVE, "root", "adm")
    EVE.chmod(0o640)
    # The second and third node of a host: the same units with settings of their own.
    for unit, role in ((EDGE, "edge"), (VERIFIER, "verifier")):
        drop_in(
            unit,
            "settings.conf",
            "[Service]\nExecStart=\n"
            f"ExecStart=/usr/bin/env hookprobe {role} run -c /etc/hookprobe/{role}.yaml\n",
        )
    shutil.copy("/opt/source/drop-ins/suricata.conf", UNITS / f"{EDGE}.service.d")


def check_files() -> None:
    for unit in (*NODES, "dsm-api"):
        complaint = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", f"{UNITS}/{unit}.service"],
            capture_output=True,
            text=True,
            check=False,
        )
        holds(f"{unit}: verify", complaint.returncode == 0 and unit not in complaint.stderr)
        said = run("systemd-analyze", "security", unit)
        level = float(said.rsplit("level for", 1)[1].split(":")[1].split()[0])
        holds(f"{unit}: exposure {level}", level <= 2.0)


def check_start() -> None:
    before = time.monotonic()
    run("systemctl", "enable", "--now", "dsm-validator")
    holds(
        f"start returned when it was ready, after {time.monotonic() - before:.1f} s",
        told(VALIDATOR, "ActiveState") == "active" and told(VALIDATOR, "Type") == "notify",
    )
    holds(
        "dsm-consensus is another name of it",
        told("dsm-consensus", "Id") == "dsm-validator.service",
    )
    until("epochs become final", lambda: epoch() >= 2)
    run("systemctl", "enable", "--now", VERIFIER, "dsm-node", "dsm-api")
    until("the API answers", healthy)
    for unit in NODES:
        process = Path(f"/proc/{told(unit, 'MainPID')}")
        lines = (process / "status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines)
        holds(
            f"{unit}: no rights, no new ones, system calls filtered, not root",
            int(status["CapEff"], 16) == 0
            and (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
            and status["Uid"].split()[0] != "0",
        )
    until("the edge proves its history to the verifier", resonant)
    until(
        "the edge's alerts reach the ledger",
        lambda: '"event":"IncidentRecorded"' in run("journalctl", "-o", "cat", "-u", EDGE),
    )
    holds(
        "an operator's orders reach the validator",
        "validator-1" in as_node("validator", "status", "-c", "/etc/hookprobe/dsm.yaml"),
    )


def check_kill() -> None:
    seen, restarts = epoch(), int(told(VALIDATOR, "NRestarts"))
    os.kill(int(told(VALIDATOR, "MainPID")), signal.SIGKILL)
    until("kill -9: it is started again", lambda: int(told(VALIDATOR, "NRestarts")) == restarts + 1)
    until("and goes on", lambda: epoch() > seen + 1)
    drop_in(VALIDATOR, "watchdog.conf", "[Service]\nWatchdogSec=4\n")
    run("systemctl", "restart", VALIDATOR)
    time.sleep(9)
    holds("a node that lives feeds its watchdog", told(VALIDATOR, "NRestarts") == "0")
    os.kill(int(told(VALIDATOR, "MainPID")), signal.SIGSTOP)
    until("a node that stands still is started again", lambda: told(VALIDATOR, "NRestarts") == "1")
    holds("by the watchdog", "watchdog" in run("journalctl", "-o", "cat", "-u", VALIDATOR).lower())
    until("it is ready again", lambda: told(VALIDATOR, "ActiveState") == "active")
    shutil.rmtree(UNITS / f"{VALIDATOR}.service.d")
    run("systemctl", "daemon-reload")


def check_sandbox() -> None:
    counters = {VALIDATOR: "none", VERIFIER: "none", "dsm-api": "none", EDGE: "counters"}
    folder = UNITS / "dsm-probe.service.d"
    Path("/opt/source/probe.py").write_text(PROBE)
    run("groupadd", "--force", "--system", "tss")  # Debian's libtss2 makes it
    units = ((VALIDATOR, ""), (VERIFIER, ""), ("dsm-api", ""), (EDGE, ""), (EDGE, "tpm"))
    for unit, tpm in units:
        lines = (UNITS / f"{unit}.service").read_text().splitlines()
        kept = [line for line in lines if not line.startswith(("ExecStart=", "Restart", "Alias"))]
        text = "\n".join(kept).replace("Type=notify", "Type=oneshot").replace("WatchdogSec=60", "")
        words = f"/usr/bin/python3 /opt/source/probe.py {tpm or 'none'} {counters[unit]}"
        (UNITS / "dsm-probe.service").write_text(f"{text}\n[Service]\nExecStart={words}\n")
        shutil.rmtree(folder, ignore_errors=True)
        if tpm:
            folder.mkdir()
            text = Path("/opt/source/drop-ins/tpm.conf").read_text()
            (folder / "tpm.conf").write_text(text)
        run("systemctl", "daemon-reload")
        run("systemctl", "reset-failed", "dsm-probe", status=None)
        run("systemctl", "start", "dsm-probe", status=None)
        holds(
            f"{unit}{' with its TPM' * bool(tpm)}: may do what it must and nothing else",
            told("dsm-probe", "Result") == "success",
        )
    (UNITS / "dsm-probe.service").unlink()
    shutil.rmtree(folder, ignore_errors=True)


def check_refusal() -> None:
    file = Path("/etc/hookprobe/dsm.yaml")
    good = file.read_text()
    file.write_text(good + "htpp: {}\n")
    run("systemctl", "restart", VALIDATOR, status=1)
    holds(
        "wrong settings: the start fails at once, and once",
        told(VALIDATOR, "ActiveState") == "failed" and told(VALIDATOR, "NRestarts") == "0",
    )
    until(
        "the edge reports that the host's settings are others",
        lambda: edge()["verdict"] == "tamper-reported",
    )
    file.write_text(good)
    run("systemctl", "reset-failed", VALIDATOR)
    run("systemctl", "start", VALIDATOR)
    until("and that they are what they were", lambda: edge()["measured"] == edge()["golden"])
    as_node("verifier", "accept", "edge-1", "-c", "/etc/hookprobe/verifier.yaml")
    until("its history counts again when the operator accepts", resonant)


def check_stop() -> None:
    for unit in (EDGE, "dsm-api", VERIFIER, VALIDATOR):
        before = time.monotonic()
        run("systemctl", "stop", unit)
        ended = told(unit, "Result"), told(unit, "ExecMainStatus"), told(unit, "ExecMainCode")
        holds(
            f"{unit}: stops cleanly in {time.monotonic() - before:.1f} s",
            ended == ("success", "0", "1"),
        )
    as_node("dsm", "fsck", "-c", "/etc/hookprobe/dsm.yaml")
    holds("the ledger is whole", True)
    run("systemctl", "start", *NODES, "dsm-api")
    seen = epoch()
    until("and goes on", lambda: epoch() > seen + 1)
    (STATE / "seen").write_text(str(epoch()))


def first() -> None:
    """Everything up to the reboot."""
    found()
    check_files()
    check_sandbox()
    check_start()
    check_kill()
    check_refusal()
    check_stop()


def again() -> None:
    """What must be so after a reboot, without anybody's doing."""
    seen = int((STATE / "seen").read_text())
    units = (*NODES, "dsm-api")
    until(
        "all of them run after a reboot",
        lambda: all(told(unit, "ActiveState") == "active" for unit in units),
    )
    until("epochs go on where they were", lambda: epoch() > seen + 1)
    until("the API answers", healthy)
    until("the verifier knows the edge still", resonant)
    run("systemctl", "stop", EDGE, "dsm-api", VERIFIER, VALIDATOR)
    as_node("dsm", "fsck", "-c", "/etc/hookprobe/dsm.yaml")
    holds("the ledger is whole", True)


if __name__ == "__main__":
    {"first": first, "again": again}[sys.argv[1]]()
