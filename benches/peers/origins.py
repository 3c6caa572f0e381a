"""origins.py sink|echo PORT: the origins that nginx cannot provide.

`sink` receives uploads and reports the number of bytes. It discards them in the kernel (MSG_TRUNC), so that it is never
the bottleneck. `echo` is a WebSocket server that sends every message of up to 125 bytes back.
"""

import base64
import hashlib
import select
import socket
import sys
import threading

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def read_head(connection):
    """(the head, the bytes after it), or (None, b"") at the end."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = connection.recv(65536)
        if not piece:
            return None, b""
        got += piece
    head, _, rest = got.partition(b"\r\n\r\n")
    return head, rest


def field(head, name):
    """The value of a header field, or None."""
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None


def body_length(connection, head, rest, buffer):
    """Reads a body to its end, framed either way, and returns its length; chunked framing counts."""
    if field(head, b"transfer-encoding"):
        taken, tail = len(rest), rest[-5:]
        while tail != b"0\r\n\r\n":
            count = connection.recv_into(buffer)
            if not count:
                break
            taken, tail = taken + count, (tail + bytes(buffer[max(0, count - 5):count]))[-5:]
        return taken
    wanted = int(field(head, b"content-length") or 0)
    taken = len(rest)
    while taken < wanted:
        count = connection.recv_into(buffer, min(len(buffer), wanted - taken), socket.MSG_TRUNC)
        if not count:
            break
        taken += count
    return taken


def sink(connection):
    """Responds to every request with the length of its body; to a GET of .../xff with X-Forwarded-For, like nginx."""
    buffer = memoryview(bytearray(1 << 20))
    with connection:
        while True:
            head, rest = read_head(connection)
            if head is None:
                return
            if field(head, b"expect"):
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            taken = body_length(connection, head, rest, buffer)
            said = field(head, b"x-forwarded-for") or b"" if b"/xff " in head.split(b"\r\n")[0] else b"%d" % taken
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)
            )


def agree(connection):
    """Responds to the opening handshake of a WebSocket (RFC 6455)."""
    head, _ = read_head(connection)
    key = field(head, b"sec-websocket-key") if head else None
    if key is None:
        connection.close()
        return False
    accept = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    return True


def echoed(frames):
    """(the responses to all complete frames, the rest). The mask is removed, as a server must not mask."""
    answers, at = [], 0
    while len(frames) - at >= 6:
        length = frames[at + 1] & 0x7F
        end = at + 6 + length
        if len(frames) < end:
            break
        mask = int.from_bytes(frames[at + 2:at + 6])
        payload = frames[at + 6:end]
        if mask:
            whole = (mask.to_bytes(4) * (length // 4 + 1))[:length]
            payload = (int.from_bytes(payload) ^ int.from_bytes(whole)).to_bytes(length)
        answers.append(bytes((frames[at], length)) + payload)
        at = end
    return b"".join(answers), frames[at:]


def echo(listener):
    """All WebSockets in one thread."""
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    connections, left = {}, {}
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if agree(connection):
                    connections[connection.fileno()], left[connection.fileno()] = connection, b""
                    poll.register(connection, select.EPOLLIN)
                continue
            connection = connections[number]
            try:
                piece = connection.recv(65536)
                answers, left[number] = echoed(left[number] + piece)
                connection.sendall(answers)
            except OSError:
                piece = b""
            if not piece:
                poll.unregister(connection)
                connections.pop(number).close()


def main():
    kind, port = sys.argv[1], int(sys.argv[2])
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    if kind == "echo":
        echo(listener)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=sink, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
