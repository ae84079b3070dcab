"""A TPM 2.0 of this host, through tpm2-pytss (the extra `tpm`): keys, credentials, quotes.

The endorsement key is the TPM's own (TCG EK templates L-2, ECC P-256, or L-1, RSA 2048). The
attestation key is a primary key of the endorsement hierarchy, so the same TPM gives the same key
after every boot and nothing needs to be stored. A TPM takes its time, so callers use a thread.
"""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hookprobe.crypto.tpm import Credential
from hookprobe.errors import ConfigError, HostError

if TYPE_CHECKING:
    from tpm2_pytss import ESAPI
    from tpm2_pytss.constants import ESYS_TR
    from tpm2_pytss.types import TPM2B_PUBLIC

EXTRA = "tpm"
QUOTED_PCRS = (0, 1, 2, 3, 7)
_PCR_SELECTION = "sha256:" + ",".join(map(str, QUOTED_PCRS))
_ATTRIBUTES = "sign|restricted|sign|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda"


@dataclass(frozen=True, slots=True)
class TpmIdentity:
    """Who a TPM is.

    Attributes:
        endorsement: TPMT_PUBLIC of its endorsement key.
        attestation: TPMT_PUBLIC of its attestation key.
        certificate: The maker's certificate of the endorsement key (DER); empty where it has none.
    """

    endorsement: bytes
    attestation: bytes
    certificate: bytes


@dataclass(frozen=True, slots=True)
class RawQuote:
    """A quote as the TPM gave it: TPMS_ATTEST, TPMT_SIGNATURE, and the PCR values read with it."""

    attest: bytes
    signature: bytes
    pcrs: dict[int, bytes]


class Tpm:
    """One TPM.

    Args:
        place: How to reach it, in the words of tpm2-tss: `device:/dev/tpmrm0`, `swtpm:port=2321`.

    Raises:
        ConfigError: The extra is not installed.
    """

    def __init__(self, place: str) -> None:
        if importlib.util.find_spec("tpm2_pytss") is None:
            raise ConfigError(
                ["identity.tpm: the package tpm2-pytss is not installed"],
                hint=f"pip install 'hookprobe[{EXTRA}]' (needs libtss2-dev and a C compiler)",
            )
        self._place = place
        # The library logs every index that a TPM does not have as an error; ours say what matters.
        os.environ.setdefault("TSS2_LOG", "all+none")

    @contextmanager
    def _open(self) -> "Iterator[ESAPI]":
        from tpm2_pytss import ESAPI, TSS2_Exception

        try:
            with ESAPI(self._place) as found:
                yield found
        except TSS2_Exception as error:
            raise HostError(
                f"TPM at {self._place}: {error}", hint="is it there, and may this user use it?"
            ) from error

    def identify(self) -> TpmIdentity:
        """Return who this TPM is.

        Raises:
            HostError: The TPM failed.
        """
        with (
            self._open() as tpm,
            _endorsement(tpm) as (_, endorsement),
            _attestation(tpm) as (_, attestation),
        ):
            return TpmIdentity(endorsement, attestation, _template(tpm)[0])

    def activate(self, credential: Credential) -> bytes:
        """Open a credential: the secret comes out only if both keys are of this TPM.

        Raises:
            HostError: It is not for this TPM and its attestation key, or the TPM failed.
        """
        from tpm2_pytss.types import TPM2B_ENCRYPTED_SECRET, TPM2B_ID_OBJECT

        with (
            self._open() as tpm,
            _endorsement(tpm) as (ek, _),
            _attestation(tpm) as (ak, _),
            _endorsement_session(tpm) as session,
        ):
            blob = TPM2B_ID_OBJECT(credential=credential.blob)
            seed = TPM2B_ENCRYPTED_SECRET(secret=credential.seed)
            return bytes(tpm.activate_credential(ak, ek, blob, seed, session2=session))

    def quote(self, qualifying: bytes) -> RawQuote:
        """Sign what was booted, together with `qualifying` (at most 64 bytes).

        Raises:
            HostError: The TPM failed.
        """
        from tpm2_pytss.types import TPM2B_DATA

        with self._open() as tpm, _attestation(tpm) as (ak, _):
            _, _, values = tpm.pcr_read(_PCR_SELECTION)
            attest, signature = tpm.quote(ak, _PCR_SELECTION, TPM2B_DATA(qualifying))
            pcrs = {n: bytes(value) for n, value in zip(QUOTED_PCRS, values, strict=True)}
            return RawQuote(bytes(attest), signature.marshal(), pcrs)


@contextmanager
def _primary(tpm: "ESAPI", template: "TPM2B_PUBLIC") -> "Iterator[tuple[ESYS_TR, bytes]]":
    from tpm2_pytss.constants import ESYS_TR
    from tpm2_pytss.types import TPM2B_SENSITIVE_CREATE

    handle, public, *_ = tpm.create_primary(
        TPM2B_SENSITIVE_CREATE(), template, ESYS_TR.RH_ENDORSEMENT
    )
    try:
        yield handle, public.publicArea.marshal()
    finally:
        tpm.flush_context(handle)


def _template(tpm: "ESAPI") -> "tuple[bytes, TPM2B_PUBLIC]":
    """Return the maker's certificate of the endorsement key, or nothing, and the key's template.

    Makers certify one of the two usual keys, or none: then the quicker one serves.
    """
    from tpm2_pytss.utils import NVReadEK, create_ek_template

    read = NVReadEK(tpm)
    found = [create_ek_template(kind, read) for kind in ("EK-ECC256", "EK-RSA2048")]
    certified = [(certificate, template) for certificate, template in found if certificate]
    return certified[0] if certified else (b"", found[0][1])


@contextmanager
def _endorsement(tpm: "ESAPI") -> "Iterator[tuple[ESYS_TR, bytes]]":
    with _primary(tpm, _template(tpm)[1]) as found:
        yield found


@contextmanager
def _attestation(tpm: "ESAPI") -> "Iterator[tuple[ESYS_TR, bytes]]":
    from tpm2_pytss.types import TPM2B_PUBLIC

    template = TPM2B_PUBLIC.parse("ecc256:ecdsa-sha256:null", objectAttributes=_ATTRIBUTES)
    with _primary(tpm, template) as found:
        yield found


@contextmanager
def _endorsement_session(tpm: "ESAPI") -> "Iterator[ESYS_TR]":
    """Yield a session that satisfies the endorsement key's policy: PolicySecret(endorsement)."""
    from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_SE

    session = tpm.start_auth_session(
        ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, None, TPM2_ALG.SHA256
    )
    try:
        tpm.policy_secret(ESYS_TR.RH_ENDORSEMENT, session)
        yield session
    finally:
        tpm.flush_context(session)
