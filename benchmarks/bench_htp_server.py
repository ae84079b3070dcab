"""What a handshake costs a server with its sockets: HTP beside aioquic and qh3, over the loopback.

A server process and a process of clients, 64 of which dial at a time, as when a fleet comes back;
all of them stay connected until the server's CPU time is read. HTP runs as in a node, with its
driver; QUIC servers run as their libraries run them, over asyncio. HTP's handshake proves the
dialler's address and the dialler too, is hybrid, and ends with a heartbeat and its answer; that of
QUIC does neither here: aioquic runs a second time with its own proof of the address, Retry. The
collector of cycles is told the same in every server, as a node does at its start.
"""

import asyncio
import contextlib
import importlib
import json
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from benchmarks.bench_htp import LIMITS, Plain, endpoint
from benchmarks.bench_htp_bulk import LOOPBACK, WAIT_S, Bare, Child, NoStore, Row, quic_parts, say
from benchmarks.certificates import certify

from hookprobe.htp.config import SUITE_HYBRID, HtpConfig
from hookprobe.htp.effects import Address, SessionUp
from hookprobe.htp.endpoint import Endpoint
from hookprobe.htp.seams import PinnedPeer
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.driver import Driver
from hookprobe.runtime.supervision import settle
from hookprobe.runtime.udp import UdpSocket

MODULE = "benchmarks.bench_htp_server"
ROUNDS = 3
KINDS = ("htp", "aioquic", "aioquic, retry", "qh3")
COUNT = 1000
AT_A_TIME = 64
SETTLE_S = 0.3  # for what is still on its way when the last client is content

Serve = Callable[[dict[str, Any], contextlib.AsyncExitStack], Coroutine[object, object, int]]
Dial = Callable[[dict[str, Any], contextlib.AsyncExitStack, int], Coroutine[object, object, None]]


# -- HTP ------------------------------------------------------------------------------------------


async def running(found: Endpoint, dial: PinnedPeer | None, report: Callable[[object], None],
                  until: contextlib.AsyncExitStack) -> int:  # fmt: skip
    """Run an endpoint on a port of its own until the stack is unwound; return the port."""
    here, stop = UdpSocket(Address(LOOPBACK, 0)), asyncio.Event()
    port = here.address.port
    driver = Driver(Bare(found, dial), here, NoStore(), Clock(), report)
    work = asyncio.create_task(driver.run(stop))

    async def end() -> None:
        stop.set()
        await work

    until.push_async_callback(end)
    return port


async def htp_serve(task: dict[str, Any], until: contextlib.AsyncExitStack) -> int:
    del task
    plain = Plain()
    for number in range(COUNT):
        endpoint(f"edge-{number}", plain)
    found, _ = endpoint("validator", plain, LIMITS, Clock().now())
    return await running(found, None, lambda _: None, until)


async def htp_dial(task: dict[str, Any], until: contextlib.AsyncExitStack, number: int) -> None:
    plain, up = Plain(), asyncio.Event()
    _, validator = endpoint("validator", plain)
    pinned = PinnedPeer(
        validator.node, Address(LOOPBACK, task["port"]), validator.static_key.public_key
    )
    config = HtpConfig(suites_offered=SUITE_HYBRID)
    edge, _ = endpoint(f"edge-{number}", plain, config, Clock().now())

    def report(effect: object) -> None:
        if isinstance(effect, SessionUp):
            up.set()

    await running(edge, pinned, report, until)
    await up.wait()


# -- QUIC -----------------------------------------------------------------------------------------


async def quic_serve(task: dict[str, Any], until: contextlib.AsyncExitStack) -> int:
    api, _, configuration, _ = quic_parts(task["library"])
    settings = configuration.QuicConfiguration(is_client=False, alpn_protocols=["bench"])
    settings.load_cert_chain(task["certificate"], task["key"])
    server = await api.serve(LOOPBACK, 0, configuration=settings, retry=task["retry"])
    until.callback(server.close)
    return int(server._transport.get_extra_info("sockname")[1])


async def quic_dial(task: dict[str, Any], until: contextlib.AsyncExitStack, number: int) -> None:
    del number
    api, _, configuration, _ = quic_parts(task["library"])
    settings = configuration.QuicConfiguration(is_client=True, alpn_protocols=["bench"])
    settings.verify_mode = ssl.CERT_NONE
    await until.enter_async_context(api.connect(LOOPBACK, task["port"], configuration=settings))


WORKS: dict[str, tuple[Serve, Dial]] = {
    "htp": (htp_serve, htp_dial),
    "quic": (quic_serve, quic_dial),
}


# -- processes ------------------------------------------------------------------------------------


async def server(task: dict[str, Any]) -> None:
    async with contextlib.AsyncExitStack() as until:
        port = await WORKS[task["work"]][0](task, until)
        settle()
        begin = time.process_time()
        await say({"port": port})
        await asyncio.to_thread(sys.stdin.readline)
        await say({"cpu": time.process_time() - begin})


async def clients(task: dict[str, Any]) -> None:
    turn = asyncio.Semaphore(AT_A_TIME)
    async with contextlib.AsyncExitStack() as until:

        async def one(number: int) -> None:
            async with turn:
                await asyncio.wait_for(WORKS[task["work"]][1](task, until, number), WAIT_S)

        await asyncio.gather(*map(one, range(COUNT)))
        await asyncio.sleep(SETTLE_S)
        await say({})
        await asyncio.to_thread(sys.stdin.readline)


def cost(kind: str, task: dict[str, Any]) -> float:
    """Return the seconds of CPU that a handshake costs the server."""
    library, _, extra = kind.partition(", ")
    work = "htp" if kind == "htp" else "quic"
    if work == "quic":
        importlib.import_module(library)
    task = {**task, "work": work, "library": library, "retry": extra == "retry"}
    serving = Child(0, task, MODULE)
    dialling = Child(1, {**task, "port": serving.hear()["port"]}, MODULE)
    try:
        dialling.hear()
        serving.poke()
        return float(serving.hear()["cpu"]) / COUNT
    finally:
        dialling.stop()
        serving.stop()


def run() -> list[Row]:
    """Measure everything, in turn."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        certificate, key = certify(Path(name))
        for _ in range(ROUNDS):
            for kind in KINDS:
                found[kind].append(cost(kind, {"certificate": certificate, "key": key}))
    best = {kind: min(costs) for kind, costs in found.items()}
    labels = {"htp": "HTP hybrid", "aioquic, retry": "aioquic with Retry"}
    rows = [(f"handshakes served over UDP: {labels.get(kind, kind)}", 1 / value, "/s of CPU")
            for kind, value in best.items()]  # fmt: skip
    return rows + [
        (f"handshakes served over UDP: HTP hybrid / {labels.get(kind, kind)}",
         best[kind] / best["htp"], "x")
        for kind in KINDS[1:]
    ]  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 2:
        asyncio.run((server, clients)[int(sys.argv[1])](json.loads(sys.argv[2])))
    else:
        for what, value, unit in run():
            print(f"{what:65} {value:12,.2f} {unit}")
