"""One process at a time trains a run."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from pipeline.utils.errors import UserError

LOCK = ".lock"


def hold(folder: Path) -> IO[str]:
    """Take a run's folder for this process, until the returned file is closed or the process has ended.

    A file system without locks gives everybody everything.

    Raises:
        UserError: while another process trains the run; OSError, if the folder cannot be written.
    """
    file = (folder / LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise UserError(f"{folder}: is being trained by {holder}; wait for it, or stop it") from None
    except OSError:
        return file
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
