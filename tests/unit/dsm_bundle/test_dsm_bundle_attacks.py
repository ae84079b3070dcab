"""Every forged, damaged or misassembled bundle is refused, and the line at fault is named."""

import pytest
from tests.unit.dsm_bundle.attacks import MESH, Attack, attacks, sample_bytes
from tests.unit.dsm_bundle.change_attacks import change_attacks
from tests.unit.dsm_bundle.forge import schemes

from hookprobe.dsm.bundle import BundleVerifier
from hookprobe.errors import RemoteError, VerificationError

verifier = BundleVerifier(schemes())


def fault(data: bytes) -> str:
    with pytest.raises(RemoteError) as caught:
        verifier.check(data)
    return caught.value.message


@pytest.mark.parametrize("attack", [*attacks(), *change_attacks()], ids=lambda attack: attack.name)
def test_attacks_are_refused_at_their_line(attack: Attack) -> None:
    assert attack.data != sample_bytes()
    assert fault(attack.data).startswith(f"line {attack.line}: ")


def test_no_attack_stands_for_two() -> None:
    names = [attack.name for attack in attacks()]
    assert len(names) == len(dict.fromkeys(names))


@pytest.mark.slow
def test_no_byte_can_be_changed() -> None:
    data = sample_bytes()
    starts = [0, *(place + 1 for place, byte in enumerate(data) if byte == 10)]
    for place in range(len(data)):
        message = fault(data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :])
        number = int(message.removeprefix("line ").partition(":")[0])
        own = sum(start <= place for start in starts)
        # What a line says may be refused where it is compared: at the last block of its receipt,
        # or in line 1. A line itself never excuses a fault in front of it.
        assert number >= own or number == 1, (place, message)


def test_no_bit_of_a_sample_of_bytes_can_be_changed() -> None:
    data = sample_bytes()
    for place in range(0, len(data), 41):
        for bit in range(8):
            fault(data[:place] + bytes((data[place] ^ 1 << bit,)) + data[place + 1 :])


def test_no_line_can_be_dropped_repeated_or_moved() -> None:
    lines = sample_bytes().splitlines(keepends=True)
    for place in range(len(lines)):
        fault(b"".join([*lines[:place], *lines[place + 1 :]]))
        fault(b"".join([*lines[: place + 1], *lines[place:]]))
        for other in range(place):
            swapped = list(lines)
            swapped[place], swapped[other] = swapped[other], swapped[place]
            fault(b"".join(swapped))


def test_no_byte_can_be_missing_at_the_end() -> None:
    data = sample_bytes()
    for stop in [*range(0, len(data), 29), *range(len(data) - 50, len(data))]:
        fault(data[:stop])


def test_no_byte_can_be_removed_or_put_in() -> None:
    data = sample_bytes()
    for place in range(0, len(data), 37):
        fault(data[:place] + data[place + 1 :])
        fault(data[:place] + b" " + data[place:])


def test_another_chain_than_the_pinned_one_is_refused() -> None:
    pinned = BundleVerifier(schemes(), b"x" * 32)
    with pytest.raises(VerificationError, match=r"^line 2: .*trusted"):
        pinned.check(sample_bytes())
    assert BundleVerifier(schemes(), MESH.chain).check(sample_bytes()).pinned


def test_a_refused_genesis_is_not_remembered() -> None:
    own = BundleVerifier(schemes())
    bad = next(item for item in attacks() if item.name == "possession proofs swapped")
    for _ in range(2):
        with pytest.raises(VerificationError, match="possession"):
            own.check(bad.data)
    assert own.check(sample_bytes()).blocks == 7


def test_too_large_a_bundle_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookprobe.dsm.bundle.BUNDLE_MAX_BYTES", len(sample_bytes()))
    assert verifier.check(sample_bytes()).blocks == 7
    assert "limit" in fault(sample_bytes() + b"\n")
