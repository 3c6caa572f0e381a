"""What interop tests share: named checks, child processes, a small HTTP client, tokens made by hand.

Standard library only. It knows nothing of Django or of any one story.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
import traceback
import venv
from dataclasses import dataclass
from pathlib import Path

# How the headers and claims of tokens begin in base64url. Three characters alone stand in one of some thousand random ids, too.
TOKEN_BEGINS = tuple(
    base64.urlsafe_b64encode(begin)[:8] for begin in (b'{"alg":', b'{"typ":', b'{"kid":', b'{"auth_time":', b'{"token_type":')
)


class TimeLimit(BaseException):
    """The whole run took too long, or was told to stop. Not an Exception: no check may swallow it."""


class Failed(Exception):
    """A check's expectation was not met."""


def expect(condition: object, why: str) -> None:
    """Fail the running check with `why` unless `condition` holds."""
    if not condition:
        raise Failed(why)


def limit_run(seconds: int) -> None:
    """Raise TimeLimit in the main thread after `seconds`, and on SIGTERM and SIGINT."""

    def stop(number: int, _frame: object) -> None:
        signal.alarm(0)
        raise TimeLimit(f"over {seconds} s" if number == signal.SIGALRM else signal.Signals(number).name)

    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.alarm(seconds)


class Checks:
    """Runs checks, prints a line each, counts."""

    def __init__(self, only: str | None = None) -> None:
        self.passed = 0
        self.failed = 0
        self.only = only

    def wanted(self, name: str) -> bool:
        """Whether a check of this name is asked for."""
        return not self.only or self.only in name

    def run(self, name: str, check, *arguments, always: bool = False) -> None:
        """Run `check`; what it returns, if anything, is printed beside the name. `always`: others build on it."""
        if not (always or self.wanted(name)):
            return
        try:
            remark = check(*arguments)
        except Failed as failure:
            self.fail(name, str(failure))
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.fail(name, f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")
        else:
            self.passed += 1
            print(f"ok  {name}" + (f" ({remark})" if remark else ""), flush=True)

    def fail(self, name: str, why: str) -> None:
        self.failed += 1
        print(f"FAIL {name}: {why}", flush=True)


class Child:
    """A process of ours with its output in files, in a session of its own so that its children go with it."""

    def __init__(self, name: str, command: list[str], folder: Path, logs: Path, environment: dict | None = None,
                 pass_fds: list[int] | tuple = ()):
        self.name = name
        self.out = logs / f"{name}.out"
        self.err = logs / f"{name}.err"
        with open(self.out, "ab") as out, open(self.err, "ab") as err:
            self.process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env=environment, start_new_session=True, pass_fds=pass_fds,
            )

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def running(self) -> bool:
        return self.process.poll() is None

    def stop(self, seconds: float = 10) -> int | None:
        """SIGTERM, and after `seconds` SIGKILL to all that is left. The exit status, None where killed."""
        status = None
        if self.running():
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self.process.wait(seconds)
        else:
            status = self.process.returncode
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return status

    def tail(self, lines: int = 25) -> str:
        """The end of its error output, for a report."""
        text = self.err.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(f"  {self.name}| {line}" for line in text)


# Below the system's ephemeral ports: neither a connection nor a server that takes any port gets one of these, between
# now and when it is used. 10080, which browsers refuse, is not among them.
PORTS = range(11_000, 18_000)
_ports = itertools.count(random.randrange(len(PORTS)))
_ports_lock = threading.Lock()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now, and that this process has not been given before."""
    for _ in PORTS:
        with _ports_lock:
            port = PORTS[next(_ports) % len(PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise Failed("no port is free")


def wait_until(condition, seconds: float, what: str, every: float = 0.1) -> float:
    """Wait until `condition()` is true; the seconds it took. Fails the check after `seconds`."""
    begun = time.monotonic()
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if condition():
                return time.monotonic() - begun
        expect(time.monotonic() - begun < seconds, f"{what}: not within {seconds:g} s")
        time.sleep(every)


@dataclass
class Answer:
    """A whole response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    seconds: float

    def json(self):
        return json.loads(self.body)

    def brief(self) -> str:
        """The status and the beginning of the body, for a failure's text."""
        return f"{self.status} {self.body[:160]!r}"


