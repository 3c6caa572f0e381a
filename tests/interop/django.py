#!/usr/bin/env python3
"""Django, REST framework and simplejwt under gunicorn behind Portcullis: examples/django, the whole way. Where
Portcullis issues the tokens is the matter of django_issuing.py.

    tests/interop/django.py [--gateway BINARY] [--venv FOLDER] [--direct] [--only WORDS]

Copies the example to a temporary folder, installs its pinned packages in a venv (kept between runs), starts
gunicorn on its unix socket and the gateway with the example's own gateway.yaml, only the port changed, and
prints a line a check. Exit status 1 where one failed. `--direct` asks gunicorn itself and leaves out what only
a gateway can do: it shows which half is at fault, and, with the slow clients, why there is a gateway at all.
Standard library only; ends within six minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from django_site import BUILT, EXAMPLE, PASSWORD, USER, Browser, Site
from harness import (
    Checks, Failed, TimeLimit, Traffic, base64url, claims_of, expect, limit_run, make_token, make_venv, signed_by,
    wait_until,
)
from slow_clients import SlowCrowd

OVERALL_SECONDS = 360
MIB = 1024 * 1024
# What /api/download/ repeats (demo/views.py).
PATTERN = bytes(range(256)) * 4096


class Story:
    """The checks, in their order; each uses what earlier ones left in `access` and `refresh`."""

    def __init__(self, site: Site):
        self.site = site
        self.to = site.target
        self.direct = site.gateway_binary is None
        self.access = ""
        self.refresh = ""
        self.tokens: set[str] = set()

    # --- Public pages and files ----------------------------------------------------------------------------

    def public_page(self):
        page = self.to.get("/")
        expect(page.status == 200 and b"Django behind Portcullis" in page.body, page.brief())

    def static_file(self):
        path = "/static/admin/css/base.css"
        file = self.to.get(path)
        on_disk = (self.site.folder / "collected/admin/css/base.css").read_bytes()
        expect(file.status == 200 and file.body == on_disk, file.brief())
        expect(file.headers.get_content_type() == "text/css", f"Content-Type {file.headers['Content-Type']}")
        caching = file.headers["Cache-Control"]
        expect(caching == "public, max-age=3600", f"Cache-Control {caching}")
        etag = file.headers["ETag"]
        expect(etag and not etag.startswith("W/"), f"ETag {etag}")
        again = self.to.get(path, headers={"If-None-Match": etag})
        expect(again.status == 304 and not again.body, again.brief())
        head = self.to.request("HEAD", path)
        expect(head.status == 200 and head.headers["Content-Length"] == str(len(on_disk)), "HEAD differs from GET")
        part = self.to.get(path, headers={"Range": "bytes=0-9"})
        expect(part.status == 206 and part.body == on_disk[:10], part.brief())
        expect(self.to.get("/static/none.css").status == 404, "a missing file is not 404")
        expect("/static/" not in self.site.app_access.read_text(), "Django was asked for a static file")

    def unknown_path(self):
        answer = self.to.get("/nothing/here?probe=unknown")
        expect(answer.status == 404, answer.brief())

    # --- Tokens --------------------------------------------------------------------------------------------

    def login(self) -> tuple[str, str]:
        answer = self.to.post("/api/token/", form={"username": USER, "password": PASSWORD})
        expect(answer.status == 200, answer.brief())
        pair = answer.json()
        self.tokens |= {pair["access"], pair["refresh"]}
        return pair["access"], pair["refresh"]

    def obtain(self):
        self.access, self.refresh = self.login()
        expect(claims_of(self.access)["token_type"] == "access", "no access token")

    def wrong_password(self):
        answer = self.to.post("/api/token/", form={"username": USER, "password": "wrong"})
        expected = "No active account found with the given credentials"
        expect(answer.status == 401 and answer.json()["detail"] == expected, answer.brief())

    def call(self):
        answer = self.to.get("/api/me/", token=self.access)
        expect(answer.status == 200 and answer.json()["username"] == USER, answer.brief())

    def headers_seen(self):
        spoofed = {
            "X-Forwarded-For": "192.0.2.66", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example",
            "X-User-Id": "666", "X_User_Id": "667", "x_forwarded_for": "192.0.2.67",
        }
        me = self.to.get("/api/me/", token=self.access, headers=spoofed).json()
        wanted = {
            "forwarded_for": "127.0.0.1", "forwarded_proto": "http", "secure": False, "host": self.to.host,
            "user_id": str(claims_of(self.access)["user_id"]),
        }
        wrong = {name: me[name] for name in wanted if me[name] != wanted[name]}
        expect(not wrong, f"Django saw {wrong}")

    def refused(self, name: str, token: str | None, error: str | None = "invalid_token"):
        """401 with a challenge that names the error and never the token; `error` None: no token was shown."""
        answer = self.to.get(f"/api/me/?probe={name}", token=token)
        expect(answer.status == 401, answer.brief())
        challenge = answer.headers["WWW-Authenticate"] or ""
        expect(challenge.startswith("Bearer realm="), f"WWW-Authenticate: {challenge}")
        if not self.direct:
            expect(f'error="{error}"' in challenge if error else "error=" not in challenge, challenge)
        expect(not token or (token not in challenge and token.encode() not in answer.body), "it repeats the token")

    def no_token(self):
        self.refused("none", None, None)

    def refresh_as_access(self):
        self.refused("refresh", self.refresh)

    def tampered(self):
        head, body, signature = self.access.split(".")
        claims = claims_of(self.access)
        forged = base64url(json.dumps({**claims, "user_id": "2"}).encode())
        self.refused("claims", f"{head}.{forged}.{signature}")
        first = "A" if signature[0] != "A" else "B"
        self.refused("signature", f"{head}.{body}.{first}{signature[1:]}")
        self.refused("stripped", f"{head}.{body}.")
        unsigned = base64url(json.dumps({"alg": "none", "typ": "JWT"}).encode())
        self.refused("alg-none", f"{unsigned}.{body}.")
        self.refused("other-secret", make_token(claims, "another secret of a decent length, 32 bytes"))
        self.refused("other-algorithm", make_token(claims, self.site.secret(), {"alg": "HS512", "typ": "JWT"}))
        self.refused("cut", self.access[:-4])
        expect(self.to.get("/api/me/", token=make_token(claims, self.site.secret())).status == 200,
               "the same claims, signed rightly, are refused too: the forgeries prove nothing")

    def expired(self):
        claims = {**claims_of(self.access), "iat": int(time.time()) - 600}
        late = make_token({**claims, "exp": int(time.time()) - 1}, self.site.secret())
        good = make_token({**claims, "exp": int(time.time()) + 60}, self.site.secret())
        self.refused("expired", late)
        answer = self.to.get("/api/me/", token=good)
        expect(answer.status == 200, f"its unexpired twin: {answer.brief()}")
        self.tokens |= {late, good}

    def expires_while_remembered(self):
        claims = {**claims_of(self.access), "exp": int(time.time()) + 3}
        short = make_token(claims, self.site.secret())
        expect(self.to.get("/api/me/", token=short).status == 200, "refused while good")
        time.sleep(max(0.0, claims["exp"] + 0.3 - time.time()))
        self.refused("expired-later", short)

    def never_reached(self):
        seen = [line for line in self.site.app_access.read_text().splitlines() if "probe=" in line]
        expect(not seen, f"the app was asked {len(seen)} times, first: {seen[:1]}")

    def refresh_and_call(self):
        answer = self.to.post("/api/token/refresh/", form={"refresh": self.refresh})
        expect(answer.status == 200, answer.brief())
        fresh = answer.json()["access"]
        self.tokens.add(fresh)
        expect(fresh != self.access, "the same token again")
        again = self.to.get("/api/me/", token=fresh)
        expect(again.status == 200, again.brief())
        self.access = fresh

    # --- Bodies --------------------------------------------------------------------------------------------

    def upload(self, size: int, chunked: bool):
        piece = bytes(reversed(range(256))) * 1024
        pieces = [piece] * (size // len(piece))
        headers = {"Content-Type": "application/octet-stream"}
        if not chunked:
            headers["Content-Length"] = str(size)
        answer = self.to.post("/api/upload/", body=iter(pieces), token=self.access, headers=headers, timeout=60)
        expect(answer.status == 200, answer.brief())
        wanted = {"bytes": size, "sha256": hashlib.sha256(piece * len(pieces)).hexdigest()}
        expect(answer.json() == wanted, f"Django saw {answer.json()['bytes']} bytes of {size}, or others")
        return f"{answer.seconds:.1f} s"

    def upload_expecting_continue(self):
        with self.to.dial(10) as connection:
            connection.sendall(
                f"POST /api/upload/ HTTP/1.1\r\nHost: {self.to.host}\r\nAuthorization: Bearer {self.access}\r\n"
                "Expect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n".encode()
            )
            first = connection.recv(4096)
            expect(first.startswith(b"HTTP/1.1 100 "), f"before the body: {first[:80]!r}")
            connection.sendall(b"hello")
            rest = first
            while piece := connection.recv(4096):
                rest += piece
        expect(hashlib.sha256(b"hello").hexdigest().encode() in rest, f"{rest[:200]!r}")

    def upload_too_big(self):
        connection = self.to.connect()
        connection.putrequest("POST", "/api/upload/")
        connection.putheader("Authorization", f"Bearer {self.access}")
        connection.putheader("Content-Length", str(65 * MIB))
        connection.endheaders()
        status = connection.getresponse().status
        connection.close()
        expect(status == 413, f"{status}")

    def upload_refused_early(self):
        connection = self.to.connect()
        connection.putrequest("POST", "/api/upload/?probe=early")
        connection.putheader("Content-Length", str(50 * MIB))
        connection.endheaders()
        status = connection.getresponse().status
        connection.close()
        expect(status == 401, f"{status}, and only after the body")

    def download(self):
        connection = self.to.connect(60)
        begun = time.monotonic()
        connection.request("GET", "/api/download/?mib=64", headers={"Authorization": f"Bearer {self.access}"})
        response = connection.getresponse()
        expect(response.status == 200, f"{response.status}")
        digest, size = hashlib.sha256(), 0
        while piece := response.read(256 * 1024):
            digest.update(piece)
            size += len(piece)
        connection.close()
        expect(size == 64 * MIB, f"{size} bytes")
        expect(digest.hexdigest() == hashlib.sha256(PATTERN * 64).hexdigest(), "other bytes than were sent")
        return f"{time.monotonic() - begun:.1f} s"

    def leave_early(self):
        for _ in range(20):
            with self.to.dial(10) as connection:
                connection.sendall(
                    f"GET /api/download/?mib=16 HTTP/1.1\r\nHost: {self.to.host}\r\n"
                    f"Authorization: Bearer {self.access}\r\n\r\n".encode()
                )
                expect(connection.recv(1024).startswith(b"HTTP/1.1 200"), "the download did not begin")
        answer = self.to.get("/api/me/", token=self.access)
        expect(answer.status == 200 and answer.seconds < 5, f"{answer.brief()} after {answer.seconds:.1f} s")

    # --- The admin pages: a browser's session --------------------------------------------------------------

    def admin(self):
        browser = Browser(self.to)
        locked = browser.get("/admin/")
        expect(locked.status == 302 and "/admin/login/" in locked.headers["Location"], locked.brief())
        denied = browser.admin_login(origin="http://evil.example")
        expect(denied.status == 403, f"a login from another origin: {denied.brief()}")
        entered = browser.admin_login()
        expect(entered.status == 302 and entered.headers["Location"] == "/admin/", entered.brief())
        expect("sessionid" in browser.cookies, f"cookies: {sorted(browser.cookies)}")
        page = browser.get("/admin/")
        expect(page.status == 200 and b"Site administration" in page.body, page.brief())
        expect(self.to.get("/admin/").status == 302, "the pages are open without the cookie")

    # --- Changes while it runs -----------------------------------------------------------------------------

    def rotate(self):
        """A new secret under traffic: who holds an old token, a fresh one, a refresh token or a session goes on."""
        old_secret, old_access = self.site.secret(), self.access
        browser = Browser(self.to)
        browser.admin_login()
        traffic = Traffic()
        kept = self.to.connect()

        def call(token: str, over=None) -> None:
            answer = self.to.get("/api/me/", token=token, over=over)
            expect(answer.status == 200, f"{answer.brief()} {answer.headers['WWW-Authenticate']}")

        def refresh_then_call() -> None:
            answer = self.to.post("/api/token/refresh/", form={"refresh": self.refresh})
            expect(answer.status == 200, f"refresh: {answer.brief()}")
            call(answer.json()["access"])

        def upload() -> None:
            answer = self.to.post("/api/upload/", body=PATTERN[: 256 * 1024], token=old_access)
            expect(answer.status == 200, f"upload: {answer.brief()}")

        def administer() -> None:
            page = browser.get("/admin/")
            expect(page.status == 200, f"the admin's session: {page.brief()}")

        try:
            traffic.repeat("kept connection", lambda: call(old_access, kept))
            traffic.repeat("new connections", lambda: call(old_access))
            traffic.repeat("refresh and call", refresh_then_call)
            traffic.repeat("uploads", upload)
            traffic.repeat("admin session", administer)
            time.sleep(1)

            self.site.python_run("rotate_secret.py")
            expect(self.site.secret() != old_secret, "rotate_secret.py changed nothing")
            took = 0.0
            if not self.direct:
                # The secret in secret.next.key was unknown until now: the gateway has read the files again
                # when it lets its tokens pass. What Django, not told yet, says to them does not matter.
                newest = make_token(claims_of(old_access), self.site.secret("secret.next.key"))

                def known() -> bool:
                    challenge = self.to.get("/api/me/", token=newest).headers["WWW-Authenticate"] or ""
                    return "invalid_token" not in challenge

                took = wait_until(known, 10, "the gateway takes up the new secret")
            self.site.app.signal(signal.SIGHUP)

            def signs_with_new() -> bool:
                answer = self.to.post("/api/token/refresh/", form={"refresh": self.refresh})
                return signed_by(answer.json()["access"], self.site.secret())

            wait_until(signs_with_new, 20, "Django signs with the new secret")
            time.sleep(4)
        finally:
            calls, failures = traffic.stop()
            kept.close()
        expect(calls > 50, f"only {calls} calls: that was no traffic")
        expect(not failures, f"{len(failures)} of {calls} calls failed, first: {failures[:3]}")
        expect(signed_by(old_access, old_secret), "the traffic's token was not signed by the old secret")
        return f"{calls} calls" + ("" if self.direct else f", the gateway knew after {took:.1f} s")

    def end_of_overlap(self):
        self.access, self.refresh, old = *self.login(), self.access
        expect(self.to.get("/api/me/", token=old).status == 200, "the old token is refused too early")
        self.site.python_run("rotate_secret.py", "--end")
        if self.direct:
            self.site.app.signal(signal.SIGHUP)
        took = wait_until(lambda: self.to.get("/api/me/", token=old).status == 401, 10, "the old secret is refused")
        if not self.direct:
            self.refused("old-secret", old)
        expect(self.to.get("/api/me/", token=self.access).status == 200, "the new token is refused too")
        return f"after {took:.1f} s"

    def bad_edit(self):
        before = len(self.site.gateway_says())
        good = self.site.config.read_text()
        try:
            with open(self.site.config, "a") as file:
                file.write("nonsense_key: 1\n")
            took = wait_until(
                lambda: "nonsense_key" in self.site.gateway_says(before), 3, "stderr names the unknown key", 0.05
            )
            answer = self.to.get("/api/me/", token=self.access)
            expect(answer.status == 200, f"after the bad edit: {answer.brief()}")
        finally:
            self.site.config.write_text(good)
        return f"said after {took:.1f} s"

    def good_edit(self):
        self.site.edit("max-age=3600", "max-age=7200")

        def taken_up() -> bool:
            return self.to.get("/static/demo/site.css").headers["Cache-Control"] == "public, max-age=7200"

        return f"after {wait_until(taken_up, 5, 'the new Cache-Control'):.1f} s"

    def app_restart(self):
        self.site.app.stop()
        wait_until(lambda: self.to.get("/").status in (502, 503), 5, "the gateway says that the app is away")
        answers = [self.to.get("/api/me/", token=self.access, timeout=8) for _ in range(5)]
        wrong = [answer.brief() for answer in answers if answer.status not in (502, 503)]
        expect(not wrong, f"{wrong}")
        longest = max(answer.seconds for answer in answers)
        expect(longest < 5, f"an answer took {longest:.1f} s")
        expect(self.to.get("/static/demo/site.css").status == 200, "static files stopped with the app")
        self.site.start_app()
        took = wait_until(lambda: self.to.get("/api/me/", token=self.access).status == 200, 15, "200 again")
        return f"{answers[0].status} in {longest * 1000:.0f} ms, 200 again after {took:.1f} s"

    # --- Why people put a gateway in front of gunicorn -----------------------------------------------------

    def slow_clients(self, count: int = 300):
        self.access, self.refresh = self.login()
        crowd = SlowCrowd(self.to, self.access, count, arrival=8)
        seconds: list[float] = []
        failures: list[str] = []
        kept = self.to.connect(10)
        try:
            while time.monotonic() < crowd.until:
                for over in (kept, None):
                    try:
                        answer = self.to.get("/api/me/", token=self.access, over=over, timeout=10)
                        expect(answer.status == 200, answer.brief())
                        seconds.append(answer.seconds)
                    except (Failed, OSError, http.client.HTTPException) as error:
                        failures.append(f"{type(error).__name__}: {error}")
                time.sleep(0.05)
            seconds.sort()
            p95 = seconds[len(seconds) * 95 // 100] if seconds else float("inf")
            remark = f"{len(seconds)} calls, median {seconds[len(seconds) // 2] * 1000:.0f} ms, " if seconds else ""
            remark += f"p95 {p95 * 1000:.0f} ms"
            expect(not failures, f"{len(failures)} calls failed beside {remark}; first: {failures[:2]}")
            expect(p95 < 1 and len(seconds) >= 50, remark)
            wrong = crowd.finish(40)
            expect(not wrong, f"{len(wrong)} of the slow were not served right, first: {wrong[:3]}")
        finally:
            kept.close()
            crowd.close()
        return f"{remark}; {2 * count} slow ones served whole"

    # --- The end -------------------------------------------------------------------------------------------

    def drain(self):
        connection = self.to.connect(20)
        connection.request("GET", "/api/download/?mib=32", headers={"Authorization": f"Bearer {self.access}"})
        response = connection.getresponse()
        first = response.read(1024)
        self.site.gateway.signal(signal.SIGTERM)
        time.sleep(0.5)
        rest = response.read()
        connection.close()
        expect(len(first) + len(rest) == 32 * MIB, f"the download under way was cut at {len(first) + len(rest)} bytes")
        try:
            status = self.site.gateway.process.wait(10)
        except subprocess.TimeoutExpired:
            raise Failed("still running 10 s after SIGTERM, with nothing left to do") from None
        expect(status == 0, f"exit status {status}")

    def no_token_in_logs(self):
        for log in (self.site.gateway.out, self.site.gateway.err):
            text = log.read_text(errors="replace")
            for token in self.tokens:
                expect(token not in text and token.rpartition(".")[2] not in text, f"a token is in {log.name}")
            for name in ("secret.key", "secret.next.key", "secret.previous.key"):
                expect(self.site.secret(name) not in text, f"{name}'s value is in {log.name}")
        expect('"/api/me/' in self.site.gateway.out.read_text(errors="replace"), "the access log shows no request")


def tell(checks: Checks, site: Site) -> None:
    """All the checks, in order."""
    story = Story(site)
    gateway = not story.direct
    checks.run("public page", story.public_page)
    if gateway:
        checks.run("static files: the gateway's own, ETag, 304, HEAD, a range, 404", story.static_file)
        checks.run("a path without a route is 404", story.unknown_path)
    checks.run("obtain a pair of tokens", story.obtain, always=True)
    checks.run("wrong password: simplejwt's own answer", story.wrong_password)
    checks.run("call with the access token", story.call)
    if gateway:
        checks.run("forwarded headers and the user's id are the gateway's, not the client's", story.headers_seen)
    checks.run("no token is refused", story.no_token)
    checks.run("a refresh token used as access is refused", story.refresh_as_access)
    checks.run("tampered tokens are refused", story.tampered)
    checks.run("an expired token is refused", story.expired)
    checks.run("a token that was good is refused once it expires", story.expires_while_remembered)
    checks.run("refresh, and call with the new token", story.refresh_and_call)
    checks.run("upload of 50 MiB", story.upload, 50 * MIB, False)
    if gateway:
        checks.run("chunked upload of 5 MiB reaches Django whole", story.upload, 5 * MIB, True)
    checks.run("upload with Expect: 100-continue", story.upload_expecting_continue)
    if gateway:
        checks.run("upload over the route's limit is 413", story.upload_too_big)
        checks.run("upload without a token is refused before its body", story.upload_refused_early)
    checks.run("download of 64 MiB, streamed", story.download)
    checks.run("clients that leave in the middle do no harm", story.leave_early)
    if gateway:
        checks.run("nothing that was refused reached the app", story.never_reached)
    checks.run("admin pages by session cookie, CSRF check untouched", story.admin)
    checks.run("rotate the secret under traffic: no request fails", story.rotate)
    checks.run("after --end the old secret is refused", story.end_of_overlap)
    if gateway:
        checks.run("a bad edit of gateway.yaml keeps serving and is said", story.bad_edit)
        checks.run("a good edit of gateway.yaml takes effect", story.good_edit)
        checks.run("app away: 502 or 503 at once, 200 when it is back", story.app_restart)
    checks.run("300 slow senders and 300 slow readers: everybody else is served", story.slow_clients)
    if gateway:
        checks.run("SIGTERM lets a download end, then exits 0", story.drain)
        checks.run("no token and no secret in the gateway's logs", story.no_token_in_logs)


def main() -> int:
    parser = argparse.ArgumentParser(description="Django's way through Portcullis, from login to drain.")
    parser.add_argument("--gateway", type=Path, default=BUILT / "release" / "portcullis", help="the binary to test")
    parser.add_argument("--venv", type=Path, default=BUILT / "interop-venv", help="where the Python packages are kept")
    parser.add_argument("--direct", action="store_true", help="ask gunicorn itself, without a gateway")
    parser.add_argument("--only", help="run the checks whose name has these words (and obtain, which most need)")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder with the logs, and say where")
    options = parser.parse_args()
    gateway = None if options.direct else options.gateway.resolve()
    if gateway and not gateway.is_file():
        print(f"FAIL no gateway at {options.gateway}: build it, or name it with --gateway")
        return 1

    # 600 clients here, and as many files again in the gateway, which inherits the limit.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192 if hard == resource.RLIM_INFINITY else min(8192, hard), hard))
    limit_run(OVERALL_SECONDS)

    checks = Checks(options.only)
    site = None
    # A short path: a unix socket's has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="portcullis-"))
    try:
        site = Site(folder, make_venv(options.venv.resolve(), EXAMPLE / "requirements.txt"), gateway)
        site.prepare()
        site.start_app()
        if gateway:
            site.start_gateway()
        tell(checks, site)
    except TimeLimit as limit:
        checks.fail("the whole run", str(limit))
    except (Failed, OSError, subprocess.SubprocessError) as failure:
        checks.fail("start", str(failure))
    finally:
        signal.alarm(0)
        if site:
            site.stop()
            if checks.failed:
                print("\n".join(child.tail() for child in (site.gateway, site.app) if child))
        if options.keep:
            print(f"logs: {folder / 'logs'}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed or not checks.passed else 0


if __name__ == "__main__":
    sys.exit(main())
