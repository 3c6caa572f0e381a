#!/usr/bin/env python3
"""Builds the app, starts the example on loopback, and says where it is. Ctrl-C stops everything.

    python3 run.py [--gateway portcullis]

The packages of the identity provider are installed beside this file (node_modules), at the first run only. Needs Python
3.10 or later, Node.js 20 or later with npm, and the ports 8000, 8080 and 9000.
"""

import argparse
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


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
    parser = argparse.ArgumentParser(description="A single-page app, its API and an identity provider behind Portcullis.")
    parser.add_argument("--gateway", default="portcullis", help="the program [default: the one on the PATH]")
    options = parser.parse_args()
    if not (HERE / "node_modules" / "oidc-provider").exists():
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=HERE, check=True)
    subprocess.run(["node", "build.mjs"], cwd=HERE, check=True)
    servers = []
    with open(HERE / "run.log", "w") as log:
        try:
            for port, command in (
                (9000, ["node", "issuer.mjs"]),
                (8000, [sys.executable, "api.py"]),
                (8080, [options.gateway, "run"]),
            ):
                servers.append(subprocess.Popen(command, cwd=HERE, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
                wait_for(port, servers[-1])
            print("\nhttp://127.0.0.1:8080/ is the app: choose Orders, sign in as anybody. Ctrl-C stops it.", flush=True)
            return servers[-1].wait()
        except KeyboardInterrupt:
            return 0
        finally:
            for server in reversed(servers):
                server.terminate()
                server.wait(40)


if __name__ == "__main__":
    sys.exit(main())
