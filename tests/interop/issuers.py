#!/usr/bin/env python3
"""Tokens of other people's issuers at Portcullis: PyJWT, jwcrypto, node's jose, simplejwt, npm's oidc-provider.

    tests/interop/issuers.py [--gateway BINARY] [--venv FOLDER] [--tools FOLDER] [--only WORDS]

Each library makes keys and tokens of every algorithm; the gateway is given the public halves in the forms that the
library exports, and must accept every token and refuse every tampered one. simplejwt signs with a secret and with
a key that the gateway fetches. oidc-provider is found by its issuer's name alone, changes its keys under traffic,
goes away and comes back. Installs its pinned packages in a venv and a tools folder (kept between runs), starts
what it needs on loopback, and prints a line a check. Exit status 1 where one failed. Standard library only beside
the packages under test; ends within four minutes.
"""

from __future__ import annotations

import argparse
import base64
import collections
import hashlib
import hmac
import http.client
import http.server
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from harness import (
    TOKEN_BEGINS, Answer, Checks, Child, Connection, Failed, Target, TimeLimit, Traffic, base64url, claims_of, expect, free_port,
    from_base64url, limit_run, make_venv, wait_until,
)

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).resolve().parent / "issuers"
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
NPM_PACKAGES = {"oidc-provider": "9.13.3", "jose": "6.2.18"}
OVERALL_SECONDS = 240

HMAC = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
ALGORITHMS = [
    *HMAC, "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
]
NONE = ["none", "None", "NONE", "nOnE", ""]

USER, PASSWORD = "alice", "correct horse battery"


# --- What is forged ----------------------------------------------------------------------------------------


def header_of(token: str) -> dict:
    """A token's header, unverified."""
    return json.loads(from_base64url(token.split(".")[0]))


def part(members: dict) -> str:
    """A header or a payload as a token carries it."""
    return base64url(json.dumps(members, separators=(",", ":")).encode())


def forgeries(token: str, published: list[bytes]) -> dict[str, str]:
    """What can be made of a good token without its key; `published`: what the world knows of the key, as bytes."""
    head, body, signature = token.split(".")
    header, signed = header_of(token), from_base64url(signature)
    forged = {
        "another subject": f"{head}.{part({**claims_of(token), 'sub': 'root', 'user_id': '666'})}.{signature}",
        "a later end": f"{head}.{part({**claims_of(token), 'exp': int(time.time()) + 9999})}.{signature}",
        "no signature": f"{head}.{body}.",
        "a signature of zeros": f"{head}.{body}.{base64url(bytes(len(signed)))}",
        "half a signature": f"{head}.{body}.{base64url(signed[: len(signed) // 2])}",
    }
    for name, place in {"first": 0, "middle": len(signed) // 2, "last": len(signed) - 1}.items():
        flipped = bytearray(signed)
        flipped[place] ^= 1
        forged[f"a bit of the {name} byte of the signature"] = f"{head}.{body}.{base64url(bytes(flipped))}"
    for algorithm in [*ALGORITHMS, "Ed25519", *NONE]:
        if algorithm != header["alg"]:
            renamed = part({**header, "alg": algorithm})
            forged[f"alg {algorithm!r}, the same signature"] = f"{renamed}.{body}.{signature}"
    for algorithm in NONE:
        forged[f"alg {algorithm!r}, no signature"] = f"{part({**header, 'alg': algorithm})}.{body}."
    for known in published:
        for secret in {known, known.strip()}:
            for algorithm, digest in HMAC.items():
                message = f"{part({**header, 'alg': algorithm})}.{body}"
                made = base64url(hmac.new(secret, message.encode(), digest).digest())
                forged[f"{algorithm} with {secret[:24]!r}… as the secret"] = f"{message}.{made}"
    return forged


def challenge_of(answer: Answer) -> str:
    return answer.headers["WWW-Authenticate"] or ""


def expect_refused(name: str, token: str, answer: Answer) -> None:
    """401 with a challenge that says `invalid_token` and never the token."""
    expect(answer.status == 401, f"{name}: {answer.brief()}")
    challenge = challenge_of(answer)
    expect(challenge.startswith("Bearer realm=") and 'error="invalid_token"' in challenge, f"{name}: {challenge}")
    repeated = token in challenge or token.encode() in answer.body
    expect(not repeated, f"{name}: the answer repeats the token")


# --- What runs ---------------------------------------------------------------------------------------------


@dataclass
class Workshop:
    """Where things are."""

    gateway: Path
    python: Path
    # The scripts' copies, with node_modules beside them: node looks for packages from a script's own folder.
    scripts: Path
    folder: Path
    logs: Path

    def json_from(self, *command: str | Path) -> dict:
        """What a script prints."""
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=90)
        expect(done.returncode == 0, f"{command[1]}: {done.stderr[-1500:]}")
        return json.loads(done.stdout)


