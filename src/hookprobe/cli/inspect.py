"""`hookprobe inspect HEX`: any packet of the mesh, field by field."""

import sys
from pathlib import Path

import click

from hookprobe.cli.configuration import form_option
from hookprobe.cli.output import emit, message
from hookprobe.errors import ConfigError
from hookprobe.htp.explain import explain
from hookprobe.htp.keylog import KEYLOG_MAX_BYTES, KeyRing
from hookprobe.runtime.keystore import read_private

_PACKET_MAX_BYTES = 65_535


@click.command(name="inspect")
@click.argument("digits", metavar="HEX")
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    help="A node's key log (htp.keylog): shows sealed parts too, of sessions and of handshakes.",
)
@form_option
def inspect(digits: str, keys: Path | None, form: str | None) -> None:
    """Explain a packet given as hex digits; spaces and colons are ignored, - reads stdin."""
    if digits == "-":
        digits = sys.stdin.read(4 * _PACKET_MAX_BYTES)
    plain = "".join(digits.split()).replace(":", "")
    try:
        data = bytes.fromhex(plain)
    except ValueError as error:
        raise ConfigError(["HEX: not pairs of hex digits"]) from error
    emit(
        [
            {"offset": row.offset, "length": row.length, "field": row.field, "value": row.value}
            for row in explain(data, _open(data, keys))
        ],
        form,
    )


def _open(data: bytes, keys: Path | None) -> bytes | None:
    if keys is None:
        return None
    ring = KeyRing(read_private(keys, limit=KEYLOG_MAX_BYTES).decode("ascii", "replace"))
    opened = ring.open(data)
    if opened is None:
        message(f"{keys}: none of its {len(ring)} keys opens this packet")
    return opened
