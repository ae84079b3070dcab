"""Asking the running node, for commands that cannot do its work beside it."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from hookprobe.cli.output import Exit, Row, message
from hookprobe.config.load import load
from hookprobe.errors import UnavailableError
from hookprobe.runtime import control
from hookprobe.wire.canonical import JsonObject

_EXITS = {"E-UNAUTHORIZED": Exit.DENIED, "E-UNAVAILABLE": Exit.UNREACHABLE}
_NOT_FOUND = "not found"
Progress = Callable[[Mapping[str, object]], None]


def ask(
    path: Path | None, socket_file: str, request: JsonObject, progress: Progress | None = None
) -> list[Row]:
    """Return the rows that the node of a settings file answers; its errors end the program.

    Args:
        path: The node's settings.
        socket_file: Which of its sockets.
        request: What is asked.
        progress: Takes the lines before the result.

    Raises:
        UnavailableError: It does not run.
    """
    state = load(path, os.environ, {}).file("state.path")
    for said in control.ask(state, socket_file, request):
        if "error" in said:
            _complain(said)
        rows = said.get("result")
        if isinstance(rows, list):
            return rows
        if progress is not None:
            progress(said)
    raise UnavailableError("the node stopped", hint="the same command can be given again")


def _complain(said: Mapping[str, object]) -> NoReturn:
    text = str(said["message"])
    message(f"{said['error']}: {text}")
    if said["hint"]:
        message(f"hint: {said['hint']}")
    if text.endswith(_NOT_FOUND):
        sys.exit(Exit.NOT_FOUND)
    sys.exit(_EXITS.get(str(said["error"]), Exit.FAILED))
