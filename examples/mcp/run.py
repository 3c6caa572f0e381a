#!/usr/bin/env python3
"""Starts the example on loopback, runs the client against it, and stops everything.

    python3 run.py [--gateway portcullis] [--stay]

The packages are installed beside this file (.venv and node_modules), at the first run only. `--stay` leaves the servers
up until Ctrl-C, so that an MCP client of your own can be pointed at http://127.0.0.1:8080/mcp. Needs Python 3.10 or
later, Node.js 20 or later with npm, and the ports 8000, 8080 and 9000.
"""

import argparse
import socket
import subprocess
import sys
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON = HERE / ".venv" / "bin" / "python"


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


def main() -> int:
    parser = argparse.ArgumentParser(description="An MCP server behind Portcullis, from 401 to a tool call.")
    parser.add_argument("--gateway", default="portcullis", help="the program [default: the one on the PATH]")
    parser.add_argument("--stay", action="store_true", help="leave the servers up until Ctrl-C")
    options = parser.parse_args()
    install()
    servers = []
    with open(HERE / "run.log", "w") as log:
        try:
            for port, command in (
                (9000, ["node", "issuer.mjs"]),
                (8000, [PYTHON, "server.py"]),
                (8080, [options.gateway, "run"]),
            ):
                servers.append(subprocess.Popen(command, cwd=HERE, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
                wait_for(port, servers[-1])
            status = subprocess.run([PYTHON, "client.py"], cwd=HERE).returncode
            if options.stay:
                print("\nhttp://127.0.0.1:8080/mcp is up. Ctrl-C stops it.", flush=True)
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
