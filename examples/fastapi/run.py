#!/usr/bin/env python3
"""Starts the example on loopback, sends a few requests, and stops everything.

    python3 run.py [--gateway portcullis] [--stay]

The packages are installed beside this file (.venv and node_modules), at the first run only. `--stay` leaves the servers
up until Ctrl-C. Needs Python 3.10 or later, Node.js 20 or later with npm, and the ports 8000, 8080 and 9000.
"""

import argparse
import base64
import json
import socket
import subprocess
import sys
import time
import venv
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

HERE = Path(__file__).resolve().parent
PYTHON = HERE / ".venv" / "bin" / "python"
ISSUER = "http://127.0.0.1:9000/realms/main"
# Who asks for what, and what they get.
REQUESTS = [
    (None, "/", 200),
    (None, "/api/me", 401),
    ("visitor", "/api/me", 403),
    ("ada", "/api/me", 200),
    ("ada", "/api/admin/report", 403),
    ("eve", "/api/admin/report", 200),
]


def install() -> None:
    marker = HERE / ".venv" / "installed-requirements.txt"
    pins = HERE / "requirements.txt"
    if not marker.exists() or marker.read_text() != pins.read_text():
        venv.create(HERE / ".venv", clear=True, with_pip=True)
        subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "-r", pins], check=True)
        marker.write_text(pins.read_text())
    if not (HERE / "node_modules" / "oidc-provider").exists():
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=HERE, check=True)


def wait_for(port: int, server: subprocess.Popen) -> None:
    for _ in range(150):
        if server.poll() is not None:
            sys.exit(f"{server.args[0]} ended with {server.returncode}: its output is in {HERE / 'run.log'}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit(f"nothing listens on port {port}")


def token(client: str) -> str:
    login = base64.b64encode(f"{client}:secret-of-{client}".encode()).decode()
    asked = Request(f"{ISSUER}/token", b"grant_type=client_credentials", {"Authorization": f"Basic {login}"})
    return json.load(urlopen(asked))["access_token"]


def ask() -> int:
    failed = 0
    for client, path, expected in REQUESTS:
        headers = {"Authorization": f"Bearer {token(client)}"} if client else {}
        try:
            response = urlopen(Request(f"http://127.0.0.1:8080{path}", headers=headers))
        except HTTPError as refused:
            response = refused
        failed += response.status != expected
        body = response.read().decode()
        detail = json.loads(body)["detail"] if response.status >= 400 else body
        print(f"{client or 'nobody':8} GET {path:18} {response.status}  {detail}", flush=True)
    print("\nNOT as expected" if failed else "\nas expected", flush=True)
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="FastAPI behind Portcullis, with tokens of an identity provider.")
    parser.add_argument("--gateway", default="portcullis", help="the program [default: the one on the PATH]")
    parser.add_argument("--stay", action="store_true", help="leave the servers up until Ctrl-C")
    options = parser.parse_args()
    install()
    servers = []
    with open(HERE / "run.log", "w") as log:
        try:
            for port, command in (
                (9000, ["node", "issuer.mjs"]),
                (8000, [PYTHON, "-m", "uvicorn", "app:app", "--port", "8000"]),
                (8080, [options.gateway, "run"]),
            ):
                servers.append(subprocess.Popen(command, cwd=HERE, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
                wait_for(port, servers[-1])
            status = ask()
            if options.stay:
                print("\nhttp://127.0.0.1:8080/ is up. Ctrl-C stops it.", flush=True)
                servers[-1].wait()
            return status
        except KeyboardInterrupt:
            return 0
        finally:
            for server in reversed(servers):
                server.terminate()
                server.wait(40)


if __name__ == "__main__":
    sys.exit(main())
