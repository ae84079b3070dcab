from hookprobe.htp.packet import PacketType as MessageType
from hookprobe.htp.swarm import SwarmCollector as SwarmCollector
from hookprobe.htp.transfer_codec import FileOperation as FileOperation
from hookprobe.runtime.file_transfer import HTPFileTransfer as HTPFileTransfer
from hookprobe.runtime.transport import AsyncHookProbeTransport as AsyncHookProbeTransport
from hookprobe.runtime.transport import HookProbeTransport as HookProbeTransport

FACES: dict[str, str]

__all__ = [
    "FACES",
    "AsyncHookProbeTransport",
    "FileOperation",
    "HTPFileTransfer",
    "HookProbeTransport",
    "MessageType",
    "SwarmCollector",
]
