#!/usr/bin/env python3
"""Whether a body behind a response that has none ever becomes another client's response.

    python3 tests/interop/head_desync.py --gateway target/release/portcullis --venv target/desync-venv --seconds 60

Behind the gateway stands Django 5.2 under gunicorn 23, which sends a body to HEAD and behind 204 and 304 where a view has one.
Attackers ask for such responses all the time; the body is a whole response of their own. Victims ask for a page that says who asked.
Every response that is not the victim's own counts as wrong, an error too. By hand: it takes as long as it is told to.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from harness import Child, free_port, wait_until

PACKAGES = ["gunicorn==23.*", "django==5.2.*"]

SITE = '''
import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.urls import path

settings.configure(DEBUG=False, SECRET_KEY="x" * 50, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], MIDDLEWARE=[])
django.setup()
EVIL = b"HTTP/1.1 200 OK\\r\\nContent-Type: text/html\\r\\nContent-Length: 31\\r\\n\\r\\n<script>alert('owned')</script>"


def evil(status, length):
    def view(request):
        response = HttpResponse(EVIL, status=status, content_type="text/html")
        if length:
            response["Content-Length"] = str(len(EVIL))
        return response

    return view


def mine(request, who):
    text = f"for {who} alone"
    return HttpResponse(text, headers={"Content-Length": str(len(text))})


urlpatterns = [
    path("200", evil(200, True)), path("200/unsaid", evil(200, False)),
    path("204", evil(204, True)), path("204/unsaid", evil(204, False)),
    path("304", evil(304, True)), path("304/unsaid", evil(304, False)),
    path("mine/<who>", mine),
]
app = WSGIHandler()
'''

ATTACKS = [
    b"HEAD /200", b"HEAD /200/unsaid", b"GET /204", b"GET /204/unsaid", b"GET /304", b"GET /304/unsaid", b"HEAD /304",
    b"DELETE /204",
]
# How many requests an attacker sends at once.
PIPELINE = 24


def attack(port: int, until: float, counts: multiprocessing.Array) -> None:
    """Asks for responses without a body; counts those that came."""
    nth = 0
    while time.monotonic() < until:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                for _ in range(20):
                    lines = [ATTACKS[(nth + k) % len(ATTACKS)] + b" HTTP/1.1\r\nHost: a\r\n\r\n" for k in range(PIPELINE)]
                    nth += 1
                    connection.sendall(b"".join(lines))
                    read, heads = b"", 0
                    while heads < PIPELINE:
                        piece = connection.recv(65536)
                        if not piece:
                            raise OSError
                        read += piece
                        heads = read.count(b"\r\n\r\n")
                    with counts.get_lock():
                        counts[0] += heads
                        counts[1] += read.count(b"HTTP/1.1 5") + read.count(b"owned")
        except OSError:
            with counts.get_lock():
                counts[2] += 1


def ask(port: int, until: float, counts: multiprocessing.Array, name: str) -> None:
    """Asks for one's own page; counts what is not."""
    connection, nth = None, 0
    while time.monotonic() < until:
        nth += 1
        who = f"{name}-{nth}"
        wanted = f"for {who} alone".encode()
        read = b""
        try:
            connection = connection or socket.create_connection(("127.0.0.1", port), 10)
            connection.sendall(f"GET /mine/{who} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            while not read.endswith(wanted):
                piece = connection.recv(65536)
                if not piece:
                    break
                read += piece
                if read.partition(b"\r\n\r\n")[2] and len(read) > 4096 or b"owned" in read or b"HTTP/1.1 5" in read:
                    break
        except OSError as error:
            read += repr(error).encode()
        if read.startswith(b"HTTP/1.1 200") and read.count(b"HTTP/1.1") == 1 and read.endswith(wanted):
            with counts.get_lock():
                counts[3] += 1
        else:
            with counts.get_lock():
                counts[4] += 1
            print("wrong:", who, read[:300], flush=True)
            connection = None


def python_of(folder: Path) -> Path:
    """The Python of a virtual environment that has what is needed; made where it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gateway", type=Path, required=True)
    parser.add_argument("--venv", type=Path, help="where gunicorn and Django are installed to")
    parser.add_argument("--python", type=Path, help="a Python that has them")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    if not options.python and not options.venv:
        parser.error("one of --venv and --python")
    python = options.python or python_of(options.venv.absolute())
    with tempfile.TemporaryDirectory(prefix="desync-") as name:
        folder = Path(name)
        (folder / "desync_site.py").write_text(SITE)
        app_port, port = free_port(), free_port()
        (folder / "gateway.yaml").write_text(
            f"workers: 1\nlisteners: [{{address: 127.0.0.1:{port}}}]\n"
            f"routes: [{{path: /*, proxy: 'http://127.0.0.1:{app_port}', auth: none}}]\nlog: {{access: off}}\n"
        )
        command = [str(python), "-m", "gunicorn", "-k", "gthread", "--threads", "16", "-w", "4", "--keep-alive", "75"]
        app = Child("app", [*command, "-b", f"127.0.0.1:{app_port}", "desync_site:app"], folder, folder)
        gateway = Child("gateway", [str(options.gateway.absolute()), "run", "-c", "gateway.yaml"], folder, folder)
        try:
            for known in (app_port, port):
                wait_until(lambda: not socket.create_connection(("127.0.0.1", known), 1).close(), 15, f"port {known}")
            # Responses without a body, 5xx or somebody's body among them, broken attackers; victims right, and wrong.
            counts = multiprocessing.Array("L", 5)
            until = time.monotonic() + options.seconds
            crowd = [multiprocessing.Process(target=attack, args=(port, until, counts)) for _ in range(6)]
            crowd += [multiprocessing.Process(target=ask, args=(port, until, counts, f"v{n}")) for n in range(3)]
            for one in crowd:
                one.start()
            for one in crowd:
                one.join()
        finally:
            for child in (gateway, app):
                child.stop()
        bodiless, odd, broken, right, wrong = counts
        print(f"{options.seconds:g} s: {bodiless} responses without a body ({odd} of them wrong, {broken} connections broke off); "
              f"victims: {right} right, {wrong} wrong")
        if wrong or odd or not right:
            print(gateway.tail())
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
