"""The download of CIFAR-10-C, against a server on this machine."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from warplca.configs.errors import InputError
from warplca.data import download_cifar_c
from warplca.data.download import Archive


def archive_bytes() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in ("fog", "labels"):
            content = io.BytesIO()
            np.save(content, np.arange(40_000))
            entry = tarfile.TarInfo(f"CIFAR-10-C/{name}.npy")
            entry.size = len(content.getvalue())
            content.seek(0)
            tar.addfile(entry, content)
    return stream.getvalue()


class Server(ThreadingHTTPServer):
    """Serves one file and counts the bytes sent; can cut the line or ignore ranges."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = archive_bytes()
        self.cut_after: int | None = None
        self.ranges = True
        self.status = 200
        self.sent: list[int] = []

    def archive(self) -> Archive:
        url = f"http://127.0.0.1:{self.server_port}/CIFAR-10-C.tar"
        return Archive(url, len(archive_bytes()), hashlib.md5(archive_bytes()).hexdigest())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if server.ranges else 0
        part = server.content[start:]
        self.send_response(206 if server.ranges else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        part = part[: server.cut_after]
        server.sent.append(len(part))
        self.wfile.write(part)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_download_unpacks_once_and_cleans_up(server: Server, tmp_path: Path):
    folder = download_cifar_c(tmp_path / "new", archive=server.archive())
    assert folder == tmp_path / "new" / "CIFAR-10-C"
    assert {path.name for path in folder.iterdir()} == {"fog.npy", "labels.npy"}
    assert np.array_equal(np.load(folder / "fog.npy"), np.arange(40_000))
    assert list(folder.parent.iterdir()) == [folder]
    download_cifar_c(tmp_path / "new", archive=server.archive())
    assert len(server.sent) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_line_is_explained_and_the_next_call_goes_on(server: Server, tmp_path: Path, ranges: bool):
    whole = len(server.content)
    server.cut_after = 300_000
    with pytest.raises(
        InputError, match=r"cannot download .* of 1 MB are in .*Run the same command again to go on"
    ):
        download_cifar_c(tmp_path, archive=server.archive())
    server.cut_after, server.ranges = None, ranges
    assert (download_cifar_c(tmp_path, archive=server.archive()) / "fog.npy").exists()
    assert server.sent == [300_000, whole - 300_000 if ranges else whole]


def test_an_interrupt_while_unpacking_is_repaired_without_a_second_download(server: Server, tmp_path: Path):
    (tmp_path / "CIFAR-10-C.tar.part").write_bytes(server.content)
    (tmp_path / ".CIFAR-10-C.unpacking" / "CIFAR-10-C").mkdir(parents=True)
    (tmp_path / ".CIFAR-10-C.unpacking" / "CIFAR-10-C" / "fog.npy").write_bytes(b"half")
    folder = download_cifar_c(tmp_path, archive=server.archive())
    assert np.array_equal(np.load(folder / "fog.npy"), np.arange(40_000))
    assert server.sent == []


def test_wrong_content_is_deleted(server: Server, tmp_path: Path):
    server.content = bytes(len(server.content))
    with pytest.raises(InputError, match=r"is not CIFAR-10-C: md5 .*, expected .* The file was deleted"):
        download_cifar_c(tmp_path, archive=server.archive())
    assert list(tmp_path.iterdir()) == []


def test_a_refusing_server_and_no_server(server: Server, tmp_path: Path):
    server.status = 503
    with pytest.raises(InputError, match=r"cannot download .*503"):
        download_cifar_c(tmp_path, archive=server.archive())
    with pytest.raises(InputError, match="cannot download"):
        download_cifar_c(tmp_path, archive=Archive("http://127.0.0.1:9/x", 10, ""))


def test_a_folder_that_cannot_be_made_is_explained(server: Server, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        download_cifar_c(tmp_path / "file", archive=server.archive())
