"""A lock of a run's folder, so that one process at a time trains a run."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.utils.errors import UserError

LOCK = ".lock"
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)


def lock_run(folder: Path) -> AbstractContextManager[object]:
    """Lock a run's folder for this process until the returned context ends, or the process does.

    A file system without locks lets every process train.

    Raises:
        UserError: if another process trains the run; it is named.
        OSError: if the folder cannot be written.
    """
    path = folder / LOCK
    # The soft lock, filelock's substitute where the file system has none, would outlive a killed process.
    lock = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        held = lock.acquire()
    except Timeout:
        holder = path.read_text(encoding="utf-8").strip() or "another process"
        raise UserError(f"{folder}: is being trained by {holder}; wait for it, or stop it") from None
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        return nullcontext()
    path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
    return held
