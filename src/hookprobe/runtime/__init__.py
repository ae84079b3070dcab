"""The asyncio shell: sockets, clock, disk, sensor files and programs around a pure node."""
