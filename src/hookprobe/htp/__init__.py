"""The HookProbe transport: authenticated, sealed, ordered channels between nodes over UDP.

The names of the public documents can be imported from here. What does input or output lives in
`runtime` and is looked up on first use, so that importing the room stays pure.
"""

from hookprobe.faces import find_face

FACES = {
    "AsyncHookProbeTransport": "hookprobe.runtime.transport:AsyncHookProbeTransport",
    "FileOperation": "hookprobe.htp.transfer_codec:FileOperation",
    "HTPFileTransfer": "hookprobe.runtime.file_transfer:HTPFileTransfer",
    "HookProbeTransport": "hookprobe.runtime.transport:HookProbeTransport",
    "SwarmCollector": "hookprobe.htp.swarm:SwarmCollector",
    "MessageType": "hookprobe.htp.packet:PacketType",
}


def __getattr__(name: str) -> object:
    return find_face(__name__, FACES, name)
