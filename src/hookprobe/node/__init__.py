"""What a HookProbe node is: pure composition of the rooms into edges and validators."""
