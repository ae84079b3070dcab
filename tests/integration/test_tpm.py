"""A real TPM 2.0 implementation (swtpm) under real nodes: attested, tampered, exchanged."""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.test_verifier import Operator

from hookprobe.config.load import load
from hookprobe.crypto import tpm as verifier
from hookprobe.dsm.court import convene
from hookprobe.dsm.genesis import decode_genesis
from hookprobe.dsm.history import History
from hookprobe.errors import HostError, VerificationError
from hookprobe.node.build import SCHEMES
from hookprobe.node.seats import NOT_ATTESTED, Terms, judge_attestation, past_of, seat_of
from hookprobe.runtime.keystore import read_roots
from hookprobe.runtime.ledger_store import open_store, place_of
from hookprobe.runtime.local_mesh import VERIFIER, LocalMesh, MeshShape, free_ports
from hookprobe.runtime.tpm import QUOTED_PCRS, Tpm
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import HOUR, MILLISECOND, Instant

pytestmark = pytest.mark.skipif(
    shutil.which("swtpm") is None or importlib.util.find_spec("tpm2_pytss") is None,
    reason="swtpm or tpm2-pytss is not installed",
)


class SoftTpm:
    """One swtpm with a certificate by a maker of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        state, maker = folder / "tpm", folder / "maker"
        state.mkdir(parents=True)
        maker.mkdir()
        (folder / "localca.conf").write_text(
            f"statedir = {maker}\nsigningkey = {maker}/signkey.pem\n"
            f"issuercert = {maker}/issuercert.pem\ncertserial = {maker}/certserial\n"
        )
        (folder / "localca.options").write_text(
            "--platform-manufacturer Test\n--platform-version 1\n--platform-model paper\n"
        )
        (folder / "setup.conf").write_text(
            "create_certs_tool = /usr/bin/swtpm_localca\n"
            f"create_certs_tool_config = {folder}/localca.conf\n"
            f"create_certs_tool_options = {folder}/localca.options\n"
            "active_pcr_banks = sha256\n"
        )
        command = ["swtpm_setup", "--tpm2", "--tpmstate", str(state), "--create-ek-cert"]
        command += ["--config", str(folder / "setup.conf")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        self.start()

    def start(self) -> None:
        """Switch it on."""
        self.port = _two_ports()
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.folder / 'tpm'}"]
        command += ["--server", f"type=tcp,port={self.port},bindaddr=127.0.0.1"]
        command += ["--ctrl", f"type=tcp,port={self.port + 1},bindaddr=127.0.0.1"]
        command += ["--flags", "not-need-init,startup-clear"]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        for _ in range(100):
            try:
                Tpm(self.place).identify()
            except HostError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError("swtpm does not answer")

    @property
    def place(self) -> str:
        return f"swtpm:host=127.0.0.1,port={self.port}"

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def roots(self) -> list[bytes]:
        return read_roots(self.folder / "maker" / "issuercert.pem")

    def extend(self, number: int) -> None:
        """Measure something more, as another boot would."""
        from tpm2_pytss import ESAPI
        from tpm2_pytss.constants import ESYS_TR
        from tpm2_pytss.types import TPML_DIGEST_VALUES, TPMT_HA, TPMU_HA

        digest = TPMT_HA(hashAlg=0x0B, digest=TPMU_HA(sha256=b"\x01" * 32))
        with ESAPI(self.place) as found:
            found.pcr_extend(ESYS_TR(number), TPML_DIGEST_VALUES([digest]))


def _two_ports() -> int:
    """Return a free port whose successor is free too: swtpm's control port."""
    for _ in range(50):
        (port,) = free_ports(1)
        if port % 2 == 0:
            return port
    raise AssertionError("no two free ports")


@pytest.fixture
def soft_tpm(tmp_path: Path) -> Iterator[SoftTpm]:
    made = SoftTpm(tmp_path / "soft")
    yield made
    made.stop()


