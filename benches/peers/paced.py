"""paced.py JSON: GET requests at a fixed rate, whether or not the responses keep up (an open loop).

The argument is an object with `port`, `path`, `rate`, `seconds`, `connections`. A latency starts when the request was
due, so a stalled server is charged for all requests due meanwhile. Prints one line of JSON; latencies in ms.
"""

import gc
import json
import select
import socket
import sys
import time
from collections import deque


class Paced:
    """One thread; requests without a free connection are queued."""

    def __init__(self, port, path, connections):
        self.address = ("127.0.0.1", port)
        self.request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self.free = [self.connect() for _ in range(connections)]
        self.flying, self.latencies, self.lags = {}, [], []
        self.failed = 0

    def connect(self):
        connection = socket.create_connection(self.address, timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def send(self, due):
        connection = self.free.pop()
        try:
            connection.sendall(self.request)
        except OSError:
            self.fail(connection)
            return
        self.flying[connection] = (due, b"")

    def fail(self, connection):
        self.failed += 1
        connection.close()
        self.free.append(self.connect())

    def receive(self, connection):
        due, got = self.flying.pop(connection)
        try:
            piece = connection.recv(65536)
        except OSError:
            piece = b""
        got += piece
        head, found, body = got.partition(b"\r\n\r\n")
        if not piece or (found and not head.startswith(b"HTTP/1.1 200 ")):
            self.fail(connection)
        elif found and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            self.latencies.append(time.monotonic() - due)
            self.free.append(connection)
        else:
            self.flying[connection] = (due, got)

    def run(self, rate, seconds):
        begun = time.monotonic()
        count, sent, line = int(rate * seconds), 0, deque()
        while sent < count or line or self.flying:
            now = time.monotonic()
            if now > begun + seconds + 10:
                self.failed += len(self.flying) + len(line)
                break
            while sent < count and begun + sent / rate <= now:
                line.append(begun + sent / rate)
                self.lags.append(now - line[-1])
                sent += 1
            while line and self.free:
                self.send(line.popleft())
            until = begun + sent / rate - time.monotonic() if sent < count else 0.1
            for connection in select.select(list(self.flying), [], [], max(0, until))[0]:
                self.receive(connection)

    def result(self):
        latencies, lags = sorted(self.latencies), sorted(self.lags)

        def at(values, share):
            return values[min(len(values) - 1, int(share * len(values)))] * 1e3

        return {
            "requests": len(latencies), "failed": self.failed, "p50": at(latencies, 0.5), "p99": at(latencies, 0.99),
            "p99.9": at(latencies, 0.999), "most": latencies[-1] * 1e3, "late": at(lags, 0.999),
        }


def main():
    order = json.loads(sys.argv[1])
    gc.disable()
    paced = Paced(order["port"], order["path"], order["connections"])
    paced.run(order["rate"], order["seconds"])
    print(json.dumps(paced.result()), flush=True)


if __name__ == "__main__":
    main()
