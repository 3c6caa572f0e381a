#!/usr/bin/env python3
"""What clients see of app servers that are restarted, die and come back: gunicorn behind the gateway, under load.

    tests/interop/upstreams.py [--gateway BINARY] [--venv FOLDER] [--long] [--only WORDS] [--keep]

gunicorn is ended with SIGTERM and started anew every few seconds, one server alone (`retries.hold`) and two in turn
(`retries`), while many clients send GET and POST over connections of their own. Each request has an id that the app
writes down: no GET fails, no answer is another's, no POST is served twice. A POST that meets the very moment in which
gunicorn closes a socket may be 502, as docs/how-to/several-servers.md says; how many were is printed, and more than one
in a hundred are a failure. With `--long` there are 20 restarts instead of 3. Prints a line a check; exit status 1 where
one failed. Takes the venv of `django.py`, with gunicorn in it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
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
READERS, WRITERS, PAUSE = 10, 4, 0.025

APP = '''
import os

SEEN = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def application(environ, start_response):
    body = environ["wsgi.input"].read()
    said = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}".encode()
    os.write(SEEN, said + b"\\n")
    answer = said + b" " + body
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
'''


class Gunicorn:
    """An app server that can be restarted."""

    def __init__(self, python: Path, folder: Path):
        self.python, self.folder, self.port = python, folder, free_port()
        self.seen = folder / f"seen-{self.port}"
        self.starts = 0
        self.child: Child | None = None

    def start(self) -> None:
        self.starts += 1
        command = [str(self.python), "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}", "--worker-class", "gthread",
                   "--workers", "1", "--threads", "8", "--keep-alive", "2", "--no-control-socket", "story_app:application"]
        environment = {**os.environ, "SEEN": str(self.seen), "PYTHONDONTWRITEBYTECODE": "1"}
        self.child = Child(f"gunicorn-{self.port}-{self.starts}", command, self.folder, self.folder, environment)

    def stop(self) -> None:
        if self.child:
            self.child.stop(20)

    def restart(self) -> None:
        self.stop()
        self.start()

    def wait(self) -> None:
        target = Target(("127.0.0.1", self.port), "app.test")
        wait_until(lambda: target.get("/up").status == 200, 20, "gunicorn's start")


class Story:
    def __init__(self, gateway: Path, python: Path, folder: Path, restarts: int, every: float):
        self.gateway, self.python, self.folder = gateway, python, folder
        self.restarts, self.every = restarts, every

    def under_restarts(self, servers: int) -> str:
        """Restarts one server after the other under load."""
        apps = [Gunicorn(self.python, self.folder) for _ in range(servers)]
        for app in apps:
            app.start()
        for app in apps:
            app.wait()
        port = free_port()
        urls = ", ".join(f"'http://127.0.0.1:{app.port}'" for app in apps)
        home = self.folder / f"gateway-{servers}"
        home.mkdir()
        (home / "gateway.yaml").write_text(
            f"listeners: [{{address: 127.0.0.1:{port}}}]\nworkers: 2\n"
            f"upstreams: {{app: {{servers: [{urls}], retries: {{on: [connect_failure, broken], hold: 20s}}}}}}\n"
            "routes: [{path: /*, proxy: app, auth: none}]\n"
        )
        gateway = Child(f"gateway-{servers}", [str(self.gateway), "run", "-c", str(home / "gateway.yaml")], home, self.folder)
        target = Target(("127.0.0.1", port), "gateway.test")
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
    limit_run(600 if arguments.long else 180)
    restarts, every = (20, 5.0) if arguments.long else (3, 2.0)
    folder = Path(tempfile.mkdtemp(prefix="upstreams-"))
    (folder / "story_app.py").write_text(APP)
    checks = Checks(arguments.only)
    story = Story(arguments.gateway.resolve(), python, folder, restarts, every)
    try:
        checks.run("one gunicorn that is restarted: no GET fails, no POST is served twice", story.under_restarts, 1)
        checks.run("two that are restarted in turn: no GET fails, no POST is served twice", story.under_restarts, 2)
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
