"""TPMs that hold, and every way in which they may lie to a verifier."""

import datetime
import os
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from tests.unit.neuro.paper_tpm import DECRYPTING, SIGNING, PaperTpm, p256

from hookprobe.crypto import tpm
from hookprobe.errors import LimitExceededError, LocalError, MalformedError, RemoteError
from hookprobe.neuro import quote_documents, quotes
from hookprobe.neuro.quote_documents import decode_enrolled
from hookprobe.neuro.quotes import (
    ASK_AGAIN_US,
    ASK_EVERY_US,
    ATTESTED_US,
    BootChanged,
    Quotes,
    SaveTpm,
    SendChallenge,
    Shown,
    TpmQuoted,
    TpmRefused,
    qualify,
)
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import SECOND, Instant

NODE = NodeId("edge-a")
NOW = Instant(1_800_000_000 * SECOND)
PRINT, LATER_PRINT, KEY = b"p" * 64, b"q" * 64, b"k" * 32
STATE = Shown((PRINT,), KEY)


class Bench:
    """A verifier's desk for one device."""

    def __init__(self, roots: tuple[bytes, ...] = ()) -> None:
        self.quotes = Quotes(roots, os.urandom)
        self.asked: quote_documents.Challenge | None = None
        self.stored = b""

    def take(self, effects: list[quotes.Effect]) -> list[quotes.Effect]:
        for effect in effects:
            if isinstance(effect, SendChallenge):
                self.asked = effect.challenge
            elif isinstance(effect, SaveTpm):
                self.stored = effect.data
        return [item for item in effects if not isinstance(item, SendChallenge | SaveTpm)]

    def claim(self, device: PaperTpm, now: Instant = NOW) -> list[quotes.Effect]:
        data = device.claim().encode()
        return self.take(self.quotes.receive_claim(NODE, data, now))

    def answer(self, device: PaperTpm, shown: bytes = PRINT, key: bytes = KEY) -> bytes:
        assert self.asked is not None
        secret = device.activate(self.asked.credential) or bytes(32)
        return device.quote(qualify(self.asked, secret, shown, key)).encode()

    def receive(self, data: bytes, state: Shown = STATE, now: Instant = NOW) -> list[quotes.Effect]:
        return self.take(self.quotes.receive_quote(NODE, data, state, now))


def test_a_vouched_tpm_makes_its_device_tpm_attested_for_a_while() -> None:
    bench, device = Bench(), PaperTpm()
    assert bench.claim(device) == []
    assert bench.receive(bench.answer(device)) == [TpmQuoted(NODE, "software-attested", 3)]
    assert bench.take(bench.quotes.vouch(NODE)) == []
    assert bench.quotes.attestation(NODE, NOW) == "tpm-attested"
    late = Instant(NOW + ATTESTED_US + 1)
    assert bench.quotes.attestation(NODE, late) == "software-attested"
    due = bench.quotes.next_timeout()
    assert due == NOW + ASK_EVERY_US
    bench.take(bench.quotes.handle_timeout(Instant(due)))
    said = bench.receive(
        bench.answer(device, LATER_PRINT), Shown((LATER_PRINT, PRINT), KEY), Instant(due)
    )
    assert said == [TpmQuoted(NODE, "tpm-attested", 3)]


def test_the_state_may_move_on_between_question_and_answer() -> None:
    bench, device = Bench(), PaperTpm()
    bench.claim(device)
    assert isinstance(
        bench.receive(bench.answer(device), Shown((LATER_PRINT, PRINT), KEY))[0], TpmQuoted
    )
    bench.claim(device)
    early = bench.answer(device, LATER_PRINT)
    assert isinstance(bench.receive(early, Shown((LATER_PRINT, PRINT), KEY))[0], TpmQuoted)
    bench.claim(device)
    assert isinstance(bench.receive(bench.answer(device), Shown((), KEY))[0], TpmRefused)
    assert bench.quotes.next_timeout() == NOW + ASK_AGAIN_US, "asked again soon"


@pytest.mark.parametrize(
    ("shown", "key"), [(b"z" * 64, KEY), (PRINT, b"z" * 32)], ids=["other weights", "other key"]
)
def test_a_quote_belongs_to_one_state_and_one_key(shown: bytes, key: bytes) -> None:
    bench, device = Bench(), PaperTpm()
    bench.claim(device)
    (refused,) = bench.receive(bench.answer(device, shown, key))
    assert isinstance(refused, TpmRefused)
    assert "something else" in refused.reason


