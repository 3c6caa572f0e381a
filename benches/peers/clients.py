"""clients.py get|put|handshake|resume|idle|websocket JSON: the loads that neither wrk nor h2load can make.

The argument is an object with `port`, `path`, `tls`, `size`, `connections`, `seconds`, `names`, `client` (the files
of a certificate and of its key, or null) and `preamble` (whether a PROXY header comes first). The result is one line of JSON; a failed request ends the program with a
traceback, and so the measurement. `idle` keeps its connections open until its standard input ends.
"""

import http.client
import json
import os
import random
import select
import socket
import ssl
import sys
import threading
import time
from dataclasses import dataclass

MESSAGE = 64
# A PROXY header of version 2, as a load balancer sends it for a client over TCP and IPv4.
PREAMBLE_CLIENT = "127.0.0.2"
PREAMBLE = b"".join((
    b"\r\n\r\n\0\r\nQUIT\n", bytes((0x21, 0x11, 0, 12)), socket.inet_aton(PREAMBLE_CLIENT), socket.inet_aton("127.0.0.1"),
    (40_000).to_bytes(2), (443).to_bytes(2),
))


@dataclass
class Order:
    """The parameters of a load."""

    port: int
    path: str
    tls: bool
    size: int
    connections: int
    seconds: float
    names: int = 0
    client: list | None = None
    preamble: bool = False


def tls_context(order):
    """TLS 1.3 without certificate checks; sessions are resumed only where one is passed to a connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if order.client:
        context.load_cert_chain(*order.client)
    return context


def connect(order, context, session=None):
    """A connection; with TLS and many certificates it asks for a random one, and must get it."""
    connection = socket.create_connection(("127.0.0.1", order.port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if order.preamble:
        connection.sendall(PREAMBLE)
    if not context:
        return connection
    name = f"n{random.randrange(order.names)}.bench.example" if order.names else None
    secured = context.wrap_socket(connection, server_hostname=name, session=session)
    if name and name.encode() not in secured.getpeercert(binary_form=True):
        raise ConnectionError(f"not the certificate of {name}")
    return secured


def request(order, method="GET", close=False, length=None):
    lines = [f"{method} {order.path} HTTP/1.1", "Host: localhost"]
    lines += ["Connection: close"] if close else []
    lines += [f"Content-Length: {length}"] if length is not None else []
    return "\r\n".join([*lines, "", ""]).encode()


def answer(connection, buffer):
    """Reads a response of 200 with a Content-Length; returns its length and the first bytes of its body."""
    taken = 0
    while True:
        count = connection.recv_into(buffer[taken:])
        if not count:
            raise ConnectionError("the answer has no end")
        taken += count
        at = bytes(buffer[:min(taken, 16384)]).find(b"\r\n\r\n")
        if at >= 0:
            break
    head = bytes(buffer[:at]).lower()
    if not head.startswith(b"http/1.1 200 "):
        raise ConnectionError(head.decode(errors="replace"))
    length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
    body = taken - at - 4
    first = bytes(buffer[at + 4:at + 4 + min(body, 64)])
    while body < length:
        count = connection.recv_into(buffer, min(len(buffer), length - body))
        if not count:
            raise ConnectionError(f"{body} of {length} bytes came")
        body += count
    return length, first


def in_threads(order, work):
    """Calls `work(context, deadline)` in a thread per connection; returns the sum of the results and the time taken."""
    done, failed = [], []

    def run():
        try:
            done.append(work(tls_context(order) if order.tls else None, time.monotonic() + order.seconds))
        except Exception as problem:  # reported below: a thread cannot end the program
            failed.append(problem)

    begun = time.monotonic()
    threads = [threading.Thread(target=run) for _ in range(order.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return {"requests": sum(done), "seconds": time.monotonic() - begun}


def get(order):
    """Downloads over persistent connections. A download running at the deadline is finished: every byte counts."""
    def work(context, deadline):
        buffer, count = memoryview(bytearray(1 << 18)), 0
        with connect(order, context) as connection:
            while time.monotonic() < deadline:
                connection.sendall(request(order))
                length, _ = answer(connection, buffer)
                if length != order.size:
                    raise ConnectionError(f"{length} bytes came instead of {order.size}")
                count += 1
        return count

    return in_threads(order, work)


def put(order):
    """Uploads over persistent connections; the sink reports how much arrived."""
    body = memoryview(bytes(order.size))

    def work(context, deadline):
        buffer, count = memoryview(bytearray(1 << 16)), 0
        with connect(order, context) as connection:
            while time.monotonic() < deadline:
                connection.sendall(request(order, "PUT", length=order.size))
                connection.sendall(body)
                _, said = answer(connection, buffer)
                if not said.isdigit() or int(said) < order.size:
                    raise ConnectionError(f"the origin got {said!r} of {order.size} bytes")
                count += 1
        return count

    return in_threads(order, work)


def handshake(order):
    """A connection, and with TLS a full handshake, for each request."""
    def work(context, deadline):
        buffer, count = memoryview(bytearray(1 << 16)), 0
        while time.monotonic() < deadline:
            with connect(order, context) as connection:
                connection.sendall(request(order, close=True))
                length, _ = answer(connection, buffer)
                if length != order.size or (context and connection.session_reused):
                    raise ConnectionError("a wrong body, or a resumed session")
            count += 1
        return count

    return in_threads(order, work)


def resume(order):
    """A connection for each request, which resumes the session of the one before: all but the first of a thread."""
    def work(context, deadline):
        buffer, count, session = memoryview(bytearray(1 << 16)), 0, None
        while time.monotonic() < deadline:
            with connect(order, context, session) as connection:
                connection.sendall(request(order, close=True))
                length, _ = answer(connection, buffer)
                if length != order.size or connection.session_reused != (session is not None):
                    raise ConnectionError("a wrong body, or a full handshake")
                session = connection.session
            count += 1
        return count

    return in_threads(order, work)


def idle(order):
    """Opens connections, sends one request on each, and keeps them open."""
    context = tls_context(order) if order.tls else None
    buffer, kept = memoryview(bytearray(1 << 16)), []
    for _ in range(order.connections):
        connection = connect(order, context)
        connection.sendall(request(order))
        answer(connection, buffer)
        kept.append(connection)
    print(json.dumps({"requests": len(kept)}), flush=True)
    sys.stdin.read()
    ended = sum(closed(connection) for connection in kept)
    return {"ended": ended}


def closed(connection):
    """Whether the server has closed a connection. Unread TLS tickets do not count."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


