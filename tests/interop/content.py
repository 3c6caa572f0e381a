#!/usr/bin/env python3
"""Content with Chromium, curl and django-sendfile2: files beside which `portcullis precompress` wrote others, files and an
app's pages that the gateway compresses, and what `Sec-Fetch-Site` of a real browser does to requests with cookies; several
ranges; a listing in the browser's accessibility tree, on a desk and on a telephone; files that Django names.

    tests/interop/content.py --gateway target/debug/portcullis --venv target/content-venv --chromium /usr/bin/chromium

Exits 1 if a check failed.
"""

from __future__ import annotations

import argparse
import email
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
from urllib.parse import quote

sys.dont_write_bytecode = True
from harness import Checks, Child, expect, free_port, limit_run, make_venv, wait_until  # noqa: E402

HERE = Path(__file__).parent
NAMES = ["plain.pdf", "a b.pdf", "50% off?.pdf", "отчёт.pdf", "a#b&c;d=e+f.pdf"]
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


class Browser:
    """Chromium, told what to do over a pipe (the DevTools protocol)."""

    def __init__(self, program: str, folder: Path):
        read, self.commands = os.pipe()
        self.events, write = os.pipe()
        command = (f"exec {program} --headless --no-sandbox --disable-gpu --ignore-certificate-errors"
                   f" --user-data-dir={folder / 'devtools'} --remote-debugging-pipe about:blank 3<&{read} 4>&{write}")
        self.child = subprocess.Popen(
            ["bash", "-c", command], pass_fds=(read, write), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "HOME": str(folder)})
        os.close(read)
        os.close(write)
        self.number, self.rest, self.session = 0, b"", None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Page.enable")

    def message(self) -> dict:
        while b"\0" not in self.rest:
            piece = os.read(self.events, 1 << 16)
            expect(piece, "Chromium ended")
            self.rest += piece
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def ask(self, method: str, **parameters: object) -> dict:
        self.number += 1
        command = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self.message()
            if message.get("id") == self.number:
                expect("result" in message, f"{method}: {message.get('error')}")
                return message["result"]

    def open(self, url: str) -> None:
        self.ask("Page.navigate", url=url)
        while self.message().get("method") != "Page.loadEventFired":
            pass

    def value(self, script: str) -> object:
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def stop(self) -> None:
        self.child.terminate()
        self.child.wait(20)
        os.close(self.commands)
        os.close(self.events)


