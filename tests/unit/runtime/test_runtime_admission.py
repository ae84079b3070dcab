"""What a validator's operator sees of an applicant, and whom this validator approves."""

import asyncio
import contextlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.dsm.ledger_net import V0, V1, V2, V3, validator
from tests.unit.dsm.test_dsm_changes import V4, act, later, net_of
from tests.unit.neuro.paper_tpm import PaperTpm

from hookprobe.dsm.effects import ValidatorApplied
from hookprobe.dsm.governance import Apply, Approve
from hookprobe.errors import UnauthorizedError
from hookprobe.node.seats import Anchor, Seat, Terms, encode_attestation
from hookprobe.runtime.control import Row
from hookprobe.runtime.validator_desk import Admission, ValidatorDesk
from hookprobe.wire.canonical import Json, JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import HOUR, Instant

TPM = PaperTpm()
KEY = TPM.name()[2:].hex()


class Applied:
    """A running mesh in which a candidate has applied."""

    def __init__(self, attested: str) -> None:
        self.net = net_of()
        self.net.boot_validator(V4)
        later(self.net)
        keys = self.net.mesh.keys
        voter, key = keys.vote_signer(V4), keys.signer(V4).public_key
        seat = Seat(self.net.mesh.chain, V4, key, voter.public_key)
        if attested == "for another seat":
            seat = Seat(self.net.mesh.chain, V0, key, voter.public_key)
        anchor = self.anchor()
        if attested == "with a checkpoint of another ledger":
            anchor = replace(anchor, checkpoint=bytes(32))
        quote = TPM.quote(seat.about(anchor.checkpoint))
        data = encode_attestation(anchor, TPM.attestation(), quote)
        attestation = b"" if attested == "nothing" else data
        act(self.net, V4, Apply(voter.public_key, voter.prove_possession(), attestation))
        later(self.net)
        found = self.net.of(ValidatorApplied, V0)[-1]
        assert isinstance(found, ValidatorApplied)
        self.application = found.application
        self.approved: list[object] = []
        self.later_us = 0

    def anchor(self) -> Anchor:
        """Ask the applicant's own validator, as `attest` does."""
        (row,) = self.ask(V4, Admission(), {"op": "checkpoint"})
        epoch, time_ms = row["epoch"], row["time_ms"]
        assert isinstance(epoch, int)
        assert isinstance(time_ms, int)
        return Anchor(epoch, bytes.fromhex(str(row["checkpoint"])), time_ms)

    def now(self) -> Instant:
        return Instant(self.net.now + self.later_us)

    def desk(self, admission: Admission, name: NodeId) -> ValidatorDesk:
        def take(what: object, now: object) -> list[Any]:
            self.approved.append(what)
            return []

        node: Any = SimpleNamespace(ledger=validator(self.net, name), act=take)
        log: Any = None
        clock: Any = self
        return ValidatorDesk(node, log, clock, admission)

    def order(self, admission: Admission, **request: Json) -> list[Row]:
        return self.ask(V0, admission, dict(request))

    def ask(self, name: NodeId, admission: Admission, request: JsonObject) -> list[Row]:
        fields = Fields(request, "request")
        return asyncio.run(self.desk(admission, name).perform(fields, lambda _: None))

    def shown(self, admission: Admission) -> Row:
        rows = self.order(admission, op="status")
        assert len({tuple(row) for row in rows}) == 1, "one table"
        (row,) = [row for row in rows if row["state"] == "applying"]
        return row


VOUCHED = Admission(Terms((KEY,)), require_tpm=True)
STRICT = Admission(Terms(), require_tpm=True)


@pytest.mark.parametrize(
    ("attested", "admission", "label", "key"),
    [
        ("rightly", VOUCHED, "tpm-attested", KEY),
        ("rightly", STRICT, "software-attested: nobody vouches for this TPM's key", KEY),
        ("for another seat", VOUCHED, "not attested: TPM quote: about something else", ""),
        (
            "with a checkpoint of another ledger",
            VOUCHED,
            "not attested: attestation: freshness unknown: its checkpoint of epoch",
            "",
        ),
        ("nothing", VOUCHED, "not attested: the application carries no attestation", ""),
    ],
)
def test_the_status_shows_what_an_applicant_is_attested_by(
    attested: str, admission: Admission, label: str, key: str
) -> None:
    applied = Applied(attested)
    row = applied.shown(admission)
    assert str(row["attestation"]).startswith(label)
    assert row["tpm_key"] == key
    order: dict[str, Json] = {"op": "approve", "application": applied.application.hex()}
    if label == "tpm-attested":
        assert isinstance(row["age_epochs"], int)
        assert isinstance(row["age_s"], int)
        assert 1 <= row["age_epochs"] <= 4
        assert 1 <= row["age_s"] <= 4
        applied.order(admission, **order)
        assert applied.approved == [Approve(applied.application)]
        return
    with pytest.raises(UnauthorizedError) as caught:
        applied.order(admission, **order)
    assert "require_tpm" in caught.value.hint
    assert not applied.approved
    applied.order(Admission(), **order)  # whoever asks for nothing may approve
    assert applied.approved == [Approve(applied.application)]


def test_an_attestation_grows_stale_while_nobody_approves() -> None:
    applied = Applied("rightly")
    order: dict[str, Json] = {"op": "approve", "application": applied.application.hex()}
    applied.later_us = 24 * HOUR  # the ledger stood still meanwhile: the host's clock counts
    row = applied.shown(VOUCHED)
    assert str(row["attestation"]).startswith("not attested: stale: at most ")
    assert row["tpm_key"] == KEY
    with pytest.raises(UnauthorizedError, match="stale"):
        applied.order(VOUCHED, **order)
    assert not applied.approved
    applied.later_us = -24 * HOUR  # a clock that is behind makes nothing younger than chain time
    seconds = applied.shown(VOUCHED)["age_s"]
    assert isinstance(seconds, int)
    assert seconds >= 1
    applied.order(VOUCHED, **order)
    assert applied.approved == [Approve(applied.application)]


@pytest.mark.parametrize(
    ("attested", "lax", "admitted"),
    [("nothing", 2, False), ("nothing", 3, True), ("rightly", 0, True)],
)
def test_a_quorum_of_validators_that_ask_lets_nobody_else_in(
    attested: str, lax: int, admitted: bool
) -> None:
    applied = Applied(attested)
    net, wanted = applied.net, applied.application
    for at, name in enumerate((V0, V1, V2, V3)):
        admission = Admission() if at < lax else VOUCHED
        with contextlib.suppress(UnauthorizedError):
            applied.ask(name, admission, {"op": "approve", "application": wanted.hex()})
            act(net, name, Approve(wanted))
    later(net, 6)
    assert (V4 in validator(net, V0).court.validators.ids) == admitted