def test_a_quote_is_good_once() -> None:
    bench, device = Bench(), PaperTpm()
    bench.claim(device)
    data = bench.answer(device)
    assert isinstance(bench.receive(data)[0], TpmQuoted)
    assert bench.receive(data) == [TpmRefused(NODE, "a quote that nobody asked for")]
    bench.claim(device)
    assert isinstance(bench.receive(data)[0], TpmRefused), "an old quote for a new question"


def test_another_tpm_cannot_answer_in_its_place() -> None:
    """Relay: the attacker's TPM has a key of the same kind, but cannot open the secret."""
    bench, device, other = Bench(), PaperTpm(), PaperTpm(seed=99)
    bench.claim(device)
    assert other.activate(bench.asked.credential) is None if bench.asked else False
    assert isinstance(bench.receive(bench.answer(other))[0], TpmRefused)
    # Its own endorsement key with the device's attestation key: the names do not fit.
    mixed = replace(device.claim(), endorsement=other.endorsement())
    fresh = Bench()
    fresh.take(fresh.quotes.receive_claim(NODE, mixed.encode(), NOW))
    assert fresh.asked is not None
    assert device.activate(fresh.asked.credential) is None
    assert isinstance(fresh.receive(fresh.answer(device))[0], TpmRefused)


def test_a_device_cannot_change_its_tpm() -> None:
    bench = Bench()
    bench.claim(PaperTpm())
    (refused,) = bench.claim(PaperTpm(seed=99))
    assert refused == TpmRefused(NODE, "another TPM than the one enrolled")
    again = Bench()
    again.quotes.resume(NODE, decode_enrolled(bench.stored))
    assert isinstance(again.claim(PaperTpm(seed=99))[0], TpmRefused), "also after a restart"


def test_what_is_booted_is_compared_with_what_was() -> None:
    bench, device = Bench(), PaperTpm()
    bench.claim(device)
    bench.receive(bench.answer(device))
    bench.quotes.vouch(NODE)
    device.pcrs[7] = b"\x07" * 32
    bench.claim(device)
    assert bench.receive(bench.answer(device)) == [BootChanged(NODE, (7,))]
    assert bench.quotes.attestation(NODE, NOW) == "software-attested"
    bench.take(bench.quotes.accept(NODE))
    assert bench.quotes.next_timeout() == 0, "it is asked at once"
    bench.claim(device)
    assert bench.receive(bench.answer(device)) == [TpmQuoted(NODE, "tpm-attested", 3)]
    del device.pcrs[1]
    bench.claim(device)
    assert bench.receive(bench.answer(device)) == [BootChanged(NODE, (1,))], "fewer PCRs"


def test_pcr_values_must_be_the_signed_ones() -> None:
    bench, device = Bench(), PaperTpm()
    bench.claim(device)
    assert bench.asked is not None
    secret = device.activate(bench.asked.credential) or b""
    honest = device.quote(qualify(bench.asked, secret, PRINT, KEY))
    for pcrs in ({**honest.pcrs, 7: b"\x01" * 32}, {0: bytes(32)}, {**honest.pcrs, 9: bytes(32)}):
        forged = replace(honest, pcrs=pcrs).encode()
        bench.claim(device)
        assert isinstance(bench.receive(forged)[0], TpmRefused)


def test_a_reset_count_never_goes_back() -> None:
    bench, device = Bench(), PaperTpm(resets=5)
    bench.claim(device)
    bench.receive(bench.answer(device))
    device.resets = 4
    bench.claim(device)
    (refused,) = bench.receive(bench.answer(device))
    assert isinstance(refused, TpmRefused)
    assert "went back" in refused.reason


def test_only_restricted_keys_of_a_tpm_are_keys() -> None:
    for bit in (1, 4, 5, 16, 18):  # fixedTPM, fixedParent, origin, restricted, sign
        loose = PaperTpm(signing=SIGNING & ~(1 << bit))
        assert isinstance(Bench().claim(loose)[0], TpmRefused), bit
    assert isinstance(Bench().claim(PaperTpm(signing=DECRYPTING | SIGNING))[0], TpmRefused)
    swapped = replace(PaperTpm().claim(), endorsement=PaperTpm().attestation())
    (refused,) = Bench().quotes.receive_claim(NODE, swapped.encode(), NOW)
    assert isinstance(refused, TpmRefused)