def test_keys_credentials_and_quotes_of_a_real_implementation(soft_tpm: SoftTpm) -> None:
    device = Tpm(soft_tpm.place)
    who = device.identify()
    assert device.identify() == who, "the same keys every time"
    endorsement = verifier.parse_endorsement_key(who.endorsement)
    attestation = verifier.parse_attestation_key(who.attestation)
    now = Instant(time.time_ns() // 1000)
    verifier.check_maker(who.certificate, endorsement, soft_tpm.roots(), now)

    secret = os.urandom(32)
    credential = verifier.seal_credential(endorsement, attestation.name, secret, os.urandom)
    assert device.activate(credential) == secret
    other_name = attestation.name[:-1] + bytes([attestation.name[-1] ^ 1])
    with pytest.raises(HostError):
        device.activate(verifier.seal_credential(endorsement, other_name, secret, os.urandom))

    about = os.urandom(32)
    raw = device.quote(about)
    assert tuple(raw.pcrs) == QUOTED_PCRS
    quote = verifier.check_quote(attestation, raw.attest, raw.signature, about, raw.pcrs)
    with pytest.raises(VerificationError):
        verifier.check_quote(attestation, raw.attest, raw.signature, bytes(32), raw.pcrs)
    soft_tpm.extend(7)
    after = device.quote(about)
    assert after.pcrs[7] != raw.pcrs[7]
    with pytest.raises(VerificationError, match="other PCR values"):
        verifier.check_quote(attestation, after.attest, after.signature, about, raw.pcrs)
    soft_tpm.stop()
    soft_tpm.start()
    again = Tpm(soft_tpm.place)
    assert again.identify() == who, "and after every boot"
    raw = again.quote(about)
    booted = verifier.check_quote(attestation, raw.attest, raw.signature, about, raw.pcrs)
    assert booted.resets > quote.resets


def test_an_applicants_tpm_vouches_for_its_keys(tmp_path: Path, soft_tpm: SoftTpm) -> None:
    mesh = LocalMesh(tmp_path / "mesh", MeshShape(1, (), 1000, {}))
    mesh.change_settings("validator-1", {"identity": {"tpm": soft_tpm.place}})
    settings = mesh.folder / "validator-1" / "hookprobe.yaml"
    out = tmp_path / "seat.tpm"
    command = [sys.executable, "-m", "hookprobe", "validator"]

    def type_(*words: str) -> subprocess.CompletedProcess[str]:
        told = [*command, words[0], "-c", str(settings), *words[1:]]
        return subprocess.run(told, capture_output=True, text=True, check=False)

    refused = type_("attest", str(out))
    assert refused.returncode == 4, "nothing dates it while the validator does not run"
    assert "is the node running" in refused.stderr
    assert not out.exists()

    async def story() -> None:
        await mesh.start(["validator-1"])
        try:
            done = await asyncio.to_thread(type_, "attest", str(out))
            for _ in range(100):
                if done.returncode != 4:  # neither up yet, nor anything final
                    break
                await asyncio.sleep(0.2)
                done = await asyncio.to_thread(type_, "attest", str(out))
            assert done.returncode == 0, done.stderr
            assert f"TPM key {key}, bound to the checkpoint of epoch" in done.stderr
            applied = await asyncio.to_thread(type_, "apply", "--attestation", str(out))
            assert applied.returncode == 0, applied.stderr
        finally:
            await mesh.stop()

    who = verifier.parse_attestation_key(Tpm(soft_tpm.place).identify().attestation)
    key = who.name[2:].hex()
    asyncio.run(story())
    genesis = decode_genesis((mesh.folder / "genesis.json").read_bytes())
    seat = seat_of(genesis.chain_id(), genesis.validators[0])
    with contextlib.closing(open_store(place_of(load(settings, {}, {})))) as store:
        history = History(genesis, convene(genesis, SCHEMES), store)
        found = history.sealed(0)
        assert found is not None
        now = Instant(found.header.timestamp_ms * MILLISECOND)
        past, terms = past_of(history, now), Terms((key,))
        judged = judge_attestation(out.read_bytes(), seat, past, terms)
        assert (judged.label, judged.reason) == ("tpm-attested", "")
        stale = past_of(history, Instant(time.time_ns() // 1000 + 24 * HOUR))
        assert "stale" in judge_attestation(out.read_bytes(), seat, stale, terms).reason
        other = replace(seat, node=NodeId("validator-2"))
        assert judge_attestation(out.read_bytes(), other, past, terms).label == NOT_ATTESTED


def test_the_makers_own_credential_tool_agrees(soft_tpm: SoftTpm) -> None:
    """Ours and the library's credentials open alike (the library as oracle)."""
    from tpm2_pytss.types import TPM2B_NAME, TPMT_PUBLIC
    from tpm2_pytss.utils import make_credential

    device = Tpm(soft_tpm.place)
    who = device.identify()
    attestation = verifier.parse_attestation_key(who.attestation)
    public, _ = TPMT_PUBLIC.unmarshal(who.endorsement)
    blob, seed = make_credential(public, b"s" * 32, TPM2B_NAME(attestation.name))
    theirs = verifier.Credential(bytes(blob), bytes(seed))
    assert device.activate(theirs) == b"s" * 32


def test_a_host_without_that_tpm_says_so() -> None:
    with pytest.raises(HostError, match="TPM at swtpm"):
        Tpm("swtpm:host=127.0.0.1,port=1").identify()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_edge_with_a_tpm_is_tpm_attested_until_it_boots_something_else(
    tmp_path: Path, soft_tpm: SoftTpm
) -> None:
    shape = MeshShape(1, (("edge-a", "t"),), 1000, {"neuro": {"interval_ms": 500}})
    mesh = LocalMesh(tmp_path / "mesh", shape)
    maker = str(soft_tpm.folder / "maker" / "issuercert.pem")
    mesh.change_settings(VERIFIER, {"neuro": {"interval_ms": 500, "tpm_roots": [maker]}})
    mesh.change_settings("edge-a", {"identity": {"tpm": soft_tpm.place}})
    operator = Operator(mesh)

    async def until(wanted: dict[str, object]) -> None:
        row: dict[str, object] = {}
        for _ in range(150):
            row = await asyncio.to_thread(operator.device)
            if wanted.items() <= row.items():
                return
            await asyncio.sleep(0.2)
        raise AssertionError(f"never {wanted}: {row}")

    async def story() -> None:
        await mesh.start(["validator-1", VERIFIER, "edge-a"])
        try:
            await asyncio.sleep(3)
            await until({"verdict": "resonant", "attestation": "tpm-attested"})
            soft_tpm.extend(7)
            await mesh.kill("edge-a")
            await mesh.start(["edge-a"])
            await until({"verdict": "tamper-reported", "attestation": "software-attested"})
            operator.type("verifier", "accept", "edge-a")
            await until({"verdict": "resonant", "attestation": "tpm-attested"})
        finally:
            await mesh.stop()

    asyncio.run(story())
