"""The tables of the ledger's protocol page are those of the code."""

import re
import typing
from pathlib import Path

from hookprobe.dsm import messages
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.frames import _READERS, encode
from hookprobe.dsm.governance import KINDS
from hookprobe.dsm.messages import FRAME_MAX_BYTES, GetHeads, channel_class
from hookprobe.dsm.misbehaviour import EVIDENCE_AGE_US, Fault
from hookprobe.dsm.registry import Registry
from hookprobe.dsm.store import PARTITIONS, Table
from hookprobe.sim import invariants, succession
from hookprobe.wire.instant import DAY, SECOND

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/protocol/dsm.md").read_text(encoding="utf-8")


def test_every_message_is_listed_with_its_kind_and_class() -> None:
    listed = re.findall(r"^\| (\d+) \| (\w+) \| (\w+) \|$", PAGE, re.MULTILINE)
    assert [int(kind) for kind, _, _ in listed] == sorted(_READERS)
    told = re.findall(r"^\| (\d+) \| (\w+) \| (\w+) \|", messages.__doc__ or "", re.MULTILINE)
    assert told == listed
    kinds = {kind.__name__: kind for kind in typing.get_args(messages.Message)}
    assert {name for _, name, _ in listed} == set(kinds)
    for _, name, queue in listed:
        blank = kinds[name].__new__(kinds[name])
        assert channel_class(blank).name.lower() == queue, name
    assert encode(GetHeads())[1] == 12
    assert f"{FRAME_MAX_BYTES:,} bytes" in PAGE


def test_faults_and_governance_are_listed() -> None:
    section = PAGE.split("## 4. Evidence")[1].split("## 5.")[0]
    assert re.findall(r"^\| ([A-Z]+) \|", section, re.MULTILINE) == [item.name for item in Fault]
    section = PAGE.split("## 6. Validators")[1].split("## 7.")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == KINDS
    assert EVIDENCE_AGE_US == 30 * DAY


def test_what_is_kept_is_what_the_code_keeps() -> None:
    section = PAGE.split("## 8. What is kept")[1].split("## 9.")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([\w ]+) \| ?(\d*) ?\|$", section, re.MULTILINE)
    config = LedgerConfig()
    days = {Table.BLOCKS: config.keep_blocks, Table.PAYLOADS: config.keep_blocks}
    days |= {Table.CONTENTS: config.keep_contents, Table.COVERAGE: config.keep_contents}
    assert config.partition_us == DAY
    found = {Table(name): (kept, part) for name, kept, part in rows}
    for table, span in PARTITIONS.items():
        assert found[table] == (f"{days[table]} days", str(span))
    for table in (Table.CHECKPOINTS, Table.CHANGES, Table.RELICS):
        assert found[table] == ("for ever", "")


def test_timers_and_rules_are_those_of_the_code() -> None:
    config = LedgerConfig()
    assert (config.view_timeout_us, config.view_timeout_max_us) == (4 * SECOND, 60 * SECOND)
    assert "min(4 s x 1.5^(v-1), 60 s)" in PAGE
    assert f"unheard for {config.silent_epochs} epochs" in PAGE
    assert config.silent_leader_timeout_us == SECOND // 2
    assert "nobody answers within 3 s" in PAGE
    assert config.recovery_wait_us == 3 * SECOND
    for number in range(1, 11):
        assert f"| R{number} |" in PAGE
    assert "at most max(1, f) changes an epoch" in " ".join(PAGE.split())
    assert "max(1, self.following.faults)" in Path(_source(Registry)).read_text(encoding="utf-8")


def test_every_invariant_named_is_one_that_is_checked() -> None:
    checked = "".join(
        Path(module.__file__ or "").read_text(encoding="utf-8")
        for module in (invariants, succession)
    )
    elsewhere = {"I10": "scenario", "I11": "crashes", "I12": "test_sim_traces"}
    for name in re.findall(r"\b([IS]\d+) ", PAGE.split("## 11. Invariants")[1]):
        assert name in elsewhere or f'"{name}:' in checked or f"'{name}'" in checked, name


def _source(kind: type) -> str:
    module = __import__(kind.__module__, fromlist=["__file__"])
    return str(module.__file__)