class EchoApp:
    """An app that says which user the gateway named, and counts its requests."""

    def __init__(self) -> None:
        self.requests = 0
        app = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # The head and the body leave together; apart, each answer would wait for an acknowledgement.
            wbufsize = -1

            def do_GET(self) -> None:
                app.requests += 1
                body = json.dumps({"user": self.headers["X-User-Id"]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            # A crowd comes at once; of five, the default, the rest would be left to try again.
            request_queue_size = 512

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Gateway:
    """Portcullis with these verifiers and routes, and /up, which is public."""

    def __init__(self, name: str, shop: Workshop, verifiers: dict, routes: list):
        port = free_port()
        self.target = Target(("127.0.0.1", port), f"127.0.0.1:{port}")
        # JSON is YAML.
        config = shop.folder / f"{name}.yaml"
        config.write_text(json.dumps({
            "listeners": [{"address": f"127.0.0.1:{port}"}],
            "jwt": verifiers,
            "routes": [*routes, {"path": "/up", "respond": {"body": "up"}}],
        }, indent=1))
        self.child = Child(name, [str(shop.gateway), "run", "-c", str(config)], shop.folder, shop.logs)

    def wait(self) -> float:
        """Until it serves; keys may still be missing."""

        def ready() -> bool:
            expect(self.child.running(), "the gateway ended")
            return self.target.get("/up").status == 200

        return wait_until(ready, 15, "the gateway answers")

    def no_token_in_logs(self):
        for log in (self.child.out, self.child.err):
            content = log.read_bytes()
            expect(not any(begin in content for begin in TOKEN_BEGINS), f"a token's beginning is in {log.name}")


class Part:
    """A story with processes of its own; started only where one of its checks is asked for."""

    name = ""

    def __init__(self, shop: Workshop):
        self.shop = shop
        self.children: list[Child] = []

    def checks(self) -> list[tuple]:
        """Name, function and arguments of each check, in their order."""
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    def gateway(self, name: str, verifiers: dict, routes: list) -> Gateway:
        started = Gateway(name, self.shop, verifiers, routes)
        self.children.append(started.child)
        started.wait()
        return started

    def child(self, name: str, *command: str | Path) -> Child:
        self.children.append(Child(name, [str(word) for word in command], self.shop.folder, self.shop.logs))
        return self.children[-1]

    def stop(self) -> None:
        for child in reversed(self.children):
            child.stop(5)


# --- Libraries that make keys and tokens -------------------------------------------------------------------


@dataclass
class Minted:
    """What a library made for one algorithm; the mint_* scripts print it."""

    # `secret`, `pem`, `jwks`: a file with the key as the gateway is to know it.
    keys: dict[str, str]
    token: str
    # Signed by other keys, or by the right key with another algorithm; all to be refused.
    forged: dict[str, str]


class Libraries(Part):
    """PyJWT, jwcrypto and jose: every algorithm, the key in every form that they export."""

    name = "libraries"
    ISSUER, AUDIENCE = "https://issuer.example", "orders-api"
    LIBRARIES = ["PyJWT", "jwcrypto", "jose"]

    def checks(self) -> list[tuple]:
        every = [
            (f"{library} {algorithm}", self.accepts_only_the_good, library, algorithm)
            for library in self.LIBRARIES for algorithm in ALGORITHMS
        ]
        return [*every, ("libraries: no token in the gateway's logs", lambda: self.portcullis.no_token_in_logs())]

    def start(self) -> None:
        now = int(time.time())
        claims = json.dumps({"iss": self.ISSUER, "aud": self.AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600})
        self.minted: dict[tuple[str, str], Minted] = {}
        verifiers, routes = {}, []
        self.app = EchoApp()
        for library in self.LIBRARIES:
            folder = self.shop.folder / library
            folder.mkdir()
            script = self.shop.scripts / f"mint_{library.lower()}"
            command = ["node", f"{script}.mjs"] if library == "jose" else [self.shop.python, f"{script}.py"]
            told = self.shop.json_from(*command, folder, claims)
            print(f"    {told['library']}", flush=True)
            for algorithm, made in told["minted"].items():
                minted = self.minted[library, algorithm] = Minted(**made)
                for form, file in minted.keys.items():
                    name = f"{library}-{algorithm}-{form}"
                    verifiers[name] = self.verifier(algorithm, form, file, header_of(minted.token).get("kid"))
                    auth = {"jwt": name, "forward": {"X-User-Id": "sub"}}
                    routes.append({"path": self.path(library, algorithm, form), "proxy": self.app.url, "auth": auth})
        self.portcullis = self.gateway("gateway-libraries", verifiers, routes)

    def verifier(self, algorithm: str, form: str, file: str, kid: str | None) -> dict:
        rules = {"issuer": self.ISSUER, "audience": self.AUDIENCE}
        if form == "secret":
            return {**rules, "algorithms": [algorithm], "secret": f"${{file:{file}}}"}
        if form == "pem":
            return {**rules, "algorithms": [algorithm], "keys": [{"kid": kid, "file": file} if kid else file]}
        # A key that does not name its algorithm could be used with each that fits its type.
        key = json.loads(Path(file).read_text())["keys"][0]
        return {**rules, "jwks": file, **({} if "alg" in key else {"algorithms": [algorithm]})}

    @staticmethod
    def path(library: str, algorithm: str, form: str) -> str:
        return f"/{library}/{algorithm}/{form}"

    def accepts_only_the_good(self, library: str, algorithm: str):
        minted = self.minted.get((library, algorithm))
        expect(minted, "the library made no token")
        expect(header_of(minted.token)["alg"] == algorithm, f"a token with {header_of(minted.token)}")
        public = "secret" not in minted.keys
        published = [Path(file).read_bytes() for file in minted.keys.values()] if public else []
        forged = {**forgeries(minted.token, published), **minted.forged}
        over = self.portcullis.target.connect()
        try:
            for form in minted.keys:
                path = self.path(library, algorithm, form)
                before = self.app.requests
                self.passes(path, minted.token, over)
                for name, token in forged.items():
                    expect_refused(f"{form}: {name}", token, self.portcullis.target.get(path, token=token, over=over))
                self.passes(path, minted.token, over)
                reached = self.app.requests - before
                expect(reached == 2, f"{form}: {reached} requests reached the app, not the two good ones alone")
        finally:
            over.close()
        return f"{' and '.join(minted.keys)}; {len(forged)} forgeries"

    def passes(self, path: str, token: str, over: Connection) -> None:
        answer = self.portcullis.target.get(path, token=token, over=over)
        expect(answer.status == 200, f"{path}: {answer.brief()} {challenge_of(answer)}")
        expect(answer.json() == {"user": "alice"}, f"{path}: the app was told {answer.json()}")

    def stop(self) -> None:
        super().stop()
        self.app.close()


# --- simplejwt ---------------------------------------------------------------------------------------------


class Simplejwt(Part):
    """A login through the gateway; HS256 with a shared secret, RS256 with the key set at a URL."""

    def __init__(self, shop: Workshop, algorithm: str):
        super().__init__(shop)
        self.algorithm = algorithm
        self.name = f"simplejwt {algorithm}"
        self.access = self.refresh = ""

    def checks(self) -> list[tuple]:
        return [
            (f"{self.name}: obtain through the gateway, and call", self.obtain_and_call),
            (f"{self.name}: a refresh token opens nothing", self.refresh_as_access),
            (f"{self.name}: tampered tokens are refused", self.tampered),
            (f"{self.name}: refresh, and call again", self.refresh_and_call),
            (f"{self.name}: no token in the gateway's logs", lambda: self.portcullis.no_token_in_logs()),
        ]

    def start(self) -> None:
        folder = self.shop.folder / self.name.replace(" ", "-")
        folder.mkdir()
        (folder / "secret").write_text(secrets.token_hex(32))
        port = free_port()
        self.site = Target(("127.0.0.1", port), f"127.0.0.1:{port}")
        script = self.shop.scripts / "simplejwt_site.py"
        site = self.child(folder.name, self.shop.python, script, self.algorithm, str(port), folder, USER, PASSWORD)

        def ready() -> bool:
            expect(site.running(), "the site ended")
            return self.site.get("/jwks.json").status == 200

        wait_until(ready, 30, "the site answers")
        self.key_set = self.site.get("/jwks.json").body if self.algorithm == "RS256" else None
        keys = {"secret": f"${{file:{folder / 'secret'}}}"}
        if self.key_set:
            keys = {"jwks": f"{self.site.origin}/jwks.json", "issuer": "interop", "audience": "orders-api"}
        verifier = {"algorithms": [self.algorithm], "claims": {"token_type": "access"}, **keys}
        auth = {"jwt": "simplejwt", "forward": {"X-User-Id": "user_id"}}
        self.portcullis = self.gateway(f"gateway-{folder.name}", {"simplejwt": verifier}, [
            {"path": "/api/*", "proxy": self.site.origin, "auth": auth},
            {"path": "/api/token/*", "proxy": self.site.origin, "auth": "none"},
        ])
        if self.key_set:
            # Nothing said that the keys are there before the first request.
            pair = self.log_in()
            wait_until(lambda: self.me(pair["access"]).status == 200, 10, "the gateway has the key set")

    def me(self, token: str) -> Answer:
        return self.portcullis.target.get("/api/me/", token=token)

    def log_in(self) -> dict:
        answer = self.portcullis.target.post("/api/token/", form={"username": USER, "password": PASSWORD})
        expect(answer.status == 200, f"login: {answer.brief()}")
        return answer.json()

    def passes(self, token: str) -> None:
        answer = self.me(token)
        expect(answer.status == 200, f"{answer.brief()} {challenge_of(answer)}")
        wanted = {"username": USER, "user_id": str(claims_of(token)["user_id"])}
        expect(answer.json() == wanted, f"{answer.json()}, expected {wanted}")

    def obtain_and_call(self):
        pair = self.log_in()
        self.access, self.refresh = pair["access"], pair["refresh"]
        header = header_of(self.access)
        expect(header["alg"] == self.algorithm, f"a token with {header}")
        self.passes(self.access)
        wrong = self.portcullis.target.post("/api/token/", form={"username": USER, "password": "wrong"})
        expect(wrong.status == 401, f"a wrong password: {wrong.brief()}")

    def refresh_as_access(self):
        refresh = self.refresh or self.log_in()["refresh"]
        expect_refused("the refresh token", refresh, self.me(refresh))

    def tampered(self):
        token = self.log_in()["access"]
        forged = forgeries(token, [self.key_set] if self.key_set else [])
        for name, bad in forged.items():
            expect_refused(name, bad, self.me(bad))
        self.passes(token)
        return f"{len(forged)} forgeries"

    def refresh_and_call(self):
        refresh = self.refresh or self.log_in()["refresh"]
        answer = self.portcullis.target.post("/api/token/refresh/", form={"refresh": refresh})
        expect(answer.status == 200, answer.brief())
        fresh = answer.json()["access"]
        expect(fresh != self.access, "the same token again")
        self.passes(fresh)


# --- oidc-provider -----------------------------------------------------------------------------------------


class Issuer:
    """oidc_issuer.mjs on ports that stay the same over its restarts."""

    SECRET = "a secret of the interop test"

    def __init__(self, name: str, part_of: Part):
        self.name = name
        self.part = part_of
        self.port, self.control_port = free_port(), free_port()
        self.target = Target(("127.0.0.1", self.port), f"127.0.0.1:{self.port}")
        self.control = Target(("127.0.0.1", self.control_port), f"127.0.0.1:{self.control_port}")
        self.child: Child | None = None

    def start(self) -> None:
        """With keys that it never had before."""
        script = self.part.shop.scripts / "oidc_issuer.mjs"
        child = self.child = self.part.child(self.name, "node", script, str(self.port), str(self.control_port))

        def ready() -> bool:
            expect(child.running(), "the issuer ended")
            return self.control.get("/status").status == 200

        wait_until(ready, 20, "the issuer answers")

    def stop(self) -> None:
        self.child.stop()

    def running(self) -> bool:
        return bool(self.child and self.child.running())

    def mint(self, resource: str = "https://orders.example/current") -> str:
        """An access token by client credentials."""
        form = {"grant_type": "client_credentials", "scope": "orders:read", "resource": resource}
        credentials = base64.b64encode(b"shop:" + self.SECRET.replace(" ", "+").encode()).decode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": f"Basic {credentials}"}
        answer = self.target.post("/token", body=urlencode(form), headers=headers)
        expect(answer.status == 200, f"the issuer gave no token: {answer.brief()}")
        return answer.json()["access_token"]

    def rotate(self, algorithm: str) -> None:
        answer = self.control.post(f"/rotate?algorithm={algorithm}")
        expect(answer.status == 200, f"rotation: {answer.brief()}")

    def status(self) -> dict:
        return self.control.get("/status").json()


class OidcProvider(Part):
    """An issuer whose name is all that the gateway knows."""

    name = "oidc-provider"
    ALGORITHMS = [algorithm for algorithm in ALGORITHMS if algorithm not in HMAC] + ["Ed25519"]
    # The gateway asks for an unknown `kid` at most once in 10 s.
    SECONDS_BETWEEN_ROTATIONS = 11
    # So many tokens of a new key come at once, each on so many connections.
    CROWD_TOKENS, CROWD_TIMES = 8, 25
    CROWDS = 30

    def checks(self) -> list[tuple]:
        return [
            ("oidc-provider: no token, no entry", self.no_token),
            *((f"oidc-provider {algorithm}", self.accepts_only_the_good, algorithm) for algorithm in self.ALGORITHMS),
            ("oidc-provider: another audience or typ is refused", self.other_audience_and_typ),
            ("oidc-provider: keys change under traffic, no valid token is refused", self.rotate),
            ("oidc-provider: a retired key's token is refused, the published one's passes", self.retired),
            ("oidc-provider: another issuer's tokens are refused", self.another_issuer),
            ("oidc-provider: while the issuer is away, known keys go on", self.issuer_away),
            ("oidc-provider: a start without the issuer is 503, then 200 without a reload", self.start_without_issuer),
            ("oidc-provider: the issuer is back, with other keys", self.issuer_back),
            ("oidc-provider: crowds with a new key, none is refused", self.crowds),
            ("oidc-provider: no token in the gateway's logs", lambda: self.portcullis.no_token_in_logs()),
        ]

    def start(self) -> None:
        self.app = EchoApp()
        self.issuer = Issuer("oidc-issuer", self)
        self.other = Issuer("oidc-other", self)
        self.generations: list[str] = []
        self.late: Gateway | None = None
        self.issuer.start()
        self.portcullis = self.discovering("gateway-oidc")
        token = self.issuer.mint()
        took = wait_until(lambda: self.call(token).status == 200, 15, "the gateway found the issuer's keys")
        print(f"    keys by discovery after {took:.1f} s", flush=True)
        # Perhaps it was that call that made the gateway ask.
        self.may_rotate = time.monotonic() + self.SECONDS_BETWEEN_ROTATIONS

    def discovering(self, name: str) -> Gateway:
        verifier = {"issuer": self.issuer.target.origin, "audience": "orders-api", "typ": "at+jwt"}
        auth = {"jwt": "sso", "require": {"scope": ["orders:read"]}, "forward": {"X-User-Id": "sub"}}
        return self.gateway(name, {"sso": verifier}, [{"path": "/orders/*", "proxy": self.app.url, "auth": auth}])

    def call(self, token: str | None, gateway: Gateway | None = None, over: Connection | None = None) -> Answer:
        return (gateway or self.portcullis).target.get("/orders/7", token=token, over=over)

    def passes(self, token: str, over: Connection | None = None) -> None:
        answer = self.call(token, over=over)
        header = header_of(token)
        expect(answer.status == 200, f"{header}: {answer.brief()} {challenge_of(answer)}")
        expect(answer.json() == {"user": "shop"}, f"{header}: the app was told {answer.json()}")

    def no_token(self):
        answer = self.call(None)
        challenge = challenge_of(answer)
        expect(answer.status == 401 and "error=" not in challenge, f"{answer.brief()} {challenge}")

    def accepts_only_the_good(self, algorithm: str):
        token = self.issuer.mint(f"https://orders.example/{algorithm}")
        header = header_of(token)
        expect(header["alg"] == algorithm, f"a token with {header}")
        key_set = self.issuer.target.get("/jwks").body
        forged = forgeries(token, [key_set])
        _, body, signature = token.split(".")
        for key in json.loads(key_set)["keys"]:
            if key["kid"] != header["kid"]:
                renamed = part({**header, "kid": key["kid"]})
                forged[f"the name of the {key['alg']} key {key['kid']}"] = f"{renamed}.{body}.{signature}"
        over = self.portcullis.target.connect()
        before = self.app.requests
        try:
            self.passes(token, over)
            for name, bad in forged.items():
                expect_refused(name, bad, self.call(bad, over=over))
            self.passes(token, over)
        finally:
            over.close()
        expect(self.app.requests - before == 2, "a forgery reached the app")
        return f"{len(forged)} forgeries"

    def other_audience_and_typ(self):
        for resource in ("https://billing.example/", "https://orders.example/plain"):
            token = self.issuer.mint(resource)
            expect_refused(resource, token, self.call(token))
        self.passes(self.issuer.mint())

    def crowd(self, gateway: Gateway) -> list[str]:
        """The current key's tokens all at once, each request on a connection of its own; what was refused."""
        target = gateway.target
        tokens = [self.issuer.mint() for _ in range(self.CROWD_TOKENS)] * self.CROWD_TIMES
        connections = [target.dial(15) for _ in tokens]
        try:
            for connection, token in zip(connections, tokens):
                connection.sendall(f"GET /orders/7 HTTP/1.1\r\nHost: {target.host}\r\n"
                                   f"Authorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode())
            refused = []
            for connection in connections:
                response = http.client.HTTPResponse(connection)
                response.begin()
                if response.status != 200:
                    refused.append(f"{response.status} {response.headers['WWW-Authenticate']}")
            return refused
        finally:
            for connection in connections:
                connection.close()

    def rotate(self):
        """
        Every call carries a token that was made for it, by whichever key signs at that time. The first that the
        gateway sees of a new key is a crowd.
        """
        used: collections.Counter[str] = collections.Counter()
        slowest = 0.0
        lock = threading.Lock()
        kept = [self.portcullis.target.connect() for _ in range(2)]

        flowing = threading.Event()
        flowing.set()

        def call(over: Connection | None) -> None:
            nonlocal slowest
            flowing.wait(10)
            token = self.issuer.mint()
            header = header_of(token)
            answer = self.call(token, over=over)
            with lock:
                used[f"{header['alg']} {header['kid'][:6]}"] += 1
                slowest = max(slowest, answer.seconds)
            expect(answer.status == 200, f"{header}: {answer.brief()} {challenge_of(answer)}")

        asked_before = self.issuer.status()["key_sets_asked"]
        rotations = ["ES256", "PS256", "EdDSA"]
        refused: list[str] = []
        traffic = Traffic()
        try:
            for over in (*kept, None, None):
                traffic.repeat("kept connection" if over else "new connections", lambda over=over: call(over), 0.06)
            time.sleep(max(1.5, self.may_rotate - time.monotonic()))
            for algorithm in rotations:
                self.generations.append(self.issuer.mint())
                flowing.clear()
                time.sleep(0.1)
                self.issuer.rotate(algorithm)
                refused += self.crowd(self.portcullis)
                flowing.set()
                # Not after the last: there is nothing to wait for.
                time.sleep(self.SECONDS_BETWEEN_ROTATIONS if algorithm != rotations[-1] else 2)
            self.generations.append(self.issuer.mint())
        finally:
            flowing.set()
            calls, failures = traffic.stop()
            for over in kept:
                over.close()
        seconds = time.monotonic() - traffic.begun
        asked = self.issuer.status()["key_sets_asked"] - asked_before
        in_crowds = len(rotations) * self.CROWD_TOKENS * self.CROWD_TIMES
        expect(not refused, f"{len(refused)} of {in_crowds} that came first with a new key: {refused[:2]}")
        expect(not failures, f"{len(failures)} of {calls} calls failed, first: {failures[:3]}")
        expect(calls > 20 * seconds, f"only {calls} calls in {seconds:.0f} s: that was no traffic")
        expect(len(used) == len(rotations) + 1, f"the keys used were {dict(used)}")
        expect(asked <= len(rotations) + 1, f"the key set was asked for {asked} times in {len(rotations)} rotations")
        by_key = ", ".join(f"{name} {count}" for name, count in used.items())
        return (f"{calls + in_crowds} requests in {seconds:.0f} s, 0 refused; {len(rotations)} rotations, {asked} "
                f"fetches, slowest answer {slowest * 1000:.0f} ms; {by_key}")

    def retired(self):
        expect(len(self.generations) == 4, "needs the check of the rotation")
        *retired, before, current = self.generations
        for token in retired:
            expect_refused("a retired key's token", token, self.call(token))
        self.passes(before)
        self.passes(current)

    def another_issuer(self):
        if not self.other.running():
            self.other.start()
        foreign = self.other.mint()
        expect_refused("a token of another issuer", foreign, self.call(foreign))
        # Our issuer's name and key's name over another issuer's signature.
        _, body, signature = foreign.split(".")
        ours = part({**header_of(foreign), "kid": self.issuer.status()["current"]})
        claims = part({**claims_of(foreign), "iss": self.issuer.target.origin})
        for name, token in {"our kid": f"{ours}.{body}.{signature}", "our iss": f"{ours}.{claims}.{signature}"}.items():
            expect_refused(f"another issuer's, with {name}", token, self.call(token))
        self.passes(self.issuer.mint())

    def issuer_away(self):
        if not self.other.running():
            self.other.start()
        # None of these was seen before: it is the keys that are known, not the tokens.
        tokens = [self.issuer.mint() for _ in range(10)]
        tokens += [self.issuer.mint(f"https://orders.example/{algorithm}") for algorithm in self.ALGORITHMS]
        self.call(tokens.pop())
        unknown = self.other.mint()
        self.issuer.stop()
        for token in tokens:
            self.passes(token)
        answer = self.call(unknown)
        expect(answer.status in (401, 503), f"an unknown key: {answer.brief()}")
        expect(answer.seconds < 6, f"an unknown key: answered after {answer.seconds:.1f} s")
        for token in tokens:
            self.passes(token)
        return f"{len(tokens)} tokens, twice; an unknown key's {answer.status} in {answer.seconds * 1000:.0f} ms"

    def start_without_issuer(self):
        if not self.issuer.running():
            self.issuer.start()
        token = self.issuer.mint()
        self.issuer.stop()
        self.late = self.discovering("gateway-late")
        answer = self.call(token, self.late)
        expect(answer.status == 503, f"{answer.brief()} {challenge_of(answer)}")
        after = answer.headers["Retry-After"] or ""
        expect(after.isdigit() and 0 < int(after) <= 60, f"Retry-After: {after!r}")
        expect(self.call(None, self.late).status == 401, "a request without a token is not 401")
        before = self.app.requests
        for name, bad in forgeries(token, []).items():
            answer = self.call(bad, self.late)
            expect(answer.status in (401, 503), f"{name}: {answer.brief()}")
        expect(self.app.requests == before, "a forgery reached the app")
        self.issuer.start()
        fresh = self.issuer.mint()
        took = wait_until(lambda: self.call(fresh, self.late).status == 200, 30, "200 once the issuer is there")
        return f"Retry-After {after}, then 200 {took:.1f} s after the issuer came"

    def issuer_back(self):
        if not self.issuer.running():
            self.issuer.start()
        fresh = self.issuer.mint()
        took = wait_until(lambda: self.call(fresh).status == 200, 15, "the new keys' tokens pass")
        return f"after {took:.1f} s"

    def crowds(self):
        """
        What the gateway does while keys arrive takes microseconds; many requests in many gateways look for a gap in
        it. Each gateway is a new one, since one asks for an unknown key only every 10 s.
        """
        refused: list[str] = []
        for _ in range(self.CROWDS):
            asked = self.issuer.status()["key_sets_asked"]
            gateway = self.discovering("gateway-crowd")
            try:
                # Without a request of ours, so that it has not asked for any key of a token yet.
                wait_until(lambda: self.issuer.status()["key_sets_asked"] > asked, 10, "the first fetch", 0.02)
                token = self.issuer.mint()
                wait_until(lambda: self.call(token, gateway).status == 200, 10, "the first token", 0.02)
                self.issuer.rotate("ES256")
                refused += self.crowd(gateway)
            finally:
                gateway.child.stop(5)
        requests = self.CROWDS * self.CROWD_TOKENS * self.CROWD_TIMES
        expect(not refused, f"{len(refused)} of {requests}: {refused[:2]}")
        return f"{requests} requests at {self.CROWDS} gateways"

    def stop(self) -> None:
        super().stop()
        self.app.close()


# --- The run -----------------------------------------------------------------------------------------------


def install_npm(folder: Path) -> Path:
    """The pinned packages below a folder of their own, since npm takes out what it was not told of. node_modules."""
    modules = folder / "node_modules"

    def installed(name: str) -> str | None:
        about = modules / name / "package.json"
        return json.loads(about.read_text())["version"] if about.exists() else None

    if any(installed(name) != version for name, version in NPM_PACKAGES.items()):
        folder.mkdir(parents=True, exist_ok=True)
        wanted = [f"{name}@{version}" for name, version in NPM_PACKAGES.items()]
        options = ["--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save", "--prefix", str(folder)]
        subprocess.run(["npm", "install", *options, *wanted], check=True, timeout=120, stdin=subprocess.DEVNULL)
    return modules


def tell(checks: Checks, part_of: Part) -> None:
    """One part's checks, where any is asked for."""
    every = part_of.checks()
    if not any(checks.wanted(name) for name, *_ in every):
        return
    failed_before = checks.failed
    try:
        part_of.start()
        for name, check, *arguments in every:
            checks.run(name, check, *arguments)
    except (Failed, OSError, http.client.HTTPException, subprocess.SubprocessError) as failure:
        checks.fail(f"{part_of.name} starts", str(failure))
    finally:
        part_of.stop()
        if checks.failed > failed_before:
            # A restarted one goes on in the same files.
            print("\n".join({child.name: child.tail() for child in part_of.children}.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description="Other people's issuers and their tokens at Portcullis.")
    parser.add_argument("--gateway", type=Path, default=BUILT / "release" / "portcullis", help="the binary to test")
    parser.add_argument("--venv", type=Path, default=BUILT / "issuers-venv", help="where the Python packages are kept")
    parser.add_argument("--tools", type=Path, default=BUILT / "issuers-tools", help="where the npm packages are kept")
    parser.add_argument("--only", help="run the checks whose name has these words")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder with the logs, and say where")
    options = parser.parse_args()
    gateway = options.gateway.resolve()
    if not gateway.is_file():
        print(f"FAIL no gateway at {options.gateway}: build it, or name it with --gateway")
        return 1
    limit_run(OVERALL_SECONDS)

    checks = Checks(options.only)
    folder = Path(tempfile.mkdtemp(prefix="portcullis-"))
    try:
        python = make_venv(options.venv.resolve(), SCRIPTS / "requirements.txt")
        modules = install_npm(options.tools.resolve())
        shop = Workshop(gateway, python, folder / "scripts", folder, folder / "logs")
        shop.logs.mkdir()
        shutil.copytree(SCRIPTS, shop.scripts)
        (shop.scripts / "node_modules").symlink_to(modules)
        for part_of in (Libraries(shop), Simplejwt(shop, "HS256"), Simplejwt(shop, "RS256"), OidcProvider(shop)):
            tell(checks, part_of)
    except TimeLimit as limit:
        checks.fail("the whole run", str(limit))
    except (Failed, OSError, subprocess.SubprocessError) as failure:
        checks.fail("start", str(failure))
    finally:
        signal.alarm(0)
        if options.keep:
            print(f"logs: {folder / 'logs'}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed or not checks.passed else 0


if __name__ == "__main__":
    sys.exit(main())
