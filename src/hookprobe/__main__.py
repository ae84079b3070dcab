"""`python -m hookprobe` is the `hookprobe` command."""

from hookprobe.cli.main import main

main()
