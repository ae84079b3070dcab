"""What a verifier can conclude from a batch of records (HP-NEURO-1 3.1)."""

from enum import Enum


class Verdict(Enum):
    """Outcomes; the value is what messages, certificates and stored rows carry."""

    RESONANT = "resonant"  # the whole history is held and every measurement is a known one
    TAMPER_REPORTED = "tamper-reported"  # the history is held; a measurement in it is not known
    DISSONANT = "dissonant"  # the proof does not come from this history
    FORK = "fork"  # two different records under one index: somebody copied the device
    REJECT_FORM = "reject-form"
    REJECT_DEVICE = "reject-device"
    REJECT_SIGNATURE = "reject-signature"
    REJECT_EPOCH = "reject-epoch"
    REJECT_SEQ = "reject-seq"
    REJECT_CRC = "reject-crc"
    REJECT_TIME = "reject-time"
    REJECT_NONCE = "reject-nonce"

    @property
    def took_records(self) -> bool:
        """Whether the verifier's copy of the state went on with the records."""
        return self in {Verdict.RESONANT, Verdict.TAMPER_REPORTED}

    @property
    def is_about_state(self) -> bool:
        """Whether it says something about the device's state, not only about one message."""
        return self.took_records or self in {Verdict.DISSONANT, Verdict.FORK}


BY_NAME = {verdict.value: verdict for verdict in Verdict}

# Said on every surface: without a TPM quote the device's own word is all there is.
SOFTWARE_ATTESTED = "software-attested"
TPM_ATTESTED = "tpm-attested"
ATTESTATIONS = (SOFTWARE_ATTESTED, TPM_ATTESTED)
