"""What a verifier tells a device: the verdict, where to go on, and the nonce to answer to.

    {"certificate": hex, "epoch": n, "last": hex, "next": n, "nonce": hex, "type": "V", "v": 1,
     "verdict": text}

The verifier greets a device with one when a session begins (`verdict` is then empty or the last
one) and sends one for every batch. `certificate` is a resonance certificate or empty. `last` is the
SHA-256 of the record before `next`, so that a device learns at once if another one continued its
history.
"""

from dataclasses import dataclass

from hookprobe.errors import MalformedError
from hookprobe.neuro.batch import NONCE_BYTES
from hookprobe.neuro.epochs import EPOCH_MAX
from hookprobe.neuro.ter import NO_RECORD
from hookprobe.neuro.verdict import BY_NAME, Verdict
from hookprobe.wire import canonical
from hookprobe.wire.fields import Fields

ANSWER_MAX_BYTES = 1 << 13
_CERTIFICATE_MAX_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `next_index` is the index of the first record the verifier lacks.

    `last` names the record before it: `hash_record`, or zeros where there is none.
    """

    verdict: Verdict | None
    epoch: int
    next_index: int
    nonce: bytes
    last: bytes = NO_RECORD
    certificate: bytes = b""

    def encode(self) -> bytes:
        """Return the wire form."""
        return canonical.encode(
            {
                "certificate": self.certificate.hex(),
                "epoch": self.epoch,
                "last": self.last.hex(),
                "next": self.next_index,
                "nonce": self.nonce.hex(),
                "type": "V",
                "v": 1,
                "verdict": "" if self.verdict is None else self.verdict.value,
            }
        )


def decode_answer(data: bytes) -> Answer:
    """Read the wire form.

    Raises:
        MalformedError: Not an answer.
    """
    fields = Fields(canonical.decode_object(data, limit=ANSWER_MAX_BYTES), "NEURO answer")
    fields.literal("type", "V")
    fields.literal("v", 1)
    said = fields.text("verdict")
    if said and said not in BY_NAME:
        raise MalformedError("NEURO answer: unknown verdict")
    answer = Answer(
        verdict=BY_NAME.get(said),
        epoch=fields.integer("epoch", high=EPOCH_MAX),
        next_index=fields.integer("next"),
        nonce=fields.hex("nonce", NONCE_BYTES),
        last=fields.hex("last", len(NO_RECORD)),
        certificate=fields.octets("certificate", limit=_CERTIFICATE_MAX_BYTES),
    )
    fields.finish()
    return answer
