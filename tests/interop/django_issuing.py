#!/usr/bin/env python3
"""The move from simplejwt to Portcullis's own tokens, as examples/django/issuing and docs/reference/simplejwt.md tell it.

    tests/interop/django_issuing.py [--gateway BINARY] [--venv FOLDER] [--only WORDS]

Copies the example to a temporary folder, makes users in Django, exports them, runs both issuers side by side, switches,
and then runs without simplejwt, which can no longer be imported. Prints a line a check; exit status 1 where one failed.
The first checks build on one another, so `--only` leaves out what comes after them. The venv is that of django.py.
Needs Debian's python3-yaml; ends within two minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from django_site import BUILT, EXAMPLE, PASSWORD, ROOT, USER, Browser, Site
from harness import (
    Answer, Checks, Child, Failed, Target, TimeLimit, claims_of, expect, free_port, from_base64url, limit_run, make_token,
    make_venv, wait_until,
)

OVERALL_SECONDS = 120
GUIDE = ROOT / "docs" / "reference" / "simplejwt.md"

# Hashes of PASSWORD as Django makes them, for less work; their packages are not needed here.
HASHES = {
    "bob": "bcrypt_sha256$$2b$05$jcXazsTikl62SwSWJMhHC.9ghrxtiubXg.uCT4mqMzvV0QIh.UqEG",
    "carol": "argon2$argon2id$v=19$m=8192,t=2,p=8$SnJvcnpPb1BidzA0YXFwUVJqVU5Nbw$"
             "babsI3WGLcCes7oIqzAXttWBQ/aZcmK6QxSv48/Wi50",
    "dora": "bcrypt$$2b$05$fGUz0oppmzvWRJGxC9o3OOuchhqt27GC0Fo/EZXHOgEs6Q1qfQUte",
    # Of a kind that Portcullis does not know.
    "gina": "scrypt$16384$QSJwJrQ7dZmfwb2f0CK0lv$8$5$82HdmKTI7UlB8oA4znVmUyDvX0vJtWqYF6dopmayjFthlgSCNrM8lGk9noQh3nYZ"
            "pqO7F9eayIHXLLVuFi2n/Q==",
}
# Made by Django with its own hasher. The last one's name is not ASCII.
UMLAUT = "jürgen"
PEOPLE = f"""
from django.contrib.auth.models import Group, User
clerks, office = (Group.objects.create(name=name) for name in ("clerks", "Büro"))
User.objects.get(username={USER!r}).groups.add(clerks, office)
for name, hash in {HASHES!r}.items():
    User.objects.create(username=name, password=hash)
User.objects.create_user("erin", password={PASSWORD!r}, is_active=False)
User.objects.create_user("frank")
User.objects.create_user({UMLAUT!r}, password={PASSWORD!r}).groups.add(clerks)
"""
# Step 2 of the guide, in Django and in the gateway.
SETTINGS_MOVING = """
from project.settings import *
from project.settings import INSTALLED_APPS, REST_FRAMEWORK

