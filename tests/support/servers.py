"""Servers of others on loopback, started by the tests that need them: S3 by moto, files by nginx."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_CONF = """
{user} daemon off; worker_processes 1; pid {run}/nginx.pid; error_log {run}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; keepalive_requests 1000000;
  client_body_temp_path {run}/a; proxy_temp_path {run}/b; fastcgi_temp_path {run}/c;
  uwsgi_temp_path {run}/d; scgi_temp_path {run}/e;
  server {{ listen 127.0.0.1:{port}; root {folder}; autoindex on; }}
}}
"""


class S3(NamedTuple):
    """An S3 server of moto.

    Attributes:
        options: `storage_options` for it.
        client: Of boto3, to put objects there.
    """

    options: dict[str, Any]
    client: Any

    def put_tree(self, bucket: str, folder: Path, prefix: str = "") -> None:
        """Stores the files of a folder."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                key = prefix + file.relative_to(folder).as_posix()
                self.client.put_object(Bucket=bucket, Key=key, Body=file.read_bytes())

    def put_many(self, bucket: str, objects: dict[str, bytes]) -> None:
        """Stores objects without asking the server, which is in this process."""
        from moto.s3.models import s3_backends

        (backend,) = [one["aws"] for one in s3_backends.values() if bucket in one["aws"].buckets]
        for key, body in objects.items():
            backend.put_object(bucket, key, body)


KEY, SECRET = "AKIATESTKEYDICOMTORCH", "secretDICOMTORCHsecretDICOMTORCHsecret00"


@contextlib.contextmanager
def s3_server() -> Iterator[S3]:
    """An empty S3 server."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )
        options = {
            "endpoint": endpoint,
            "region": "us-east-1",
            "access_key_id": KEY,
            "secret_access_key": SECRET,
            "io_threads": 8,  # moto answers one after the other
        }
        yield S3(options, client)
    finally:
        server.stop()


@contextlib.contextmanager
def nginx(folder: Path, run: Path) -> Iterator[str]:
    """A web server of the files of a folder; gives its address.

    Args:
        folder: What is served.
        run: An empty folder for its own files.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    assert program is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run.mkdir(exist_ok=True)
    user = "user root;" if os.getuid() == 0 else ""  # folders of tests are private
    (run / "conf").write_text(_CONF.format(run=run, folder=folder, port=port, user=user))
    process = subprocess.Popen([program, "-c", str(run / "conf"), "-e", str(run / "error.log")])
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None, (run / "error.log").read_text()
            time.sleep(0.05)
        else:
            raise AssertionError("nginx does not answer")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
