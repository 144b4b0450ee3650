"""An S3 server on the loopback interface (moto's), with a bucket."""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
BUCKET = "laboratory"


class S3Server:
    """A server that can be away for a while; what it holds stays in this process."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line for every request
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request, timeout=30).close()

    def url(self, folder: str) -> str:
        """URL of a folder of the bucket, as pyarrow takes it; `CREDENTIALS` must be in the environment."""
        query = f"scheme=http&endpoint_override=127.0.0.1:{self.port}&region=us-east-1"
        return f"s3://{BUCKET}/{folder}?{query}"

    def names(self) -> list[str]:
        """Names of all objects in the bucket, but for those that stand for folders."""
        from moto.s3.models import s3_backends

        backend = s3_backends["123456789012"]["aws"]  # moto's only account; the server runs in this process
        return [name for name in backend.buckets[BUCKET].keys if not name.endswith("/")]

    def stop(self) -> None:
        """End it."""
        self._server.stop()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A running server that holds nothing yet."""
    from moto.s3.models import s3_backends

    s3_backends.reset()
    server = S3Server()
    try:
        yield server
    finally:
        server.stop()