INSTALLED_APPS = [*INSTALLED_APPS, "issuing"]
REST_FRAMEWORK = {
    **REST_FRAMEWORK,
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "issuing.authentication.GatewayAuthentication",
        "rest_framework_simplejwt.authentication.JWTAuthentication",
    ],
}
"""
VERIFIER = 'jwt:\n  app: {algorithms: [HS256], secret: "${file:../secret.key}", claims: {token_type: access}, leeway: 0s}\n'
DJANGO_ISSUES = "  - {path: /api/token/*, proxy: django, auth: none}\n"
# What names somebody else, in every spelling that an app could read.
FORGED = [
    ("X-User-Name", USER), ("X_User_Name", USER), ("x-user-name", USER), ("x-user-name", USER), ("X-USER_NAME", USER),
    ("X-User-Id", "1"), ("X_User_Id", "1"), ("x-user-id", "1"), ("x-user-id", "1"),
    ("X-User-Roles", "clerks"), ("X_User_Roles", "clerks"),
]


class Story:
    """The checks, in their order; each uses what earlier ones left behind."""

    def __init__(self, site: Site):
        self.site = site
        self.to = site.target
        self.users = site.config.parent / "users.yaml"
        self.socket = Target(str(site.folder / "gunicorn.sock"), "127.0.0.1")
        self.access = ""
        self.refresh = ""
        self.tokens: set[str] = set()
        self.old: dict[str, str] = {}

    # --- Tools ---------------------------------------------------------------------------------------------

    def database(self, statement: str, *values: object) -> list[tuple]:
        """Asks or changes Django's database, without the second that a start of Django takes."""
        with contextlib.closing(sqlite3.connect(self.site.folder / "db.sqlite3", timeout=20)) as base, base:
            return base.execute(statement, values).fetchall()

    def settings(self, module: str) -> None:
        self.site.environment["DJANGO_SETTINGS_MODULE"] = module

    def portcullis(self, *command: str, typed: str = "") -> str:
        """A command at the prompt beside the gateway that runs."""
        done = subprocess.run(
            [self.site.gateway_binary, *command, "-c", self.site.config],
            input=typed, capture_output=True, text=True, timeout=30,
        )
        expect(done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def entries(self) -> dict[str, dict]:
        """users.yaml, as PyYAML reads it."""
        return yaml.safe_load(self.users.read_text())

    def obtain(self, name: str, path: str = "/api/token/", password: str = PASSWORD) -> Answer:
        return self.to.post(path, form={"username": name, "password": password})

    def login(self, name: str, path: str = "/api/token/") -> tuple[str, str]:
        answer = self.obtain(name, path)
        expect(answer.status == 200, f"{name}: {answer.brief()}")
        pair = answer.json()
        self.tokens |= {pair["access"], pair["refresh"]}
        return pair["access"], pair["refresh"]

    def me(self, token: str | None = None, fields: list[tuple[str, str]] = (), path: str = "/api/me/",
           to: Target | None = None) -> Answer:
        """Who Django says one is, asked with just these header fields, repeated ones too."""
        connection = (to or self.to).connect()
        try:
            begun = time.monotonic()
            connection.putrequest("GET", path)
            for name, value in [*fields, *([("Authorization", f"Bearer {token}")] if token else [])]:
                connection.putheader(name, value.encode())
            connection.endheaders()
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read(), time.monotonic() - begun)
        finally:
            connection.close()

    def is_user(self, answer: Answer, name: str) -> dict:
        expect(answer.status == 200 and answer.json()["username"] == name, f"{name}: {answer.brief()}")
        return answer.json()

    def reloads(self, old: str, new: str, taken_up) -> None:
        self.site.edit(old, new)
        wait_until(taken_up, 10, f"the gateway takes up {new!r}")

    # --- The guide -----------------------------------------------------------------------------------------

    def table(self):
        said = self.site.python_run(
            "-c", "from django.conf import settings; settings.configure(SECRET_KEY='x')\n"
            "from rest_framework_simplejwt.settings import DEFAULTS, REMOVED_SETTINGS\n"
            "import json; print(json.dumps([list(DEFAULTS), list(REMOVED_SETTINGS)]))"
        )
        defaults, removed = json.loads(said)
        section = GUIDE.read_text().partition("\n## Every setting\n")[2].partition("\n## ")[0]
        rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
        told = [key for row in rows for key in re.findall(r"`([A-Z_]+)`", row[1])]
        expect(len(told) == len(set(told)), f"twice in the table: {sorted({key for key in told if told.count(key) > 1})}")
        missing = {*defaults, *removed} - set(told)
        expect(not missing, f"not in the table of {GUIDE.name}: {sorted(missing)}")
        # A star: in simplejwt's next version.
        starred = {key for row in rows if "*" in row[1] for key in re.findall(r"`([A-Z_]+)`", row[1])}
        unknown = set(told) - {*defaults, *removed} - starred
        expect(not unknown, f"simplejwt has no such settings: {sorted(unknown)}")
        empty = [row[1] for row in rows if not row[2].strip()]
        expect(not empty, f"nothing is said of {empty}")
        return f"{len(defaults)} keys, {len(removed)} removed ones, {len(told)} in the table"

    # --- Step 1: the users ---------------------------------------------------------------------------------

    def export(self):
        self.site.python_run("-c", f"import django; django.setup()\n{PEOPLE}")
        said = self.site.python_run("manage.py", "export_users", str(self.users))
        expect("users.yaml: 8" in said and "gina" in said and "frank" not in said, said)
        mode = self.users.stat().st_mode & 0o777
        expect(mode == 0o600, f"mode {mode:o}")
        others = sorted(path.name for path in self.users.parent.glob(".users*"))
        expect(not others, f"left beside it: {others}")
        entries = self.entries()
        stored = self.database("SELECT username, id, password, is_active FROM auth_user")
        for name, key, hash, active in stored:
            wanted = None if name in ("frank", "gina") else hash
            found = entries[name]
            expect(found["id"] == str(key) and found.get("password") == wanted, f"{name}: {found}")
            expect(found["active"] == bool(active) == (name != "erin"), f"{name}: {found}")
        expect(entries[USER]["roles"] == ["Büro", "clerks"] and entries["bob"]["roles"] == [], f"{entries}")
        listed = self.portcullis("user", "list")
        missing = [name for name, *_ in stored if name not in listed]
        expect(not missing, f"`portcullis user list` does not know {missing}")

    def export_refuses(self):
        """A second export would undo what has changed since, and a role that a header would split opens a group."""
        before = self.users.read_bytes()

        def refused(*arguments: str) -> str:
            try:
                self.site.python_run("manage.py", "export_users", str(self.users), *arguments)
            except Failed as failure:
                return str(failure)
            raise Failed(f"{arguments}: it was written")

        why = refused()
        expect("--replace" in why, why)
        self.database("UPDATE auth_group SET name = 'clerks,admins' WHERE name = 'clerks'")
        why = refused("--replace")
        expect("clerks,admins" in why, why)
        self.database("UPDATE auth_group SET name = 'clerks' WHERE name = 'clerks,admins'")
        expect(self.users.read_bytes() == before, "a refused export changed the file")
        self.site.python_run("manage.py", "export_users", str(self.users), "--replace")
        expect(self.users.read_bytes() == before, "the same users are exported otherwise")

    # --- Step 2: side by side ------------------------------------------------------------------------------

    def side_by_side(self):
        (self.site.folder / "project" / "settings_moving.py").write_text(SETTINGS_MOVING)
        self.settings("project.settings_moving")
        self.site.edit("path: /api/token\n", "path: /auth/token\n  throttle: off\n")
        self.site.edit("upstreams:\n", f"{VERIFIER}upstreams:\n")
        self.site.edit("jwt: tokens\n", "jwt: [tokens, app]\n")
        self.site.edit("strip_token: true", "strip_token: false")
        self.site.edit("routes:\n", f"routes:\n{DJANGO_ISSUES}")
        self.site.start_app()
        self.site.start_gateway()
        self.old["access"], self.old["refresh"] = self.login(USER)
        own, _ = self.login(USER, "/auth/token/")
        # Not just any of the two: each by its own issuer.
        kinds = [json.loads(from_base64url(token.split(".")[0]))["alg"] for token in (self.old["access"], own)]
        expect(kinds == ["HS256", "ES256"], f"signed with {kinds}")
        of_django = self.is_user(self.me(self.old["access"]), USER)
        of_gateway = self.is_user(self.me(own), USER)
        expect(of_django["id"] == of_gateway["id"], f"{of_django} is not {of_gateway}")
        for token in (self.old["access"], own):
            expect(claims_of(token)["user_id"] == str(of_django["id"]), f"{claims_of(token)}")
        forged = make_token(claims_of(self.old["access"]), "another secret of a decent length, 32 bytes")
        expect(self.me(forged).status == 401, "anybody's secret will do")
        expect(self.me(self.old["refresh"]).status == 401, "Django's refresh token opens the API")
        nobody = self.me(fields=FORGED)
        expect(nobody.status == 401, f"forged headers: {nobody.brief()}")
        # simplejwt's tokens have no `sub`, so that headers say nothing, and the token alone says who it is.
        bobs = make_token({**claims_of(self.old["access"]), "user_id": str(int(of_django["id"]) + 1)}, self.site.secret())
        self.is_user(self.me(bobs, FORGED), "bob")

    # --- Step 3: the switch --------------------------------------------------------------------------------

    def switch(self):
        self.site.edit(DJANGO_ISSUES, "")

        def issues() -> bool:
            answer = self.obtain(USER)
            return answer.status == 200 and "sid" in claims_of(answer.json()["access"])

        self.reloads("path: /auth/token\n", "path: /api/token\n", issues)
        self.is_user(self.me(self.old["access"]), USER)
        again = self.to.post("/api/token/refresh/", form={"refresh": self.old["refresh"]})
        expect(again.status == 401 and again.json()["code"] == "token_not_valid", f"Django's refresh token: {again.brief()}")
        self.access, self.refresh = self.login(USER)
        self.is_user(self.me(self.access), USER)

    # --- Step 4: without simplejwt -------------------------------------------------------------------------

    def without_simplejwt(self):
        """The end: Django knows headers alone. simplejwt is in the venv; whoever imports it here fails."""
        away = self.site.folder / "away"
        for package in ("rest_framework_simplejwt", "jwt"):
            (away / package).mkdir(parents=True)
            (away / package / "__init__.py").write_text("raise ImportError('not in this setup')\n")
        self.site.environment["PYTHONPATH"] = str(away)
        self.settings("project.settings_issuing")
        self.site.app.stop()
        self.site.start_app()
        self.site.edit(VERIFIER, "")
        self.site.edit("strip_token: false", "strip_token: true")
        self.reloads("jwt: [tokens, app]\n", "jwt: tokens\n", lambda: self.me(self.old["access"]).status == 401)
        me = self.is_user(self.me(self.access), USER)
        expect(me["groups"] == ["Büro", "clerks"], f"{me}")
        secret = self.site.secret()
        read = [path.name for path in (self.site.config, self.users) if secret in path.read_text()]
        expect(not read and "secret" not in self.site.config.read_text(), f"the gateway has Django's secret: {read}")

    # --- The front end's calls -----------------------------------------------------------------------------

    def old_passwords(self):
        """Hashes of four kinds, a name that is not ASCII; none becomes a second user in Django."""
        for name in ("bob", "carol", "dora", UMLAUT):
            access, _ = self.login(name)
            me = self.is_user(self.me(access), name)
            expect(str(me["id"]) == self.entries()[name]["id"], f"{name}: {me}")
        refusals = [
            self.obtain(name, password=password)
            for name, password in [(USER, "wrong"), ("nobody", PASSWORD), ("erin", PASSWORD), ("frank", ""), ("gina", PASSWORD)]
        ]
        wanted = {"detail": "No active account found with the given credentials"}
        for answer in refusals[:3] + refusals[4:]:
            expect(answer.status == 401 and answer.json() == wanted, answer.brief())
        expect(refusals[3].status == 400, f"no password at all: {refusals[3].brief()}")
        [(count,)] = self.database("SELECT count(*) FROM auth_user")
        expect(count == 8, f"{count} users in Django, not 8")

    def hashes_renewed(self):
        """A login does it, unless somebody else's has changed the file just before; then the next one does."""
        for name in (USER, "bob", "dora", UMLAUT):
            def done() -> bool:
                return self.entries()[name]["password"].startswith("$argon2id$")

            def logs_in_again() -> bool:
                return done() or (self.login(name) and done())

            wait_until(logs_in_again, 5, f"{name}'s hash becomes one of argon2id", 0.2)
        mode = self.users.stat().st_mode & 0o777
        expect(mode == 0o600, f"mode {mode:o}")
        # Of the same password, and of no other.
        self.login("bob")
        wrong = self.obtain("bob", password="wrong")
        expect(wrong.status == 401, wrong.brief())

    def refresh_and_verify(self):
        wrong_type = self.to.post("/api/token/refresh/", form={"refresh": self.access})
        expect(wrong_type.status == 401 and wrong_type.json()["detail"] == "Token has wrong type", wrong_type.brief())
        answer = self.to.post("/api/token/refresh/", form={"refresh": self.refresh})
        expect(answer.status == 200, answer.brief())
        spent, (self.access, self.refresh) = self.refresh, (answer.json()["access"], answer.json()["refresh"])
        self.tokens |= {self.access, self.refresh}
        expect(self.refresh != spent, "the refresh token is the same")
        self.is_user(self.me(self.access), USER)
        for token in (self.access, self.refresh):
            good = self.to.post("/api/token/verify/", form={"token": token})
            expect(good.status == 200 and good.json() == {}, good.brief())
        bad = self.to.post("/api/token/verify/", form={"token": self.old["access"]})
        expect(bad.status == 401 and bad.json()["code"] == "token_not_valid", bad.brief())

    def refresh_as_access(self):
        answer = self.me(self.refresh)
        expect(answer.status == 401 and 'error="invalid_token"' in (answer.headers["WWW-Authenticate"] or ""), answer.brief())
        self.is_user(self.me(self.access), USER)

    def logout(self):
        access, refresh = self.login(USER)
        self.is_user(self.me(access), USER)
        answer = self.to.post("/api/token/blacklist/", form={"refresh": refresh})
        expect(answer.status == 200 and answer.json() == {}, answer.brief())
        after = self.me(access)
        expect(after.status == 401, f"the access token goes on: {after.brief()}")
        again = self.to.post("/api/token/refresh/", form={"refresh": refresh})
        expect(again.status == 401 and again.json()["detail"] == "Token is blacklisted", again.brief())
        self.is_user(self.me(self.access), USER)

    # --- Who can say who one is ----------------------------------------------------------------------------

    def forged(self):
        """No client names itself: not without a token, not beside one, not where no token is asked for."""
        nobody = self.me(fields=FORGED)
        expect(nobody.status == 401 and "realm=" in nobody.headers["WWW-Authenticate"], nobody.brief())
        access, _ = self.login("bob")
        me = self.is_user(self.me(access, FORGED), "bob")
        expect(me["user_id"] == self.entries()["bob"]["id"] and me["groups"] == [], f"{me}")
        for name, value in FORGED:
            self.is_user(self.me(access, [(name, value)]), "bob")
        open_route = "  - {path: /open-me/*, proxy: django, auth: none, rewrite: {path: /api/me/}}\n"
        self.reloads("routes:\n", f"routes:\n{open_route}", lambda: self.me(path="/open-me/").status == 401)
        for fields in ([], FORGED, *([field] for field in FORGED)):
            answer = self.me(fields=fields, path="/open-me/")
            # Django's own words: the request has reached it, and it knows nobody.
            expect(answer.status == 401 and b"credentials were not provided" in answer.body, f"{fields}: {answer.brief()}")
        with_token = self.me(self.access, FORGED, path="/open-me/")
        expect(with_token.status == 401, f"a route without `auth` says who it is: {with_token.brief()}")
        admin = self.me(fields=FORGED, path="/admin/")
        expect(admin.status == 302, f"the headers open the admin pages: {admin.brief()}")
        self.site.edit(open_route, "")

    def direct(self):
        """Past the gateway nobody is known without the header, and over TCP not with it either."""
        bare = self.me(to=self.socket)
        expect(bare.status == 401 and b"credentials were not provided" in bare.body, bare.brief())
        expect(self.me(self.access, to=self.socket).status == 401, "Django reads tokens")
        # The socket is what all trust rests on: who can write to it is who they say.
        self.is_user(self.me(fields=[("X-User-Name", "bob")], to=self.socket), "bob")
        mode = Path(self.socket.address).stat().st_mode & 0o777
        expect(mode & 0o007 == 0, f"everybody may write to the socket: {mode:o}")
        port = free_port()
        command = [str(self.site.python), "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1", "--pid", "tcp.pid"]
        tcp = Child("gunicorn-tcp", command, self.site.folder, self.site.logs, self.site.environment)
        try:
            to = Target(("127.0.0.1", port), "127.0.0.1")
            wait_until(lambda: to.get("/").status == 200, 15, "gunicorn over TCP answers")
            for fields in ([("X-User-Name", USER)], [("X-User-Name", USER), ("X-User-Id", "1")]):
                answer = self.me(fields=fields, to=to)
                expect(answer.status == 401 and b"credentials were not provided" in answer.body, f"TCP: {answer.brief()}")
        finally:
            tcp.stop(5)

    def other_id(self):
        """A name that was given to somebody else since is not who it was."""
        key = self.entries()["bob"]["id"]
        self.is_user(self.me(fields=[("X-User-Name", "bob"), ("X-User-Id", key)], to=self.socket), "bob")
        other = self.me(fields=[("X-User-Name", "bob"), ("X-User-Id", f"{key}0")], to=self.socket)
        expect(other.status == 401 and b"another id" in other.body, other.brief())

    def lost_forward(self):
        """An edit by which clients could name themselves is not taken up."""
        before = len(self.site.gateway_says())
        good = self.site.config.read_text()
        try:
            self.site.edit("forward: {X-User-Name: sub, ", "forward: {")
            took = wait_until(lambda: "this test fails" in self.site.gateway_says(before), 10, "the reload is refused")
            self.is_user(self.me(self.access, FORGED), USER)
        finally:
            self.site.config.write_text(good)
        return f"said after {took:.1f} s"

    # --- Who may come in -----------------------------------------------------------------------------------

    def disabled(self):
        """`portcullis user disable`: all is over, and only for that user."""
        access, refresh = self.login("bob")
        self.is_user(self.me(access), "bob")
        self.portcullis("user", "disable", "bob")
        took = wait_until(lambda: self.me(access).status == 401, 5, "the access token is refused", 0.02)
        again = self.to.post("/api/token/refresh/", form={"refresh": refresh})
        expect(again.status == 401, again.brief())
        expect(self.obtain("bob").status == 401, "who is disabled logs in")
        self.is_user(self.me(self.access), USER)
        self.portcullis("user", "enable", "bob")
        wait_until(lambda: self.obtain("bob").status == 200, 5, "who is enabled again logs in")
        expect(self.me(access).status == 401, "the ended session is back")
        return f"the access token was refused {took:.2f} s after the command"

    def inactive_in_django(self):
        access, _ = self.login("dora")
        self.is_user(self.me(access), "dora")
        self.database("UPDATE auth_user SET is_active = 0 WHERE username = 'dora'")
        answer = self.me(access)
        expect(answer.status == 401 and b"inactive" in answer.body, answer.brief())
        self.database("UPDATE auth_user SET is_active = 1 WHERE username = 'dora'")
        self.is_user(self.me(access), "dora")

    def newcomer(self):
        """A user of Portcullis's is in Django from the first request on, with its roles, and with no more."""
        self.portcullis("user", "add", "hanna", "--set", 'roles=["clerks", "unknown"]', typed=f"{PASSWORD}\n")
        wait_until(lambda: self.obtain("hanna").status == 200, 5, "the new user logs in")
        access, _ = self.login("hanna")
        me = self.is_user(self.me(access), "hanna")
        expect(me["groups"] == ["clerks"], f"{me}")
        rows = self.database("SELECT id, is_staff, is_superuser, password FROM auth_user WHERE username = 'hanna'")
        # What begins so is no password to Django.
        expect(len(rows) == 1 and rows[0][:3] == (me["id"], 0, 0) and rows[0][3].startswith("!"), f"{rows}")

    def roles_change(self):
        """The roles of users.yaml, with the next access token."""
        access, refresh = self.login(UMLAUT)
        expect(self.is_user(self.me(access), UMLAUT)["groups"] == ["clerks"], "the roles that were exported")
        entries = self.entries()
        entries[UMLAUT]["roles"] = ["Büro"]
        fresh = self.users.with_suffix(".tmp")
        fresh.write_text("".join(f"{json.dumps(name)}: {json.dumps(user)}\n" for name, user in entries.items()))
        fresh.chmod(0o600)
        fresh.replace(self.users)
        latest = {"refresh": refresh}

        def followed() -> bool:
            answer = self.to.post("/api/token/refresh/", form={"refresh": latest["refresh"]})
            expect(answer.status == 200, answer.brief())
            latest.update(answer.json())
            return self.is_user(self.me(latest["access"]), UMLAUT)["groups"] == ["Büro"]

        wait_until(followed, 5, "the groups are the new roles")

    def admin(self):
        """Django's admin pages: its session, its password, and no header."""
        browser = Browser(self.to)
        expect(browser.get("/admin/").status == 302, "the admin pages are open")
        entered = browser.admin_login()
        expect(entered.status == 302 and "sessionid" in browser.cookies, entered.brief())
        page = browser.get("/admin/auth/user/")
        expect(page.status == 200 and b"hanna" in page.body, page.brief())
        # A session of the admin's is none of the API's.
        expect(browser.get("/api/me/").status == 401, "the session's cookie opens the API")

    def throttled(self):
        """The example says nothing of tries: Portcullis's own bounds hold."""
        self.site.edit("  throttle: off\n", "")
        wait_until(lambda: self.obtain("nobody").status == 429, 10, "tries are counted", 0)
        last = self.obtain("nobody")
        expect(last.status == 429 and int(last.headers["Retry-After"]) >= 1, last.brief())

    def nothing_in_logs(self):
        for log in (self.site.gateway.out, self.site.gateway.err):
            text = log.read_text(errors="replace")
            for token in self.tokens:
                expect(token not in text and token.rpartition(".")[2] not in text, f"a token is in {log.name}")
            for what in (PASSWORD, *HASHES.values(), "$argon2id$"):
                expect(what not in text, f"{what[:8]!r}… is in {log.name}")
        expect('"tokens obtain"' in self.site.gateway.out.read_text(errors="replace"), "the access log shows no login")