def test_only_what_a_tpm_made_itself_is_a_quote() -> None:
    """A restricted key signs other data too, but never data that begins with the magic number."""
    bench, device = Bench(), PaperTpm(magic=0x11111111)
    bench.claim(device)
    (refused,) = bench.receive(bench.answer(device))
    assert isinstance(refused, TpmRefused)
    assert "attests something else" in refused.reason


def test_every_changed_byte_of_a_quote_is_found() -> None:
    bench, device = Bench(), PaperTpm()
    bench.claim(device)
    data = bench.answer(device)
    for at in range(len(data)):
        bench.claim(device)
        # The right question, so that only the change can be at fault.
        good = bench.answer(device)
        bad = bytearray(good)
        bad[at % len(good)] ^= 1
        (said,) = bench.receive(bytes(bad))
        assert isinstance(said, TpmRefused), at


def test_truncated_and_oversized_messages_are_refused() -> None:
    claim, device = PaperTpm().claim().encode(), PaperTpm()
    bench = Bench()
    bench.claim(device)
    assert bench.asked is not None
    wholes = (
        (quote_documents.decode_claim, claim),
        (quote_documents.decode_challenge, bench.asked.encode()),
        (quote_documents.decode_quote, device.quote(bytes(32)).encode()),
    )
    for decode, whole in wholes:
        decode(whole)
        for cut in (0, 1, len(whole) // 2, len(whole) - 1):
            with pytest.raises(RemoteError):
                decode(whole[:cut])
        with pytest.raises(MalformedError):
            decode(whole + b"\0")
    with pytest.raises(LimitExceededError):
        tpm.parse_attestation_key(bytes(2000))
    with pytest.raises(LimitExceededError):
        tpm.seal_credential(
            tpm.parse_endorsement_key(device.endorsement()), device.name(), bytes(33), os.urandom
        )


def maker(
    device: PaperTpm, issuer: ec.EllipticCurvePrivateKey, days: int = 30, seed: int = 0
) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "maker")])
    begins = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)
    key = p256(seed).public_key() if seed else device.endorsement_key.public_key()
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key)
        .serial_number(5)
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=days))
    )
    return built.sign(issuer, hashes.SHA256()).public_bytes(Encoding.DER)


def test_a_maker_may_vouch_for_a_tpm() -> None:
    issuer, device = p256(1234), PaperTpm()
    root = maker(device, issuer, seed=1234)
    device.certificate = maker(device, issuer)
    bench = Bench((root,))
    assert bench.claim(device) == []
    assert bench.receive(bench.answer(device)) == [TpmQuoted(NODE, "tpm-attested", 3)]


def test_a_certificate_of_somebody_else_vouches_for_nothing() -> None:
    issuer, device = p256(1234), PaperTpm()
    root = maker(device, issuer, seed=1234)
    other_issuer = maker(device, p256(4321))
    other_key = maker(device, issuer, seed=555)
    for bad, reason in (
        (other_issuer, "issued by nobody"),
        (other_key, "about another key"),
        (maker(device, issuer, days=1), "not valid now"),
        (b"\x30\x03abc", "cannot be read"),
    ):
        device.certificate = bad
        (refused,) = Bench((root,)).claim(device)
        assert isinstance(refused, TpmRefused)
        assert reason in refused.reason
    # Without roots a certificate says nothing: an operator must vouch.
    bench = Bench()
    assert bench.claim(device) == []
    known = bench.quotes.enrolled(NODE)
    assert known is not None
    assert not known.vouched


def test_orders_about_a_tpm_that_is_not_there() -> None:
    bench = Bench()
    with pytest.raises(LocalError, match="has shown no TPM"):
        bench.quotes.vouch(NODE)
    assert bench.quotes.accept(NODE) == []
    assert bench.receive(PaperTpm().quote(bytes(32)).encode()) == [
        TpmRefused(NODE, "a quote that nobody asked for")
    ]


def test_what_is_kept_has_one_form() -> None:
    bench, device = Bench(), PaperTpm()
    bench.claim(device)
    bench.receive(bench.answer(device))
    kept = decode_enrolled(bench.stored)
    assert kept.encode() == bench.stored
    assert kept.pcrs == device.pcrs
    with pytest.raises(MalformedError):
        decode_enrolled(bench.stored[:-1])
