"""Download of a file: resumable, verified, with a progress bar."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from pipeline.data.progress import BYTES, progress_bar
from pipeline.utils.errors import one_line

_ATTEMPTS = 10
_TIMEOUT_SECONDS = 30.0
_CHUNK = 1 << 20


class DownloadError(Exception):
    """The file could not be downloaded; the message is the reason, in a few words."""


def md5_file(path: Path) -> str:
    """Return the MD5 of a file in hex, which publishers of older data sets give."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def download(url: str, target: Path, md5: str) -> None:
    """Download `url`; `target` appears only when its MD5 is right.

    A partial download is kept in `<target>.part`, and a later call requests the rest. If the completed file is wrong
    it is downloaded once more from its beginning.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    resumed = part.exists()
    _complete(url, part)
    if resumed and md5_file(part) != md5:
        part.unlink()
        _complete(url, part)
    if (found := md5_file(part)) != md5:
        part.unlink()
        raise DownloadError(f"the downloaded file has the MD5 {found}, expected {md5}")
    part.replace(target)


def _complete(url: str, part: Path) -> None:
    """Request the missing bytes, repeatedly as long as each attempt gets some."""
    for _ in range(_ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            _transfer(url, part, before)
        except (OSError, http.client.HTTPException) as error:
            reason = str(error.reason) if type(error) is urllib.error.URLError else one_line(error)
            if not part.exists() or part.stat().st_size <= before:
                raise DownloadError(reason) from None
        else:
            return
    raise DownloadError(f"{_ATTEMPTS} attempts were cut off, the last one: {reason}")


def _transfer(url: str, part: Path, offset: int) -> None:
    """Append what follows the first `offset` bytes, or write all if the server does not support ranges."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            return  # the file is complete; its checksum is verified later
        raise
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            offset = 0
        length = response.headers["Content-Length"]
        total = offset + int(length) if length else None
        received = offset
        with (
            progress_bar(part.stem, total, done=offset, unit=BYTES) as advance,
            part.open("ab" if offset else "wb") as file,
        ):
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                received += len(chunk)
                advance(len(chunk))
    if total is not None and received < total:
        raise ConnectionError(f"the connection ended after {received} of {total} bytes")
