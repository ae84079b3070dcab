"""The HookProbe transport: authenticated, sealed, ordered channels between nodes over UDP."""
