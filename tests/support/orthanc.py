"""A real DICOMweb server on loopback: Orthanc with its DICOMweb plug-in, as Debian has them; a program of its own."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
USER, PASSWORD = "tester", "secret-of-the-orthanc-of-tests"
AUTHORIZATION = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
OPTIONS: dict[str, Any] = {"headers": {"Authorization": AUTHORIZATION}, "max_retries": 1}


def orthanc_program() -> str:
    """The path of Orthanc, "" if it or its plug-in is not installed."""
    found = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    return found if found and Path(PLUGIN).exists() else ""


class Orthanc:
    """One that runs.

    Attributes:
        address: Of it, for `DicomFrames`.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self.address = f"dicomweb+http://127.0.0.1:{self._port}/dicom-web"
        self._configuration = folder / "orthanc.json"
        self._log = folder / "log"
        self._configuration.write_text(
            json.dumps(
                {
                    "StorageDirectory": str(folder),
                    "IndexDirectory": str(folder),
                    "HttpPort": self._port,
                    "DicomServerEnabled": False,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": True,
                    "RegisteredUsers": {USER: PASSWORD},
                    "Plugins": [PLUGIN],
                    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
                }
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        with self._log.open("wb") as log:
            command = [orthanc_program(), str(self._configuration)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port)):
                return
            assert self._process.poll() is None, self._log.read_text()
            time.sleep(0.1)
        raise AssertionError("Orthanc does not answer")

    def stop(self) -> None:
        """Ends it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def takes(self, file: bytes) -> bool:
        """Stores a file; whether it was taken. One that ends the server is not, and it is started anew."""
        import urllib3

        try:
            answer = urllib3.request(
                "POST",
                f"http://127.0.0.1:{self._port}/instances",
                body=file,
                headers=OPTIONS["headers"],
                retries=False,
            )
        except urllib3.exceptions.HTTPError:
            self.stop()
            self.start()
            return False
        return answer.status == 200 and json.loads(answer.data)["Status"] == "Success"


@contextlib.contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc]:
    """An empty one, with its files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    server = Orthanc(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