def tell(checks: Checks, site: Site) -> None:
    """All the checks, in order."""
    story = Story(site)
    checks.run("the guide's table has every setting of simplejwt", story.table)
    checks.run("step 1: Django's users and their hashes become users.yaml", story.export, always=True)
    checks.run("an export over changed users, or of roles with a comma, is refused", story.export_refuses)
    checks.run("step 2: simplejwt and Portcullis issue side by side", story.side_by_side, always=True)
    checks.run("step 3: the switch keeps access tokens, and costs one login", story.switch, always=True)
    checks.run("step 4: Django without simplejwt and without a shared secret", story.without_simplejwt, always=True)
    checks.run("old passwords log in, with hashes of four kinds", story.old_passwords)
    checks.run("a login makes the hash one of argon2id", story.hashes_renewed)
    checks.run("refresh, verify", story.refresh_and_verify)
    checks.run("a refresh token used as access is refused", story.refresh_as_access)
    checks.run("logout ends the access token at once", story.logout)
    checks.run("forged headers name nobody, on no route and in no spelling", story.forged)
    checks.run("past the gateway: anonymous without the header, and over TCP with it", story.direct)
    checks.run("a name with another id is refused", story.other_id)
    checks.run("an edit that would let clients name themselves is refused", story.lost_forward)
    checks.run("a disabled user is out at once", story.disabled)
    checks.run("a user that Django has switched off is out", story.inactive_in_django)
    checks.run("a new user of Portcullis's is made in Django", story.newcomer)
    checks.run("groups follow the roles", story.roles_change)
    checks.run("admin pages by Django's own session", story.admin)
    checks.run("too many tries are 429", story.throttled)
    checks.run("no token, password or hash in the gateway's logs", story.nothing_in_logs)


