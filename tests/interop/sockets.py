#!/usr/bin/env python3
"""How connections come to the gateway: behind Debian's HAProxy, which names the clients by PROXY protocol.

    tests/interop/sockets.py [--gateway BINARY] [--only WORDS] [--keep]

HAProxy sends headers of version 1 and 2, with a CRC32C, a unique id and what it knows of its client's TLS, over TCP and
over a Unix socket, with plain HTTP, TLS and HTTP/2 behind. Strangers who send headers of their own are closed. Prints a
line a check; exit status 1 where one failed. Standard library only; ends within two minutes.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from harness import Checks, Child, Target, TimeLimit, expect, free_port, limit_run, wait_until

ROOT = Path(__file__).resolve().parents[2]
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
OVERALL_SECONDS = 120
# An address of this machine that is no trusted proxy, and one that is.
CLIENT, PROXY = "127.0.0.7", "127.0.0.1"


class Echo(http.server.BaseHTTPRequestHandler):
    """An app that answers with the fields that it was sent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def start_app() -> http.server.ThreadingHTTPServer:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def make_certificate(folder: Path) -> None:
    """A key and a certificate for localhost, each alone and in one file, as HAProxy takes it."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", "a.key", "-out", "a.pem", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        cwd=folder, check=True, capture_output=True, stdin=subprocess.DEVNULL,
    )
    (folder / "both.pem").write_text((folder / "a.pem").read_text() + (folder / "a.key").read_text())


def records(gateway: Child) -> list[dict]:
    """The access records so far; the last line may not be whole yet."""
    lines = gateway.out.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


class Wrapped(Target):
    """A target that is reached from an address, by TLS where that is asked for."""

    def __init__(self, address: tuple[str, int] | str, source: str = CLIENT, alpn: str | None = None):
        super().__init__(address, "localhost")
        self.source = source
        self.alpn = alpn

    def dial(self, timeout: float, receive_buffer: int | None = None) -> socket.socket:
        if isinstance(self.address, str):
            return super().dial(timeout)
        connection = socket.create_connection(self.address, timeout, (self.source, 0))
        if self.alpn:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols([self.alpn])
            connection = context.wrap_socket(connection, server_hostname="localhost")
        return connection


class BehindHaproxy:
    """A gateway with four listeners, and HAProxy in front of each in several ways."""

    def __init__(self, folder: Path, binary: Path):
        self.folder = folder
        folder.mkdir()
        make_certificate(folder)
        self.app = start_app()
        self.plain, self.tls, self.redirecting, self.health = (free_port() for _ in range(4))
        self.socket = str(folder / "front.sock")
        (folder / "gateway.yaml").write_text(f"""
workers: 2
listeners:
  - {{address: "127.0.0.1:{self.plain}", proxy_protocol: true}}
  - {{address: "127.0.0.1:{self.tls}", proxy_protocol: true, tls: {{certificates: [{{cert: a.pem, key: a.key}}]}}}}
  - {{address: "127.0.0.1:{self.redirecting}", proxy_protocol: true, redirect_to_https: true}}
  - {{address: "127.0.0.1:{self.health}", proxy_protocol: true}}
  - {{address: "unix:{self.socket}", proxy_protocol: true}}
