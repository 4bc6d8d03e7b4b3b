"""Servers without strong ETags: a download is continued by its date of change, or given up, but never endless."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from corpus.acquire import fetch, list_files, transfer
from corpus.acquire.origins import UrlsOrigin
from corpus.base.errors import UserError

DATA = bytes(range(256)) * (12 << 10)  # 3 MiB
URL = "https://files.example/big.bin"


class Server:
    """Serves DATA, cutting each answer after ``cut`` bytes of it."""

    def __init__(self) -> None:
        self.cut = len(DATA) * 6 // 10
        self.date: str | None = None
        self.bodies: list[int] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(0, body=False)

            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                same = owner.date is not None and self.headers.get("If-Range") == owner.date
                self._answer(int(asked[6:-1]) if asked and asked.endswith("-") and same else 0, body=True)

            def _answer(self, start: int, *, body: bool) -> None:
                self.send_response(206 if start else 200)
                self.send_header("ETag", 'W/"weak"')
                if owner.date:
                    self.send_header("Last-Modified", owner.date)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
                self.send_header("Content-Length", str(len(DATA) - start))
                self.end_headers()
                if body:
                    part = DATA[start : start + owner.cut]
                    owner.bodies.append(len(part))
                    self.wfile.write(part)
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(transfer, "FIRST_PAUSE", 0.01)
    made = Server()
    monkeypatch.setenv("CORPUS_URLS_ENDPOINT", f"http://127.0.0.1:{made.server.server_port}")
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_download_that_starts_over_each_time_is_given_up(server, config, make_source):
    source = make_source(UrlsOrigin(urls=[URL]))
    listing = list_files(source, config)
    with pytest.raises(UserError, match=f"gave up after {transfer.ATTEMPTS} attempts"):
        fetch(source, listing, listing.files[0], config)
    assert len(server.bodies) == transfer.ATTEMPTS


def test_a_download_goes_on_by_the_date_of_change(server, config, make_source):
    server.date = formatdate(1_000_000_000, usegmt=True)
    source = make_source(UrlsOrigin(urls=[URL]))
    listing = list_files(source, config)
    assert fetch(source, listing, listing.files[0], config).read_bytes() == DATA
    assert sum(server.bodies) == len(DATA)


def test_another_date_means_another_file(server, config, make_source, monkeypatch):
    server.date = formatdate(1_000_000_000, usegmt=True)
    source = make_source(UrlsOrigin(urls=[URL]))
    listing = list_files(source, config)
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    with pytest.raises(UserError, match="gave up"):
        fetch(source, listing, listing.files[0], config)
    server.date, server.cut = formatdate(1_100_000_000, usegmt=True), len(DATA)
    assert fetch(source, listing, listing.files[0], config).read_bytes() == DATA
    assert server.bodies[-1] == len(DATA)