def open_websocket(order):
    opening = http.client.HTTPConnection("127.0.0.1", order.port, timeout=30)
    opening.request("GET", order.path, headers={
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    })
    answered = opening.getresponse()
    if answered.status != 101 or answered.headers["Sec-WebSocket-Accept"] != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=":
        raise ConnectionError(f"no WebSocket: {answered.status}")
    opening.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opening.sock


def websocket(order):
    """Every connection sends a message, waits for it to come back, and sends the next one."""
    payload = bytes(range(65, 65 + MESSAGE))
    message = bytes((0x82, 0x80 | MESSAGE, 0, 0, 0, 0)) + payload
    expected = bytes((0x82, MESSAGE)) + payload
    poll = select.epoll()
    sockets, got = {}, {}
    for _ in range(order.connections):
        opened = open_websocket(order)
        sockets[opened.fileno()], got[opened.fileno()] = opened, b""
        poll.register(opened, select.EPOLLIN)
    count, begun = 0, time.monotonic()
    for opened in sockets.values():
        opened.sendall(message)
    waiting = len(sockets)
    while waiting:
        more = time.monotonic() < begun + order.seconds
        events = poll.poll(5)
        if not events:
            raise ConnectionError("a message did not come back")
        for number, _ in events:
            got[number] += sockets[number].recv(65536)
            if len(got[number]) < len(expected):
                continue
            if got[number] != expected:
                raise ConnectionError(f"another message came back: {got[number]!r}")
            got[number] = b""
            count += 1
            if more:
                sockets[number].sendall(message)
            else:
                waiting -= 1
    return {"requests": count, "seconds": time.monotonic() - begun}


def main():
    order = Order(**json.loads(sys.argv[2]))
    work = {
        "get": get, "put": put, "handshake": handshake, "resume": resume, "idle": idle, "websocket": websocket,
    }[sys.argv[1]]
    print(json.dumps(work(order)), flush=True)
    os._exit(0)  # skips closing thousands of TLS connections one by one


if __name__ == "__main__":
    main()
