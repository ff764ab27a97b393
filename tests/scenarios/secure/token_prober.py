"""A program that sends a token again and again: `token_prober.py AUTHORITY TOKEN_FILE URL…`.

It waits for the file. For each URL it prints a line with the time whenever the status of the answers changes, and when
a stream that it has opened with the token ends.
"""

from __future__ import annotations

import http.client
import ssl
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

INTERVAL = 0.02


def _connect(url: str, authority: str) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=authority)
    parts = urlsplit(url)
    return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=30.0, context=context)


def _print(url: str, text: object) -> None:
    sys.stdout.write(f"{time.time():.3f} {urlsplit(url).hostname} {text}\n")
    sys.stdout.flush()


def _probe(url: str, authority: str, headers: dict[str, str]) -> None:
    connection, last = _connect(url, authority), 0
    while True:
        connection.request("GET", "/api/v1/caller", headers=headers)
        answer = connection.getresponse()
        answer.read()
        if last == 0 and answer.status == 200:
            threading.Thread(target=_stream, args=(url, authority, headers), daemon=True).start()
        if answer.status != last:
            last = answer.status
            _print(url, last)
        time.sleep(INTERVAL)


def _stream(url: str, authority: str, headers: dict[str, str]) -> None:
    connection = _connect(url, authority)
    connection.request("GET", "/api/v1/watch", headers=headers)
    answer = connection.getresponse()
    _print(url, f"stream {answer.status}")
    while answer.read1(65_536):
        pass
    _print(url, "stream ended")


def main() -> None:
    authority, token_file, *urls = sys.argv[1:]
    while not Path(token_file).exists() or not Path(token_file).read_text().endswith("\n"):
        time.sleep(INTERVAL)
    headers = {"Authorization": f"Bearer {Path(token_file).read_text().strip()}"}
    threads = [threading.Thread(target=_probe, args=(url, authority, headers)) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
