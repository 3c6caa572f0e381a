#!/usr/bin/env python3
"""What is kept away from an app, and what clients are told: rate limits, addresses, error pages, API keys.

    tests/interop/limits.py [--gateway BINARY] [--addresses N] [--chromium BINARY] [--only WORDS] [--keep]

A flood of clients, each with an address of its own, against one limit: memory stays flat, and who is refused stays
refused. curl waits as `Retry-After` says. Chromium shows the site's error pages, its scripts get problem documents and
read `RateLimit` across origins. A thousand requests on many connections count exactly, over all workers. Prints a line a
check; exit status 1 where one failed. Standard library only; ends within two minutes with 100,000 addresses.
"""

from __future__ import annotations

import argparse
import http.client
import http.server
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from harness import Checks, Child, TimeLimit, expect, free_port, limit_run

ROOT = Path(__file__).resolve().parents[2]
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
OVERALL_SECONDS = 300
BATCH = 500

CONFIG = """
workers: 4
listeners: [{{address: 127.0.0.1:{port}}}]
trusted_proxies: [127.0.0.1]
log: {{access: off}}
errors: {{404: 404.html, 5xx: 5xx.html, intercept: [5xx]}}
routes:
  - {{path: /flood, respond: {{body: served}}, rate_limit: {{by: ip, rate: 10/h}}}}
  - {{path: /exact, respond: {{body: served}}, rate_limit: {{by: 'header:X-Run', rate: 100/d}}}}
  - {{path: /slow, respond: {{body: served}}, rate_limit: {{rate: 1/s}}}}
  - {{path: /inside, respond: {{body: served}}, addresses: {{allow: [10.0.0.0/8]}}}}
  - {{path: /app/*, proxy: 'http://127.0.0.1:{app}', auth: none, cors: {{origins: '*'}}, rate_limit: {{name: app, by: ip, rate: 1000/h}}}}
  - {{path: /page/*, static: ./page}}
  - {{path: /keys, respond: {{body: served}}, auth: {{api_key: {{file: keys.yaml}}}}}}
"""

PAGE = """<!doctype html><title>page</title><p id=out>waiting</p><script>
(async () => {
  const answer = await fetch("http://localhost:PORT/app/503");
  const text = await answer.text();
  document.getElementById("out").textContent =
    [answer.status, answer.headers.get("RateLimit"), text.trim()].join(" ");
})();
</script>"""


