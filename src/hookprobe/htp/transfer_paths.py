"""Which paths a peer may name: relative, in one normal form, nothing hidden, nothing unseen."""

import unicodedata

from hookprobe.errors import UnauthorizedError

PATH_MAX_BYTES = 1024
NAME_MAX_BYTES = 255
DEPTH_MAX = 16

_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def check_path(path: str, *, folder: bool = False) -> str:
    """Return the path of a file, or of a folder, where "" is the outermost.

    Raises:
        UnauthorizedError: Absolute, leaving the folder, hidden, or not plainly legible.
    """
    if folder and not path:
        return path
    names = path.split("/")
    if len(path.encode("utf-8", "surrogatepass")) > PATH_MAX_BYTES or len(names) > DEPTH_MAX:
        raise UnauthorizedError("file path: too long or too deep")
    for name in names:
        # Names with a leading dot are ours: parts and journals of transfers under way.
        if not name or name.startswith(".") or "\\" in name:
            raise UnauthorizedError("file path: empty, hidden or leading elsewhere")
        if any(unicodedata.category(sign) in _UNSEEN for sign in name):
            raise UnauthorizedError("file path: a sign that cannot be seen")
        if len(name.encode()) > NAME_MAX_BYTES or unicodedata.normalize("NFC", name) != name:
            raise UnauthorizedError("file path: a name too long or not in normal form NFC")
    return path
