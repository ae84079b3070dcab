"""Equal seeds give equal traces, whatever the hash seed of the interpreter (I12)."""

import os
import subprocess
import sys


def traces(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-m", "hookprobe.sim", "--seeds", "12", "--trace"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_traces_do_not_depend_on_the_hash_seed() -> None:
    first = traces("1")
    assert first.count("trace") == 12
    assert traces("2") == first
    assert traces("77") == first


def test_different_seeds_give_different_traces() -> None:
    lines = [line for line in traces("1").splitlines() if "trace" in line]
    digests = [line.rsplit(" ", 1)[1] for line in lines]
    assert len(set(digests)) == len(digests)
