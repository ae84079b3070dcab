"""Every domain-separation label of the product.

A label says what a hash or signature is about, so that bytes made for one purpose can never be
taken for another. Adding one is free; changing one changes every id and signature made under it.
"""

from enum import Enum, unique


@unique
class Domain(Enum):
    """Labels; the value is hashed as `label || 0x00 || data`.

    Attributes:
        prefix: `label || 0x00`, made once because it is hashed a hundred thousand times a second.
    """

    def __init__(self, label: bytes) -> None:
        self.prefix = label + b"\0"

    # identity: who a node is
    GENESIS = b"hookprobe/identity/genesis/v1"
    NODE_CERTIFICATE = b"hookprobe/identity/certificate/v1"
    REVOCATION = b"hookprobe/identity/revocation/v1"
    DIRECTORY = b"hookprobe/identity/directory/v1"

    # dsm: blocks, checkpoints, agreement
    MICROBLOCK = b"hookprobe/dsm/microblock/v1"
    MICROBLOCK_SIGNATURE = b"hookprobe/dsm/microblock-sig/v1"
    PAYLOAD = b"hookprobe/dsm/payload/v1"
    CHECKPOINT = b"hookprobe/dsm/checkpoint/v1"
    PROPOSAL = b"hookprobe/dsm/proposal/v1"
    CUT = b"hookprobe/dsm/cut/v1"
    VALIDATORS = b"hookprobe/dsm/validators/v1"
    RANGES = b"hookprobe/dsm/ranges/v1"
    CUTS = b"hookprobe/dsm/cuts/v1"
    EVIDENCE = b"hookprobe/dsm/evidence/v1"
    HEADS = b"hookprobe/dsm/heads/v1"
    SEAT_QUOTE = b"hookprobe/dsm/seat-quote/v2"

    # detection: what may leave an edge
    INCIDENT = b"hookprobe/detection/incident/v1"
    PSEUDONYM = b"hookprobe/detection/pseudonym/v1"

    # htp: what a dialling node signs; the value is fixed by the wire specification
    HTP_ATTEST = b"HTP2 attest"

    # neuro: what devices prove and verifiers say about them
    NEURO_BATCH = b"hookprobe/neuro/batch/v1"
    NEURO_CERTIFICATE = b"hookprobe/neuro/certificate/v1"
    NEURO_MANIFEST = b"hookprobe/neuro/manifest/v1"
    NEURO_EPOCH = b"hookprobe/neuro/epoch/v1"
    NEURO_QUOTE = b"hookprobe/neuro/quote/v1"

    # identity: fingerprint components under a tenant's key
    HARDWARE = b"hookprobe/identity/hardware/v1"
