"""Opening paths below one folder, whatever symbolic links somebody plants there meanwhile.

Linux 5.6 has `openat2`, which refuses in the kernel to leave a folder or to follow any link; it is
called by its number because the C library has no wrapper. Where the kernel or a container's filter
does not offer it, every component is opened by itself with O_NOFOLLOW, relative to the one before.
"""

import ctypes
import errno
import os
from pathlib import Path

OPENAT2 = 437  # the same number on every architecture
_RESOLVE = 0x02 | 0x04 | 0x08  # NO_MAGICLINKS, NO_SYMLINKS, BENEATH
_RENAME_NOREPLACE = 1
_ABSENT = (errno.ENOSYS, errno.EPERM, errno.EINVAL)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS = 8

_LIBC = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    """`struct open_how` of openat2(2)."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_by_kernel(folder: int, path: str, flags: int) -> int:
    """Open `path` below the open folder with openat2.

    Raises:
        OSError: As open; EXDEV where the path leads out, ELOOP at a link, ENOSYS without openat2.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE)
    for _ in range(_ATTEMPTS):
        handle = _LIBC.syscall(
            ctypes.c_long(OPENAT2),
            ctypes.c_int(folder),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if handle >= 0:
            return int(handle)
        # EAGAIN: something was renamed while the kernel looked, and it cannot be sure.
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), path)


def open_by_steps(folder: int, path: str, flags: int) -> int:
    """Open `path` below the open folder, one component after the other.

    Raises:
        OSError: As open; EXDEV where the path leads out, ELOOP or ENOTDIR at a link.
    """
    names = path.split("/")
    if any(name in ("", "..") for name in names):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    current = os.dup(folder)
    try:
        for name in names[:-1]:
            inner = os.open(name, _FOLDER, dir_fd=current)
            os.close(current)
            current = inner
        return os.open(names[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
    finally:
        os.close(current)


def open_beneath(folder: int, path: str, flags: int) -> int:
    """Open `path` below the open folder, without following any link.

    Raises:
        OSError: As open; EXDEV, ELOOP or ENOTDIR where the path leads elsewhere.
    """
    try:
        return open_by_kernel(folder, path, flags)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
    return open_by_steps(folder, path, flags)


def open_folder(folder: int, path: str, *, create: bool = False) -> int:
    """Open the folder `path` ("" is the outer folder itself), making it if asked to.

    Raises:
        OSError: As `open_beneath`.
    """
    if create and path:
        names = path.split("/")
        for count in range(1, len(names) + 1):
            _make(folder, "/".join(names[:count]))
    return open_beneath(folder, path or ".", os.O_RDONLY | os.O_DIRECTORY)


def _make(folder: int, path: str) -> None:
    outer, _, name = path.rpartition("/")
    parent = open_folder(folder, outer)
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
        os.fsync(parent)
    except FileExistsError:
        return
    finally:
        os.close(parent)


def rename_noreplace(folder: int, source: str, target: str) -> None:
    """Rename within a folder unless the target exists.

    Raises:
        OSError: EEXIST where it does.
    """
    rename = getattr(_LIBC, "renameat2", None)
    if rename is not None:
        names = (os.fsencode(source), os.fsencode(target))
        result = rename(folder, names[0], folder, names[1], ctypes.c_uint(_RENAME_NOREPLACE))
        if result == 0:
            return
        number = ctypes.get_errno()
        if number not in _ABSENT:
            raise OSError(number, os.strerror(number), target)
    # A second name cannot take the place of a file either; a crash in between leaves both names.
    os.link(source, target, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    os.unlink(source, dir_fd=folder)


def open_root(root: Path) -> int:
    """Open the outer folder, making it if it is not there.

    Raises:
        OSError: It cannot be made or opened.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(root, _FOLDER)
