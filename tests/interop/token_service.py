"""Portcullis's token service as its clients see it: a gateway with `tokens`, the calls, and sessions that remember.

Needs Debian's python3-yaml. It knows nothing of Django, and nothing of what becomes of a gateway: that is told by the
stories that use it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import random
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import yaml

from harness import Answer, Child, Connection, Target, base64url, claims_of, expect, free_port, wait_until

PASSWORD, ANOTHER = "correct horse battery", "another one"
# Hashes of the two that are made in no time, where it is of no matter what a login costs.
QUICK = {
    password: f"$argon2id$v=19$m=8,t=1,p=1$aW50ZXJvcHRlc3Rz${hashed}" for password, hashed in (
        (PASSWORD, "atMFzXhntuWBaf/0+j/RPg"), (ANOTHER, "T10hclPJpwX4Qz8cpTYjQQ"))
}


class Side:
    """A token service, as a front end and an administrator see it."""

    is_gateway = False
    # Once for `exp` and again for `iat`: a second may begin in between.
    reads_clock_twice = False

    def __init__(self, target: Target, folder: Path):
        self.target = target
        self.folder = folder
        # Tokens of an expired login, once there was one.
        self.stale: dict[str, str] = {}

    def post(self, path: str, fields: object = None, form: dict | None = None, over: Connection | None = None,
             **more) -> Answer:
        """To an endpoint: `fields` as JSON, or `form` as a form, or whatever `more` says."""
        if form is not None:
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            return self.target.post(f"/api/token/{path}", body=urlencode(form), headers=kind, over=over)
        return self.target.post(f"/api/token/{path}", form=fields, over=over, **more)

    def obtain(self, name: str = "alice", password: str = PASSWORD, over: Connection | None = None) -> Answer:
        return self.post("", {"username": name, "password": password}, over=over)

    def log_in(self, name: str = "alice", password: str = PASSWORD) -> dict:
        answer = self.obtain(name, password)
        expect(answer.status == 200, f"login of {name}: {answer.brief()}")
        return answer.json()

    def refresh(self, token: str, over: Connection | None = None) -> Answer:
        return self.post("refresh/", {"refresh": token}, over=over)

    def verify(self, token: str, over: Connection | None = None) -> Answer:
        return self.post("verify/", {"token": token}, over=over)

    def blacklist(self, token: str, over: Connection | None = None, **more) -> Answer:
        return self.post("blacklist/", {"refresh": token, **more}, over=over)

    def me(self, token: str | None = None, over: Connection | None = None, **more) -> Answer:
        """A call of the API."""
        answer = self.target.get("/api/me/", token=token, over=over, **more)
        if self.is_gateway and answer.status == 200:
            # A fixed answer stands for the app, which would say what it sends.
            answer.headers.replace_header("Content-Type", "application/json")
        return answer

    def authorized(self, value: str) -> Answer:
        """The same with this Authorization."""
        return self.me(headers={"Authorization": value})

    def change(self, name: str, ends: dict | None = None, **change) -> None:
        """
        `active`, `password` or `removed`: what an administrator does; done when this returns. Where it ends
        sessions, `ends` is the pair of one.
        """
        raise NotImplementedError

    def signing_secret(self) -> bytes:
        raise NotImplementedError

    def signed(self, token: str, **claims) -> str:
        """The same token with these claims, and without those that are None, properly signed with HS256."""
        said = {**claims_of(token), **claims}
        said = {name: value for name, value in said.items() if value is not None}
        message = f"{token.split('.')[0]}.{base64url(json.dumps(said).encode())}"
        signature = hmac.new(self.signing_secret(), message.encode(), hashlib.sha256).digest()
        return f"{message}.{base64url(signature)}"


class Gateway(Side):
    """One with these `tokens`, and with whatever else its configuration is to have."""

    is_gateway = True

    def __init__(self, binary: Path, folder: Path, logs: Path, tokens: dict, name: str = "", **more):
        port = free_port()
        super().__init__(Target(("127.0.0.1", port), f"127.0.0.1:{port}"), folder)
        self.binary, self.logs, self.name = binary, logs, name or folder.name
        self.config = folder / ("gateway.yaml" if not name else f"{name}.yaml")
        routes = [
            {"path": "/api/me/*", "respond": {"body": '{"username": "alice"}'}, "auth": "tokens"},
            {"path": "/up", "respond": {"body": "up"}},
        ]
        # JSON is YAML. The claim is what simplejwt's tokens name their user by.
        self.config.write_text(json.dumps({
            "listeners": [{"address": f"127.0.0.1:{port}"}],
            "limits": {"connections_per_ip": 100_000},
            "tokens": {"keys": "keys/", "users": "users.yaml", "claims": {"user_id": "{user.id}"}, **tokens},
            "state": "data/",
            **more,
            "routes": [*routes, *more.get("routes", [])],
        }, indent=1))
        self.child: Child | None = None

    def command(self, *words: str) -> list[str]:
        return [str(self.binary), *words, "-c", str(self.config)]

    def user(self, *words: str, password: str = "") -> None:
        """`portcullis user`, with the password in a pipe."""
        done = subprocess.run(self.command("user", *words), input=f"{password}\n", capture_output=True, text=True,
                              timeout=20)
        expect(done.returncode == 0, f"portcullis user {words}: {done.stdout}{done.stderr}")

    def write_users(self, users: dict[str, dict]) -> None:
        """The users' file as somebody writes it by hand, in one go."""
        beside = self.folder / ".users.yaml"
        beside.write_text(json.dumps(users))
        beside.rename(self.folder / "users.yaml")

    def read_users(self) -> dict[str, dict]:
        """The users' file, as it was written here or by the gateway, as PyYAML reads it."""
        return yaml.safe_load((self.folder / "users.yaml").read_text())

    def launch(self) -> None:
        """Starts it, and waits for nothing."""
        self.child = Child(f"gateway-{self.name}", self.command("run"), self.folder, self.logs)

    def start(self, seconds: float = 15) -> float:
        """Starts it; the seconds until it answered."""
        self.launch()

        def ready() -> bool:
            expect(self.child.running(), f"the gateway ended\n{self.child.tail()}")
            return self.target.get("/up").status == 200

        return wait_until(ready, seconds, "the gateway answers", 0.003)

    def kill(self) -> None:
        """SIGKILL, while it may be in the middle of anything."""
        self.child.signal(signal.SIGKILL)
        self.child.process.wait()

    def said(self, words: str) -> int:
        """How often its log has these words."""
        return self.child.err.read_text(errors="replace").count(words)

    def change(self, name: str, ends: dict | None = None, **change) -> None:
        reloads = self.said("configuration reloaded")
        if "password" in change:
            self.user("password", name, password=change["password"])
        else:
            self.user("remove" if change.get("removed") else "enable" if change["active"] else "disable", name)
        if ends:
            # The API hears of it last.
            wait_until(lambda: self.me(ends["access"]).status == 401, 10, f"{name}: {change}: sessions end", 0.02)
        else:
            wait_until(lambda: self.said("configuration reloaded") > reloads, 10, f"{name}: {change}: reload", 0.02)

    def key_set(self, over: Connection | None = None) -> set[str]:
        """The names of the published keys."""
        answer = self.target.get("/.well-known/jwks.json", over=over)
        expect(answer.status == 200, f"key set: {answer.brief()}")
        return {key["kid"] for key in answer.json()["keys"]}

    def signing_secret(self) -> bytes:
        (file,) = (self.folder / "keys").glob("*.json")
        return base64.b64decode(json.loads(file.read_text())["key"])


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Runs `work` in so many threads at once; fails with what the first of them failed with."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    expect(not any(thread.is_alive() for thread in threads), "a thread hangs")
    if failures:
        raise failures[0]


