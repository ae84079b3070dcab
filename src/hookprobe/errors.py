"""Every error HookProbe raises, sorted by who is at fault.

* `RemoteError`: a peer broke the protocol. The shell counts it against the peer and goes on.
* `LocalError`: the caller misused one of our machines. A bug of ours or of an embedding program.
* `ConfigError`: the operator's configuration is wrong; every mistake is listed at once.
* `HostError`: disk, socket, program or hardware failed. Raised by the shell only.
* `UnavailableError`: nothing is wrong but the answer is not there yet; try again.

Each class carries a stable `code` and each instance may carry a `hint`: what to do next. Messages
never contain keys, secrets or payloads.
"""

from collections.abc import Sequence


class HookProbeError(Exception):
    """The root of the family; catch it at the outermost edge only.

    Args:
        message: What happened, and where.
        hint: What the reader can do next; may be empty.
    """

    code = "E-HOOKPROBE"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RemoteError(HookProbeError):
    """A peer, a file or a sensor sent something that breaks the rules."""

    code = "E-REMOTE"


class MalformedError(RemoteError):
    """Bytes that do not parse as what they claim to be."""

    code = "E-MALFORMED"


class VerificationError(RemoteError):
    """Well-formed, but a signature, proof, chain link or certificate does not hold."""

    code = "E-VERIFICATION"


class LimitExceededError(RemoteError):
    """A stated bound (size, depth, rate, count) was passed."""

    code = "E-LIMIT"


class UnauthorizedError(RemoteError):
    """A known or unknown party asked for what it may not have."""

    code = "E-UNAUTHORIZED"


class NotFoundError(RemoteError):
    """A party asked for something that is not here."""

    code = "E-NOT-FOUND"


class LocalError(HookProbeError):
    """The caller used a machine in a way its state does not allow."""

    code = "E-LOCAL"


class ConfigError(HookProbeError):
    """The configuration is wrong.

    Args:
        problems: One line each: `file: key.path: what is wrong`.
        hint: What the operator can do next.
    """

    code = "E-CONFIG"

    def __init__(self, problems: Sequence[str], *, hint: str = "") -> None:
        super().__init__("; ".join(problems), hint=hint)
        self.problems = tuple(problems)


class HostError(HookProbeError):
    """The machine we run on failed us: disk, socket, external program, hardware."""

    code = "E-HOST"


class UnavailableError(HookProbeError):
    """Not now: the same request may succeed later."""

    code = "E-UNAVAILABLE"
