"""What `hookprobe verifier` may ask of the running verifier; see `runtime.control` for the socket.

    devices                              every device and how it stands
    accept   node, [measurement]         make a measurement golden
    announce manifest, [nodes]           allow a signed update on devices; without nodes: on all
    vouch    node                        confirm that its endorsement key is a real TPM's
    epoch    node                        begin a new weight epoch
    open     node, index                 ask the device to open a record's entropy commitment
    proof    node, block fields          check the PoSF in a microblock by replaying the history

Every order is durable before the asker hears of it.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict

from hookprobe.crypto.signing import Ed25519
from hookprobe.errors import LocalError, MalformedError, UnavailableError
from hookprobe.neuro.manifest import open_manifest
from hookprobe.neuro.quote_documents import Enrolled
from hookprobe.neuro.standing import Standing
from hookprobe.node.host import Effect
from hookprobe.node.observations import CommitmentOpened, Observation
from hookprobe.node.resonance import BlockProof
from hookprobe.node.rooms import RoomEffect
from hookprobe.node.verifier import VerifierNode
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.control import Row, Say
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import NodeId, parse_node_id

SOCKET_FILE = "verifier.sock"
ANSWER_WAIT_S = 10.0
_MANIFEST_MAX_DIGITS = 1 << 15
_NODES_MAX = 16_384


class VerifierDesk:
    """Takes an operator's orders for a running verifier.

    Args:
        node: The verifier.
        update_keys: Who may sign update manifests: the mesh's CAs.
        clock: Says what time it is.
    """

    def __init__(self, node: VerifierNode, update_keys: Sequence[bytes], clock: Clock) -> None:
        self._node = node
        self._update_keys = update_keys
        self._clock = clock
        self._waiting: dict[tuple[NodeId, int], asyncio.Future[CommitmentOpened]] = {}
        self.execute: Callable[[Sequence[Effect]], None] = lambda _: None

    def report(self, observation: Observation) -> None:
        """Hand an opened commitment to whoever asked for it."""
        if isinstance(observation, CommitmentOpened):
            waiting = self._waiting.pop((observation.node, observation.index), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(observation)

    async def perform(self, fields: Fields, say: Say) -> list[Row]:
        """Carry out one order.

        Raises:
            HookProbeError: It cannot be.
        """
        del say
        operation = fields.text("op")
        match operation:
            case "devices":
                fields.finish()
                return self.rows()
            case "announce":
                return self._announce(fields)
            case "accept" | "vouch" | "epoch" | "open" | "proof":
                return await self._about_device(operation, fields)
            case _:
                raise MalformedError(f"request: no order {operation[:20]!r}")

    def rows(self) -> list[Row]:
        """Return how every device stands."""
        room, now = self._node.verification, self._clock.now()
        rows = []
        for standing in room.standings():
            label, known = room.tpm(standing.node, now)
            row = _row(standing, room.is_connected(standing.node), standing.trust.level(now))
            rows.append({**row, "attestation": label, "tpm": _tpm(known)})
        return rows

    async def _about_device(self, operation: str, fields: Fields) -> list[Row]:
        node = parse_node_id(fields.text("node"))
        room = self._node.verification
        match operation:
            case "accept":
                given = fields.hex("measurement", 20) if fields.has("measurement") else None
                fields.finish()
                self._carry(room.accept(node, given, self._clock.now()))
            case "vouch":
                fields.finish()
                self._carry(room.vouch(node, self._clock.now()))
            case "epoch":
                fields.finish()
                self._carry(room.order_epoch(node, self._clock.now()))
            case "open":
                index = fields.integer("index")
                fields.finish()
                return [await self._open(node, index)]
            case _:
                return [await self._prove(node, fields)]
        return [row for row in self.rows() if row["device"] == node]

    def _announce(self, fields: Fields) -> list[Row]:
        digits = fields.text("manifest", limit=_MANIFEST_MAX_DIGITS)
        data = Fields({"manifest": digits}, "request").hex("manifest", len(digits) // 2)
        named = fields.array("nodes", limit=_NODES_MAX) if fields.has("nodes") else []
        fields.finish()
        manifest = open_manifest(data, self._update_keys, Ed25519())
        nodes = tuple(parse_node_id(item) for item in named) or self._node.verification.nodes()
        self._carry(self._node.verification.announce(nodes, manifest))
        return [{"version": manifest.version, "devices": len(nodes)}]

    async def _open(self, node: NodeId, index: int) -> Row:
        found: asyncio.Future[CommitmentOpened] = asyncio.get_running_loop().create_future()
        self._waiting[(node, index)] = found
        try:
            self._carry(self._node.verification.demand_opening(node, index))
            opened = await asyncio.wait_for(found, ANSWER_WAIT_S)
        except TimeoutError:
            raise UnavailableError(
                f"{node} did not open record {index}",
                hint="an opening that is not its record's is refused; the log says so",
            ) from None
        finally:
            self._waiting.pop((node, index), None)
        if opened.counters is None:
            raise LocalError(f"{node} keeps the opening of record {index} no more")
        return {"device": node, "record": index, **asdict(opened.counters)}

    async def _prove(self, node: NodeId, fields: Fields) -> Row:
        proof = BlockProof(
            payload_hash=fields.hex("payload_hash", 32),
            prev=fields.hex("prev", 32),
            seq=fields.integer("seq", low=1),
            ter_hash=fields.hex("ter_hash", 32),
            w_fingerprint=fields.hex("w_fingerprint", 64),
            posf=fields.hex("posf_signature", 32),
        )
        fields.finish()
        check = self._node.verification.proof_check(node)
        # Replaying a long history takes a while; the node goes on beside it.
        found = await asyncio.to_thread(check, proof)
        return {"device": node, "seq": proof.seq, "proof": found.value}

    def _carry(self, effects: list[RoomEffect]) -> None:
        self.execute(self._node.carry(effects, self._clock.now()))


def _tpm(known: Enrolled | None) -> str:
    if known is None:
        return "none shown"
    digest = hashlib.sha256(known.endorsement).hexdigest()[:16]
    return f"{digest} {'vouched for' if known.vouched else 'unconfirmed: hookprobe verifier vouch'}"


def _row(standing: Standing, connected: bool, trust: int) -> Row:
    last = standing.state.previous
    golden = standing.baseline.golden
    return {
        "device": standing.node,
        "attestation": "",
        "verdict": standing.verdict.value if standing.verdict else "not heard of",
        "trust": trust,
        "epoch": standing.epoch,
        "records": standing.state.count,
        "connected": connected,
        "golden": golden.hex(),
        "measured": last.h_integrity.hex() if last else "",
        "version": standing.baseline.version,
        "broken_at": standing.broken_at,
        "forked": standing.forked,
    }