def all_at_once(askers: list[Side], path: str, fields: dict) -> list[tuple[int, dict]]:
    """
    The same POST to each of these, each over a connection that has been in use before. All are sent before the first
    answer is looked at.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    expect(len(askers) < most - 100, f"{len(askers)} connections, and {most} open files are allowed")
    body = json.dumps(fields)
    few = asyncio.Semaphore(64)

    async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(line for line in head.lower().splitlines() if line.startswith("content-length:"))
        return int(head.split()[1]), await reader.readexactly(int(length.split(":")[1]))

    async def connect(asker: Side) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with few:
            reader, writer = await asyncio.open_connection(*asker.target.address)
            writer.write(f"GET /up HTTP/1.1\r\nHost: {asker.target.host}\r\n\r\n".encode())
            status, _ = await answer(reader)
            expect(status == 200, f"/up: {status}")
            return reader, writer

    async def ask() -> list[tuple[int, dict]]:
        opened = await asyncio.gather(*(connect(asker) for asker in askers))
        for asker, (_, writer) in zip(askers, opened):
            writer.write((f"POST /api/token/{path} HTTP/1.1\r\nHost: {asker.target.host}\r\nContent-Type: "
                          f"application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode())
        answers = await asyncio.gather(*(answer(reader) for reader, _ in opened))
        for _, writer in opened:
            writer.close()
        return [(status, json.loads(content)) for status, content in answers]

    return asyncio.run(asyncio.wait_for(ask(), 60 + len(askers) / 50))


# --- Clients that remember ---------------------------------------------------------------------------------


@dataclass
class Session:
    """What a client knows of its session: the answers it had, and the questions that got none."""

    name: str
    access: str
    # The refresh tokens that it was given, by generation; the last is the one to use.
    refreshes: list[str]
    # When the last was asked for, and when it was there.
    asked: float
    given: float
    out: bool = False
    # When the next was first asked for without an answer.
    lost_refresh: float | None = None
    # Whether the one before the last has perhaps got its successor once more.
    repeated: bool = False
    # Whether the end was asked for without an answer, and of this session or of all.
    lost_end: str = ""

    def __str__(self) -> str:
        idle = time.monotonic() - self.given
        lost = [what for what, is_so in (("refresh", self.lost_refresh), ("end", self.lost_end)) if is_so]
        family = claims_of(self.access)["sid"]
        return f"{self.name}'s {family} ({len(self.refreshes)} tokens, {idle:.2f} s old, out: {self.out}, lost: {lost})"

    def next(self, body: dict, asked: float, given: float) -> None:
        """Takes the next pair."""
        self.access, self.asked, self.given, self.lost_refresh = body["access"], asked, given, None
        self.repeated = False
        self.refreshes.append(body["refresh"])


class Unanswered(Exception):
    """503: as good as no answer."""


class Clients:
    """
    Clients that log in, refresh and log out, each as a user of its own, and remember what they were told; and then
    look whether that holds. What got no answer may have been heard or not, but then it must be one of the two.
    """

    def __init__(self, gateways: list[Gateway], count: int, grace: float, may_be_down: bool = False, lag: float = 0):
        self.gateways = gateways
        self.grace = grace
        # Whether 503 is an answer at all.
        self.may_be_down = may_be_down
        # How long the API may take to hear that a session has ended.
        self.lag = lag
        self.names = [f"client-{number}" for number in range(count)]
        self.at_hand: dict[str, Session | None] = dict.fromkeys(self.names)
        self.sessions: list[Session] = []
        # Those that something happened to since they were last judged.
        self.touched: list[Session] = []
        self.answers = 0
        # What got no answer, by kind.
        self.lost: dict[str, int] = dict.fromkeys(("login", "refresh", "logout", "logout everywhere"), 0)
        self.slowest_end = 0.0
        self.lock = threading.Lock()

    def users(self) -> dict[str, dict]:
        """What the users' file has to have."""
        return {name: {"password": QUICK[PASSWORD]} for name in self.names}

    def gateway(self) -> Gateway:
        return random.choice(self.gateways)

    def answered(self, answer: Answer, what: str) -> dict:
        """The JSON of a 200; anything else fails, unless it is no answer."""
        if self.may_be_down and answer.status == 503:
            raise Unanswered(what)
        expect(answer.status == 200, f"{what}: {answer.brief()}")
        with self.lock:
            self.answers += 1
        return answer.json()

    # --- What they do --------------------------------------------------------------------------------------

    def act(self, name: str, gateway: Gateway, over: Connection | None = None) -> None:
        """
        One call of one client, which makes one call after the other. Raises what http.client raises, or Unanswered.
        """
        session = self.at_hand[name]
        if session is None or session.out or session.lost_end or session.lost_refresh or len(session.refreshes) > 12:
            what, call = "login", self.log_in
        else:
            kinds = {"refresh": (self.refresh, 89), "logout": (self.log_out, 10), "logout everywhere": (
                self.log_out_everywhere, 1)}
            what = random.choices([*kinds], [weight for _, weight in kinds.values()])[0]
            call = kinds[what][0]
        try:
            call(name, gateway, over)
        except (OSError, http.client.HTTPException, Unanswered):
            with self.lock:
                self.lost[what] += 1
            raise

    def log_in(self, name: str, gateway: Gateway, over: Connection | None) -> None:
        self.at_hand[name] = None
        asked = time.monotonic()
        pair = self.answered(gateway.obtain(name, over=over), "login")
        session = Session(name, pair["access"], [pair["refresh"]], asked, time.monotonic())
        expect(claims_of(pair["refresh"])["gen"] == 0, "a login's refresh token is not the first")
        with self.lock:
            self.at_hand[name] = session
            self.sessions.append(session)
            self.touched.append(session)

    def touch(self, *sessions: Session) -> None:
        with self.lock:
            self.touched += [session for session in sessions if not any(session is other for other in self.touched)]

    def refresh(self, name: str, gateway: Gateway, over: Connection | None) -> None:
        session = self.at_hand[name]
        self.touch(session)
        session.lost_refresh = asked = time.monotonic()
        body = self.answered(gateway.refresh(session.refreshes[-1], over), f"refresh of {session}")
        expect(claims_of(body["refresh"])["gen"] == len(session.refreshes), f"another generation in {session}")
        session.next(body, asked, time.monotonic())

    def log_out(self, name: str, gateway: Gateway, over: Connection | None) -> None:
        session = self.at_hand[name]
        self.touch(session)
        session.lost_end = "here"
        self.answered(gateway.blacklist(session.refreshes[-1], over), f"logout of {session}")
        session.out, session.lost_end = True, ""

    def log_out_everywhere(self, name: str, gateway: Gateway, over: Connection | None) -> None:
        token = self.at_hand[name].refreshes[-1]
        every = [session for session in self.sessions if session.name == name and not session.out]
        self.touch(*every)
        for session in every:
            session.lost_end = "everywhere"
        self.answered(gateway.blacklist(token, over, everywhere=True), "logout everywhere")
        for session in every:
            session.out, session.lost_end = True, ""

    # --- Whether what they were told holds -----------------------------------------------------------------

    def judge(self, session: Session, late: bool = False) -> str:
        """
        What became of a session, in a word; fails where it is not what its client was told. It may have ended
        afterwards: some of what is looked for is tried out. `late`: a spent token is tried rather than the last.
        """
        if session.lost_end and random.random() < 0.5:
            return self.log_out_again(session)
        if session.lost_end:
            asked = session.lost_refresh or time.monotonic()
            answer = self.gateway().refresh(session.refreshes[-1])
            if answer.status != 200:
                self.has_ended(session, answer)
                return "ended unheard"
            self.takes(session, answer, asked)
            session.lost_end = ""
        if session.out:
            self.is_out(session)
            return "ended"
        if session.lost_refresh is not None:
            return self.repeat(session)
        trials = [self.go_on, self.go_on]
        if len(session.refreshes) > 1:
            trials = [self.reuse] if late else [*trials, self.reuse]
        if len(session.refreshes) > 2 and not late:
            trials.append(self.reuse_older)
        return random.choice(trials)(session)

    def log_out_again(self, session: Session) -> str:
        """Who has no answer asks again: now or before, it is the end, and everybody knows."""
        more = {"everywhere": True} if session.lost_end == "everywhere" else {}
        answer = self.gateway().blacklist(session.refreshes[-1], **more)
        expect(answer.status in (200, 401), f"logout again: {answer.brief()} of {session}")
        if answer.status == 200 and more:
            for other in self.sessions:
                if other.name == session.name and not other.out:
                    other.out, other.lost_end = True, ""
        session.out, session.lost_end = True, ""
        self.is_out(session)
        return f"{'logged out' if answer.status == 200 else 'ended unheard, told'} when asked again"

    def go_on(self, session: Session) -> str:
        """Its last token is good, and so is what it gets."""
        expect(self.gateway().me(session.access).status == 200, f"API of {session}")
        expect(self.gateway().verify(session.refreshes[-1]).status == 200, f"verify of {session}")
        asked = time.monotonic()
        answer = self.gateway().refresh(session.refreshes[-1])
        expect(answer.status == 200, f"refresh: {answer.brief()} of {session}")
        self.takes(session, answer, asked)
        return "goes on"

    def takes(self, session: Session, answer: Answer, asked: float) -> None:
        body = answer.json()
        generation = claims_of(body["refresh"])["gen"]
        expect(generation == len(session.refreshes), f"generation {generation} after {session}")
        session.next(body, asked, time.monotonic())
        expect(self.gateway().me(session.access).status == 200, f"API with what came last of {session}")

    def repeat(self, session: Session) -> str:
        """Heard or not, the question that was lost has one answer, as long as the grace lasts."""
        first = session.lost_refresh
        answer = self.gateway().refresh(session.refreshes[-1])
        if answer.status != 200:
            expect(time.monotonic() - first > self.grace, f"repeated within the grace: {answer.brief()} of {session}")
            self.has_ended(session, answer)
            return "ended, repeated too late"
        # If it was heard, the grace began then.
        self.takes(session, answer, first)
        session.repeated = True
        return f"repeated, {self.reuse(session)}"

    def reuse(self, session: Session) -> str:
        """The spent token gets the same successor within the grace, once; after it, it is the end of all."""
        before = time.monotonic()
        answer = self.gateway().refresh(session.refreshes[-2])
        if answer.status != 200:
            expect(session.repeated or time.monotonic() - session.asked > self.grace,
                   f"spent, within the grace: {answer.brief()} of {session}")
            self.has_ended(session, answer)
            return "ended by its spent token"
        session.repeated = True
        expect(before - session.given < self.grace + 0.1, f"a spent token is good after the grace: {session}")
        again, last = (claims_of(token) for token in (answer.json()["refresh"], session.refreshes[-1]))
        expect((again["gen"], again["jti"]) == (last["gen"], last["jti"]), f"two successors: {again} of {session}")
        return "same successor"

    def reuse_older(self, session: Session) -> str:
        """Two steps back there is no grace."""
        answer = self.gateway().refresh(session.refreshes[-3])
        expect(answer.status == 401, f"an old token: {answer.brief()} of {session}")
        self.has_ended(session, answer)
        return "ended by an old token"

    def has_ended(self, session: Session, answer: Answer) -> None:
        expect(answer.json().get("detail") == "Token is blacklisted", f"{answer.brief()} of {session}")
        session.out = True
        self.is_out(session)

    def is_out(self, session: Session) -> None:
        """None of its tokens is good for anything anywhere."""
        # The API first: that somebody tried to refresh is not to be what it hears of it by.
        for gateway in self.gateways:
            took = wait_until(lambda: gateway.me(session.access).status == 401, self.lag, f"API of ended {session}",
                              0.005)
            with self.lock:
                self.slowest_end = max(self.slowest_end, took)
        for gateway in self.gateways:
            for token in session.refreshes[-2:]:
                answer = gateway.refresh(token)
                expect(answer.status == 401 and answer.json()["detail"] == "Token is blacklisted",
                       f"refresh: {answer.brief()} of ended {session}")
            expect(gateway.verify(session.access).status == 401, f"verify of ended {session}")

    def judge_touched(self, leave_alone: float = 0) -> Iterator[str]:
        """All that something happened to, but a part of them, which no client has at hand any more either."""
        touched, self.touched = self.touched, []
        for session in touched:
            if not session.out and not session.lost_end and random.random() < leave_alone:
                if self.at_hand[session.name] is session:
                    self.at_hand[session.name] = None
                yield "left alone"
            else:
                yield self.judge(session)