class Story:
    """The gateway before an app and a site, and the programs that come to it."""

    def __init__(self, gateway: Path, folder: Path, chromium: str | None, python: Path | None):
        self.gateway, self.folder, self.chromium, self.python = gateway, folder, chromium, python
        self.port = free_port()
        self.django = {backend: free_port() for backend in ("nginx", "xsendfile")}
        self.reports = {}
        self.app = ThreadingHTTPServer(("127.0.0.1", 0), App)
        threading.Thread(target=self.app.serve_forever, daemon=True).start()
        site = folder / "site"
        (site / "assets").mkdir(parents=True)
        (site / SCRIPT).write_text(LONG + "window.ran = true;\n")
        (site / "plain.txt").write_text(LONG)
        (site / "hex.txt").write_text(os.urandom(20_000).hex())
        (site / "large.bin").write_bytes(bytes(range(256)) * 8192)
        (folder / "files" / "sub").mkdir(parents=True)
        for name in ("<img src=x onerror=alert(1)>.txt", "a very long name " * 8 + ".txt", *NAMES):
            (folder / "files" / name).write_text(name)
        (folder / "reports").mkdir()
        for name in NAMES:
            (folder / "reports" / name).write_text(name * 1000)
        self.run("cert", "local", "localhost", "127.0.0.1")
        (folder / "gateway.yaml").write_text(f"""listeners:
  - address: 127.0.0.1:{self.port}
    tls: {{certificates: [{{cert: certs/localhost.pem, key: certs/localhost.key}}]}}
routes:
  - {{path: /*, static: ./site, auth: none}}
  - {{path: /app/*, proxy: 'http://127.0.0.1:{self.app.server_port}', auth: none, compress: true}}
  - {{path: /files/*, static: {{root: ./files, listing: true}}, auth: none}}
  - path: /nginx/*
    proxy: http://127.0.0.1:{self.django["nginx"]}
    rewrite: {{strip_prefix: /nginx}}
    accel: {{/protected/: ./reports}}
    auth: none
  - path: /xsendfile/*
    proxy: http://127.0.0.1:{self.django["xsendfile"]}
    rewrite: {{strip_prefix: /xsendfile}}
    accel: ./reports
    auth: none
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

    def start_django(self) -> None:
        for backend, port in self.django.items():
            environment = {**os.environ, "SENDFILE_BACKEND": backend, "SENDFILE_ROOT": str(self.folder / "reports")}
            command = [str(self.python), "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--chdir", str(HERE / "apps"), "sendfile_site:application"]
            self.reports[backend] = Child(f"django-{backend}", command, self.folder, self.folder, environment)
        for port in self.django.values():
            wait_until(lambda: self.listens(port), 30, "gunicorn to listen")

    def start(self) -> None:
        self.child = Child("gateway", [str(self.gateway), "run"], self.folder, self.folder)
        wait_until(self.listens, 20, "the gateway to listen")
        # A file that was written just now is not compressed yet.
        time.sleep(2.5)

    def listens(self, port: int | None = None) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port or self.port)) == 0

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

    def fetch(self, path: str, *options: str) -> tuple[int, dict[str, str], bytes]:
        """What curl gets: the status, the fields, the body."""
        done = subprocess.run(["curl", "-sk", "-D", self.folder / "head", *options, f"https://localhost:{self.port}{path}"],
                              capture_output=True, timeout=60, check=True)
        lines = (self.folder / "head").read_text().strip().splitlines()
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return int(lines[0].split()[1]), fields, done.stdout

    def several_ranges(self) -> str:
        whole = bytes(range(256)) * 8192
        for version in ("--http1.1", "--http2"):
            status, fields, body = self.fetch("/large.bin", version, "-r", "0-99,1000000-1999999,-5")
            expect(status == 206 and int(fields["content-length"]) == len(body), f"{status} {fields}")
            # As another program reads it.
            message = email.message_from_bytes(f"Content-Type: {fields['content-type']}\r\n\r\n".encode() + body)
            parts = [(part["Content-Range"], part.get_payload(decode=True)) for part in message.get_payload()]
            expect(parts == [(f"bytes {first}-{last}/{len(whole)}", whole[first:last + 1])
                             for first, last in ((0, 99), (1000000, 1999999), (len(whole) - 5, len(whole) - 1))],
                   f"{[(it[0], len(it[1])) for it in parts]}")
            expect(self.fetch("/large.bin", version, "-r", ",".join(["0-"] * 17))[2] == whole, "17 ranges are the file")
        # What a browser would be sent, too, decodes to nothing else than the parts.
        coded = self.fetch("/hex.txt", "--compressed", "-r", "0-9,300-309")
        expect(coded[0] == 206 and "content-encoding" not in coded[1], f"{coded[1]}")
        expect(coded[2].count(b"Content-Encoding: ") == 2, f"{coded[2][:400]}")
        return "HTTP/1.1 and HTTP/2, read by Python's email"

    def django_names_files(self) -> str:
        for backend in self.django:
            # Django writes fields that are not Latin-1 as RFC 2047 does, which is no path: not so the other backend's, which
            # are percent-encoded.
            names = [name for name in NAMES if backend == "nginx" or name.isascii()]
            for name in names:
                path, text = f"/{backend}/report/{quote(name)}", (name * 1000).encode()
                status, fields, body = self.fetch(path, "-b", "user=ada")
                expect(status == 200 and body == text, f"{backend} {name}: {status} {body[:80]!r}")
                expect(fields["content-type"] == "application/pdf" and "seen=yes" in fields["set-cookie"], f"{fields}")
                expect(fields["cache-control"].startswith("private"), f"{fields}")
                expect(not {"x-accel-redirect", "x-sendfile"} & fields.keys(), f"{fields}")
                part = self.fetch(path, "-b", "user=ada", "-r", "10-19")
                expect((part[0], part[2]) == (206, text[10:20]), f"{backend} {name}: {part[0]}")
                known = self.fetch(path, "-b", "user=ada", "-H", f"If-None-Match: {fields['etag']}")
                expect((known[0], known[2]) == (304, b""), f"{backend} {name}: {known[0]}")
                denied = self.fetch(path, "-b", "user=eve")
                expect((denied[0], denied[2]) == (403, b"only for Ada"), f"{backend} {name}: {denied[0]}")
            saved = self.fetch(f"/{backend}/report/{quote(names[-2])}?save", "-b", "user=ada")
            expect(saved[1]["content-disposition"].startswith("attachment"), f"{saved[1]}")
            # A mapping of the client's own changes nothing.
            forged = self.fetch(f"/{backend}/report/plain.pdf", "-b", "user=ada", "-H", "X-Sendfile-Type: X-Sendfile",
                                "-H", "X-Accel-Mapping: /=/etc/", "-H", "X-Accel-Redirect: /etc/passwd")
            expect(forged[2] == b"plain.pdf" * 1000, "a client's own mapping changed the file")
        return f"{len(NAMES)} names by X-Accel-Redirect, those in ASCII by X-Sendfile"

    def a_listing_is_a_table(self) -> str:
        browser = Browser(self.chromium, self.folder)
        try:
            browser.open(f"https://localhost:{self.port}/files/")
            nodes = browser.ask("Accessibility.getFullAXTree")["nodes"]
            named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")]
            roles = [role for role, _ in named]
            count = len(NAMES) + 3
            expect(roles.count("table") == 1 and roles.count("row") == count + 1, f"{roles}")
            headers = [name for role, name in named if role == "columnheader"]
            expect(headers == ["Name", "Size", "Modified"], f"{headers}")
            expect(roles.count("rowheader") == count and roles.count("cell") == 2 * count, f"{roles}")
            links = [name for role, name in named if role == "link"]
            expect("<img src=x onerror=alert(1)>.txt" in links and NAMES[3] in links, f"{links}")
            expect(browser.value("document.images.length") == 0, "a name became an image")
            light = browser.value("getComputedStyle(document.body).backgroundColor")
            browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
            dark = browser.value("getComputedStyle(document.body).backgroundColor")
            expect(len({light, dark, "rgba(0, 0, 0, 0)"}) == 3, f"light {light}, dark {dark}: the policy keeps the style")
            browser.ask("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
            wide = browser.value("document.documentElement.scrollWidth - innerWidth")
            expect(wide <= 0, f"on a telephone the page is {wide} px too wide")
            # Sorted by a link.
            browser.open(browser.value("document.querySelector('thead th:nth-child(2) a').href"))
            expect(browser.value("document.querySelector('th[aria-sort]').textContent") == "Size", "the order is not by size")
            # Each link leads to its file.
            found = browser.value("[...document.querySelectorAll('tbody a')].map((it) => [it.textContent, it.href])")
            for name, address in found:
                path = address.split(f":{self.port}", 1)[1]
                status, _, body = self.fetch(path)
                expect(status == 200 and (name.endswith("/") or body.decode() == name), f"{name}: {path} is {status}")
            shots = os.environ.get("SHOTS")
            if shots:
                import base64
                Path(shots, "listing.png").write_bytes(base64.b64decode(browser.ask("Page.captureScreenshot")["data"]))
            return f"{count} rows, light {light}, dark {dark}"
        finally:
            browser.stop()

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
    parser.add_argument("--venv", type=Path, default=None, help="a folder for Django's packages; without it its checks are left out")
    parser.add_argument("--chromium", default=None, help="the browser; without it its checks are left out")
    arguments = parser.parse_args()
    limit_run(300)
    checks = Checks()
    python = make_venv(arguments.venv.resolve(), HERE / "content-requirements.txt") if arguments.venv else None
    with tempfile.TemporaryDirectory(prefix="portcullis-content-") as folder:
        story = Story(arguments.gateway.resolve(), Path(folder), arguments.chromium, python)
        try:
            checks.run("precompress writes what is worth it, once", story.precompress)
            checks.run("the gateway starts", story.start)
            checks.run("curl reads what was written", story.curl_reads_what_was_written)
            checks.run("several ranges are parts", story.several_ranges)
            if python:
                checks.run("Django starts", story.start_django)
                checks.run("Django names files, and they are sent", story.django_names_files)
            if arguments.chromium:
                checks.run("Chromium reads zstd and br of files and pages", story.chromium_reads_all_of_it)
                checks.run("a listing is a table in Chromium's accessibility tree", story.a_listing_is_a_table)
                checks.run("another site's request with cookies is not compressed", story.cookies_need_the_browsers_word)
            checks.run("the gateway ends well", story.stop)
        finally:
            for child in (story.child, *story.reports.values()):
                if child and child.running():
                    child.stop()
            story.app.shutdown()
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
