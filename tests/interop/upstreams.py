#!/usr/bin/env python3
"""What clients see of app servers that are restarted, die, freeze and come back: gunicorn and uvicorn behind the gateway,
under load.

    tests/interop/upstreams.py [--gateway BINARY] [--venv FOLDER] [--long] [--only WORDS] [--keep]

gunicorn is ended with SIGTERM and started anew every few seconds, one server alone (`retries.hold`) and two in turn
(`retries`), while many clients send GET and POST over connections of their own. Each request has an id that the app
writes down: no GET fails, no answer is another's, no POST is served twice. A POST that meets the very moment in which
gunicorn closes a socket may be 502, as docs/how-to/several-servers.md says; how many were is printed, and more than one
in a hundred are a failure. With `--long` there are 20 restarts instead of 3.

With `connections.max`, gunicorn never has more requests at a time, though it has threads for twice as many, and every client
is served, also while it is restarted. With `health`, uvicorn is killed and gunicorn is stopped (SIGSTOP): the checks take each out and bring it
back, no GET fails, and once a server is out, no POST does.

Prints a line a check; exit status 1 where one failed. Takes the venv of `django.py`, with gunicorn in it, and makes one of
its own for uvicorn.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from harness import Checks, Child, Target, TimeLimit, Traffic, expect, free_port, limit_run, make_venv, wait_until

ROOT = Path(__file__).resolve().parents[2]
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PINS = ROOT / "examples" / "django" / "requirements.txt"
ASGI_PINS = Path(__file__).with_name("upstreams-requirements.txt")
READERS, WRITERS, PAUSE = 10, 4, 0.025

THREADS, MOST = 16, 8

APP = '''
import os
import threading
import time

SEEN = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
LOCK = threading.Lock()
INSIDE = 0


def counted(start_response):
    """How many requests are here at the same time."""
    global INSIDE
    with LOCK:
        INSIDE += 1
        now = INSIDE
    time.sleep(0.02)
    with LOCK:
        INSIDE -= 1
    answer = str(now).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]


def application(environ, start_response):
    if environ["PATH_INFO"] == "/counted":
        return counted(start_response)
    body = environ["wsgi.input"].read()
    said = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}".encode()
    os.write(SEEN, said + b"\\n")
    answer = said + b" " + body
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
'''


ASGI_APP = '''
import os

SEEN = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    said = f"{scope['method']} {scope['path']}".encode()
    os.write(SEEN, said + b"\\n")
    answer = said + b" " + body
    fields = [(b"content-type", b"text/plain"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": answer})
'''


class Gunicorn:
    """An app server that can be restarted."""

    name = "gunicorn"

    def __init__(self, python: Path, folder: Path):
        self.python, self.folder, self.port = python, folder, free_port()
        self.seen = folder / f"seen-{self.port}"
        self.starts = 0
        self.child: Child | None = None

    def start(self) -> None:
        self.starts += 1
        command = self.command()
        environment = {**os.environ, "SEEN": str(self.seen), "PYTHONDONTWRITEBYTECODE": "1"}
        self.child = Child(f"{self.name}-{self.port}-{self.starts}", command, self.folder, self.folder, environment)

    def command(self) -> list[str]:
        return [str(self.python), "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}", "--worker-class", "gthread",
                   "--workers", "1", "--threads", str(THREADS), "--keep-alive", "2", "--no-control-socket", "story_app:application"]

    def signal(self, number: int) -> None:
        """To the server and all its processes."""
        if self.child:
            os.killpg(self.child.process.pid, number)

    def stop(self) -> None:
        if self.child:
            self.child.stop(20)

    def restart(self) -> None:
        self.stop()
        self.start()

    def wait(self) -> None:
        target = Target(("127.0.0.1", self.port), "app.test")
        wait_until(lambda: target.get("/up").status == 200, 20, "gunicorn's start")


class Uvicorn(Gunicorn):
    name = "uvicorn"

    def command(self) -> list[str]:
        return [str(self.python), "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(self.port), "--no-access-log",
                "story_asgi:application"]


class Story:
    def __init__(self, gateway: Path, python: Path, asgi_python: Path, folder: Path, restarts: int, every: float):
        self.gateway, self.python, self.asgi_python, self.folder = gateway, python, asgi_python, folder
        self.restarts, self.every = restarts, every

    def start_gateway(self, name: str, upstream: str) -> tuple[Child, Target]:
        """A gateway of two workers before this upstream."""
        port = free_port()
        home = self.folder / name
        home.mkdir()
        (home / "gateway.yaml").write_text(
            f"listeners: [{{address: 127.0.0.1:{port}}}]\nworkers: 2\nupstreams: {{app: {{{upstream}}}}}\n"
            "routes: [{path: /*, proxy: app, auth: none}]\n"
        )
        gateway = Child(name, [str(self.gateway), "run", "-c", str(home / "gateway.yaml")], home, self.folder)
        return gateway, Target(("127.0.0.1", port), "gateway.test")

    def with_a_limit(self) -> str:
        """Three times as many clients as the limit, half as high as what gunicorn could serve, with one restart."""
        app = Gunicorn(self.python, self.folder)
        app.start()
        app.wait()
        gateway, target = self.start_gateway("limited", (
            f"servers: ['http://127.0.0.1:{app.port}'], retries: {{on: [connect_failure, broken], hold: 20s}}, "
            f"connections: {{max: {MOST}, queue: 100, wait: 20s}}"
        ))
        most = [0]
        lock = threading.Lock()
        local = threading.local()

        def call() -> None:
            if getattr(local, "over", None) is None:
                local.over = target.connect(40)
            try:
                answer = target.request("GET", "/counted", over=local.over)
            except BaseException:
                local.over = None
                raise
            expect(answer.status == 200, answer.brief())
            now = int(answer.body)
            expect(now <= MOST, f"{now} at the same time")
            with lock:
                most[0] = max(most[0], now)

        try:
            wait_until(lambda: target.get("/up").status == 200, 20, "the gateway's start")
            traffic = Traffic()
            for nth in range(3 * MOST):
                traffic.repeat(f"client {nth}", call, 0.001)
            time.sleep(self.every)
            app.restart()
            time.sleep(self.every)
            calls, failures = traffic.stop()
        finally:
            gateway.stop()
            app.stop()
        expect(not failures, f"{len(failures)} of {calls} failed: {failures[:3]}")
        expect(most[0] == MOST, f"only {most[0]} at the same time: the limit was never met")
        return f"{calls} requests, at most {most[0]} at the same time"

    def with_checks(self) -> str:
        """uvicorn is killed, gunicorn is stopped; checks find both."""
        frozen, killed = Gunicorn(self.python, self.folder), Uvicorn(self.asgi_python, self.folder)
        apps = [frozen, killed]
        for app in apps:
            app.start()
        for app in apps:
            app.wait()
        urls = ", ".join(f"'http://127.0.0.1:{app.port}'" for app in apps)
        gateway, target = self.start_gateway("checked", (
            f"servers: [{urls}], eject: off, timeouts: {{response: 4s}}, "
            "retries: {on: [connect_failure, broken, timeout], per_try: 1500ms, budget: 100%}, "
            "health: {path: /healthz, interval: 300ms, timeout: 300ms, unhealthy_after: 2, healthy_after: 1}"
        ))
        ids = itertools.count()
        lost: list[tuple[float, str]] = []
        lock = threading.Lock()
        local = threading.local()

        def call(method: str) -> None:
            path = f"/{method}/{next(ids)}"
            body = f"body of {path}" if method == "POST" else None
            if getattr(local, "over", None) is None:
                local.over = target.connect(40)
            begun = time.monotonic()
            try:
                answer = target.request(method, path, body=body, over=local.over)
            except BaseException:
                local.over = None
                raise
            if method == "POST" and answer.status in (502, 504):
                with lock:
                    lost.append((begun, path))
                return
            expect(answer.status == 200, f"{path}: {answer.brief()}")
            wanted = f"{method} {path} {body or ''}".encode()
            expect(answer.body == wanted, f"{path}: another's answer: {answer.brief()}")

        def said(app: Gunicorn, what: str) -> int:
            lines = gateway.err.read_text(errors="replace").splitlines()
            return sum(f"health check of http://127.0.0.1:{app.port}:" in line and what in line for line in lines)

        out: list[tuple[float, float]] = []
        took: list[float] = []
        try:
            wait_until(lambda: target.get("/up").status == 200, 20, "the gateway's start")
            traffic = Traffic()
            for nth in range(READERS):
                traffic.repeat(f"reader {nth}", lambda: call("GET"), PAUSE)
            for nth in range(WRITERS):
                traffic.repeat(f"writer {nth}", lambda: call("POST"), PAUSE)
            time.sleep(1)
            for app, down in ((killed, signal.SIGKILL), (frozen, signal.SIGSTOP)):
                app.signal(down)
                took.append(wait_until(lambda: said(app, "taken out, 1 of 2 left"), 5, f"{app.name} to be taken out", 0.02))
                since = time.monotonic() + 0.1
                time.sleep(2)
                out.append((since, time.monotonic()))
                if down == signal.SIGKILL:
                    app.stop()
                    app.start()
                else:
                    app.signal(signal.SIGCONT)
                wait_until(lambda: said(app, "back, 2 of 2"), 20, f"{app.name} to be back")
                time.sleep(1)
            calls, failures = traffic.stop()
        finally:
            frozen.signal(signal.SIGCONT)
            gateway.stop()
            for app in apps:
                app.stop()
        expect(not failures, f"{len(failures)} of {calls} failed: {failures[:3]}")
        for since, until in out:
            late = [path for begun, path in lost if since < begun < until]
            expect(not late, f"lost although the server was out: {late[:3]}")
        changes = [said(app, what) for app in apps for what in ("taken out", "back")]
        expect(changes == [1, 1, 1, 1], f"lines in the log: {changes}")
        seen = Counter(line for app in apps for line in app.seen.read_text().splitlines())
        twice = [line for line, count in seen.items() if count > 1 and line.startswith("POST ")]
        expect(not twice, f"served twice: {twice[:3]}")
        times = ", ".join(f"{seconds:.1f} s" for seconds in took)
        return f"{calls} requests, out after {times}, {len(lost)} POSTs lost before that"

    def under_restarts(self, servers: int) -> str:
        """Restarts one server after the other under load."""
        apps = [Gunicorn(self.python, self.folder) for _ in range(servers)]
        for app in apps:
            app.start()
        for app in apps:
            app.wait()
        urls = ", ".join(f"'http://127.0.0.1:{app.port}'" for app in apps)
        upstream = f"servers: [{urls}], retries: {{on: [connect_failure, broken], hold: 20s}}"
        gateway, target = self.start_gateway(f"gateway-{servers}", upstream)
        ids = itertools.count()
        lost: list[str] = []
        answered: list[str] = []
        lock = threading.Lock()
        local = threading.local()

        def call(method: str) -> None:
            path = f"/{method}/{next(ids)}"
            body = f"body of {path}" if method == "POST" else None
            if getattr(local, "over", None) is None:
                local.over = target.connect(40)
            try:
                answer = target.request(method, path, body=body, over=local.over)
            except BaseException:
                local.over = None
                raise
            if method == "POST" and answer.status == 502:
                with lock:
                    lost.append(path)
                return
            expect(answer.status == 200, f"{path}: {answer.brief()}")
            wanted = f"{method} {path} {body or ''}".encode()
            expect(answer.body == wanted, f"{path}: another's answer: {answer.brief()}")
            with lock:
                answered.append(path)

        try:
            wait_until(lambda: target.get("/up").status == 200, 20, "the gateway's start")
            traffic = Traffic()
            for nth in range(READERS):
                traffic.repeat(f"reader {nth}", lambda: call("GET"), PAUSE)
            for nth in range(WRITERS):
                traffic.repeat(f"writer {nth}", lambda: call("POST"), PAUSE)
            for nth in range(self.restarts):
                time.sleep(self.every)
                app = apps[nth % servers]
                app.restart()
                if servers > 1:
                    app.wait()
            time.sleep(self.every)
            calls, failures = traffic.stop()
        finally:
            gateway.stop()
            for app in apps:
                app.stop()
        expect(not failures, f"{len(failures)} of {calls} failed: {failures[:3]}")
        seen = Counter(line for app in apps for line in app.seen.read_text().splitlines())
        twice = [line for line, count in seen.items() if count > 1 and line.startswith("POST ")]
        expect(not twice, f"served twice: {twice[:3]}")
        missing = [path for path in answered if f"{path.split('/')[1]} {path}" not in seen]
        expect(not missing, f"answered by nobody: {missing[:3]}")
        posts = sum(1 for path in answered if path.startswith("/POST/"))
        expect(len(lost) * 100 <= posts, f"{len(lost)} of {posts + len(lost)} POSTs were lost")
        return f"{calls} requests, {self.restarts} restarts, {len(lost)} of {posts + len(lost)} POSTs 502"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", type=Path, default=BUILT / "debug" / "portcullis")
    parser.add_argument("--venv", type=Path, default=BUILT / "interop-venv")
    parser.add_argument("--long", action="store_true", help="20 restarts, 5 s apart")
    parser.add_argument("--only", help="only checks whose name has these words")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs")
    arguments = parser.parse_args()
    python = make_venv(arguments.venv.resolve(), PINS)
    asgi_python = make_venv(BUILT / "asgi-venv", ASGI_PINS)
    limit_run(600 if arguments.long else 180)
    restarts, every = (20, 5.0) if arguments.long else (3, 2.0)
    folder = Path(tempfile.mkdtemp(prefix="upstreams-"))
    (folder / "story_app.py").write_text(APP)
    (folder / "story_asgi.py").write_text(ASGI_APP)
    checks = Checks(arguments.only)
    story = Story(arguments.gateway.resolve(), python, asgi_python, folder, restarts, every)
    try:
        checks.run("one gunicorn that is restarted: no GET fails, no POST is served twice", story.under_restarts, 1)
        checks.run("two that are restarted in turn: no GET fails, no POST is served twice", story.under_restarts, 2)
        checks.run("a limit holds under load and over a restart, and every client is served", story.with_a_limit)
        checks.run("checks find a server that is killed and one that is stopped", story.with_checks)
    except TimeLimit as limit:
        checks.fail("the whole run", str(limit))
    finally:
        if arguments.keep:
            print(f"logs: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed or not checks.passed else 0


if __name__ == "__main__":
    sys.exit(main())