trusted_proxies: [{PROXY}]
routes:
  - {{path: /*, proxy: "http://127.0.0.1:{self.app.server_port}", auth: none}}
log: {{level: debug, access: {{to: stdout, format: json}}}}
""")
        # Name: where HAProxy listens, and how it goes on.
        extra = "proxy-v2-options crc32c,unique-id"
        self.ways = {
            "v1": (None, f"127.0.0.1:{self.plain} send-proxy"),
            "v2": (None, f"127.0.0.1:{self.plain} send-proxy-v2"),
            "v2-crc32c-id": (None, f"127.0.0.1:{self.plain} send-proxy-v2 {extra}"),
            "v2-ssl": ("ssl crt both.pem alpn http/1.1", f"127.0.0.1:{self.redirecting} send-proxy-v2-ssl"),
            "v2-ssl-cn": ("ssl crt both.pem alpn http/1.1", f"127.0.0.1:{self.redirecting} send-proxy-v2-ssl-cn {extra}"),
            "v2-ssl-plain": (None, f"127.0.0.1:{self.redirecting} send-proxy-v2-ssl"),
            "v1-through": (None, f"127.0.0.1:{self.tls} send-proxy"),
            "v2-through": (None, f"127.0.0.1:{self.tls} send-proxy-v2 {extra}"),
            "v1-unix": (None, f"unix@{self.socket} send-proxy"),
            "v2-unix": (None, f"unix@{self.socket} send-proxy-v2 {extra}"),
            "checked": (None, f"127.0.0.1:{self.health} send-proxy-v2 check check-send-proxy inter 100ms"),
        }
        self.ports = {name: free_port() for name in self.ways}
        self.local = {name: str(folder / f"{name}.client.sock") for name in ("v1", "v2", "v2-crc32c-id")}
        text = """global
    maxconn 200
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
"""
        for name, (tls, server) in self.ways.items():
            text += f"listen {name}\n    bind 127.0.0.1:{self.ports[name]} {tls or ''}\n"
            if name in self.local:
                text += f"    bind unix@{self.local[name]}\n"
            text += f"    unique-id-format lb-%ci-%cp\n    source {PROXY}\n    server one {server}\n"
        (folder / "haproxy.cfg").write_text(text)
        self.gateway = Child("gateway", [str(binary), "run"], folder, folder)
        wait_until(lambda: self.gateway.err.read_text().count("listening address") == 5, 15, "the gateway listens")
        self.haproxy = Child("haproxy", ["haproxy", "-W", "-db", "-f", "haproxy.cfg"], folder, folder)
        wait_until(lambda: socket.create_connection(("127.0.0.1", self.ports["v1"]), 1).close() is None, 10, "HAProxy listens")

    def stop(self) -> None:
        for child in (self.haproxy, self.gateway):
            child.stop()
        self.app.shutdown()

    def ask(self, way: str, path: str, alpn: str | None = None, source: str = CLIENT) -> tuple[int, dict, dict]:
        """The status, what the app saw, and the access record."""
        target = Wrapped(("127.0.0.1", self.ports[way]), source, alpn)
        answer = target.get(path, headers={"X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "https"})
        return answer.status, answer.json() if answer.status == 200 else {}, self.record(path)

    def record(self, path: str) -> dict:
        found: list[dict] = []

        def seen() -> bool:
            found[:] = [record for record in records(self.gateway) if record["path"] == path]
            return bool(found)

        wait_until(seen, 5, f"the access record of {path}")
        return found[0]

    def expect_client(self, way: str, alpn: str | None = None, secure: bool = False) -> dict:
        """The client is who connected to HAProxy, whatever it says itself. Its access record."""
        status, seen, record = self.ask(way, f"/{way}", alpn)
        expect(status == 200, f"{status}")
        expect(record["client"] == CLIENT, f"the record says {record['client']}")
        told = {name: seen.get(f"x-forwarded-{name}") for name in ("for", "proto", "port")}
        port = str(self.ports[way])
        wanted = {"for": CLIENT, "proto": "https" if secure else "http", "port": port}
        expect(told == wanted, f"the app was told {told}, not {wanted}")
        expect(record["tls"] == (way.endswith("through")), f"tls is {record['tls']}")
        return record

    def plainly(self, way: str) -> str:
        record = self.expect_client(way)
        expect(("proxy_id" in record) == (way == "v2-crc32c-id"), f"{record}")
        return record.get("proxy_id", "no id")

    def with_id(self) -> str:
        record = self.expect_client("v2-crc32c-id")
        expect(record["proxy_id"].startswith(f"lb-{CLIENT}-"), record["proxy_id"])
        return record["proxy_id"]

    def over_tls(self, way: str) -> None:
        """The client's TLS ends at HAProxy: it is secure, and is not sent to https."""
        record = self.expect_client(way, "http/1.1", secure=True)
        expect(("proxy_id" in record) == (way == "v2-ssl-cn"), f"{record}")

    def redirected(self) -> None:
        """The same header for a client without TLS: it is sent to https."""
        status, _, record = self.ask("v2-ssl-plain", "/v2-ssl-plain")
        expect(status == 308 and record["client"] == CLIENT, f"{status} {record}")

    def through(self, way: str) -> None:
        """TLS ends at the gateway."""
        self.expect_client(way, "http/1.1", secure=True)

    def http2(self, way: str, alpn: str | None) -> None:
        """HTTP/2 behind the header, by curl."""
        url = f"{'https' if alpn else 'http'}://127.0.0.1:{self.ports[way]}/h2/{way}"
        kind = "--http2" if alpn else "--http2-prior-knowledge"
        run = subprocess.run(
            ["curl", "-sk", kind, "--interface", CLIENT, "-w", "%{http_version} %{http_code}", "-o", "/dev/null", url],
            capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL,
        )
        expect(run.stdout == "2 200", f"{run.stdout!r} {run.stderr!r}")
        record = self.record(f"/h2/{way}")
        expect(record["client"] == CLIENT and record["protocol"] == "HTTP/2.0", f"{record}")

    def without_address(self, way: str) -> str:
        """HAProxy's own client is on a Unix socket and has no address: the peer is HAProxy, which is trusted."""
        answer = Wrapped(self.local[way]).get(f"/local/{way}", headers={"X-Forwarded-For": "203.0.113.9"})
        expect(answer.status == 200, answer.brief())
        record = self.record(f"/local/{way}")
        expect(record["client"] == "203.0.113.9", f"{record}")
        expect(answer.json()["x-forwarded-for"] == f"203.0.113.9, {PROXY}", answer.brief())
        return record.get("proxy_id", "no id")

    def checked(self) -> None:
        """HAProxy's health checks send LOCAL headers, and are no reason to warn."""
        self.expect_client("checked")
        time.sleep(0.5)
        log = self.gateway.err.read_text()
        expect("proxy_header" not in log, next((line for line in log.splitlines() if "proxy_header" in line), ""))

    def strangers(self) -> str:
        """Whoever is no trusted proxy is closed, with a header or without, and the app hears nothing."""
        before = len(records(self.gateway))
        line = f"PROXY TCP4 10.0.0.1 127.0.0.1 1 {self.plain}\r\n".encode()
        addresses = socket.inet_aton("10.0.0.1") + socket.inet_aton("127.0.0.1") + struct.pack(">HH", 1, self.plain)
        block = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack(">H", len(addresses)) + addresses
        request = b"GET /stolen HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for header in (line, block, b""):
            for port in (self.plain, self.tls):
                self.expect_closed(("127.0.0.1", port), CLIENT, header + request)
        wait_until(lambda: "proxy_untrusted" in self.warnings(), 5, "a warning")
        warning = next(line for line in self.warnings().splitlines() if "proxy_untrusted" in line)
        expect(f"client={CLIENT} " in warning, warning)
        expect(len(records(self.gateway)) == before, "a stranger's request was answered")
        return warning.split(" WARN ")[1]

    def malformed(self) -> str:
        """A trusted proxy's connection without a valid header is closed, too."""
        request = b"GET /stolen HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for header in (b"", b"PROXY TCP4 10.0.0.1 127.0.0.1 01 80\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\0"):
            self.expect_closed(("127.0.0.1", self.plain), PROXY, header + request)
        self.expect_closed(self.socket, PROXY, request)
        # The first warning of a minute was for the strangers, so this is at debug.
        wait_until(lambda: 'reason="proxy_header"' in self.gateway.err.read_text(), 5, "a line at debug")
        expect(not any(record["path"] == "/stolen" for record in records(self.gateway)), "it was answered")
        lines = [line for line in self.gateway.err.read_text().splitlines() if 'reason="proxy_header"' in line]
        return lines[0].split(" DEBUG ")[-1]

    def warnings(self) -> str:
        return "\n".join(line for line in self.gateway.err.read_text().splitlines() if " WARN " in line)

    @staticmethod
    def expect_closed(address: tuple[str, int] | str, source: str, sent: bytes) -> None:
        with Wrapped(address, source).dial(10) as stranger:
            try:
                stranger.sendall(sent)
                answer = stranger.recv(100)
            except (ConnectionResetError, BrokenPipeError):
                answer = b""
            expect(answer == b"", f"{sent!r} was answered with {answer!r}")


def behind_haproxy(checks: Checks, folder: Path, binary: Path) -> None:
    """The story of a gateway behind HAProxy."""
    story = BehindHaproxy(folder, binary)
    try:
        checks.run("haproxy: send-proxy", story.plainly, "v1")
        checks.run("haproxy: send-proxy-v2", story.plainly, "v2")
        checks.run("haproxy: send-proxy-v2 with crc32c and unique-id", story.with_id)
        checks.run("haproxy: send-proxy-v2-ssl, its client over TLS", story.over_tls, "v2-ssl")
        checks.run("haproxy: send-proxy-v2-ssl-cn with crc32c and unique-id", story.over_tls, "v2-ssl-cn")
        checks.run("haproxy: send-proxy-v2-ssl, its client without TLS", story.redirected)
        checks.run("haproxy: send-proxy, TLS behind it", story.through, "v1-through")
        checks.run("haproxy: send-proxy-v2, TLS behind it", story.through, "v2-through")
        for way, alpn in (("v1", None), ("v2-crc32c-id", None), ("v1-through", "h2"), ("v2-through", "h2")):
            checks.run(f"haproxy: HTTP/2 behind the header ({way})", story.http2, way, alpn)
        checks.run("haproxy: send-proxy to a Unix socket", story.expect_client, "v1-unix")
        checks.run("haproxy: send-proxy-v2 to a Unix socket", story.expect_client, "v2-unix")
        for way in story.local:
            checks.run(f"haproxy: a client without an address ({way})", story.without_address, way)
        checks.run("haproxy: health checks with LOCAL", story.checked)
        checks.run("haproxy: strangers' headers are closed", story.strangers)
        checks.run("haproxy: connections without a valid header are closed", story.malformed)
    finally:
        story.stop()
        if checks.failed:
            print(story.gateway.tail(), story.haproxy.tail(), sep="\n")


def main() -> int:
    parser = argparse.ArgumentParser(description="How connections come to the gateway.")
    parser.add_argument("--gateway", type=Path, default=BUILT / "debug" / "portcullis", help="the binary to test")
    parser.add_argument("--only", help="run the checks whose name has these words")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder with the logs, and say where")
    options = parser.parse_args()
    binary = options.gateway.resolve()
    if not binary.is_file():
        print(f"FAIL no gateway at {options.gateway}: build it, or name it with --gateway")
        return 1
    absent = [name for name in ("haproxy", "openssl", "curl") if not shutil.which(name)]
    if absent:
        print(f"FAIL not installed: {', '.join(absent)}")
        return 1
    limit_run(OVERALL_SECONDS)
    checks = Checks(options.only)
    folder = Path(tempfile.mkdtemp(prefix="portcullis-"))
    try:
        behind_haproxy(checks, folder / "haproxy", binary)
    except TimeLimit as limit:
        checks.fail("the whole run", str(limit))
    finally:
        signal.alarm(0)
        if options.keep:
            print(f"logs: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed or not checks.passed else 0


if __name__ == "__main__":
    sys.exit(main())
