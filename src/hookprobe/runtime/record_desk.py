"""What other programs of a host may give a running edge to write down: the socket `record.sock`.

    -> {"event":{...},"event_type":"ids_alert","op":"record"}
    <- {"result":[{the block, as the query API shows it}]}

The event is in the one form that may leave an edge (`detection.privacy.SharedEvent`); anything else
has no encoder and is refused. When the answer comes, the block is durable.
"""

from collections.abc import Callable, Sequence

from hookprobe.detection.privacy import SharedEvent
from hookprobe.dsm.effects import BlockAppended
from hookprobe.errors import MalformedError, UnavailableError
from hookprobe.node.edge import EdgeNode
from hookprobe.node.host import Effect
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.control import Row, Say
from hookprobe.runtime.ledger_answers import show_block
from hookprobe.wire import canonical
from hookprobe.wire.fields import Fields

SOCKET_FILE = "record.sock"
EVENT_TYPES = ("ids_alert", "mitigation", "policy_update", "threat_intel")


class RecordDesk:
    """Takes events for a running edge.

    Args:
        node: The edge.
        clock: Says what time it is.
    """

    def __init__(self, node: EdgeNode, clock: Clock) -> None:
        self._node = node
        self._clock = clock
        self.execute: Callable[[Sequence[Effect]], None] = lambda _: None

    async def perform(self, fields: Fields, say: Say) -> list[Row]:
        """Carry out one request.

        Raises:
            MalformedError: Not a shared event, or of a type that is not known.
            UnavailableError: The edge does not know yet where its chain ends.
        """
        del say
        fields.literal("op", "record")
        event_type = fields.text("event_type", limit=32)
        if event_type not in EVENT_TYPES:
            raise MalformedError(f"event type {event_type!r}: one of {', '.join(EVENT_TYPES)}")
        event = SharedEvent.decode(canonical.encode(fields.object("event")))
        fields.finish()
        if not self._node.ledger.writing:
            raise UnavailableError(
                "the edge does not know yet where its chain ends", hint="try again in a moment"
            )
        effects = self._node.record(event_type, event, self._clock.now())
        self.execute(effects)
        written = [effect.signed for effect in effects if isinstance(effect, BlockAppended)]
        return [dict(show_block(written[-1]))]