class Connection(http.client.HTTPConnection):
    """http.client over TCP, or over a unix socket where the address is a path."""

    def __init__(self, target: "Target", timeout: float):
        super().__init__(target.host, timeout=timeout)
        self.target = target

    def connect(self) -> None:
        self.sock = self.target.dial(self.timeout)


class Target:
    """Where requests go: (host, port), or the path of a unix socket; and the Host header they carry."""

    def __init__(self, address: tuple[str, int] | str, host: str):
        self.address = address
        self.host = host
        self.origin = f"http://{host}"

    def dial(self, timeout: float, receive_buffer: int | None = None) -> socket.socket:
        """A fresh connection; with a small receive buffer, a reader that really holds the sender back."""
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            if receive_buffer:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.connect(self.address)
            if family == socket.AF_INET:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            connection.close()
            raise
        return connection

    def connect(self, timeout: float = 15) -> Connection:
        return Connection(self, timeout)

    def request(self, method: str, path: str, body=None, token: str | None = None, form: dict | None = None,
                headers: dict | None = None, timeout: float = 15, over: Connection | None = None) -> Answer:
        """One request and its whole answer. `form` is sent as JSON. Without `over`, on a connection of its own."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if form is not None:
            body = json.dumps(form).encode()
            sent["Content-Type"] = "application/json"
        connection = over or self.connect(timeout)
        begun = time.monotonic()
        try:
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            content = response.read()
            return Answer(response.status, response.headers, content, time.monotonic() - begun)
        except BaseException:
            connection.close()
            raise
        finally:
            if over is None:
                connection.close()

    def get(self, path: str, **more) -> Answer:
        return self.request("GET", path, **more)

    def post(self, path: str, **more) -> Answer:
        return self.request("POST", path, **more)


class Traffic:
    """Threads that each repeat one call until told to stop, and remember what failed."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.calls = 0
        self.failures: list[str] = []
        self.threads: list[threading.Thread] = []

    def repeat(self, name: str, call, pause: float = 0.02) -> None:
        def run() -> None:
            while not self.stopping.wait(pause):
                failure = None
                try:
                    call()
                except Exception as error:
                    failure = f"{name} at {time.monotonic() - self.begun:.1f} s: {type(error).__name__}: {error}"
                with self.lock:
                    self.calls += 1
                    if failure:
                        self.failures.append(failure)

        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()

    def stop(self) -> tuple[int, list[str]]:
        """How many calls there were, and what failed."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)
        return self.calls, self.failures


def make_venv(folder: Path, pins: Path) -> Path:
    """A venv with the packages of a requirements file; made again only when the file changes. Its python."""
    marker = folder / "installed-requirements.txt"
    python = folder / "bin" / "python"
    if not (marker.exists() and marker.read_text() == pins.read_text() and python.exists()):
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", pins],
            check=True, timeout=1200, stdin=subprocess.DEVNULL,
        )
        marker.write_text(pins.read_text())
    return python


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sign_hs256(message: str, secret: str) -> str:
    return base64url(hmac.new(secret.encode(), message.encode(), hashlib.sha256).digest())


def make_token(claims: dict, secret: str, header: dict | None = None) -> str:
    """A compact JWS with an HS256 signature, whatever its header says."""
    head = base64url(json.dumps(header or {"alg": "HS256", "typ": "JWT"}).encode())
    message = f"{head}.{base64url(json.dumps(claims).encode())}"
    return f"{message}.{sign_hs256(message, secret)}"


def claims_of(token: str) -> dict:
    """A token's claims, unverified."""
    return json.loads(from_base64url(token.split(".")[1]))


def signed_by(token: str, secret: str) -> bool:
    """Whether this secret made the token's HS256 signature."""
    message, _, signature = token.rpartition(".")
    return hmac.compare_digest(signature, sign_hs256(message, secret))
