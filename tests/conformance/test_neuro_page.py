"""The vectors on the protocol page are what the reference computes."""

from pathlib import Path

from tests.unit.neuro.neuro_vectors import integers, vector_proof, vector_seed, vector_ters

from hookprobe.neuro.batch import BATCH_MAX_BYTES, BATCH_RECORDS_MAX
from hookprobe.neuro.snapshot import SNAPSHOT_BYTES
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.ter import checksum
from hookprobe.neuro.verdict import Verdict

PAGE = Path(__file__).parents[2] / "docs/protocol/neuro.md"


def vector_lines() -> list[str]:
    """Return the lines of the page's vector block."""
    state = NeuroState(vector_seed())
    records = vector_ters(100)
    lines = [f"seed {vector_seed().hex()}", f"c0   {state.chain.hex()}"]
    lines += [f"M0   {' '.join(map(str, integers(state.masters())[:3]))}"]
    for i, record in enumerate(records[:3]):
        lines.append(f"TER{i} {record.encode().hex()} crc {checksum(record.encode()):04x}")
    for count in (1, 3, 100):
        state.advance(records[state.count : count])
        lines += [
            f"after {count}:",
            f"  c    {state.chain.hex()}",
            f"  M    {' '.join(map(str, integers(state.masters())[:3]))}",
            f"  fp   {state.commitments().w_fingerprint.hex()}",
            f"  posf {vector_proof(state)}",
        ]
    return lines


def test_the_page_shows_what_the_reference_computes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "```\n" + "\n".join(vector_lines()) + "\n```" in text


def test_the_page_names_every_verdict_and_size() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for verdict in Verdict:
        assert f"`{verdict.value}`" in text, verdict
    for number in (SNAPSHOT_BYTES, BATCH_MAX_BYTES, BATCH_RECORDS_MAX):
        assert f"{number:,}" in text
