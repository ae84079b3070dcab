"""A node's disk: executes `Persist`, and the node may crash between any two effects.

A batch is durable when it is executed, so what a crash can do is fall before or after one; the
world counts down executed effects and drops the rest of the list. A disk may also be lost, or an
old copy of it restored.
"""

from copy import deepcopy

from hookprobe.dsm.store import MemoryStore, Persist


class Disk(MemoryStore):
    """A memory store that counts its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0

    def copy(self) -> "Disk":
        """Return what a backup of this moment holds."""
        return deepcopy(self)

    def apply(self, batch: Persist) -> None:
        self.batches += 1
        super().apply(batch)
