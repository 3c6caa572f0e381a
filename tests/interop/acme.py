#!/usr/bin/env python3
"""Certificates from ACME directories: Let's Encrypt's test directory pebble, and one of our own for what that lacks.

    tests/interop/acme.py [--gateway BINARY] [--kills N] [--only WORDS]

pebble refuses half of all nonces here, and looks for answers at the gateway itself. The directory of our own
(acme_directory.py) has renewal information, profiles and rate limits, fails, hangs and lies. The gateway is killed at
random moments and must not lose a key, make a second account or place an order too many; certbot gets a certificate for
itself through the gateway's routes.

pebble, pebble-challtestsrv, certbot, openssl and, for one check, libnss-wrapper must be there. Starts what it needs on loopback, and prints a line a
check. Exit status 1 where one failed. Takes about three minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from acme_directory import Directory, make_ca, openssl
from harness import Checks, Child, Failed, Target, TimeLimit, Traffic, expect, free_port, limit_run, wait_until

ROOT = Path(__file__).resolve().parents[2]
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
OVERALL_SECONDS, SECONDS_A_KILL = 420, 8
# How long the first certificate may take after the start.
FIRST_WITHIN = 15.0


# --- What is started ---------------------------------------------------------------------------------------


class Pebble:
    """pebble with its DNS, which answers every name with loopback."""

    def __init__(self, folder: Path, logs: Path, ports: tuple[int, int], **environment: str):
        self.folder, self.logs = folder, logs
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = make_ca(folder)
        self.port, self.management, self.dns, self.dns_management = (free_port() for _ in range(4))
        self.url = f"https://127.0.0.1:{self.port}/dir"
        (folder / "pebble.json").write_text(json.dumps({"pebble": {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(folder / "server.pem"), "privateKey": str(folder / "server.key"),
            "httpPort": ports[0], "tlsPort": ports[1], "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
        }}))
        self.environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "50", **environment}
        self.environment.pop("PEBBLE_VA_ALWAYS_VALID", None)
        self.servers = Child(f"dns-{folder.name}", [
            "pebble-challtestsrv", "-defaultIPv6", "", "-defaultIPv4", "127.0.0.1", "-http01", "", "-https01", "",
            "-tlsalpn01", "", "-dns01", f"127.0.0.1:{self.dns}", "-management", f"127.0.0.1:{self.dns_management}",
        ], folder, logs)
        self.child: Child | None = None
        self.start()

    def start(self) -> None:
        self.child = Child(f"pebble-{self.folder.name}", [
            "pebble", "-config", "pebble.json", "-dnsserver", f"127.0.0.1:{self.dns}",
        ], self.folder, self.logs, self.environment)
        wait_until(self.is_up, 10, "pebble answers", 0.05)

    def is_up(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=2):
            return True

    def stop(self) -> None:
        self.child.stop()
        self.servers.stop()

    def log(self) -> str:
        return self.child.out.read_text(errors="replace")

    def accounts(self) -> int:
        return max([0, *map(int, re.findall(r"There are now (\d+) accounts in memory", self.log()))])

    def orders(self) -> int:
        return max([0, *map(int, re.findall(r"There are now (\d+) orders in", self.log()))])

    def issued(self) -> list[str]:
        """The serial numbers of all certificates, as pebble counts them."""
        return re.findall(r"Issued certificate serial ([0-9a-f]+)", self.log())


class Gateway:
    """A gateway whose certificates come from a directory."""

    def __init__(self, binary: Path, folder: Path, logs: Path, acme: dict, ports: tuple[int, int], **more):
        folder.mkdir(parents=True, exist_ok=True)
        self.binary, self.folder, self.logs = binary, folder, logs
        self.http, self.https = ports
        self.child: Child | None = None
        self.write(acme, **more)

    def write(self, acme: dict, hosts: list[str] | None = None, **more) -> None:
        routes = [{"path": "/*", "respond": {"body": "served"}, **({"host": hosts} if hosts else {})}]
        text = json.dumps({
            "workers": 2, "state": "data/", "log": {"level": "debug"},
            "listeners": [
                {"address": f"127.0.0.1:{self.http}", "redirect_to_https": True},
                {"address": f"127.0.0.1:{self.https}", "tls": {"acme": acme}},
            ],
            "routes": routes,
            **more,
        }, indent=1)
        beside = self.folder / "gateway.new"
        beside.write_text(text)
        beside.rename(self.folder / "gateway.yaml")

    def command(self, *words: str) -> list[str]:
        return [str(self.binary), *words, "-c", str(self.folder / "gateway.yaml")]

    def run(self, *words: str) -> str:
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=20, check=False)
        expect(done.returncode == 0, f"portcullis {words}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self, wait: bool = True) -> "Gateway":
        self.child = Child(self.folder.name, self.command("run"), self.folder, self.logs,
                           {**os.environ, "NO_COLOR": "1"})
        if wait:
            wait_until(self.is_up, 10, "the gateway listens", 0.02)
        return self

    def is_up(self) -> bool:
        expect(self.child.running(), f"the gateway ended:\n{self.child.tail()}")
        with socket.create_connection(("127.0.0.1", self.https), timeout=2):
            return True

    def log(self) -> str:
        return self.child.err.read_text(errors="replace")

    def says(self, words: str, seconds: float = 20, times: int = 1) -> float:
        return wait_until(lambda: self.log().count(words) >= times, seconds, f"the log says {words!r}", 0.05)

    def stop(self) -> None:
        if self.child:
            self.child.stop()
            expect("panicked at" not in self.log(), f"the gateway panicked:\n{self.child.tail()}")

    def certificate(self, name: str, alpn: list[str] | None = None) -> bytes | None:
        """The certificate that a client gets for a name; None where it is refused."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(alpn)
        try:
            with socket.create_connection(("127.0.0.1", self.https), timeout=5) as connection, \
                    context.wrap_socket(connection, server_hostname=name) as secured:
                return secured.getpeercert(binary_form=True)
        except ssl.SSLError:
            return None

    def get(self, name: str, path: str = "/") -> bytes:
        """One request over TLS: the whole answer."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", self.https), timeout=10) as connection, \
                context.wrap_socket(connection, server_hostname=name) as secured:
            secured.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := secured.recv(65536):
                answer += piece
            return answer

    def plain(self) -> Target:
        return Target(("127.0.0.1", self.http), f"127.0.0.1:{self.http}")

    def files(self, name: str) -> Path:
        found = list((self.folder / "data" / "acme").glob(f"*/{name}/meta.json"))
        expect(len(found) == 1, f"the directory of {name}: {found}")
        return found[0].parent

    def row(self, name: str) -> dict:
        return json.loads((self.files(name) / "meta.json").read_text())

    def serial(self, name: str) -> str | None:
        """The serial number of the certificate in the state."""
        path = self.files(name) / "cert.pem"
        if not path.exists():
            return None
        return openssl("x509", "-in", str(path), "-noout", "-serial").split("=")[1].strip().lower()

    def fits(self, name: str) -> bool:
        """Whether certificate and key in the state belong together."""
        folder = self.files(name)
        of_certificate = openssl("x509", "-in", str(folder / "cert.pem"), "-noout", "-pubkey")
        return of_certificate == openssl("pkey", "-in", str(folder / "key.pem"), "-pubout")


def same_serial(one: str, other: str) -> bool:
    return int(one, 16) == int(other, 16)


# --- pebble ------------------------------------------------------------------------------------------------


def first_certificate(gateway: Gateway, pebble: Pebble) -> str:
    begun = time.monotonic()
    gateway.start(wait=False)
    wait_until(lambda: gateway.certificate("a.test") is not None, FIRST_WITHIN, "a certificate for a.test", 0.05)
    took = time.monotonic() - begun
    wait_until(lambda: gateway.certificate("b.test") is not None, FIRST_WITHIN, "a certificate for b.test", 0.05)
    expect(b"served" in gateway.get("a.test"), "a request is served")
    names = openssl("x509", "-in", str(gateway.files("a.test") / "cert.pem"), "-noout", "-ext", "subjectAltName")
    expect("DNS:a.test" in names and "b.test" not in names, f"one certificate a name: {names}")
    expect(pebble.accounts() == 1, f"{pebble.accounts()} accounts")
    for path in (gateway.folder / "data").rglob("*"):
        mode = path.stat().st_mode & 0o777
        expect(mode == (0o700 if path.is_dir() else 0o600), f"{path}: {mode:o}")
    return f"{took:.1f} s after the start"


def another_name_is_refused(gateway: Gateway) -> None:
    expect(gateway.certificate("c.test") is None, "c.test has a certificate")
    expect(gateway.certificate("a.test", ["acme-tls/1"]) is None, "a challenge without one pending")
    expect("c.test" not in "".join(path.name for path in (gateway.folder / "data").rglob("*")), "c.test was ordered")


def reload_adds_and_removes(gateway: Gateway, acme: dict) -> None:
    before = gateway.certificate("a.test")
    gateway.write(acme, ["a.test", "c.test"])
    wait_until(lambda: gateway.certificate("c.test") is not None, FIRST_WITHIN, "a certificate for c.test")
    expect(gateway.certificate("b.test") is None, "b.test was taken out")
    expect((gateway.files("b.test") / "key.pem").exists(), "its files are kept")
    expect(gateway.certificate("a.test") == before, "a.test keeps its certificate")


def restart_orders_nothing(gateway: Gateway, pebble: Pebble) -> None:
    issued = len(pebble.issued())
    gateway.stop()
    gateway.start()
    # From the first handshake on.
    expect(gateway.certificate("a.test") is not None, "a.test is served after a restart")
    time.sleep(3)
    expect(len(pebble.issued()) == issued, "something was ordered")
    expect(pebble.accounts() == 1, "an account was made")


def renewal_under_load(gateway: Gateway) -> str:
    before = gateway.certificate("a.test")
    traffic = Traffic()

    def call() -> None:
        expect(b"HTTP/1.1 200" in gateway.get("a.test"), "200")

    for number in range(4):
        traffic.repeat(f"client {number}", call, 0.01)
    time.sleep(0.5)
    gateway.run("cert", "renew", "a.test")
    took = wait_until(lambda: gateway.certificate("a.test") != before, FIRST_WITHIN, "a new certificate", 0.05)
    time.sleep(0.5)
    calls, failures = traffic.stop()
    expect(not failures, f"{len(failures)} of {calls} failed: {failures[:3]}")
    listed = json.loads(gateway.run("cert", "list", "--format", "json"))["certificates"]
    expect([it["names"] for it in listed] == [["a.test"], ["c.test"]], f"{listed}")
    expect(all(it["error"] is None and it["expires"] and it["next"] for it in listed), f"{listed}")
    return f"{took:.1f} s, {calls} requests"


def shared_and_kinds(binary: Path, folder: Path, logs: Path, pebble: Pebble, ports: tuple[int, int]) -> None:
    acme = {"directory": pebble.url, "ca": str(pebble.ca)}
    gateway = Gateway(binary, folder, logs, {**acme, "domains": [["e.test", "f.test"]], "key": "rsa2048"}, ports)
    gateway.start()
    try:
        wait_until(lambda: gateway.certificate("f.test") is not None, FIRST_WITHIN, "a certificate for f.test")
        expect(gateway.certificate("e.test") == gateway.certificate("f.test"), "they share one")
        key = openssl("pkey", "-in", str(gateway.files("e.test") / "key.pem"), "-noout", "-text")
        expect("2048 bit" in key, key[:80])
        # A name more is a new certificate; the old one serves its names meanwhile.
        gateway.write({**acme, "domains": [["e.test", "f.test", "g.test"]], "key": "p384"})
        wait_until(lambda: gateway.certificate("g.test") is not None, FIRST_WITHIN, "a certificate for g.test")
        key = openssl("pkey", "-in", str(gateway.files("e.test") / "key.pem"), "-noout", "-text")
        expect("384 bit" in key, key[:80])
    finally:
        gateway.stop()


def http_alone(binary: Path, folder: Path, logs: Path, pebble: Pebble, ports: tuple[int, int]) -> None:
    acme = {"directory": pebble.url, "ca": str(pebble.ca), "challenges": ["http-01"], "domains": ["h.test"]}
    gateway = Gateway(binary, folder, logs, acme, ports)
    gateway.start()
    try:
        wait_until(lambda: gateway.certificate("h.test") is not None, FIRST_WITHIN, "a certificate for h.test")
        # The answer came before the redirect; nothing is left of it.
        record = next(line for line in gateway.child.out.read_text().splitlines() if "acme-challenge" in line)
        expect(json.loads(record)["status"] == 200, record)
        path = json.loads(record)["path"]
        answer = gateway.plain().get(path, headers={"Host": "h.test"})
        expect(answer.status == 308, f"after the directory has decided: {answer.brief()}")
    finally:
        gateway.stop()


def slow_validation(binary: Path, folder: Path, logs: Path, ports: tuple[int, int]) -> str:
    """A directory that takes seconds to look."""
    pebble = Pebble(folder / "slow", logs, ports, PEBBLE_VA_NOSLEEP="0", PEBBLE_VA_SLEEPTIME="4",
                    PEBBLE_AUTHZREUSE="0", PEBBLE_WFE_NONCEREJECT="5")
    acme = {"directory": pebble.url, "ca": str(pebble.ca), "challenges": ["http-01"], "domains": ["s.test"]}
    gateway = Gateway(binary, folder / "gateway-slow", logs, acme, ports)
    begun = time.monotonic()
    gateway.start()
    try:
        wait_until(lambda: gateway.certificate("s.test") is not None, 30, "a certificate for s.test")
        return f"{time.monotonic() - begun:.1f} s"
    finally:
        gateway.stop()
        pebble.stop()


def directory_forgets(gateway: Gateway, pebble: Pebble) -> None:
    """A directory that has lost its accounts, as pebble after a restart, gets the same key once more."""
    pebble.child.stop()
    shutil.move(pebble.child.out, f"{pebble.child.out}.before")
    before = gateway.certificate("a.test")
    gateway.run("cert", "renew", "a.test")
    gateway.says("certificate not issued", 40)
    expect(gateway.certificate("a.test") == before, "the old certificate serves")
    pebble.start()
    time.sleep(10)
    gateway.run("cert", "renew", "a.test")
    wait_until(lambda: gateway.certificate("a.test") != before, FIRST_WITHIN, "a new certificate")
    expect(pebble.accounts() == 1, f"{pebble.accounts()} accounts")


HOOK = """#!/usr/bin/env python3
import json, sys, urllib.request
action, name, value = sys.argv[1:]
with open("{folder}/calls", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if action == "present":
    urllib.request.urlopen("http://127.0.0.1:{port}/set-txt", json.dumps({{"host": name, "value": value}}).encode())
else:
    urllib.request.urlopen("http://127.0.0.1:{port}/clear-txt", json.dumps({{"host": name}}).encode())
"""


def dns_hook(binary: Path, folder: Path, logs: Path, pebble: Pebble, ports: tuple[int, int]) -> None:
    """Names with a star, by a program that changes the DNS."""
    folder.mkdir(parents=True)
    hook = folder / "dns-hook"
    hook.write_text(HOOK.format(folder=folder, port=pebble.dns_management))
    hook.chmod(0o755)
    acme = {"directory": pebble.url, "ca": str(pebble.ca), "domains": [["w.test", "*.w.test"], "*.v.test"],
            "challenges": ["dns-01"], "dns": {"hook": str(hook), "wait": "1s"}}
    gateway = Gateway(binary, folder, logs, acme, ports)
    gateway.start()
    try:
        wait_until(lambda: gateway.certificate("v.w.test") is not None, FIRST_WITHIN, "a certificate for *.w.test")
        wait_until(lambda: gateway.certificate("x.v.test") is not None, FIRST_WITHIN, "a certificate for *.v.test")
        expect(gateway.certificate("w.test") == gateway.certificate("v.w.test"), "they share one")
        for name in ("v.test", "x.y.v.test", "a.b.w.test"):
            expect(gateway.certificate(name) is None, f"{name} has none")
        # Once they are cleaned up.
        calls = wait_until(lambda: len((folder / "calls").read_text().splitlines()) >= 6, 10, "clean-up") and [
            json.loads(line) for line in (folder / "calls").read_text().splitlines()]
        kept = [tuple(call[1:]) for call in calls if call[0] == "present"]
        gone = [tuple(call[1:]) for call in calls if call[0] == "cleanup"]
        expect(sorted(kept) == sorted(gone) and len(set(kept)) == 3, f"{calls}")
        expect({name for name, _ in kept} == {"_acme-challenge.w.test.", "_acme-challenge.v.test."}, f"{calls}")
        expect((gateway.folder / "data" / "acme").glob("*/_.v.test/key.pem"), "its directory")
        hook.write_text("#!/bin/sh\necho the zone is locked >&2\nexit 7\n")
        # pebble takes a proof of before as often as not.
        for _ in range(8):
            gateway.run("cert", "renew", "*.v.test")
            with contextlib.suppress(Failed):
                gateway.says("present: it ended with 7: the zone is locked", 4)
                break
        else:
            raise Failed("a hook that fails is not told")
    finally:
        gateway.stop()


def kills(binary: Path, folder: Path, logs: Path, ports: tuple[int, int], count: int) -> str:
    """kill -9 at random moments: one account, no key lost, no order too many."""
    pebble = Pebble(folder / "kills", logs, ports, PEBBLE_WFE_NONCEREJECT="20", PEBBLE_AUTHZREUSE="0")
    acme = {"directory": pebble.url, "ca": str(pebble.ca), "domains": ["k.test"]}
    gateway = Gateway(binary, folder / "gateway-kills", logs, acme, ports)
    seen: set[int] = set()
    asked = 0
    dice = random.Random(7)
    try:
        for number in range(count):
            if number % 2:
                asked += 1
                gateway.run("cert", "renew", "k.test")
            gateway.start(wait=False)
            time.sleep(dice.uniform(0.0, 2.2))
            gateway.child.signal(signal.SIGKILL)
            gateway.child.process.wait()
            acme_folder = gateway.folder / "data" / "acme"
            if list(acme_folder.glob("*/k.test/cert.pem")):
                serial = gateway.serial("k.test")
                if serial:
                    seen.add(int(serial, 16))
        gateway.start()
        wait_until(lambda: gateway.certificate("k.test") is not None, 30, "a certificate in the end")
        wait_until(lambda: not gateway.row("k.test").get("order") and not gateway.row("k.test")["asked"], 60,
                   "everything begun has ended")
        seen.add(int(gateway.serial("k.test"), 16))
        expect(gateway.fits("k.test"), "certificate and key belong together")
        expect(pebble.accounts() == 1, f"{pebble.accounts()} accounts")
        issued = {int(serial, 16) for serial in pebble.issued()}
        expect(len(issued) <= asked + 1, f"{len(issued)} certificates for {asked} requests and the first")
        lost = issued - seen
        expect(not lost, f"{len(lost)} of {len(issued)} certificates were issued and lost")
        # One is placed once more where the process was killed before its URL was kept, which is a short moment.
        again = pebble.orders() - len(issued)
        expect(again <= max(3, count // 5), f"{pebble.orders()} orders for {len(issued)} certificates")
        return (f"{count} kills: 1 account, {pebble.orders()} orders, {len(issued)} certificates of {asked + 1} wanted, "
                "none lost")
    finally:
        gateway.stop()
        pebble.stop()


# --- A directory of our own ----------------------------------------------------------------------------------


class Story:
    """A directory of our own and a gateway that orders from it."""

    def __init__(self, binary: Path, folder: Path, logs: Path, name: str, acme: dict | None = None,
                 plain: bool = False, **settings):
        ports = (free_port(), free_port())
        self.directory = Directory(folder / f"directory-{name}", ports, plain=plain, **settings)
        own = {"directory": self.directory.url, "domains": ["o.test"]}
        if not plain:
            own["ca"] = str(self.directory.ca)
        self.acme = {**own, **(acme or {})}
        self.gateway = Gateway(binary, folder / f"gateway-{name}", logs, self.acme, ports)

    def __enter__(self) -> "Story":
        self.gateway.start()
        return self

    def __exit__(self, *_) -> None:
        self.gateway.stop()
        self.directory.stop()

    def arrives(self, seconds: float = FIRST_WITHIN) -> bytes:
        """The certificate, once it is served and what is known of it is kept."""
        wait_until(lambda: self.gateway.certificate("o.test") is not None, seconds, "a certificate for o.test", 0.05)
        wait_until(lambda: self.gateway.row("o.test").get("directory"), 10, "what is known of it is kept", 0.02)
        return self.gateway.certificate("o.test")

    def fails(self, words: str, seconds: float = 20) -> dict:
        """The attempt fails with these words of the directory; the row that is kept."""
        self.gateway.says("certificate not issued", seconds)
        line = next(line for line in self.gateway.log().splitlines() if "certificate not issued" in line)
        expect(words in line, f"no {words!r} in {line}")
        expect(self.gateway.certificate("o.test") is None, "something is served")
        expect("again_in=" in line, line)
        wait_until(lambda: self.gateway.row("o.test")["failures"] > 0, 10, "the failure is kept", 0.02)
        return self.gateway.row("o.test")


def renewal_information(start) -> str:
    """A window that has passed means now, but a directory that always says so gets one order in 6 h."""
    with start("ari", window=(-7200, -3600)) as story:
        story.arrives()
        story.gateway.says("certificate issued", 20, times=2)
        time.sleep(4)
        orders = story.directory.orders
        expect(len(orders) == 2, f"{len(orders)} orders")
        expect("replaces" not in orders[0] and orders[1].get("replaces") == story.directory.ids[0],
               f"{orders} {story.directory.ids}")
        row = story.gateway.row("o.test")
        wait = row["next"] - time.time()
        expect(row["window"]["id"] == story.directory.ids[1], f"{row}")
        expect(wait <= 6 * 3600, f"{wait}")
        looked = [path for path in story.directory.seen if path.startswith("/renewal/")]
        expect(len(looked) >= 2, f"{story.directory.seen}")
        return f"{len(looked)} looks at the window"


def window_to_come(start) -> None:
    with start("window", window=(3600, 7200), window_again=90) as story:
        story.arrives()
        wait_until(lambda: story.gateway.row("o.test").get("window"), 10, "the window is kept")
        row = story.gateway.row("o.test")
        chosen = row["window"]["chosen"] - time.time()
        expect(3500 < chosen < 7200, f"{chosen}")
        expect(60 < row["next"] - time.time() < 100, f"asked again after its Retry-After: {row}")


def already_replaced(start) -> None:
    with start("replaced", window=(-7200, -3600), already_replaced=True) as story:
        story.arrives()
        story.gateway.says("certificate issued", 20, times=2)
        replaces = [order.get("replaces") for order in story.directory.orders]
        expect(replaces[0] is None and replaces[-1] is None and len(replaces) == 2, f"{replaces}")
        expect(story.directory.refused == ["alreadyReplaced"], f"{story.directory.refused}")


def not_ready(start) -> None:
    with start("not-ready", not_ready=2) as story:
        story.arrives(25)
        expect(story.directory.refused == ["orderNotReady"] * 2, f"{story.directory.refused}")
        expect(len(story.directory.orders) == 1, "one order")


def rate_limited(start) -> None:
    with start("limited", faults={"/new-order": (429, {"Retry-After": "7200"}, {
        "type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many certificates already issued for o.test",
    })}) as story:
        row = story.fails("too many certificates already issued for o.test")
        expect(7000 < row["next"] - time.time() < 7300, f"{row}")


def server_errors(start) -> None:
    with start("broken", faults={"/new-account": (503, {}, b"<html>maintenance</html>")}) as story:
        row = story.fails("503")
        expect(50 < row["next"] - time.time() < 70, f"{row}")
        answer = story.gateway.plain().get("/", headers={"Host": "o.test"})
        expect(answer.status == 308, f"the rest serves: {answer.brief()}")
        story.directory.faults.clear()
        story.gateway.run("cert", "renew", "o.test")
        story.arrives()


def profiles(start) -> None:
    with start("profile", acme={"profile": "shortlived"}) as story:
        story.arrives()
        expect(story.directory.orders[0].get("profile") == "shortlived", f"{story.directory.orders}")
        life = story.gateway.row("o.test")
        expect(life["ends"] - time.time() < 7 * 86400, f"{life}")
        half = (life["ends"] - life["renew"]) / (6 * 86400)
        expect(0.45 < half < 0.55, f"renewed when half of the life is left: {half}")
    with start("no-profile", acme={"profile": "eternal"}) as story:
        story.fails("it has classic, shortlived")


def external_account(start) -> None:
    key = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
    with start("eab", eab=("kid-1", key)) as story:
        story.fails("needs an external account")
        acme = {**story.acme, "eab": {"kid": "kid-1", "hmac": key}, "email": "ops@o.test"}
        story.gateway.write(acme)
        story.arrives()
        expect(story.directory.contacts == [["mailto:ops@o.test"]], f"{story.directory.contacts}")
        expect(key not in story.gateway.log(), "the key is in the log")
        story.gateway.write({**acme, "email": "other@o.test"})
        story.gateway.says("configuration reloaded", 10, times=2)
        story.gateway.run("cert", "renew", "o.test")
        wait_until(lambda: story.directory.contacts[-1] == ["mailto:other@o.test"], 20, "the new contact")
        expect(len(story.directory.accounts) == 1, "one account")


def the_next_directory(start) -> str:
    """One that fails or limits rates passes an attempt on at once; a failed validation does not."""
    limited = (429, {"Retry-After": "7200"}, {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many"})

    def with_second(first: Story, **more) -> Directory:
        second = Directory(first.directory.folder.with_name(f"{first.directory.folder.name}-2"), first.directory.ports)
        cas = first.directory.folder / "both.pem"
        cas.write_text(first.directory.ca.read_text() + second.ca.read_text())
        first.gateway.write({**first.acme, "directory": [first.directory.url, second.url], "ca": str(cas), **more})
        return second

    for name, fault in {"fails": (503, {}, b"down"), "limits": limited}.items():
        with start(f"next-{name}", faults={"/new-order": fault}) as first:
            second = with_second(first)
            first.arrives()
            expect(len(second.orders) == 1, f"{second.orders}")
            row = first.gateway.row("o.test")
            expect(row["directory"] == second.url, f"{row}")
            held = row.get("held", {}).get(first.directory.url, 0) - time.time()
            expect((7000 < held < 7300) == (name == "limits"), f"{name}: {row}")
            first.gateway.stop()
            first.gateway.start()
            expect(first.gateway.certificate("o.test") is not None, "it is served after a restart")
            listed = json.loads(first.gateway.run("cert", "list", "--format", "json"))["certificates"][0]
            expect(listed["directory"] == second.url and listed["expires"], f"{listed}")
            second.stop()
    with start("next-refuses", refuse={"tls-alpn-01", "http-01"}) as first:
        first.gateway.says("certificate not issued")
        second = with_second(first, email="new@o.test")
        first.gateway.says("certificate not issued", times=2)
        time.sleep(1)
        expect(not second.orders, "a failed validation was passed on")
        second.stop()
    return "both ways"


def rehearsals(binary: Path, folder: Path, logs: Path) -> str:
    """After a failed validation at letsencrypt, attempts go to its staging directory until one succeeds there."""
    wrapper = next(Path("/usr/lib").glob("*/libnss_wrapper.so"), None)
    if os.geteuid() != 0 or wrapper is None:
        return "left out: needs port 443 and libnss-wrapper"
    ports = (free_port(), free_port())
    hosts = {"127.0.0.2": "acme-v02.api.letsencrypt.org", "127.0.0.3": "acme-staging-v02.api.letsencrypt.org"}
    real, staging = (
        Directory(folder / f"letsencrypt-{ip}", ports, at=(ip, 443), host=host, path="/directory",
                  refuse={"tls-alpn-01", "http-01"})
        for ip, host in hosts.items())
    (folder / "hosts").write_text("".join(f"{ip} {host}\n" for ip, host in hosts.items()))
    (folder / "roots.pem").write_text(real.ca.read_text() + staging.ca.read_text())
    gateway = Gateway(binary, folder / "gateway-staging", logs, {"domains": ["o.test"]}, ports)
    before = dict(os.environ)
    try:
        os.environ.update({"SSL_CERT_FILE": str(folder / "roots.pem"), "LD_PRELOAD": str(wrapper),
                           "NSS_WRAPPER_HOSTS": str(folder / "hosts")})
        gateway.start()
        gateway.says("certificate not issued")
        expect((len(real.orders), len(staging.orders)) == (1, 0), f"{len(real.orders)} {len(staging.orders)}")
        wait_until(lambda: gateway.row("o.test")["failures"] == 1, 10, "the failure is kept")
        expect(gateway.row("o.test")["rehearses"], f"{gateway.row('o.test')}")
        # As if the pause were over: an attempt that nobody asked for.
        for failures in (2, 3):
            gateway.stop()
            row = gateway.row("o.test")
            (gateway.files("o.test") / "meta.json").write_text(json.dumps({**row, "next": 0}))
            gateway.start()
            gateway.says(f"failures={failures}")
            wait_until(lambda: gateway.row("o.test")["failures"] == failures, 10, "the failure is kept")
        expect((len(real.orders), len(staging.orders)) == (1, 2), f"{len(real.orders)} {len(staging.orders)}")
        staging.refuse = real.refuse = set()
        gateway.stop()
        (gateway.files("o.test") / "meta.json").write_text(json.dumps({**gateway.row("o.test"), "next": 0}))
        gateway.start()
        wait_until(lambda: gateway.certificate("o.test") is not None, FIRST_WITHIN, "a certificate for o.test")
        expect((len(real.orders), len(staging.orders)) == (2, 3), f"{len(real.orders)} {len(staging.orders)}")
        wait_until(lambda: gateway.row("o.test").get("directory"), 10, "what is known of it is kept", 0.02)
        row = gateway.row("o.test")
        expect(not row["rehearses"] and row["directory"] == real.url, f"{row}")
        shown = gateway.certificate("o.test")
        issued = ssl.PEM_cert_to_DER_cert((real.folder / "cert.pem").read_text())
        expect(shown == issued, "what staging issued is never served")
    finally:
        os.environ.clear()
        os.environ.update(before)
        gateway.stop()
        real.stop()
        staging.stop()
    return "3 rehearsals"


def lies(start) -> str:
    told = {
        "another-key": "the key does not belong",
        "another-name": "is not for o.test, but for other.test",
        "another-name-too": "also for other.test",
        "expired": "expired on",
        "future": "not valid before",
        "no-pem": "there is no certificate",
        "another-authorization": 'asks for proof of "other.test"',
    }
    for lie, words in told.items():
        with start(f"lie-{lie}", lie=lie) as story:
            story.fails(words)
            files = [path.name for path in story.gateway.files("o.test").iterdir()]
            expect("cert.pem" not in files, f"{lie}: {files}")
    return f"{len(told)} lies"


def bounds(start) -> str:
    with start("endless", endless="/new-order") as story:
        story.fails("larger than 1 MiB")
    with start("to-http", faults={"/dir": (302, {"Location": "http://127.0.0.1:1/dir"}, b"")}) as story:
        story.fails("leads from https to plain http")
    with start("circle", faults={"/dir": (302, {"Location": "/dir"}, b"")}) as story:
        story.fails("more than 3 redirects")
    with start("post", faults={"/new-order": (307, {"Location": "/elsewhere"}, b"")}) as story:
        story.fails("a signed request names its URL")
    with start("names-http", plain_urls=True) as story:
        story.fails("leads from https to plain http")
    with start("hanging", hang="/new-order") as story:
        begun = time.monotonic()
        for _ in range(5):
            time.sleep(1)
            answer = story.gateway.plain().get("/", headers={"Host": "o.test"})
            expect(answer.status == 308, answer.brief())
        # A reload is not held up either.
        story.gateway.write({**story.acme, "domains": ["p.test"]})
        story.gateway.says("configuration reloaded", 5)
        return f"a hanging directory: reloaded after {time.monotonic() - begun:.0f} s"


def challenges_from_outside(start) -> str:
    """What strangers see while a challenge is pending."""
    with start("pending", hold=3.0, acme={"challenges": ["http-01"]}) as story:
        wait_until(lambda: story.directory.tokens, 10, "a challenge")
        token = story.directory.tokens[0]
        plain = story.gateway.plain()
        path = f"/.well-known/acme-challenge/{token}"
        for _ in range(20):
            answer = plain.get(path, headers={"Host": "o.test"})
            expect(answer.status == 200 and answer.body.startswith(f"{token}.".encode()), answer.brief())
        head = plain.request("HEAD", path, headers={"Host": "O.Test:80"})
        expect(head.status == 200 and not head.body, head.brief())
        for host, asked in [
            ("other.test", path), ("o.test", "/.well-known/acme-challenge/"), ("o.test", path + "/"),
            ("o.test", path[:-1]), ("o.test", f"/.well-known/acme-challenge/../acme-challenge/{token}x"),
        ]:
            answer = plain.get(asked, headers={"Host": host})
            expect(answer.status == 308, f"{host} {asked}: {answer.brief()}")
        expect(plain.post(path, headers={"Host": "o.test"}).status == 308, "POST is no question")
        story.arrives()
        expect(plain.get(path, headers={"Host": "o.test"}).status == 308, "it is over")
    with start("pending-tls", hold=3.0, acme={"challenges": ["tls-alpn-01"]}) as story:
        wait_until(lambda: story.directory.tokens, 10, "a challenge")
        gateway = story.gateway
        shown = gateway.certificate("o.test", ["acme-tls/1"])
        expect(shown is not None, "the challenge's certificate")
        expect(gateway.certificate("other.test", ["acme-tls/1"]) is None, "another name's challenge")
        expect(gateway.certificate("o.test", ["acme-tls/1", "http/1.1"]) is None, "not alone")
        expect(gateway.certificate("o.test") is None, "no other client gets it")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["acme-tls/1"])
        with socket.create_connection(("127.0.0.1", gateway.https), timeout=5) as connection, \
                context.wrap_socket(connection, server_hostname="o.test") as secured:
            expect(secured.selected_alpn_protocol() == "acme-tls/1", "the protocol")
            with contextlib.suppress(OSError):
                secured.sendall(b"GET / HTTP/1.1\r\nHost: o.test\r\n\r\n")
            with contextlib.suppress(OSError):
                expect(secured.recv(100) == b"", "something was served")
        story.arrives()
        expect(gateway.certificate("o.test", ["acme-tls/1"]) is None, "it is over")


def challenges_in_turn(start) -> None:
    with start("turns", refuse={"tls-alpn-01"}) as story:
        story.fails("nobody answers as it should")
        expect([kind for kind, _ in story.directory.validated] == ["tls-alpn-01"], f"{story.directory.validated}")
        story.gateway.run("cert", "renew", "o.test")
        story.arrives()
        expect([kind for kind, _ in story.directory.validated] == ["tls-alpn-01", "http-01"],
               f"{story.directory.validated}")


def state_is_moved(start) -> None:
    """A state that is renamed away, and one that links elsewhere, get no keys."""
    with start("moved") as story:
        story.arrives()
        gateway = story.gateway
        gateway.stop()
        data = gateway.folder / "data"
        elsewhere = gateway.folder / "elsewhere"
        (data / "acme").rename(elsewhere)
        (data / "acme").symlink_to(elsewhere)
        before = sorted(path.name for path in elsewhere.rglob("*"))
        gateway.start()
        gateway.says("is a link", 10)
        time.sleep(3)
        expect(gateway.certificate("o.test") is None, "it is read through a link")
        expect(sorted(path.name for path in elsewhere.rglob("*")) == before, "it is written through a link")
        expect(len(story.directory.orders) == 1, "nothing is ordered without a state")


# --- certbot -----------------------------------------------------------------------------------------------


def certbot(binary: Path, folder: Path, logs: Path, ports: tuple[int, int]) -> None:
    """An app's own certbot goes on behind the gateway: through a route to files, and as a server of its own."""
    # It gives up at the first nonce that is refused.
    pebble = Pebble(folder / "pebble", logs, ports, PEBBLE_WFE_NONCEREJECT="0")
    site, app = folder / "site", free_port()
    (site / ".well-known" / "acme-challenge").mkdir(parents=True)
    acme = {"directory": pebble.url, "ca": str(pebble.ca), "domains": ["q.test"], "challenges": ["http-01"]}
    gateway = Gateway(binary, folder / "gateway", logs, acme, ports)
    gateway.write(acme, listeners=[
        {"address": f"127.0.0.1:{ports[0]}"},
        {"address": f"127.0.0.1:{ports[1]}", "tls": {"acme": acme}},
    ], routes=[
        {"path": "/*", "respond": {"body": "served"}},
        {"host": "web.test", "path": "/.well-known/acme-challenge/*", "static": str(site / ".well-known/acme-challenge"),
         "auth": "none"},
        {"host": "alone.test", "path": "/.well-known/acme-challenge/*", "proxy": f"http://127.0.0.1:{app}",
         "auth": "none"},
    ])
    gateway.start()
    common = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--register-unsafely-without-email",
              "--server", pebble.url, "--config-dir", str(folder / "config"), "--work-dir", str(folder / "work"),
              "--logs-dir", str(folder / "logs")]
    try:
        for words in (["--webroot", "-w", str(site), "-d", "web.test"],
                      ["--standalone", "--http-01-port", str(app), "-d", "alone.test"]):
            done = subprocess.run([*common, *words], capture_output=True, text=True, timeout=120, check=False,
                                  env={**os.environ, "REQUESTS_CA_BUNDLE": str(pebble.ca)})
            expect(done.returncode == 0, f"{words}: {done.stdout}{done.stderr}")
            name = words[-1]
            expect((folder / "config" / "live" / name / "fullchain.pem").exists(), f"no certificate for {name}")
        wait_until(lambda: gateway.certificate("q.test") is not None, FIRST_WITHIN, "the gateway's own")
    finally:
        gateway.stop()
        pebble.stop()


