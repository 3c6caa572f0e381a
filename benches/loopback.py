"""What gates/ and pgo/ need besides peers/: an app that answers on loopback, and a token. Not a program
of its own."""

import base64
import contextlib
import hashlib
import hmac
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

from system import Failure as Failed  # noqa: E402
from system import free_ports, install  # noqa: E402

BODY = b"x" * 1024
SECRET = "a secret of thirty-two bytes and more"


class App(threading.Thread):
    """Responds to every request without a body with the same bytes."""

    ANSWER = (
        b"HTTP/1.1 200 OK\r\nServer: app\r\nDate: Fri, 27 Nov 2026 00:00:00 GMT\r\nContent-Type: text/plain\r\n"
        b"Content-Length: %d\r\nCache-Control: no-store\r\n\r\n%s" % (len(BODY), BODY)
    )

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        waiting = b""
        # A gateway that stops may reset unread data.
        with connection, contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                waiting += piece
                while b"\r\n\r\n" in waiting:
                    _, waiting = waiting.split(b"\r\n\r\n", 1)
                    connection.sendall(self.ANSWER)


def free_port() -> int:
    return free_ports(1)[0]


def token(**more) -> str:
    """An HS256 token signed with SECRET, valid for an hour, with more claims where they are given."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims = {"sub": "alice", "iss": "https://sso.example.com", "exp": int(time.time()) + 3600, "roles": ["clerk"], **more}
    text = ".".join(part(json.dumps(it).encode()) for it in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{text}.{part(hmac.digest(SECRET.encode(), text.encode(), hashlib.sha256))}"


def wait_until_it_listens(child: subprocess.Popen, port: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if child.poll() is not None or time.monotonic() > end:
                raise Failed("the gateway does not start") from None
            time.sleep(0.05)


def install_missing(tools: dict[str, str]) -> None:
    """Installs missing programs, given with their Debian packages."""
    missing = [name for name in tools if not shutil.which(name)]
    if missing:
        install(missing, tools)
