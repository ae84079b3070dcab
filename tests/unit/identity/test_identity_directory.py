import dataclasses

import pytest

from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.errors import LocalError, MalformedError, RemoteError, VerificationError
from hookprobe.identity import directory as directories
from hookprobe.identity import secrets
from hookprobe.identity.device import DeviceStatus, StatusChange, next_status
from hookprobe.identity.directory import Device, Directory, accept, parse_address, sign
from hookprobe.wire.identifiers import ChainId, NodeId
from hookprobe.wire.instant import Instant

CA = Ed25519Signer(b"\x01" * 32)
OTHER = Ed25519Signer(b"\x02" * 32)
SCHEME = Ed25519()
NOW = Instant(1_000)


def device(name: str, status: DeviceStatus = DeviceStatus.ACTIVE) -> Device:
    return Device(
        node=NodeId(name),
        role="validator",
        tenant="t-1",
        status=status,
        signing_key=b"\x03" * 32,
        agreement_key=b"\x04" * 32,
        addresses=("192.0.2.1:4719",),
        w_fingerprint=b"\x05" * 64,
    )


DIRECTORY = Directory(
    chain=ChainId("a" * 64),
    version=2,
    issued=Instant(1),
    expires=Instant(2_000),
    devices=(device("a"), device("b", DeviceStatus.SUSPENDED)),
)
SIGNED = sign(DIRECTORY, CA)


def take(data: bytes, now: Instant = NOW, current: Directory | None = None) -> Directory:
    return accept(data, (CA.public_key,), SCHEME, now, current)


def test_a_signed_directory_is_accepted() -> None:
    found = take(SIGNED)
    assert found == DIRECTORY
    assert [item.node for item in found.validators()] == ["a"]
    assert found.find(NodeId("b")) == DIRECTORY.devices[1]
    assert found.find(NodeId("c")) is None


def test_no_byte_of_it_can_change() -> None:
    for at in range(0, len(SIGNED), 7):
        forged = SIGNED[:at] + bytes([SIGNED[at] ^ 1]) + SIGNED[at + 1 :]
        with pytest.raises(RemoteError):
            take(forged)
    with pytest.raises(RemoteError):
        take(SIGNED[:-1])


def test_only_a_ca_of_the_mesh_signs() -> None:
    with pytest.raises(VerificationError, match="no CA"):
        take(sign(DIRECTORY, OTHER))


def test_it_expires() -> None:
    with pytest.raises(VerificationError, match="expired"):
        take(SIGNED, Instant(2_000))


def test_it_never_goes_back_and_never_has_two_faces() -> None:
    newer = dataclasses.replace(DIRECTORY, version=3)
    assert take(sign(newer, CA), current=DIRECTORY) == newer
    assert take(SIGNED, current=DIRECTORY) == DIRECTORY
    with pytest.raises(VerificationError, match="version 2 after version 3"):
        take(SIGNED, current=newer)
    twin = dataclasses.replace(DIRECTORY, devices=())
    with pytest.raises(VerificationError, match="version 2 after version 2"):
        take(sign(twin, CA), current=DIRECTORY)
    foreign = dataclasses.replace(newer, chain=ChainId("b" * 64))
    with pytest.raises(VerificationError, match="another chain"):
        take(sign(foreign, CA), current=DIRECTORY)


@pytest.mark.parametrize("names", [("b", "a"), ("a", "a")])
def test_devices_are_sorted_and_named_once(names: tuple[str, str]) -> None:
    devices = tuple(device(item) for item in names)
    with pytest.raises(MalformedError, match="sorted"):
        take(sign(dataclasses.replace(DIRECTORY, devices=devices), CA))


def test_a_directory_is_bounded() -> None:
    with pytest.raises(RemoteError):
        take(b"x" * (directories.DIRECTORY_MAX_BYTES + 1))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("192.0.2.1:4719", ("192.0.2.1", 4719)), ("[2001:db8::1]:1", ("2001:db8::1", 1))],
)
def test_addresses(text: str, wanted: tuple[str, int]) -> None:
    assert parse_address(text) == wanted


@pytest.mark.parametrize("text", ["", "host", ":1", "h:0", "h:65536", "h:+1", "h:1x", "h:٣"])
def test_wrong_addresses_are_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_address(text)


def test_status_steps() -> None:
    status = next_status(DeviceStatus.PENDING, StatusChange.APPROVE)
    assert next_status(status, StatusChange.SUSPEND) is DeviceStatus.SUSPENDED
    assert next_status(DeviceStatus.SUSPENDED, StatusChange.RESUME) is DeviceStatus.ACTIVE
    for change in StatusChange:
        with pytest.raises(LocalError):
            next_status(DeviceStatus.REVOKED, change)
    with pytest.raises(LocalError):
        next_status(DeviceStatus.PENDING, StatusChange.RESUME)


def fresh() -> secrets.NodeSecrets:
    counter = iter(range(1, 100))
    return secrets.generate(
        NodeId("edge-1"), b"\xaa" * 32, NOW, lambda count: bytes([next(counter)]) * count
    )


def test_secrets_round_trip_and_differ_from_each_other() -> None:
    ours = fresh()
    assert secrets.decode(ours.encode()) == ours
    drawn = [ours.signing, ours.voting, ours.agreement, ours.reset, ours.neuro, ours.salt]
    assert len(dict.fromkeys(drawn)) == 6
    assert ours.tenant == b"\xaa" * 32


def test_secrets_show_in_no_message() -> None:
    ours = fresh()
    assert ours.signing.hex() not in repr(ours)
    assert repr(ours.signing) not in repr(ours)
    data = ours.encode()
    for broken in (data[:-1], data.replace(b'"v":1', b'"v":2'), b"", b"\xff", data + b"x"):
        with pytest.raises(MalformedError) as caught:
            secrets.decode(broken)
        assert "edge-1" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.hint
