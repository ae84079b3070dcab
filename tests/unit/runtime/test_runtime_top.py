"""`hookprobe dsm top`: what it shows, on a terminal and off it."""

import json
from pathlib import Path

from click.testing import CliRunner

from hookprobe.cli.dsm import dsm
from hookprobe.cli.top import lines, look
from hookprobe.dsm import effects as ledger
from hookprobe.runtime import status
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import SECOND, Instant


def board() -> status.StatusBoard:
    made = status.StatusBoard(NodeId("v"), "validator", 4, (Instant(0), SECOND))
    made.report(ledger.CheckpointFinalized(5, 12, 3, b"", 30_000))
    made.report(ledger.EpochOpened(6))
    made.report(ledger.Voted(6, 1, "NOTARIZE", b""))
    return made


def test_a_look_shows_epochs_votes_lag_and_forks() -> None:
    made = board()
    before = made.document(Instant(7 * SECOND), 0)
    made.report(ledger.ForkDetected((NodeId("edge"), 1), 3))
    after = before | made.document(Instant(9 * SECOND), 0) | {"blocks": 10}
    row = look(after, before, Instant(9 * SECOND))
    wanted = {
        "state": "running",
        "final_epoch": 5,
        "open_epoch": 6,
        "view": 1,
        "epochs_behind": 2,
        "quorum": "3 of 4",
        "votes_notarize": 1,
        "votes_nullify": 0,
        "forks": 1,
        "blocks_per_s": 5.0,
        "finality_ms": 30.0,
    }
    assert {name: row[name] for name in wanted} == wanted
    marked = [line.split()[0] for line in lines(row, colour=False) if line.endswith("!")]
    assert marked == ["epochs_behind", "forks"]
    edge = look({"role": "edge", "waiting_s": 301}, {}, Instant(0))
    assert edge["epochs_behind"] is None
    assert "waiting_s" in [line.split()[0] for line in lines(edge, colour=False) if "!" in line]
    stale = look(after, {}, Instant(60 * SECOND))
    assert (stale["state"], stale["blocks_per_s"]) == ("not running", None)
    assert "\x1b[" in lines(stale, colour=True)[2]


def test_off_a_terminal_there_is_one_object_a_look(tmp_path: Path) -> None:
    settings = tmp_path / "hookprobe.yaml"
    settings.write_text("state: {path: state}\n")
    (tmp_path / "state").mkdir()
    status.write(tmp_path / "state", board().document(Instant(7 * SECOND), 0))
    told = CliRunner().invoke(dsm, ["top", "-c", str(settings), "--count", "2", "--every", "0.2"])
    assert told.exit_code == 0, told.output
    assert [json.loads(line)["final_epoch"] for line in told.output.splitlines()] == [5, 5]


def test_a_status_of_an_older_program_is_shown_as_far_as_it_goes() -> None:
    row = look({"node": "v", "metrics": "x"}, {}, Instant(0))
    assert row["votes_finalize"] == 0
    assert lines(row, colour=False)