# --- All of it ---------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", type=Path, default=BUILT / "debug" / "portcullis")
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--only", help="run the checks whose name contains these words")
    given = parser.parse_args()
    binary = given.gateway.resolve()
    checks = Checks(given.only)
    limit_run(OVERALL_SECONDS + given.kills * SECONDS_A_KILL)
    folder = Path(tempfile.mkdtemp(prefix="portcullis-acme-"))
    logs = folder / "logs"
    logs.mkdir()
    try:
        ports = (free_port(), free_port())

        def start(name: str, **settings) -> Story:
            return Story(binary, folder, logs, name, **settings)

        if not given.only or given.only.startswith("pebble"):
            pebble = Pebble(folder / "pebble", logs, ports)
            acme = {"directory": pebble.url, "ca": str(pebble.ca)}
            gateway = Gateway(binary, folder / "gateway", logs, acme, ports, hosts=["a.test", "b.test"])
            checks.run("pebble: the first certificates", first_certificate, gateway, pebble, always=True)
            checks.run("pebble: names that are not ordered", another_name_is_refused, gateway)
            checks.run("pebble: a reload adds and removes a name", reload_adds_and_removes, gateway, acme, always=True)
            checks.run("pebble: a restart orders nothing", restart_orders_nothing, gateway, pebble)
            checks.run("pebble: a renewal under load", renewal_under_load, gateway)
            checks.run("pebble: a directory that forgets", directory_forgets, gateway, pebble)
            gateway.stop()
            checks.run("pebble: shared certificates and kinds of keys", shared_and_kinds, binary, folder / "shared",
                       logs, pebble, ports)
            checks.run("pebble: http-01 alone", http_alone, binary, folder / "http", logs, pebble, ports)
            checks.run("pebble: names with a star, by a hook", dns_hook, binary, folder / "dns", logs, pebble, ports)
            pebble.stop()
        checks.run("certbot behind the gateway", certbot, binary, folder / "certbot", logs, ports)
        checks.run("slow validation", slow_validation, binary, folder, logs, ports)
        for name, check in {
            "renewal information": renewal_information,
            "a window to come": window_to_come,
            "already replaced": already_replaced,
            "an order that is not ready": not_ready,
            "a rate limit": rate_limited,
            "server errors": server_errors,
            "profiles": profiles,
            "an external account": external_account,
            "the next directory": the_next_directory,
            "a directory that lies": lies,
            "bounds of calls": bounds,
            "pending challenges from outside": challenges_from_outside,
            "challenges in turn": challenges_in_turn,
            "a state that is moved": state_is_moved,
        }.items():
            checks.run(name, check, start)
        checks.run("rehearsals at the staging directory", rehearsals, binary, folder, logs)
        checks.run("kill -9", kills, binary, folder, logs, ports, given.kills)
    except TimeLimit as limit:
        checks.fail("time", str(limit))
    finally:
        if checks.failed:
            for path in sorted(logs.glob("*.err")):
                text = [line for line in path.read_text(errors="replace").splitlines() if " DEBUG " not in line]
                print(f"--- {path.name}", *text[-15:], sep="\n  ")
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
