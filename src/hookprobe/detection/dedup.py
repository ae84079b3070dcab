"""One packet, one record: two interfaces report everything twice, and re-reading repeats.

Two reports are the same event when they name the same flow (by community id where there is one),
the same signature or transaction, and times within `skew_us`, coming from different interfaces; or
when they are the same report read twice. A report that an interface repeats at another time is
real: a rule may well match twice in one flow.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

from hookprobe.detection.event import (
    Activity,
    ArpSeen,
    Conversation,
    DhcpSeen,
    DnsSeen,
    FlowSeen,
    HttpSeen,
    LoginSeen,
    SecurityEvent,
    TlsSeen,
)

SIGHTINGS_MAX = 64


@dataclass(slots=True)
class _Sighting:
    at: int
    views: dict[tuple[str, str], int] = field(default_factory=dict)


class DoubleFilter:
    """Recognises records that were seen before.

    Args:
        skew_us: How far apart two interfaces may see one packet.
        keys_max: Events remembered; the least recently seen is forgotten first.
    """

    def __init__(self, skew_us: int, keys_max: int) -> None:
        self._skew_us = skew_us
        self._keys_max = keys_max
        self._seen: OrderedDict[Hashable, list[_Sighting]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def is_double(self, record: Activity) -> bool:
        """Whether the record repeats one that was passed in before."""
        key = _key(record)
        if key is None:
            return False
        sightings = self._seen.get(key)
        if sightings is None:
            sightings = self._seen[key] = []
            if len(self._seen) > self._keys_max:
                self._seen.popitem(last=False)
        else:
            self._seen.move_to_end(key)
        return self._is_known(sightings, _view(record), record.at)

    def _is_known(self, sightings: list[_Sighting], view: tuple[str, str], at: int) -> bool:
        if any(sighting.views.get(view) == at for sighting in sightings):
            return True
        for sighting in sightings:
            if view not in sighting.views and abs(sighting.at - at) <= self._skew_us:
                sighting.views[view] = at
                return True
        sightings.append(_Sighting(at, {view: at}))
        del sightings[:-SIGHTINGS_MAX]
        return False


def _view(record: Activity) -> tuple[str, str]:
    conversation = getattr(record, "conversation", None)
    if not isinstance(conversation, Conversation):
        return ("", "")
    return (conversation.in_iface, conversation.flow_id)


def _key(record: Activity) -> Hashable | None:
    match record:
        case SecurityEvent(conversation=None):
            return ("alert", record.signature_id, record.at)
        case SecurityEvent(conversation=Conversation() as between):
            sides = (between.src.packed, between.src_port)
            return ("alert", between.flow_key, sides, record.signature_id, record.tx_id)
        case FlowSeen():
            return ("flow", record.conversation.flow_key)
        case DnsSeen():
            question = (record.name, record.rrtype, record.is_answer, record.tx_id)
            return ("dns", record.conversation.flow_key, question)
        case TlsSeen():
            return ("tls", record.conversation.flow_key)
        case HttpSeen() | LoginSeen():
            return (type(record), record.conversation.flow_key, record.tx_id)
        case DhcpSeen():
            server = record.server.packed if record.server else b""
            assigned = record.assigned.packed if record.assigned else b""
            ends = (record.client_mac, server, assigned)
            return ("dhcp", record.kind, ends, record.transaction)
        case ArpSeen():
            target = record.target.packed if record.target else b""
            return ("arp", record.operation, record.address.packed, record.mac, target)
        case _:
            return None