def main() -> int:
    parser = argparse.ArgumentParser(description="From simplejwt to Portcullis's own tokens.")
    parser.add_argument("--gateway", type=Path, default=BUILT / "release" / "portcullis", help="the binary to test")
    parser.add_argument("--venv", type=Path, default=BUILT / "interop-venv", help="where the Python packages are kept")
    parser.add_argument("--only", help="run the checks whose name has these words, and the steps, which all need")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder with the logs, and say where")
    options = parser.parse_args()
    gateway = options.gateway.resolve()
    if not gateway.is_file():
        print(f"FAIL no gateway at {options.gateway}: build it, or name it with --gateway")
        return 1
    limit_run(OVERALL_SECONDS)

    checks = Checks(options.only)
    site = None
    begun = time.monotonic()
    # A short path: a unix socket's has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="portcullis-"))
    try:
        python = make_venv(options.venv.resolve(), EXAMPLE / "requirements.txt")
        site = Site(folder, python, gateway, "issuing/gateway.yaml")
        site.environment["DJANGO_SETTINGS_MODULE"] = "project.settings_issuing"
        site.prepare()
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
    print(f"{checks.passed} passed, {checks.failed} failed in {time.monotonic() - begun:.0f} s")
    return 1 if checks.failed or not checks.passed else 0


if __name__ == "__main__":
    sys.exit(main())