class App(http.server.BaseHTTPRequestHandler):
    """Responds with the status that the path ends in."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"the app's own"
        self.send_response(int(self.path.rsplit("/", 1)[1]))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Story:
    """One gateway for all checks."""

    def __init__(self, gateway: Path, folder: Path, addresses: int, chromium: str | None) -> None:
        self.binary, self.folder, self.addresses, self.chromium = gateway, folder, addresses, chromium
        self.port = free_port()
        self.app = http.server.ThreadingHTTPServer(("127.0.0.1", 0), App)
        self.app.daemon_threads = True
        threading.Thread(target=self.app.serve_forever, daemon=True).start()
        (folder / "page").mkdir()
        (folder / "page" / "index.html").write_text(PAGE.replace("PORT", str(self.port)))
        (folder / "404.html").write_text("<h1>lost {status}</h1><p>{id}")
        (folder / "5xx.html").write_text("<h1>down {status}</h1>")
        self.key = self.apikey("add", "ci", "--expires", "1h")
        (folder / "gateway.yaml").write_text(CONFIG.format(port=self.port, app=self.app.server_address[1]))
        self.gateway = Child("gateway", [str(gateway), "run"], folder, folder)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                expect(self.gateway.running(), "the gateway ended: " + self.gateway.tail())
                expect(time.monotonic() < deadline, "the gateway does not listen")
                time.sleep(0.05)

    def apikey(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(self.binary), "apikey", *arguments, "--file", str(self.folder / "keys.yaml")],
            capture_output=True, text=True, timeout=30, check=True,
        )
        return done.stdout.strip()

    def get(self, path: str, **fields: str) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in fields.items()})
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body

    def resident(self) -> int:
        status = Path(f"/proc/{self.gateway.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    def flood(self) -> str:
        guilty = ["192.0.2.1", "2001:db8::1"]
        for client in guilty:
            statuses = [self.get("/flood", X_Forwarded_For=client)[0] for _ in range(11)]
            expect(statuses == [200] * 10 + [429], f"{client}: {statuses}")
        first = self.send(0, self.addresses // 4)
        before = self.resident()
        second = self.send(self.addresses // 4, self.addresses)
        after = self.resident()
        expect(first + second == self.addresses, f"{first + second} of {self.addresses} were served")
        # A table has a mebibyte, which the first quarter filled.
        expect(after < before + 2048, f"{before} KiB, then {after} KiB")
        for client in guilty:
            expect(self.get("/flood", X_Forwarded_For=client)[0] == 429, f"{client} was let in")
        return f"{self.addresses} addresses, {before} KiB, then {after} KiB"

    def send(self, begin: int, end: int) -> int:
        """Sends one request of each address, pipelined; returns how many were served."""
        served = 0
        with socket.create_connection(("127.0.0.1", self.port), 30) as wire:
            for at in range(begin, end, BATCH):
                size = min(BATCH, end - at)
                wire.sendall(b"".join(
                    b"GET /flood HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: %s\r\n\r\n"
                    % str(ipaddress.ip_address(0x0A000000 + at + n)).encode()
                    for n in range(size)
                ))
                received = b""
                while received.count(b"HTTP/1.1 ") < size or not received.endswith((b"served", b"}\n")):
                    piece = wire.recv(1 << 16)
                    expect(piece, "the gateway closed the connection")
                    received += piece
                served += received.count(b"HTTP/1.1 200")
        return served

    def exact(self) -> str:
        passed = []

        def client() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            for _ in range(25):
                connection.request("GET", "/exact", headers={"X-Run": "1"})
                answer = connection.getresponse()
                answer.read()
                passed.append(answer.status)
            connection.close()

        threads = [threading.Thread(target=client) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expect(passed.count(200) == 100 and passed.count(429) == 900, f"{passed.count(200)} passed")
        return "100 of 1000 on 40 connections"

    def curl(self) -> str:
        url = f"http://127.0.0.1:{self.port}/slow"
        began = time.monotonic()
        for _ in range(2):
            done = subprocess.run(
                ["curl", "-sS", "--fail", "--retry", "3", url], capture_output=True, text=True, timeout=60, check=False,
            )
            expect(done.returncode == 0 and done.stdout == "served", f"{done.returncode}: {done.stderr}")
        waited = time.monotonic() - began
        expect(waited > 0.9, f"it did not wait: {waited:.1f} s")
        return "it waits as Retry-After says, and is served"

    def inside(self) -> None:
        for client, status in [("10.1.2.3", 200), ("192.0.2.1", 403)]:
            seen = self.get("/inside", X_Forwarded_For=client)[0]
            expect(seen == status, f"{client}: {seen}")

    def keys(self) -> None:
        for key, status in [(self.key, 200), (self.key[:-1] + "x", 401)]:
            seen = self.get("/keys", X_Api_Key=key)[0]
            expect(seen == status, f"{seen} instead of {status}")
        expect(self.key not in (self.folder / "keys.yaml").read_text(), "the file has the key itself")

    def pages(self) -> str:
        expect(self.chromium, "there is no Chromium")
        for path, wanted, other in [
            ("/none", "<h1>lost 404</h1>", "problem"),
            ("/app/503", "<h1>down 503</h1>", "the app's own"),
            ("/app/404", "the app's own", "lost"),
        ]:
            dom = self.dump(path)
            expect(wanted in dom and other not in dom, f"{path}: {dom[-300:]}")
        dom = self.dump("/page/")
        expect("503 \"app\";r=99" in dom.replace("&quot;", '"') and "the app's own" in dom, dom[-300:])
        problem = json.loads(self.get("/none")[2])
        expect(problem["status"] == 404, str(problem))
        return "navigations get pages, a script of another origin the app's own and RateLimit"

    def dump(self, path: str) -> str:
        done = subprocess.run(
            [
                self.chromium, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000",
                f"--user-data-dir={self.folder / 'chromium'}", "--dump-dom", f"http://127.0.0.1:{self.port}{path}",
            ],
            capture_output=True, text=True, timeout=60, check=True,
        )
        return done.stdout

    def stop(self) -> None:
        self.gateway.stop()
        self.app.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gateway", type=Path, default=BUILT / "debug" / "portcullis")
    parser.add_argument("--addresses", type=int, default=100_000)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--only")
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    arguments = parser.parse_args()
    limit_run(OVERALL_SECONDS)
    folder = Path(tempfile.mkdtemp(prefix="portcullis-limits-"))
    checks = Checks(arguments.only)
    story = None
    try:
        story = Story(arguments.gateway.resolve(), folder, arguments.addresses, arguments.chromium)
        checks.run("a flood of addresses", story.flood)
        checks.run("exact over all workers", story.exact)
        checks.run("curl", story.curl)
        checks.run("addresses", story.inside)
        checks.run("API keys", story.keys)
        checks.run("Chromium", story.pages)
        expect(story.gateway.running(), "the gateway ended")
    except TimeLimit as limit:
        checks.fail("the whole run", str(limit))
    finally:
        if story:
            story.stop()
            if checks.failed:
                print(story.gateway.tail())
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
