"""`hookprobe dsm ...`: the ledger's API as a process, the live view, and the ledger's keeping."""

import os
import signal
import threading
from pathlib import Path

import click

from hookprobe.cli import ledger
from hookprobe.cli.configuration import config_option
from hookprobe.cli.output import message
from hookprobe.cli.top import top
from hookprobe.config.load import load
from hookprobe.dsm.genesis import decode_genesis
from hookprobe.runtime import folders, outside
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.keystore import read_file
from hookprobe.runtime.supervision import Supervisor


@click.group()
def dsm() -> None:
    """The ledger: query API, live view, check, backup and restore."""


@dsm.command()
@config_option
@click.option("--listen", help=f"host:port; api.listen or {outside.LISTEN_DEFAULT} otherwise.")
def api(path: Path | None, listen: str | None) -> None:
    """Answer questions about a node's ledger until stopped; the node runs beside it."""
    settings = load(path, os.environ, {})
    genesis_path = settings.file("identity.path") / folders.GENESIS_FILE
    genesis = decode_genesis(read_file(genesis_path, limit=1 << 20))
    where = listen or settings.text("api.listen") or outside.LISTEN_DEFAULT
    server = outside.open_api(settings, genesis, Clock(), where)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    port = server.start()
    message(f"http://{where.rpartition(':')[0]}:{port}/api/v1/docs")
    supervisor = Supervisor(os.environ)
    supervisor.ready()
    stop.wait()
    supervisor.tell("STOPPING=1")
    server.stop()


dsm.add_command(top)
for command in ledger.COMMANDS:
    dsm.add_command(command)
