"""Hundreds of slow clients in one thread: some send a body a byte a second, some read an answer so.

They measure nothing and judge little: each says in the end whether it was answered whole and right.
"""

from __future__ import annotations

import contextlib
import hashlib
import selectors
import socket
import threading
import time

from harness import Target


class SlowClient:
    """One connection and its pace."""

    def __init__(self, start: float):
        self.due = start
        self.socket: socket.socket | None = None
        self.answer = b""  # the beginning of it: head, and the body where it is small
        self.tail = b""
        self.received = 0
        self.ended = False
        self.error: str | None = None

    def receive(self, size: int) -> None:
        """Take at most `size` bytes of the answer, if any are there."""
        with contextlib.suppress(BlockingIOError):
            piece = self.socket.recv(size)
            self.received += len(piece)
            if len(self.answer) < 4096:
                self.answer += piece[:4096]
            self.tail = (self.tail + piece)[-5:]
            self.ended = self.ended or not piece

    def parts(self) -> tuple[bytes, bytes, bytes]:
        """The answer's status line, its head in lower case, and the beginning of its body as it came."""
        head, _, body = self.answer.partition(b"\r\n\r\n")
        return head.partition(b"\r\n")[0], head.lower(), body

    def complete(self) -> bool:
        """Whether the answer has come whole, by its own framing."""
        _, head, _ = self.parts()
        if b"\r\ncontent-length:" in head:
            length = int(head.split(b"\r\ncontent-length:")[1].partition(b"\r\n")[0])
            return self.received == len(head) + 4 + length
        return self.tail == b"0\r\n\r\n" if b"chunked" in head else self.ended

    def close(self) -> None:
        if self.socket:
            self.socket.close()


class SlowSender(SlowClient):
    """Sends its head at once, then its body a byte a second."""

    BODY = bytes(range(65, 85))

    def begin(self, target: Target, token: str) -> None:
        self.socket = target.dial(10)
        self.socket.sendall(
            f"POST /api/upload/ HTTP/1.1\r\nHost: {target.host}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/octet-stream\r\nContent-Length: {len(self.BODY)}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        self.socket.setblocking(False)
        self.sent = 0

    def step(self) -> None:
        if self.sent < len(self.BODY):
            with contextlib.suppress(BlockingIOError):
                self.sent += self.socket.send(self.BODY[self.sent : self.sent + 1])

    def verdict(self) -> str | None:
        status, _, body = self.parts()
        if self.error or b" 200 " not in status:
            return self.error or f"sender: {status!r} after {self.sent} bytes"
        digest = hashlib.sha256(self.BODY).hexdigest().encode()
        return None if digest in body else f"sender: the app saw another body: {body!r}"


class SlowReader(SlowClient):
    """Asks for some MiB and reads eight bytes a second."""

    MIB = 2

    def begin(self, target: Target, token: str) -> None:
        self.socket = target.dial(10, receive_buffer=4096)
        self.socket.sendall(
            f"GET /api/download/?mib={self.MIB} HTTP/1.1\r\nHost: {target.host}\r\n"
            f"Authorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode()
        )
        self.socket.setblocking(False)

    def step(self) -> None:
        self.receive(8)

    def verdict(self) -> str | None:
        status, _, _ = self.parts()
        if self.error or b" 200 " not in status:
            return self.error or f"reader: {status!r}"
        if not self.complete() or self.received < self.MIB * 1024 * 1024:
            return f"reader: the answer broke off after {self.received} bytes"
        return None


class SlowCrowd:
    """`count` senders and `count` readers, who arrive over `arrival` seconds."""

    # What a client does a second: long enough for every sender's whole body, and for the last to come.
    PACE = 1.0

    def __init__(self, target: Target, token: str, count: int, arrival: float):
        self.target = target
        self.token = token
        self.slow_for = arrival + len(SlowSender.BODY) * self.PACE
        now = time.monotonic()
        self.until = now + self.slow_for
        self.clients = [
            kind(now + arrival * number / count) for number in range(count) for kind in (SlowSender, SlowReader)
        ]
        self.thread = threading.Thread(target=self.crawl, daemon=True)
        self.thread.start()

    def crawl(self) -> None:
        """Every client takes its step when it is due, until the slow time is over."""
        while (now := time.monotonic()) < self.until:
            for client in self.clients:
                if client.due > now or client.error:
                    continue
                client.due += self.PACE
                try:
                    if client.socket is None:
                        client.begin(self.target, self.token)
                    client.step()
                except OSError as error:
                    client.error = f"{type(client).__name__}: {error}"
            time.sleep(0.02)

    def finish(self, seconds: float) -> list[str]:
        """After the slow time: take every answer as fast as it comes. What went wrong, a line a client."""
        self.thread.join(self.slow_for + 60)
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for client in self.clients:
                if client.socket and not client.error and not client.ended:
                    selector.register(client.socket, selectors.EVENT_READ, client)
            while selector.get_map() and time.monotonic() < deadline:
                for key, _ in selector.select(1):
                    client = key.data
                    try:
                        client.receive(256 * 1024)
                    except OSError as error:
                        client.error = f"{type(client).__name__}: {error}"
                    if client.ended or client.error:
                        selector.unregister(client.socket)
        return [why for client in self.clients if (why := client.verdict())]

    def close(self) -> None:
        self.until = 0
        self.thread.join(30)
        for client in self.clients:
            client.close()
