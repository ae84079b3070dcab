"""HookProbe: one node's detection becomes everyone's protection, provably and privately."""

__version__ = "0.1.0"
