"""Choosing a backend by name: what was asked for, or an error that names the extra.

There is no silent fallback: an operator who sized a verifier for numba learns at start that numba
is missing, not from its backlog.
"""

import importlib.util

from hookprobe.errors import ConfigError
from hookprobe.neuro.backends.engine import EngineFactory
from hookprobe.neuro.backends.pure_engine import PureEngine

BACKENDS = ("pure", "numpy", "numba")
EXTRA = "neuro-fast"


def load_backend(name: str) -> EngineFactory:
    """Return the engine factory of a backend.

    Args:
        name: One of `BACKENDS`.

    Raises:
        ConfigError: Unknown, or its package is not installed.
    """
    if name == "pure":
        return PureEngine
    if name not in BACKENDS:
        raise ConfigError([f"NEURO backend {name[:40]!r}: must be one of {', '.join(BACKENDS)}"])
    if importlib.util.find_spec(name) is None:
        raise ConfigError(
            [f"NEURO backend {name}: the package {name} is not installed"],
            hint=f"pip install 'hookprobe[{EXTRA}]', or choose the backend pure",
        )
    if name == "numpy":
        from hookprobe.neuro.backends.numpy_engine import NumpyEngine

        return NumpyEngine
    from hookprobe.neuro.backends.numba_engine import NumbaEngine

    return NumbaEngine
