#!/usr/bin/env python3
"""How connections come to the gateway: behind Debian's HAProxy, and on sockets that systemd opened.

    tests/interop/sockets.py [--gateway BINARY] [--only WORDS] [--keep]

HAProxy sends headers of version 1 and 2, with a CRC32C, a unique id and what it knows of its client's TLS, over TCP and
over a Unix socket, with plain HTTP, TLS and HTTP/2 behind. Strangers who send headers of their own are closed.
systemd-socket-activate passes sockets with names; what systemd does beyond that (one process after another on the same
sockets) is done here. Prints a line a check; exit status 1 where one failed. Standard library only; ends within two
minutes.
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

from harness import Checks, Child, Target, TimeLimit, Traffic, expect, free_port, limit_run, wait_until

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


class Activated:
    """A gateway on sockets that another process opened."""

    SECONDS = 10

    def __init__(self, folder: Path, binary: Path):
        self.folder = folder
        folder.mkdir()
        make_certificate(folder)
        self.binary = binary
        self.children: list[Child] = []
        self.sockets: list[socket.socket] = []

    def stop(self) -> None:
        for child in self.children:
            child.stop()
        for opened in self.sockets:
            opened.close()

    def configure(self, *listeners: str) -> None:
        text = "workers: 2\nlisteners:\n" + "".join(f"  - {{{listener}}}\n" for listener in listeners)
        text += "routes: [{path: /*, respond: {body: served}, auth: none}]\n"
        text += "log: {level: debug, access: {to: stdout, format: json}}\n"
        beside = self.folder / "new.yaml"
        beside.write_text(text)
        beside.rename(self.folder / "gateway.yaml")

    def child(self, name: str, command: list[str]) -> Child:
        child = Child(name, command, self.folder, self.folder)
        self.children.append(child)
        return child

    def listen(self, address: tuple[str, int] | str) -> socket.socket:
        """A socket as systemd opens it: it blocks, and has a queue."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        opened = socket.socket(family)
        opened.bind(address)
        opened.listen(64)
        self.sockets.append(opened)
        return opened

    def start(self, name: str, passed: list[tuple[str, socket.socket]]) -> Child:
        """Starts a gateway with these sockets and their names, as systemd does."""
        numbers = [opened.fileno() for _, opened in passed]
        # From 3 on, in order: by way of numbers that are free.
        moves = [f"exec {30 + at}<&{number}" for at, number in enumerate(numbers)]
        moves += [f"exec {3 + at}<&{30 + at} {30 + at}<&-" for at in range(len(numbers))]
        names = ":".join(name for name, _ in passed)
        lines = [*moves, f"export LISTEN_PID=$$ LISTEN_FDS={len(passed)} LISTEN_FDNAMES={names}", f"exec {self.binary} run"]
        script = self.folder / f"{name}.sh"
        script.write_text("\n".join(lines))
        self.children.append(Child(name, ["bash", str(script)], self.folder, self.folder, pass_fds=numbers))
        return self.children[-1]

    def served(self, address: tuple[str, int] | str, alpn: str | None = None) -> None:
        answer = Wrapped(address, PROXY, alpn).get("/", timeout=self.SECONDS)
        expect(answer.status == 200 and answer.body == b"served", answer.brief())

    def by_systemd(self) -> str:
        """systemd-socket-activate: TCP and Unix under one name, TLS under another, and one that nobody uses."""
        plain, tls, spare = (free_port() for _ in range(3))
        path = str(self.folder / "web.sock")
        self.configure("socket_activation: web, redirect_to_https: false", "socket_activation: tls, tls: {certificates: [{cert: a.pem, key: a.key}]}")
        command = ["systemd-socket-activate"]
        for address in (plain, path, tls, spare):
            command.append(f"--listen={address if isinstance(address, str) else f'127.0.0.1:{address}'}")
        command += ["--fdname=web:web:tls:spare", str(self.binary), "run", "-c", str(self.folder / "gateway.yaml")]
        child = self.child("activate", command)
        wait_until(lambda: "Listening on" in child.err.read_text(), self.SECONDS, "systemd-socket-activate listens")
        # The first connection starts the gateway, and is served by it.
        self.served(("127.0.0.1", plain))
        self.served(path)
        self.served(("127.0.0.1", tls), "http/1.1")
        log = child.err.read_text()
        for address in (f"127.0.0.1:{plain} tls=false", f"unix:{path} tls=false", f"127.0.0.1:{tls} tls=true"):
            expect(f"listening address={address}" in log, f"{address} is not in the log:\n{log}")
        expect('name="spare"' in log and "socket_activation: spare" in log, log)
        # A dead child of systemd's would hold them open: none is inherited.
        flags = [
            int(line.split()[1], 8)
            for number in range(3, 7)
            for line in Path(f"/proc/{child.process.pid}/fdinfo/{number}").read_text().splitlines()
            if line.startswith("flags:")
        ]
        expect(len(flags) == 4 and all(flag & 0o2000000 for flag in flags), f"{[oct(flag) for flag in flags]}")
        expect(child.stop() == 0, "it ended otherwise than well")
        return f"{len(log.splitlines())} lines of log"

    def missing(self) -> str:
        """A name that was not passed: the start fails, and says which were; a reload is refused."""
        opened = self.listen(("127.0.0.1", 0))
        self.configure("socket_activation: https")
        child = self.start("missing", [("web", opened), ("admin", opened)])
        expect(child.process.wait(self.SECONDS) == 1, "it started")
        said = child.err.read_text().strip()
        expect("the systemd socket `https`" in said and said.endswith("it passed web, admin"), said)
        self.configure("socket_activation: web")
        child = self.start("refused", [("web", opened), ("admin", opened)])
        self.served(opened.getsockname())
        self.configure("socket_activation: web", "socket_activation: https")
        wait_until(lambda: "configuration refused" in child.err.read_text(), self.SECONDS, "the refusal")
        expect("it passed web, admin" in child.err.read_text(), child.tail())
        self.served(opened.getsockname())
        child.stop()
        return said.splitlines()[-1]

    def reloads(self) -> None:
        """A reload takes a listener out and brings it back: who connects meanwhile waits, and is served."""
        web, other = self.listen(("127.0.0.1", 0)), self.listen(str(self.folder / "other.sock"))
        both = ("socket_activation: web", "socket_activation: other")
        self.configure(*both)
        child = self.start("reloads", [("web", web), ("other", other), ("web", self.listen(("127.0.0.1", 0)))])
        second = self.sockets[-1]

        def reload(*listeners: str) -> None:
            before = child.err.read_text().count("configuration reloaded")
            self.configure(*listeners)
            wait_until(lambda: child.err.read_text().count("configuration reloaded") > before, self.SECONDS, "a reload")

        for address in (web.getsockname(), second.getsockname(), other.getsockname()):
            self.served(address)
        for _ in range(3):
            reload("socket_activation: other")
            self.served(other.getsockname())
            waiting = [socket.create_connection(opened.getsockname(), self.SECONDS) for opened in (web, second)]
            for connection in waiting:
                connection.sendall(b"GET /waiting HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                connection.settimeout(0.3)
                try:
                    expect(False, f"a listener that was taken out answered {connection.recv(100)!r}")
                except TimeoutError:
                    pass
            reload(*both)
            for connection in waiting:
                connection.settimeout(self.SECONDS)
                expect(connection.recv(100).startswith(b"HTTP/1.1 200"), "it was not served")
                connection.close()
            self.served(web.getsockname())
        child.stop()

    def restarts(self) -> str:
        """One process after another on the same socket, under load: nobody is refused, and nobody lost."""
        web = self.listen(("127.0.0.1", 0))
        address = web.getsockname()
        self.configure("socket_activation: web")
        child = self.start("first", [("web", web)])
        self.served(address)
        traffic = Traffic()
        for number in range(4):
            traffic.repeat(f"client {number}", lambda: self.served(address), pause=0.005)
        for name in ("second", "third", "fourth"):
            time.sleep(0.3)
            expect(child.stop() == 0, "it ended otherwise than well")
            time.sleep(0.2)
            child = self.start(name, [("web", web)])
        time.sleep(0.3)
        calls, failures = traffic.stop()
        child.stop()
        expect(not failures, f"{len(failures)} of {calls} failed: {failures[:3]}")
        return f"{calls} requests, 3 restarts, 0 failed"

    def unusable(self) -> str:
        """What is no listening socket stops the start; a datagram socket does not, until a listener wants it."""
        near, far = socket.socketpair()
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("127.0.0.1", 0))
        self.sockets += [near, far, datagrams]
        web = self.listen(("127.0.0.1", 0))
        self.configure("socket_activation: web")
        said = []
        for name, passed, why in (
            ("connection", [("web", web), ("odd", near)], "descriptor 4, passed as `odd`: it is a connection"),
            ("names", [("web", web), ("a:b", web)], "LISTEN_FDS is 2, and LISTEN_FDNAMES has 3"),
        ):
            child = self.start(name, passed)
            expect(child.process.wait(self.SECONDS) == 1, f"{name}: it started")
            said.append(child.err.read_text().strip())
            expect(why in said[-1], said[-1])
        child = self.start("datagrams", [("web", web), ("quic", datagrams)])
        self.served(web.getsockname())
        self.configure("socket_activation: quic")
        wait_until(lambda: "it is for datagrams" in child.err.read_text(), self.SECONDS, "the refusal")
        child.stop()
        return said[0]

    def introduced(self) -> None:
        """PROXY headers on a systemd socket: over TCP by trusted proxies alone."""
        web, local = self.listen(("127.0.0.1", 0)), self.listen(str(self.folder / "proxied.sock"))
        self.configure("socket_activation: web, proxy_protocol: true")
        child = self.start("nobody", [("web", web)])
        expect(child.process.wait(self.SECONDS) == 1, "it started")
        expect("nobody may speak PROXY protocol there" in child.err.read_text(), child.tail())
        child = self.start("local", [("web", local)])
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(self.SECONDS)
            connection.connect(local.getsockname())
            connection.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 1 80\r\nGET /local HTTP/1.1\r\nHost: a\r\n\r\n")
            expect(connection.recv(100).startswith(b"HTTP/1.1 200"), "it was not served")
        wait_until(lambda: any(record["client"] == "192.0.2.7" for record in records(child)), 5, "the record")
        child.stop()


def activated(checks: Checks, folder: Path, binary: Path) -> None:
    """The story of a gateway on sockets of systemd's."""
    story = Activated(folder, binary)
    try:
        checks.run("systemd-socket-activate: TCP, Unix and TLS by name", story.by_systemd)
        checks.run("systemd: a name that was not passed", story.missing)
        checks.run("systemd: reloads keep the sockets", story.reloads)
        checks.run("systemd: restarts lose nobody", story.restarts)
        checks.run("systemd: what is no listening socket", story.unusable)
        checks.run("systemd: PROXY headers", story.introduced)
    finally:
        story.stop()
        if checks.failed:
            print(*(child.tail() for child in story.children), sep="\n")


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
    absent = [name for name in ("haproxy", "systemd-socket-activate", "openssl", "curl") if not shutil.which(name)]
    if absent:
        print(f"FAIL not installed: {', '.join(absent)}")
        return 1
    limit_run(OVERALL_SECONDS)
    checks = Checks(options.only)
    folder = Path(tempfile.mkdtemp(prefix="portcullis-"))
    try:
        behind_haproxy(checks, folder / "haproxy", binary)
        activated(checks, folder / "systemd", binary)
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
