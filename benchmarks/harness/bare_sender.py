"""A process that does nothing but `socket.send`: the same bytes over every connection, once in each interval.

Run as a process: PORT INTERVAL SLOTS DATA_FILE. It answers a request with the data, and then sends them in as many
slots of the interval, as a registry sends its heartbeats.
"""

from __future__ import annotations

import select
import socket
import sys
from pathlib import Path
from time import monotonic

REQUEST_BYTES = 64 * 1024
BACKLOG = 4_096


def main(port: int, interval: float, slots: int, data: bytes) -> None:
    epoll, peers = select.epoll(), list[socket.socket]()
    arriving: dict[int, socket.socket] = {}
    with socket.create_server(("127.0.0.1", port), backlog=BACKLOG) as listening:
        epoll.register(listening, select.EPOLLIN)
        slot, due = 0, monotonic()
        while True:
            for file, _ in epoll.poll(max(0.0, due - monotonic())):
                if file == listening.fileno():
                    peer, _ = listening.accept()
                    arriving[peer.fileno()] = peer
                    epoll.register(peer, select.EPOLLIN)
                else:
                    peer = arriving.pop(file)
                    epoll.unregister(file)
                    if peer.recv(REQUEST_BYTES):
                        peer.send(data)
                        peers.append(peer)
                    else:  # It only tried whether this process listens.
                        peer.close()
            if monotonic() >= due:
                for peer in peers[slot::slots]:
                    peer.send(data)
                slot, due = (slot + 1) % slots, due + interval / slots


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]).read_bytes())
