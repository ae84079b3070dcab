"""Names that a package offers while what they name lives elsewhere, looked up on first use."""

import importlib
from collections.abc import Mapping


def find_face(package: str, faces: Mapping[str, str], name: str) -> object:
    """Return what `name` stands for; for a package's `__getattr__` (PEP 562).

    Args:
        package: Who is asked.
        faces: "module:attribute" by name.
        name: What is wanted.

    Raises:
        AttributeError: The package has no such name.
    """
    place = faces.get(name)
    if place is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)
