"""`hookprobe file`: send, fetch and look at the files that a peer keeps for this node.

The running node does the work; a transfer that is interrupted is resumed by the same command.
Remote files are written PEER:PATH.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import click

from hookprobe.cli.asking import ask
from hookprobe.cli.configuration import config_option, form_option
from hookprobe.cli.output import Row, emit, emit_one, message
from hookprobe.runtime import file_control
from hookprobe.wire.canonical import JsonObject

_MIB = 1 << 20


class Remote(click.ParamType[tuple[str, str]]):
    """PEER:PATH."""

    name = "peer:path"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Split it; click complains where there is no colon."""
        if isinstance(value, tuple):
            return value
        peer, colon, path = str(value).partition(":")
        if not colon or not peer:
            self.fail(f"{value!r} is not PEER:PATH", param, ctx)
        return peer, path


_remote = click.argument("remote", type=Remote())
_replace = click.option("--replace", is_flag=True, help="Replace the file that is there.")
_if_match = click.option(
    "--if-match", help="SHA-256 that the file at the peer must have, 64 hex digits."
)


@click.group()
def file() -> None:
    """Files that peers keep for this node."""


@file.command()
@click.argument("local", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_remote
@_replace
@_if_match
@config_option
@form_option
def put(
    local: Path,
    remote: tuple[str, str],
    replace: bool,
    if_match: str | None,
    path: Path | None,
    form: str | None,
) -> None:
    """Send LOCAL to PEER:PATH; the same command again resumes."""
    if if_match is not None and not replace:
        raise click.UsageError("--if-match needs --replace")
    request = _request("put", remote, if_match)
    request |= {"local": str(local.absolute()), "replace": replace}
    emit_one(_ask(path, request)[0], form)


@file.command()
@_remote
@click.argument("local", type=click.Path(dir_okay=False, path_type=Path))
@_replace
@config_option
@form_option
def get(
    remote: tuple[str, str], local: Path, replace: bool, path: Path | None, form: str | None
) -> None:
    """Fetch PEER:PATH into LOCAL; the same command again resumes."""
    request = _request("get", remote, None)
    request |= {"local": str(local.absolute()), "replace": replace}
    emit_one(_ask(path, request)[0], form)


@file.command()
@_remote
@config_option
@form_option
def ls(remote: tuple[str, str], path: Path | None, form: str | None) -> None:
    """List the folder PEER:PATH; PEER: alone is the outermost."""
    emit(_ask(path, _request("ls", remote, None)), form)


@file.command()
@_remote
@config_option
@form_option
def stat(remote: tuple[str, str], path: Path | None, form: str | None) -> None:
    """Describe PEER:PATH."""
    emit_one(_ask(path, _request("stat", remote, None))[0], form)


@file.command()
@_remote
@_if_match
@config_option
@form_option
def rm(remote: tuple[str, str], if_match: str | None, path: Path | None, form: str | None) -> None:
    """Delete PEER:PATH."""
    emit_one(_ask(path, _request("rm", remote, if_match))[0], form)


def _request(operation: str, remote: tuple[str, str], if_match: str | None) -> JsonObject:
    request: JsonObject = {"op": operation, "peer": remote[0], "path": remote[1]}
    if if_match is not None:
        request["if_match"] = if_match
    return request


def _ask(path: Path | None, request: JsonObject) -> list[Row]:
    """Ask the running node and show how far it is."""
    meter = _Meter()
    try:
        return ask(path, file_control.SOCKET_FILE, request, meter.show)
    finally:
        meter.finish()


class _Meter:
    """Progress and rate on a terminal; what was there before this attempt counts as resumed."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None
        self._last = ""

    def show(self, said: Mapping[str, object]) -> None:
        done, size = said["done"], said["size"]
        assert isinstance(done, int), "the node says how far it is in bytes"
        assert isinstance(size, int), "the node says how far it is in bytes"
        now = time.monotonic()
        if self._began is None:
            self._began = (now, done)
            if done:
                message(f"resuming at {done / _MIB:.1f} of {size / _MIB:.1f} MiB")
        at, from_bytes = self._began
        rate = (done - from_bytes) / _MIB / max(now - at, 1e-3)
        share = 100 * done // max(size, 1)
        self._last = f"{share:3d} %  {done / _MIB:.1f} of {size / _MIB:.1f} MiB  {rate:.1f} MiB/s"
        if sys.stderr.isatty():
            click.echo(f"\r{self._last}", err=True, nl=False)

    def finish(self) -> None:
        if self._last:
            message(f"\r{self._last}" if sys.stderr.isatty() else self._last)
