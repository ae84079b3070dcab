"""What a validator's operator sees of an applicant, and whom this validator approves."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.dsm.ledger_net import V0, validator
from tests.unit.dsm.test_dsm_changes import V4, act, later, net_of
from tests.unit.neuro.paper_tpm import PaperTpm

from hookprobe.dsm.effects import ValidatorApplied
from hookprobe.dsm.governance import Apply, Approve
from hookprobe.errors import UnauthorizedError
from hookprobe.node.seats import Seat, encode_attestation
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.control import Row
from hookprobe.runtime.validator_desk import Admission, ValidatorDesk
from hookprobe.wire.canonical import Json, JsonObject
from hookprobe.wire.fields import Fields

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
        data = encode_attestation(TPM.attestation(), TPM.quote(seat.about()))
        attestation = b"" if attested == "nothing" else data
        act(self.net, V4, Apply(voter.public_key, voter.prove_possession(), attestation))
        later(self.net)
        found = self.net.of(ValidatorApplied, V0)[-1]
        assert isinstance(found, ValidatorApplied)
        self.application = found.application
        self.approved: list[object] = []

    def desk(self, admission: Admission) -> ValidatorDesk:
        def take(what: object, now: object) -> list[Any]:
            self.approved.append(what)
            return []

        node: Any = SimpleNamespace(ledger=validator(self.net, V0), act=take)
        log: Any = None
        return ValidatorDesk(node, log, Clock(), admission)

    def order(self, admission: Admission, **request: Json) -> list[Row]:
        document: JsonObject = dict(request)
        fields = Fields(document, "request")
        return asyncio.run(self.desk(admission).perform(fields, lambda _: None))

    def shown(self, admission: Admission) -> Row:
        rows = self.order(admission, op="status")
        assert len({tuple(row) for row in rows}) == 1, "one table"
        (row,) = [row for row in rows if row["state"] == "applying"]
        return row


VOUCHED = Admission((KEY,), require_tpm=True)
STRICT = Admission((), require_tpm=True)


@pytest.mark.parametrize(
    ("attested", "admission", "label", "key"),
    [
        ("rightly", VOUCHED, "tpm-attested", KEY),
        ("rightly", STRICT, "software-attested: nobody vouches for this TPM's key", KEY),
        ("for another seat", VOUCHED, "not attested: TPM quote: about something else", ""),
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
        applied.order(admission, **order)
        assert applied.approved == [Approve(applied.application)]
        return
    with pytest.raises(UnauthorizedError) as caught:
        applied.order(admission, **order)
    assert "require_tpm" in caught.value.hint
    assert not applied.approved
    applied.order(Admission(), **order)  # whoever asks for nothing may approve
    assert applied.approved == [Approve(applied.application)]
