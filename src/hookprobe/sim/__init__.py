"""Whole meshes in one process: virtual time, faulty networks and disks, checked invariants."""
