"""`hookprobe inspect HEX`: any packet of the mesh, field by field."""

import sys

import click

from hookprobe.cli.configuration import form_option
from hookprobe.cli.output import emit
from hookprobe.errors import ConfigError
from hookprobe.htp.explain import explain

_PACKET_MAX_BYTES = 65_535


@click.command(name="inspect")
@click.argument("digits", metavar="HEX")
@form_option
def inspect(digits: str, form: str | None) -> None:
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
            for row in explain(data)
        ],
        form,
    )
