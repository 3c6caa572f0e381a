#!/usr/bin/env python3
"""Compressed content with Chromium and curl: files beside which `portcullis precompress` wrote others, files and an app's
pages that the gateway compresses, and what `Sec-Fetch-Site` of a real browser does to requests with cookies.

    tests/interop/content.py --gateway target/debug/portcullis --chromium /usr/bin/chromium

Exits 1 if a check failed.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.dont_write_bytecode = True
from harness import Checks, Child, expect, free_port, limit_run, wait_until  # noqa: E402

SCRIPT = "assets/app-BX3kQ9az.js"
LONG = "".join(f"// line {number} of a script that is long enough to be worth it\n" for number in range(200))

# Asks its own origin and a foreign site, then writes down what it saw.
PAGE = """<!doctype html><title>content</title><script src="/assets/app-BX3kQ9az.js"></script><pre id=seen></pre>
<script>
(async () => {
  const foreign = "https://127.0.0.1:" + location.port;
  await (await fetch("/app/same")).text();
  await fetch(foreign + "/app/foreign", {mode: "no-cors"});
  await (await fetch("/plain.txt")).text();
  const entries = performance.getEntriesByType("resource").map(
    (it) => [new URL(it.name).pathname, it.encodedBodySize, it.decodedBodySize]);
  document.getElementById("seen").textContent = JSON.stringify({ran: window.ran, entries});
})();
</script>
""" + "<!-- a page that is long enough to be worth it -->\n" * 200


# Leads to another site, which gets its own cookies along.
HOP = """<!doctype html><script>location.replace("https://127.0.0.1:" + location.port + "/app/landed")</script>"""


class App(BaseHTTPRequestHandler):
    """Sends the page, with a cookie that other sites' requests carry, too."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = (HOP if self.path == "/app/hop" else PAGE).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Set-Cookie", "session=secret; Secure; HttpOnly; SameSite=None; Path=/; Max-Age=3600")
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Story:
    """The gateway before an app and a site, and the programs that come to it."""

    def __init__(self, gateway: Path, folder: Path, chromium: str | None):
        self.gateway, self.folder, self.chromium = gateway, folder, chromium
        self.port = free_port()
        self.app = ThreadingHTTPServer(("127.0.0.1", 0), App)
        threading.Thread(target=self.app.serve_forever, daemon=True).start()
        site = folder / "site"
        (site / "assets").mkdir(parents=True)
        (site / SCRIPT).write_text(LONG + "window.ran = true;\n")
        (site / "plain.txt").write_text(LONG)
        self.run("cert", "local", "localhost", "127.0.0.1")
        (folder / "gateway.yaml").write_text(f"""listeners:
  - address: 127.0.0.1:{self.port}
    tls: {{certificates: [{{cert: certs/localhost.pem, key: certs/localhost.key}}]}}
routes:
  - {{path: /*, static: ./site, auth: none}}
  - {{path: /app/*, proxy: 'http://127.0.0.1:{self.app.server_port}', auth: none, compress: true}}
log: {{access: {{to: access.log, format: json}}}}
""")
        self.child: Child | None = None

    def run(self, *arguments: str) -> str:
        done = subprocess.run([self.gateway, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=120)
        expect(done.returncode == 0, done.stdout + done.stderr)
        return done.stdout

    def precompress(self) -> str:
        said = self.run("precompress", "site/assets")
        for ending in ("br", "zst", "gz"):
            expect((self.folder / "site" / f"{SCRIPT}.{ending}").exists(), said)
        expect("3 current" in self.run("precompress", "site/assets"), "the second time there is nothing to do")
        return said.strip()

    def start(self) -> None:
        self.child = Child("gateway", [str(self.gateway), "run"], self.folder, self.folder)
        wait_until(self.listens, 20, "the gateway to listen")
        # A file that was written just now is not compressed yet.
        time.sleep(2.5)

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def curl(self, path: str, coding: str) -> tuple[str, str]:
        done = subprocess.run(
            ["curl", "-sk", "--compressed", "-H", f"Accept-Encoding: {coding}", "-D", "-",
             f"https://localhost:{self.port}{path}"], capture_output=True, text=True, timeout=60, check=True)
        head, _, body = done.stdout.partition("\n\n") if "\r" not in done.stdout else done.stdout.partition("\r\n\r\n")
        found = re.search(r"(?im)^content-encoding: *(\S+)", head)
        return (found[1] if found else ""), body

    def curl_reads_what_was_written(self) -> str:
        for path, plain in ((f"/{SCRIPT}", LONG + "window.ran = true;\n"), ("/plain.txt", LONG), ("/app/page", PAGE)):
            for coding in ("gzip", "identity"):
                got, body = self.curl(path, coding)
                expect(got == ("gzip" if coding == "gzip" else ""), f"{path}: {coding} was answered with {got!r}")
                expect(body.replace("\r\n", "\n") == plain, f"{path} in {coding} is another text")
        return "gzip of a sibling, of a file, of an app"

    def records(self, last: str) -> dict[str, dict]:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            lines = (self.folder / "access.log").read_text().splitlines()
            records = {record["path"]: record for record in map(json.loads, lines)}
            if last in records:
                return records
            time.sleep(0.1)
        expect(False, "the browser's requests are not in the access log")
        return {}

    def visit(self, host: str, path: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self.chromium, "--headless", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors",
             f"--user-data-dir={self.folder / 'profile'}", "--virtual-time-budget=10000", "--dump-dom",
             f"https://{host}:{self.port}{path}"],
            cwd=self.folder, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(self.folder)})

    def chromium_reads_all_of_it(self) -> str:
        done = self.visit("localhost", "/app/start")
        seen = re.search(r"<pre id=\"seen\">(.+?)</pre>", done.stdout, re.S)
        expect(seen, done.stdout[-2000:] + done.stderr[-2000:])
        told = json.loads(html.unescape(seen[1]))
        expect(told["ran"] is True, "the compressed script did not run")
        sizes = {path: (encoded, decoded) for path, encoded, decoded in told["entries"]}
        for path in (f"/{SCRIPT}", "/app/same", "/plain.txt"):
            encoded, decoded = sizes[path]
            expect(0 < encoded < decoded / 5, f"{path}: {encoded} bytes became {decoded}")
        records = self.records("/plain.txt")
        encodings = {path: record.get("encoding") for path, record in records.items()}
        expect(encodings[f"/{SCRIPT}"] in ("br", "zstd"), f"{encodings}")
        expect(encodings["/plain.txt"] == "zstd", f"{encodings}")
        return ", ".join(f"{path} {encoding}" for path, encoding in sorted(encodings.items()))

    def cookies_need_the_browsers_word(self) -> None:
        self.visit("127.0.0.1", "/app/visited")
        self.visit("localhost", "/app/hop")
        records = self.records("/app/landed")
        # Nothing of a user, the user alone with cookies, the page itself with cookies, and another site with cookies.
        for path, expected in (("/app/foreign", "zstd"), ("/app/start", "zstd"), ("/app/same", "zstd"), ("/app/landed", "private")):
            found = records[path].get("encoding")
            expect(found == expected, f"{path}: {found}, not {expected}")

    def stop(self) -> None:
        expect(self.child.stop() == 0, "the gateway did not end well")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", type=Path, required=True)
    parser.add_argument("--chromium", default=None, help="the browser; without it its checks are left out")
    arguments = parser.parse_args()
    limit_run(300)
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="portcullis-content-") as folder:
        story = Story(arguments.gateway.resolve(), Path(folder), arguments.chromium)
        try:
            checks.run("precompress writes what is worth it, once", story.precompress)
            checks.run("the gateway starts", story.start)
            checks.run("curl reads what was written", story.curl_reads_what_was_written)
            if arguments.chromium:
                checks.run("Chromium reads zstd and br of files and pages", story.chromium_reads_all_of_it)
                checks.run("another site's request with cookies is not compressed", story.cookies_need_the_browsers_word)
            checks.run("the gateway ends well", story.stop)
        finally:
            if story.child and story.child.running():
                story.child.stop()
            story.app.shutdown()
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
