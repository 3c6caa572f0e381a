#!/usr/bin/env python3
"""A simplejwt front end's calls, at Django with simplejwt and at Portcullis's token service: the same answers?

    tests/interop/tokens.py [--gateway BINARY] [--venv FOLDER] [--kills N] [--crowd N] [--only WORDS]

Each row is a call, or a few that belong together, as a front end makes them. It is sent to a Django site with
simplejwt in one of the ways people set it up, and to a gateway with `tokens`; status, JSON, WWW-Authenticate and
the claims of the tokens must be the same. Where the two differ on purpose, DELIBERATE says so, and why. A difference
that is not there fails, and so does an entry that is of no use any more. Then what simplejwt has no answer to: one
token refreshed by a crowd, clients beside each other, users that change behind the gateway's back, and a gateway that
is killed again and again while it answers.

Installs the pinned packages of issuers.py in the same venv, starts what it needs on loopback, prints a line a row.
Exit status 1 where one failed. Standard library only beside the packages under test. Takes about a minute, and is
ended after a few; `--kills 1000` and `--crowd 10000` are for a patient developer.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness import (
    TOKEN_BEGINS, Answer, Checks, Child, Failed, Target, TimeLimit, base64url, claims_of, expect, free_port, from_base64url,
    limit_run, make_token, make_venv, wait_until,
)
from token_service import ANOTHER, PASSWORD, QUICK, Clients, Gateway, Side, all_at_once

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).resolve().parent / "issuers"
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# For a slow machine; each kill, and each client of the crowd, may add to it.
OVERALL_SECONDS, SECONDS_A_KILL, SECONDS_A_CLIENT = 240, 0.6, 0.02

# In the order of Django's ids. ivan may not log in; alice and zoë stay as they are.
USERS = ["alice", "ivan", "fred", "rita", "gina", "pam", "mallory", "otto", "zoë"]
BEYOND_ASCII = "pässwörd & ☃ + 🔑"


def password_of(name: str) -> str:
    return BEYOND_ASCII if name == "zoë" else PASSWORD


# Every row of what simplejwt was measured to answer (B.11), each with the rows here that replay it.
MEASURED = {
    "obtain": "POST /api/token/ {username, password}, JSON or form",
    "no account": "wrong password, or inactive",
    "fields": "missing fields",
    "unreadable": "bad JSON / GET",
    "refresh": "POST /api/token/refresh/ {refresh}, without and with rotation",
    "refresh: type": "refresh with an access token",
    "refresh: not valid": "refresh expired/garbage",
    "refresh: inactive": "refresh, user inactive",
    "refresh: removed": "refresh, user deleted",
    "verify": "POST /api/token/verify/ {token}",
    "blacklist": "POST /api/token/blacklist/ {refresh}",
    "sliding": "sliding obtain / refresh",
    "api: none": "API, no header",
    "api: not valid": "API, bad/expired token, or a refresh token",
    "api: header": "API, `Bearer` alone or 3 parts",
    "api: user": "API, no user_id claim / deleted / inactive user / password changed",
    "holes": "what blacklist, rotation and the missing throttle let through",
}


# --- What is compared --------------------------------------------------------------------------------------


def is_token(value: object) -> bool:
    return isinstance(value, str) and value.startswith("eyJ") and value.count(".") == 2


def shape(value: object, name: str = ""):
    """JSON with its keys, types and texts; what differs from call to call is replaced by what it is."""
    if isinstance(value, dict):
        return {key: shape(member, key) for key, member in value.items()}
    if isinstance(value, list):
        return [shape(member, name) for member in value]
    if is_token(value):
        return "<token>"
    if name == "request_id":
        return "<id>"
    if name == "username" and value in USERS:
        return "<name>"
    if isinstance(value, str) and value.startswith("Request was throttled."):
        return re.sub(r"\d+", "<n>", value)
    if isinstance(value, str) and value.startswith("JSON parse error - "):
        # Where and why is Python's to say.
        return "JSON parse error - <why>"
    return value


def kind_of_id(text: object) -> str:
    """What the text of an id is made of."""
    if not isinstance(text, str):
        return type(text).__name__
    if len(text) == 32 and set(text) <= set("0123456789abcdef"):
        return "128 bits in hex"
    if len(text) == 22 and len(from_base64url(text)) == 16:
        return "128 bits in base64url"
    return f"a text of {len(text)}"


# How long tokens live at one of the sites, in seconds.
LIVES = {1, 5 * 60, 24 * 3600}


def of_token(member: str, token: str, side: Side) -> dict[str, object]:
    """A token's header and claims: names and types, and how the dates lie to each other."""
    header, claims = json.loads(from_base64url(token.split(".")[0])), claims_of(token)
    now, seen = time.time(), {}
    for name, value in header.items():
        seen[f"{member} header {name}"] = "text" if name == "kid" and isinstance(value, str) else value
    for name, value in claims.items():
        if name == "exp" and isinstance(value, int):
            lives = value - claims["iat"]
            if side.reads_clock_twice and lives + 1 in LIVES:
                lives += 1
            value = f"iat + {lives} s"
        elif name == "exp":
            value = repr(value)
        elif name == "iat":
            value = "now, whole seconds" if isinstance(value, int) and -1 <= now - value <= 30 else repr(value)
        elif name == "auth_time":
            value = "then, whole seconds" if isinstance(value, int) and 0 <= now - value <= 31 else repr(value)
        elif name == "auth_ms":
            value = "a part of a second" if isinstance(value, int) and 0 <= value < 1000 else repr(value)
        elif name in ("jti", "sid"):
            value = kind_of_id(value)
        elif name == "sub":
            value = "a user" if value in USERS else repr(value)
        elif name == "gen":
            value = "a count" if isinstance(value, int) and value >= 0 else repr(value)
        elif name == "hash_password":
            value = kind_of_id(value.lower())
        seen[f"{member} claim {name}"] = value
    return seen


@dataclass
class Observed:
    """What of an answer a front end can notice."""

    line: str
    # The tokens in it, by the member's name.
    tokens: dict[str, dict[str, object]]


def line_of(status: int, body: object, *, challenge: str | None = None, kind: str = "application/json",
            allow: str | None = None, retry: str | None = None) -> str:
    """An answer in a line: what it says of itself, and its JSON."""
    head = [str(status), *([] if kind == "application/json" else [kind]), *([f"Allow: {allow}"] if allow else []),
            *([f"Retry-After: {retry}"] if retry else []), *([challenge] if challenge else [])]
    text = body if isinstance(body, str) else json.dumps(body, sort_keys=True, ensure_ascii=False)
    return " ".join([*head, text])


def observe(answer: Answer, side: Side) -> Observed:
    try:
        body = answer.json()
    except ValueError:
        body = "(no JSON)" if answer.body else "(nothing)"
    retry = answer.headers["Retry-After"]
    if retry and isinstance(body, dict):
        expect(f" {retry} second" in body.get("detail", ""), f"Retry-After: {retry}, and {body}")
    members = body.items() if isinstance(body, dict) else ()
    line = line_of(
        answer.status, shape(body), challenge=answer.headers["WWW-Authenticate"],
        kind=(answer.headers["Content-Type"] or "").partition(";")[0],
        allow=answer.headers["Allow"] if answer.status == 405 else None,
        retry="<n>" if retry else None,
    )
    return Observed(line, {member: of_token(member, value, side) for member, value in members if is_token(value)})


# --- The other side ----------------------------------------------------------------------------------------


class Django(Side):
    reads_clock_twice = True

    def change(self, name: str, ends: dict | None = None, **change) -> None:
        answer = self.target.post("/users/", form={"name": name, **change})
        expect(answer.status == 200, f"change of {name}: {answer.brief()}")

    def signing_secret(self) -> bytes:
        return (self.folder / "secret").read_bytes()


# --- The rows ----------------------------------------------------------------------------------------------

# Which site is compared with a gateway of which `tokens`. `throttle` is off but where it is what is looked at.
FREE = {"throttle": "off"}
PAIRS = {
    # As simplejwt is when nothing is set, with its algorithm.
    "plain": ("plain", {**FREE, "rotate_refresh": False, "algorithm": "HS256"}),
    "blacklist": ("blacklist", {**FREE, "rotate_refresh": False}),
    "rotation": ("rotation", {**FREE, "refresh_grace": "0s"}),
    "grace": ("rotation", {**FREE, "refresh_grace": "1m"}),
    "short": ("short", {**FREE, "access_lifetime": "1s", "refresh_lifetime": "1s"}),
    # So few that none comes back during the run.
    "strict": ("strict", {"rotate_refresh": False, "throttle": {"per_ip": "100/h", "per_user": "5/h"}}),
}


@dataclass
class Row:
    """Calls that are made at both sides, one after the other."""

    name: str
    # A key of MEASURED.
    of: str
    calls: Callable[[Side], Answer | dict[str, Answer]]
    pairs: tuple[str, ...]


ROWS: list[Row] = []


def row(name: str, of: str, *pairs: str):
    """Adds a row; of all the usual pairs, where none is named."""

    def add(calls):
        ROWS.append(Row(name, of, calls, pairs or ("plain", "blacklist", "rotation")))
        return calls

    return add


def expired(side: Side) -> dict:
    """The tokens of a login, once both have expired; one login serves all rows."""
    if not side.stale:
        side.stale = side.log_in()
        end = max(claims_of(token)["exp"] for token in side.stale.values())
        time.sleep(max(0.0, end + 0.1 - time.time()))
    return side.stale


def simple(name: str, of: str, path: str, fields: object, *pairs: str) -> None:
    row(name, of, *pairs)(lambda side: side.post(path, fields))


def login(**changed) -> dict:
    return {"username": "alice", "password": PASSWORD, **changed}


JSON, TEXT = {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}
NO_KEY = "a secret that neither of the two has, long enough"

simple("obtain, JSON", "obtain", "", login())
row("obtain, form", "obtain")(lambda side: side.post("", form=login()))
simple("obtain, more fields than needed", "obtain", "", login(remember=True), "plain")
row("obtain, JSON with a charset", "obtain", "plain")(lambda side: side.post(
    "", body=json.dumps(login()), headers={"Content-Type": "application/json; charset=utf-8"}))
row("obtain, path without the slash at the end", "obtain", "plain")(lambda side: side.target.post(
    "/api/token", form=login()))
row("obtain, a name and a password beyond ASCII, JSON and form", "obtain", "plain")(lambda side: {
    "json": side.obtain("zoë", BEYOND_ASCII),
    "form": side.post("", form=login(username="zoë", password=BEYOND_ASCII))})
simple("obtain, spaces around the password", "obtain", "", login(password=f" {PASSWORD} "), "plain")
simple("obtain, spaces around the username", "obtain", "", login(username=" alice "), "plain")

simple("obtain, wrong password", "no account", "", login(password="wrong"))
row("obtain, wrong password in a form", "no account", "plain")(lambda side: side.post(
    "", form=login(password="wrong")))
simple("obtain, unknown user", "no account", "", login(username="nobody"))
simple("obtain, another case of the username", "no account", "", login(username="Alice"), "plain")
simple("obtain, inactive user", "no account", "", login(username="ivan"))
simple("obtain, inactive user with a wrong password", "no account", "", login(username="ivan", password="x"), "plain")

simple("obtain, no fields", "fields", "", {})
simple("obtain, no password", "fields", "", {"username": "alice"}, "plain")
simple("obtain, no username", "fields", "", {"password": PASSWORD}, "plain")
row("obtain, empty form", "fields", "plain")(lambda side: side.post("", form={}))
for word, bad in {"blank": "", "spaces": "  ", "null": None, "boolean": True, "list": ["a"], "map": {"a": 1}}.items():
    simple(f"obtain, {word} username", "fields", "", login(username=bad), "plain")
    simple(f"obtain, {word} password", "fields", "", login(password=bad), "plain")
row("obtain, blank fields in a form", "fields", "plain")(lambda side: side.post(
    "", form=login(username="", password="")))
simple("obtain, a number for a username", "fields", "", login(username=7), "plain")
simple("obtain, a number for a password", "fields", "", login(password=1.5), "plain")
simple("obtain, a NUL in the username", "fields", "", login(username="ali\0ce"), "plain")
simple("obtain, a list for a body", "fields", "", [], "plain")

for word, body in {"half": "{", "empty": "", "word": "username", "doubled": "{}{}"}.items():
    row(f"obtain, bad JSON: {word}", "unreadable", "plain")(
        lambda side, body=body: side.post("", body=body, headers=JSON))
row("obtain, a name twice in JSON", "unreadable", "plain")(lambda side: side.post(
    "", body=f'{{"username": "x", "username": "alice", "password": "{PASSWORD}"}}', headers=JSON))
for method in ("GET", "PUT", "DELETE", "OPTIONS"):
    row(f"obtain, {method}", "unreadable", "plain")(
        lambda side, method=method: side.target.request(method, "/api/token/"))
row("refresh, GET", "unreadable", "plain")(lambda side: side.target.get("/api/token/refresh/"))
row("verify, GET", "unreadable", "plain")(lambda side: side.target.get("/api/token/verify/"))
row("blacklist, GET", "unreadable", "plain")(lambda side: side.target.get("/api/token/blacklist/"))
row("obtain, text/plain", "unreadable", "plain")(lambda side: side.post("", body="{}", headers=TEXT))
row("obtain, a body without a type", "unreadable", "plain")(lambda side: side.post("", body="{}"))
row("obtain, nothing at all", "unreadable", "plain")(lambda side: side.post(""))
row("obtain, multipart form (FormData)", "unreadable", "plain")(lambda side: side.post(
    "", headers={"Content-Type": "multipart/form-data; boundary=cut"}, body="".join(
        f'--cut\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in login().items()
    ) + "--cut--\r\n"))
simple("obtain, a password of 100 KB", "unreadable", "", login(password="x" * 100_000), "plain")


@row("refresh, JSON", "refresh")
def _(side):
    return side.refresh(side.log_in()["refresh"])


@row("refresh, form", "refresh")
def _(side):
    return side.post("refresh/", form={"refresh": side.log_in()["refresh"]})


@row("refresh, spaces around the token", "refresh", "plain")
def _(side):
    return side.refresh(f" {side.log_in()['refresh']}\n")


@row("refresh, twice with the first token, without rotation", "refresh", "plain", "blacklist")
def _(side):
    token = side.log_in()["refresh"]
    return {"once": side.refresh(token), "again": side.refresh(token)}


@row("refresh, three times, each with what came last, and the API", "refresh", "rotation", "grace")
def _(side):
    pair = side.log_in()
    for _ in range(3):
        answer = side.refresh(pair["refresh"])
        expect(answer.status == 200, answer.brief())
        pair = answer.json()
    return {"last": answer, "api": side.me(pair["access"])}


@row("refresh, and then the API with the new and the old access token", "refresh")
def _(side):
    before = side.log_in()
    after = side.refresh(before["refresh"]).json()
    return {"new": side.me(after["access"]), "old": side.me(before["access"])}


@row("refresh, two clients of one user, one of them out", "refresh", "blacklist", "rotation")
def _(side):
    one, two = side.log_in(), side.log_in()
    return {"out": side.blacklist(one["refresh"]), "the other": side.refresh(two["refresh"])}


row("refresh with an access token", "refresh: type")(lambda side: side.refresh(side.log_in()["access"]))
for word, fields in {"no field": {}, "blank": {"refresh": ""}, "null": {"refresh": None}, "true": {"refresh": True},
                     "number": {"refresh": 7}, "list": {"refresh": []}}.items():
    simple(f"refresh, {word}", "refresh: not valid", "refresh/", fields, "plain")
for word, token in {"garbage": "garbage", "three parts": "a.b.c", "no JSON in it": "eyJh.eyJh.eyJh"}.items():
    simple(f"refresh, {word}", "refresh: not valid", "refresh/", {"refresh": token})


@row("refresh, signed with another key", "refresh: not valid")
def _(side):
    return side.refresh(make_token(claims_of(side.log_in()["refresh"]), NO_KEY))


@row("refresh, a later end over the old signature", "refresh: not valid")
def _(side):
    head, _, signature = side.log_in()["refresh"].split(".")
    claims = {**claims_of(side.log_in()["refresh"]), "exp": int(time.time()) + 10**6}
    return side.refresh(f"{head}.{base64url(json.dumps(claims).encode())}.{signature}")


@row("refresh, alg none", "refresh: not valid", "plain")
def _(side):
    claims = claims_of(side.log_in()["refresh"])
    return side.refresh(make_token(claims, "", {"alg": "none", "typ": "JWT"}).rpartition(".")[0] + ".")


@row("refresh, expired", "refresh: not valid", "short")
def _(side):
    return side.refresh(expired(side)["refresh"])


@row("refresh, expired access token", "refresh: not valid", "short")
def _(side):
    return side.refresh(expired(side)["access"])


@row("user disabled: refresh, API, verify, login; enabled again: refresh, API, login", "refresh: inactive",
     "plain", "rotation")
def _(side):
    pair = side.log_in("rita")
    side.change("rita", ends=pair, active=False)
    answers = {
        "refresh": side.refresh(pair["refresh"]), "api": side.me(pair["access"]),
        "verify": side.verify(pair["refresh"]), "login": side.obtain("rita"),
    }
    side.change("rita", active=True)
    return {**answers, "refresh later": side.refresh(pair["refresh"]), "api later": side.me(pair["access"]),
            "login later": side.obtain("rita")}


@row("refresh, user inactive", "refresh: inactive", "plain", "blacklist", "rotation")
def _(side):
    pair = side.log_in("fred")
    side.change("fred", ends=pair, active=False)
    return side.refresh(pair["refresh"])


@row("user removed: refresh, API, verify, blacklist, login", "refresh: removed", "plain", "blacklist", "rotation")
def _(side):
    pair = side.log_in("gina")
    side.change("gina", ends=pair, removed=True)
    return {
        "refresh": side.refresh(pair["refresh"]), "api": side.me(pair["access"]),
        "verify": side.verify(pair["refresh"]), "blacklist": side.blacklist(pair["refresh"]),
        "login": side.obtain("gina"),
    }


row("verify, good access token", "verify")(lambda side: side.verify(side.log_in()["access"]))
row("verify, good refresh token", "verify")(lambda side: side.verify(side.log_in()["refresh"]))
row("verify, form", "verify")(lambda side: side.post("verify/", form={"token": side.log_in()["access"]}))
simple("verify, garbage", "verify", "verify/", {"token": "garbage"})
simple("verify, no field", "verify", "verify/", {}, "plain")
simple("verify, blank", "verify", "verify/", {"token": ""}, "plain")
row("verify, signed with another key", "verify")(lambda side: side.verify(
    make_token(claims_of(side.log_in()["access"]), NO_KEY)))
row("verify, expired access token", "verify", "short")(lambda side: side.verify(expired(side)["access"]))
row("verify, expired refresh token", "verify", "short")(lambda side: side.verify(expired(side)["refresh"]))


@row("verify, both tokens of a session that was blacklisted", "verify")
def _(side):
    pair = side.log_in()
    side.blacklist(pair["refresh"])
    return {"refresh": side.verify(pair["refresh"]), "access": side.verify(pair["access"])}


@row("verify, a refresh token that was spent", "verify", "rotation")
def _(side):
    token = side.log_in()["refresh"]
    expect(side.refresh(token).status == 200, "the refresh")
    return side.verify(token)


row("blacklist once", "blacklist")(lambda side: side.blacklist(side.log_in()["refresh"]))
row("blacklist, form", "blacklist")(lambda side: side.post(
    "blacklist/", form={"refresh": side.log_in()["refresh"]}))


@row("blacklist twice", "blacklist")
def _(side):
    token = side.log_in()["refresh"]
    return {"once": side.blacklist(token), "again": side.blacklist(token)}


@row("blacklist, then refresh and the API", "blacklist")
def _(side):
    pair = side.log_in()
    return {"blacklist": side.blacklist(pair["refresh"]), "refresh": side.refresh(pair["refresh"]),
            "api": side.me(pair["access"])}


@row("blacklist, a refresh token that was spent", "blacklist", "rotation")
def _(side):
    before = side.log_in()["refresh"]
    after = side.refresh(before).json()["refresh"]
    return {"spent": side.blacklist(before), "its successor": side.refresh(after)}


@row("blacklist everywhere, and another session of the user", "blacklist", "blacklist", "rotation")
def _(side):
    one, two = side.log_in("otto"), side.log_in("otto")
    everywhere = side.post("blacklist/", {"refresh": one["refresh"], "everywhere": True})
    return {"everywhere": everywhere, "refresh": side.refresh(two["refresh"]), "api": side.me(two["access"])}


@row("blacklist, not everywhere, and another session of the user", "blacklist", "blacklist", "rotation")
def _(side):
    one, two = side.log_in("otto"), side.log_in("otto")
    here = side.post("blacklist/", {"refresh": one["refresh"], "everywhere": False})
    return {"here": here, "refresh": side.refresh(two["refresh"]), "api": side.me(two["access"])}


@row("blacklist everywhere, forms", "blacklist", "blacklist")
def _(side):
    made = {}
    for word in ("true", "false", "maybe"):
        pair = side.log_in("otto")
        made[word] = side.post("blacklist/", form={"refresh": pair["refresh"], "everywhere": word})
    return {**made, "refresh after maybe": side.refresh(pair["refresh"])}


for word, bad in {"word": "maybe", "number": 7, "list": [True], "map": {}}.items():
    row(f"blacklist everywhere, no boolean: {word}", "blacklist", "blacklist")(lambda side, bad=bad: side.post(
        "blacklist/", {"refresh": side.log_in()["refresh"], "everywhere": bad}))
row("blacklist, access token", "blacklist")(lambda side: side.blacklist(side.log_in()["access"]))
simple("blacklist, garbage", "blacklist", "blacklist/", {"refresh": "garbage"})
simple("blacklist, no field", "blacklist", "blacklist/", {})
row("blacklist, expired", "blacklist", "short")(lambda side: side.blacklist(expired(side)["refresh"]))

simple("sliding obtain", "sliding", "sliding/", login(), "plain")


@row("sliding refresh", "sliding", "plain")
def _(side):
    answer = side.post("sliding/", login())
    return side.post("sliding/refresh/", {"token": answer.json().get("token", "none")})


@row("sliding refresh, past its end", "sliding", "short")
def _(side):
    token = side.post("sliding/", login()).json().get("token")
    if token:
        time.sleep(max(0.0, claims_of(token)["refresh_exp"] + 0.1 - time.time()))
    return side.post("sliding/refresh/", {"token": token or "none"})


row("API, no header", "api: none")(lambda side: side.me())
row("API, empty header", "api: none", "plain")(lambda side: side.authorized(""))
row("API, another scheme", "api: none", "plain")(lambda side: side.authorized("Basic YWxpY2U6cHc="))
row("API, access token", "obtain")(lambda side: side.me(side.log_in()["access"]))
row("API, refresh token", "api: not valid")(lambda side: side.me(side.log_in()["refresh"]))
row("API, garbage", "api: not valid")(lambda side: side.me("garbage"))
row("API, signed with another key", "api: not valid")(lambda side: side.me(
    make_token(claims_of(side.log_in()["access"]), NO_KEY)))
row("API, expired", "api: not valid", "short")(lambda side: side.me(expired(side)["access"]))
row("API, `Bearer` alone", "api: header")(lambda side: side.authorized("Bearer"))
row("API, three parts", "api: header")(lambda side: side.authorized(f"Bearer {side.log_in()['access']} more"))
row("API, lower-case scheme", "api: header")(lambda side: side.authorized(f"bearer {side.log_in()['access']}"))
row("API, two spaces after the scheme", "api: header", "plain")(lambda side: side.authorized(
    f"Bearer  {side.log_in()['access']}"))
row("API, a signed token that names no user", "api: user", "plain")(lambda side: side.me(
    side.signed(side.log_in()["access"], user_id=None, sub=None)))
row("API, a signed token without a type", "api: user", "plain")(lambda side: side.me(
    side.signed(side.log_in()["access"], token_type=None)))
row("API, a signed token without an end", "api: user", "plain")(lambda side: side.me(
    side.signed(side.log_in()["access"], exp=None)))


@row("password changed: refresh, API, verify, login with the old and the new", "api: user", "plain", "strict")
def _(side):
    pair = side.log_in("pam")
    side.change("pam", ends=pair, password=ANOTHER)
    return {"refresh": side.refresh(pair["refresh"]), "api": side.me(pair["access"]),
            "verify": side.verify(pair["refresh"]), "old": side.obtain("pam"), "new": side.obtain("pam", ANOTHER)}


@row("the spent token again, and then its successor", "holes", "rotation")
def _(side):
    first = side.log_in()["refresh"]
    second = side.refresh(first).json()
    return {"spent": side.refresh(first), "successor": side.refresh(second["refresh"]),
            "api": side.me(second["access"])}


@row("the spent token again within the grace, and then its successor", "holes", "grace")
def _(side):
    first = side.log_in()["refresh"]
    second = side.refresh(first).json()
    return {"spent": side.refresh(first), "successor": side.refresh(second["refresh"])}


@row("seven wrong passwords for one user", "holes", "strict")
def _(side):
    return {f"try {number}": side.obtain("mallory", "wrong") for number in range(1, 8)}


# --- What differs on purpose -------------------------------------------------------------------------------

# Stands for any value of Django's, where it would say nothing here.
ANY = ...
# Instead of a row's name: in every row with tokens.
EVERY = "*"


@dataclass
class Deliberate:
    """Why a few things differ: by row, and by step of the row or claim of a token, Django's and ours."""

    why: str
    rows: dict[str, dict[str, tuple[object, object]]]
    used: set[tuple[str, str]] = field(default_factory=set)

    def covers(self, names: tuple[str, ...], aspect: str, theirs: object, ours: object) -> bool:
        for at in names:
            told = self.rows.get(at, {}).get(aspect)
            if told is not None and told[0] in (ANY, theirs) and told[1] == ours:
                self.used.add((at, aspect))
                return True
        return False

    def idle(self) -> list[str]:
        told = {(name, aspect) for name, aspects in self.rows.items() for aspect in aspects}
        return [f"{name}: {aspect}" for name, aspect in sorted(told - self.used)]


def detail(status: int, text: str, code: str | None = None, **more) -> str:
    """A refusal as REST framework has it."""
    return line_of(status, {"detail": text, **({"code": code} if code else {})}, **more)


def refused(text: str, code: str | None = "token_not_valid") -> str:
    return detail(401, text, code, challenge='Bearer realm="api"')


def no_type_fits(message: str) -> str:
    """simplejwt's refusal of a token at the API."""
    text = "Given token not valid for any token type"
    messages = [{"message": message, "token_class": "AccessToken", "token_type": "access"}]
    body = {"code": "token_not_valid", "detail": text, "messages": messages}
    return line_of(401, body, challenge='Bearer realm="api"')


def problem(status: int, title: str, text: str, error: str | None = None) -> str:
    """The gateway's refusal: a problem document, and a challenge where a token might help."""
    challenge = 'Bearer realm="tokens"' if status in (400, 401) else None
    if error:
        challenge += f', error="{error}", error_description="{text}"'
    body = {"type": "about:blank", "title": title, "status": status, "detail": text, "request_id": "<id>"}
    if error == "invalid_token":
        body["code"] = "token_not_valid"
    return line_of(status, body, challenge=challenge, kind="application/problem+json")


def denied(text: str) -> str:
    return problem(401, "Unauthorized", text, "invalid_token")


REQUIRED = "This field is required."
NO_ACCOUNT = refused("No active account found with the given credentials", None)
BLACKLISTED, INVALID = refused("Token is blacklisted"), refused("Token is invalid")
NOT_PROVIDED = refused("Authentication credentials were not provided.", None)
TWO_VALUES = refused("Authorization header must contain two space-delimited values", "bad_authorization_header")
PAIR, ACCESS = line_of(200, {"access": "<token>", "refresh": "<token>"}), line_of(200, {"access": "<token>"})
DONE, OPENED = line_of(200, {}), line_of(200, {"username": "<name>"})
ASKED = problem(401, "Unauthorized", "a bearer token is needed")
MALFORMED = problem(400, "Bad Request", "the bearer token is malformed", "invalid_request")
REVOKED, WRONG_TYPE = denied("the token was revoked"), denied(
    "a claim of the token does not have the value that is required")
NO_BOOLEAN = line_of(400, {"everywhere": ["Must be a valid boolean."]})
NO_ROUTE = problem(404, "Not Found", "no route of the gateway has this host and path")
USER_DISABLED = "user disabled: refresh, API, verify, login; enabled again: refresh, API, login"
USER_REMOVED = "user removed: refresh, API, verify, blacklist, login"
PASSWORD_CHANGED = "password changed: refresh, API, verify, login with the old and the new"


def not_allowed(method: str) -> tuple[object, object]:
    text = f'Method "{method}" not allowed.'
    theirs = ANY if method == "OPTIONS" else detail(405, text, allow="POST, OPTIONS")
    return theirs, detail(405, text, allow="POST")


DELIBERATE: list[Deliberate] = [
    Deliberate("a token says whose it is, of which session and since when, and which key signed it", {EVERY: {
        "access header kid": (None, "text"), "refresh header kid": (None, "text"),
        "access claim sub": (None, "a user"), "refresh claim sub": (None, "a user"),
        "access claim sid": (None, "128 bits in base64url"), "refresh claim sid": (None, "128 bits in base64url"),
        "access claim auth_time": (None, "then, whole seconds"), "refresh claim auth_time": (None, "then, whole seconds"),
        "access claim auth_ms": (None, "a part of a second"), "refresh claim auth_ms": (None, "a part of a second"),
        "refresh claim gen": (None, "a count"),
    }}),
    Deliberate("ids are 128 random bits in the alphabet that tokens are written in", {EVERY: {
        "access claim jti": ("128 bits in hex", "128 bits in base64url"),
        "refresh claim jti": ("128 bits in hex", "128 bits in base64url"),
    }}),
    Deliberate("ES256 with published keys, unless `algorithm` says otherwise: apps check tokens without a secret", {
        EVERY: {"access header alg": ("HS256", "ES256"), "refresh header alg": ("HS256", "ES256")},
    }),
    Deliberate("claims of the configuration are for the API, and a refresh token is not", {
        EVERY: {"refresh claim user_id": (ANY, None)},
    }),
    Deliberate("the API's refusals are the gateway's and not REST framework's: RFC 6750, and problem documents", {
        "API, no header": {"": (NOT_PROVIDED, ASKED)},
        "API, empty header": {"": (NOT_PROVIDED, ASKED)},
        "API, another scheme": {"": (NOT_PROVIDED, ASKED)},
        "API, refresh token": {"": (no_type_fits("Token has wrong type"), WRONG_TYPE)},
        "API, garbage": {"": (no_type_fits("Token is invalid"), denied("the token is malformed"))},
        "plain: API, signed with another key": {
            "": (no_type_fits("Token is invalid"), denied("the token's signature is invalid"))},
        "API, signed with another key": {
            "": (no_type_fits("Token is invalid"), denied("the token's algorithm is not accepted"))},
        "API, expired": {"": (no_type_fits("Token is expired"), denied("the token has expired"))},
        "API, a signed token without a type": {"": (no_type_fits("Token has no type"), WRONG_TYPE)},
        "API, a signed token without an end": {"": (
            no_type_fits("Token has no 'exp' claim"), denied("the token's claim exp is missing or malformed"))},
        "API, a signed token that names no user": {
            "": (refused("Token contained no recognizable user identification"), REVOKED)},
        USER_DISABLED: {"api": (refused("User is inactive", "user_inactive"), REVOKED)},
        USER_REMOVED: {"api": (refused("User not found", "user_not_found"), REVOKED)},
    }),
    Deliberate("a request that is no Bearer request is 400 invalid_request (RFC 6750 section 3.1)", {
        "API, `Bearer` alone": {"": (TWO_VALUES, MALFORMED)},
        "API, three parts": {"": (TWO_VALUES, MALFORMED)},
    }),
    Deliberate("schemes are the same in small letters (RFC 9110 section 11.1)", {
        "API, lower-case scheme": {"": (NOT_PROVIDED, OPENED)},
    }),
    Deliberate("access tokens end with their session, in every mode", {
        "blacklist, then refresh and the API": {"api": (OPENED, REVOKED)},
        "the spent token again, and then its successor": {"api": (OPENED, REVOKED)},
    }),
    Deliberate("the blacklist is always there, and not only with an app of its own", {
        "plain: blacklist twice": {"again": (DONE, BLACKLISTED)},
        "plain: blacklist, then refresh and the API": {"refresh": (ACCESS, BLACKLISTED)},
    }),
    Deliberate("verify refuses the tokens of ended sessions with 401, as it refuses all others", {
        "verify, both tokens of a session that was blacklisted": {
            "refresh": (DONE, BLACKLISTED), "access": (DONE, BLACKLISTED)},
        "rotation: verify, both tokens of a session that was blacklisted": {
            "refresh": (line_of(400, {"non_field_errors": ["Token is blacklisted"]}), BLACKLISTED)},
    }),
    Deliberate("verify does not tell whether a refresh token was spent: a thief would learn when its owner has come", {
        "verify, a refresh token that was spent": {"": (line_of(400, {"non_field_errors": ["Token is blacklisted"]}), DONE)},
    }),
    Deliberate("who uses a spent token again ends the session: one of the two is a thief", {
        "the spent token again, and then its successor": {"successor": (PAIR, BLACKLISTED)},
    }),
    Deliberate("within the grace a spent token gets its successor again: two tabs, or an answer that was lost", {
        "the spent token again within the grace, and then its successor": {"spent": (BLACKLISTED, PAIR)},
    }),
    Deliberate("any refresh token of a session ends it: who logs out is out, whichever token was at hand", {
        "blacklist, a refresh token that was spent": {
            "spent": (BLACKLISTED, DONE), "its successor": (PAIR, BLACKLISTED)},
    }),
    Deliberate("the sessions of a disabled user end for good, and their tokens are as good as blacklisted", {
        "refresh, user inactive": {"": (refused("No active account found for the given token.", None), BLACKLISTED)},
        USER_DISABLED: {
            "refresh": (refused("No active account found for the given token.", None), BLACKLISTED),
            "verify": (DONE, BLACKLISTED), "refresh later": (ANY, BLACKLISTED), "api later": (OPENED, REVOKED)},
    }),
    Deliberate("the sessions of a removed user end, and that is no error of the server", {
        USER_REMOVED: {
            "refresh": ("500 text/html (no JSON)", BLACKLISTED), "verify": (DONE, BLACKLISTED),
            "blacklist": (DONE, BLACKLISTED)},
    }),
    Deliberate("another password ends the sessions that began with the old one, whoever has them", {
        PASSWORD_CHANGED: {
            "refresh": (ACCESS, BLACKLISTED), "api": (OPENED, REVOKED), "verify": (DONE, BLACKLISTED)},
    }),
    Deliberate("that is done with the time of a login, in every mode, and not with a claim made of the hash", {
        f"strict: {PASSWORD_CHANGED}": {
            "api": (refused("The user's password has been changed.", "password_changed"), REVOKED),
            "access claim hash_password": ("128 bits in hex", None),
            "refresh claim hash_password": ("128 bits in hex", None)},
    }),
    Deliberate("who asks for it is out everywhere, and gets no answer that lets them believe it when they are not", {
        "blacklist everywhere, and another session of the user": {
            "refresh": (ANY, BLACKLISTED), "api": (OPENED, REVOKED)},
        "blacklist everywhere, forms": {
            "maybe": (DONE, NO_BOOLEAN), "refresh after maybe": (BLACKLISTED, ACCESS)},
        **{f"blacklist everywhere, no boolean: {word}": {"": (DONE, NO_BOOLEAN)}
           for word in ("word", "number", "list", "map")},
    }),
    Deliberate("logins are throttled", {
        "seven wrong passwords for one user": {f"try {number}": (NO_ACCOUNT, detail(
            429, "Request was throttled. Expected available in <n> seconds.", retry="<n>")) for number in (6, 7)},
    }),
    Deliberate("there are no sliding tokens: a token that opens the API and renews itself cannot be taken back", {
        "sliding obtain": {"": (line_of(200, {"token": "<token>"}), NO_ROUTE)},
        "sliding refresh": {"": (line_of(200, {"token": "<token>"}), NO_ROUTE)},
        "sliding refresh, past its end": {"": (refused("Token 'refresh_exp' claim has expired"), NO_ROUTE)},
    }),
    Deliberate("passwords and tokens are taken as they are sent, with the spaces at their ends", {
        "obtain, spaces around the password": {"": (PAIR, NO_ACCOUNT)},
        "refresh, spaces around the token": {"": (ACCESS, INVALID)},
    }),
    Deliberate("a name with a NUL is one that nobody has", {
        "obtain, a NUL in the username": {"": (line_of(
            400, {"username": ["Null characters are not allowed."]}), NO_ACCOUNT)},
    }),
    Deliberate("what is wrong with a body is said without the words of Python", {
        "obtain, a list for a body": {"": (
            line_of(400, {"non_field_errors": ["Invalid data. Expected a dictionary, but got list."]}),
            line_of(400, {"non_field_errors": ["Invalid data. Expected a dictionary."]}))},
        **{f"obtain, bad JSON: {word}": {"": (
            detail(400, "JSON parse error - <why>"), detail(400, "JSON parse error"))}
           for word in ("half", "word", "doubled")},
    }),
    Deliberate("what has no type is named so; that it is text is WSGI's guess", {
        "obtain, a body without a type": {"": (
            detail(415, 'Unsupported media type "text/plain" in request.'),
            detail(415, 'Unsupported media type "" in request.'))},
    }),
    Deliberate("a name twice in JSON is refused: two readers might take two values", {
        "obtain, a name twice in JSON": {"": (PAIR, detail(400, "JSON parse error"))},
    }),
    Deliberate("POST is all there is: the endpoints do not describe themselves", {
        **{f"obtain, {method}": {"": not_allowed(method)} for method in ("GET", "PUT", "DELETE", "OPTIONS")},
        **{f"{endpoint}, GET": {"": not_allowed("GET")} for endpoint in ("refresh", "verify", "blacklist")},
    }),
    Deliberate("the slash at the end may be left out", {
        "obtain, path without the slash at the end": {"": ("301 text/html (nothing)", PAIR)},
    }),
    Deliberate("a body has 64 KiB at most", {
        "obtain, a password of 100 KB": {"": (NO_ACCOUNT, problem(
            413, "Payload Too Large", "this endpoint takes bodies of 65536 bytes at most"))},
    }),
]


def compare(pair: str, told: Row, django: Django, gateway: Gateway) -> str:
    """One row; fails where something differs that nobody told of. What to say beside its name."""
    names = f"{pair}: {told.name}", told.name, EVERY

    def reason(aspect: str, theirs: object, ours: object) -> str | None:
        return next((entry.why for entry in DELIBERATE if entry.covers(names, aspect, theirs, ours)), None)

    def steps(side: Side) -> dict[str, Observed]:
        made = told.calls(side)
        named = {"": made} if isinstance(made, Answer) else made
        return {step: observe(answer, side) for step, answer in named.items()}

    theirs, ours = steps(django), steps(gateway)
    reasons: dict[str, None] = {}
    unexplained = []
    for step in theirs:
        if theirs[step].line != ours[step].line:
            why = reason(step, theirs[step].line, ours[step].line)
            if why is None:
                unexplained.append(f"{step!r}: (\n        {theirs[step].line!r},\n        {ours[step].line!r}),")
            else:
                reasons[why] = None
        # Where only one of them gives a token, the line has said so.
        for member in {*theirs[step].tokens} & {*ours[step].tokens}:
            their, our = theirs[step].tokens[member], ours[step].tokens[member]
            for claim in sorted({*their, *our}):
                values = their.get(claim), our.get(claim)
                if values[0] != values[1] and reason(claim, *values) is None:
                    unexplained.append(f"{claim!r}: {values!r},")
    expect(not unexplained, "these differences are not in DELIBERATE:\n      " + "\n      ".join(unexplained))
    statuses = " ".join(observed.line.split()[0] for observed in ours.values())
    return f"{statuses}, {'the same' if not reasons else 'on purpose: ' + ' / '.join(reasons)}"


# --- What Django cannot be asked ---------------------------------------------------------------------------


def crowd(gateway: Gateway, count: int) -> str:
    """So many refreshes of one token at once: two get its successor, and the third ends the session. Two alone go on."""
    for together in (2, count):
        pair = gateway.log_in()
        begun = time.monotonic()
        answers = all_at_once([gateway] * together, "refresh/", {"refresh": pair["refresh"]})
        took = time.monotonic() - begun
        given = [body for status, body in answers if status == 200]
        expect(len(given) == 2, f"{len(given)} of {together} were 200")
        successors = {(claims["gen"], claims["jti"]) for claims in (claims_of(body["refresh"]) for body in given)}
        expect(len(successors) == 1 and {gen for gen, _ in successors} == {1}, f"successors: {successors}")
        accesses = {claims_of(body["access"])["jti"] for body in given}
        expect(len(accesses) == 2, "one access token was given twice")
        expect(gateway.me(given[0]["access"]).status == (200 if together == 2 else 401), "the access token")
    return f"{count} in {took:.1f} s"


def crowd_without_grace(gateway: Gateway, count: int) -> str:
    """One of them gets a successor. The others have used a spent token, and that is the end of the session."""
    pair, other = gateway.log_in(), gateway.log_in()
    answers = all_at_once([gateway] * count, "refresh/", {"refresh": pair["refresh"]})
    won = [body for status, body in answers if status == 200]
    lost = collections.Counter((status, body.get("detail")) for status, body in answers if status != 200)
    expect(len(won) == 1, f"{len(won)} successors")
    expect(lost == {(401, "Token is blacklisted"): count - 1}, f"the others: {lost}")
    for access in (pair["access"], won[0]["access"]):
        expect(gateway.me(access).status == 401, "an access token is good after the end")
    for refresh in (pair["refresh"], won[0]["refresh"]):
        expect(gateway.refresh(refresh).status == 401, "a refresh token is good after the end")
    expect(gateway.refresh(other["refresh"]).status == 200, "another session of the user has ended")
    return f"200 once, 401 {count - 1} times"


def side_by_side(gateway: Gateway) -> str:
    """What one client does, or what becomes of it, is nothing to another of the same user."""
    one, two, three = gateway.log_in(), gateway.log_in(), gateway.log_in()
    sessions = {claims_of(pair[kind])["sid"] for pair in (one, two, three) for kind in ("access", "refresh")}
    expect(len(sessions) == 3, f"{len(sessions)} sessions of three logins")

    def goes_on(name: str, pair: dict) -> dict:
        answer = gateway.refresh(pair["refresh"])
        expect(answer.status == 200, f"{name}: refresh: {answer.brief()}")
        for access in (pair["access"], answer.json()["access"]):
            expect(gateway.me(access).status == 200, f"{name}: the API")
        return answer.json()

    def is_out(name: str, pair: dict) -> None:
        expect(gateway.refresh(pair["refresh"]).status == 401, f"{name}: refresh")
        expect(gateway.verify(pair["access"]).status == 401, f"{name}: verify")
        expect(gateway.me(pair["access"]).status == 401, f"{name}: the API")

    two_later, three_later = goes_on("two", two), goes_on("three", three)
    expect(gateway.blacklist(one["refresh"]).status == 200, "one: blacklist")
    is_out("one", one)
    two_last = goes_on("two", goes_on("two", two_later))
    # Two steps back there is no grace.
    answer = gateway.refresh(two["refresh"])
    expect(answer.status == 401 and answer.json()["detail"] == "Token is blacklisted", f"reuse: {answer.brief()}")
    is_out("two", two_last)
    is_out("two", {**two_last, "access": two["access"]})
    three_last = goes_on("three", three_later)
    four = goes_on("four", gateway.log_in())
    body = {"refresh": three_last["refresh"], "everywhere": True}
    expect(gateway.post("blacklist/", body).status == 200, "blacklist everywhere")
    is_out("three", three_last)
    is_out("four", four)
    goes_on("five", gateway.log_in())
    return "blacklisted, reused, everywhere"


def changed_behind_its_back(gateway: Gateway) -> str:
    """
    Sessions end with the password that they began with, and when their user was disabled or removed: also while the
    gateway was down, as the command line writes down when it was; and by hand, where `since` says so.
    """
    def goes_on(name: str, pair: dict) -> dict:
        expect(gateway.me(pair["access"]).status == 200, f"{name}: the API")
        answer = gateway.refresh(pair["refresh"])
        expect(answer.status == 200, f"{name}: refresh: {answer.brief()}")
        return answer.json()

    def has_ended(name: str, pair: dict) -> None:
        expect(gateway.me(pair["access"]).status == 401, f"{name}: the API")
        for answer in (gateway.refresh(pair["refresh"]), gateway.verify(pair["access"])):
            expect(answer.status == 401 and answer.json()["detail"] == "Token is blacklisted",
                   f"{name}: {answer.brief()}")

    def by_hand(name: str, ends: dict | None = None, **members) -> None:
        users = gateway.read_users()
        if ends is not None and not members:
            del users[name]
        else:
            users[name] = {**users[name], **members}
        reloads = gateway.said("configuration reloaded")
        gateway.write_users(users)
        wait_until(lambda: gateway.said("configuration reloaded") > reloads, 10, f"{name}: reload", 0.02)
        if ends is not None:
            wait_until(lambda: gateway.me(ends["access"]).status == 401, 10, f"{name}: sessions end", 0.02)

    # While it runs; of others nothing ends.
    names = ["alice", "pam", "fred", "gina", "rita", "otto"]
    pairs = {name: gateway.log_in(name) for name in names}
    gateway.change("pam", ends=pairs["pam"], password=ANOTHER)
    has_ended("pam", pairs["pam"])
    pairs["pam"] = gateway.log_in("pam", ANOTHER)
    pairs["alice"] = goes_on("alice", pairs["alice"])

    # While it is down.
    gateway.child.stop()
    gateway.user("password", "pam", password=PASSWORD)
    for word in ("disable", "enable"):
        gateway.user(word, "fred")
    gateway.user("remove", "gina")
    gateway.user("add", "gina", password=PASSWORD)
    gateway.start()
    for name in ("pam", "fred", "gina"):
        has_ended(name, pairs[name])
        pairs[name] = goes_on(name, gateway.log_in(name))
    for name in ("alice", "rita", "otto"):
        pairs[name] = goes_on(name, pairs[name])

    # By hand, without a word of when.
    by_hand("rita", ends=pairs["rita"], password=QUICK[ANOTHER])
    has_ended("rita", pairs["rita"])
    pairs["rita"] = goes_on("rita", gateway.log_in("rita", ANOTHER))
    # And with one.
    by_hand("rita", ends=pairs["rita"], since=int(time.time() * 1000))
    has_ended("rita", pairs["rita"])
    goes_on("rita", gateway.log_in("rita", ANOTHER))
    # Who comes back comes back without the old sessions.
    otto = gateway.read_users()["otto"]
    by_hand("otto", ends=pairs["otto"])
    gateway.write_users({**gateway.read_users(), "otto": otto})
    wait_until(lambda: gateway.obtain("otto").status == 200, 10, "otto may log in again", 0.02)
    has_ended("otto", pairs["otto"])
    pairs["alice"] = goes_on("alice", pairs["alice"])
    return "running, down, by hand"


class Killed:
    """
    The gateway gets SIGKILL again and again, while clients log in, refresh and log out, while keys are rotated, and
    while it starts. Each time it must come back with its store and its keys, and each session must be what its client
    was last told.
    """

    CLIENTS, GRACE = 4, 2
    TOKENS = {"refresh_grace": f"{GRACE}s", "access_lifetime": "1m", "refresh_lifetime": "1m",
              "rotate_keys_after": "1s"}
    # Of its sessions, those that are looked at are younger than that.
    YOUNG = 40

    def __init__(self, gateway: Gateway, kills: int):
        self.gateway = gateway
        self.kills = kills
        self.clients = Clients([gateway], self.CLIENTS, self.GRACE)
        self.became: collections.Counter[str] = collections.Counter()
        self.restarts: list[float] = []
        # The keys that were made, and when.
        self.keys: dict[str, float] = {}
        self.rotations: collections.Counter[str] = collections.Counter()

    def run(self) -> str:
        self.gateway.child.stop()
        self.gateway.write_users(self.clients.users())
        self.gateway.start()
        for number in range(self.kills):
            self.round()
            if number % 15 == 0:
                self.first_start(number)
        # What has ended stays so, however often it was killed since.
        time.sleep(self.GRACE)
        self.judge_left_alone()
        ended = [session for session in self.clients.sessions if session.out]
        for session in random.sample(ended, min(50, len(ended))):
            self.clients.judge(session)
        if self.kills >= 40:
            seldom = [what for what, times in self.clients.lost.items() if not times]
            expect(len(seldom) < 2, f"killed, but never within: {seldom}")
            seen = {part for words in self.became for part in words.split(", ")}
            seldom = {"goes on", "ended", "ended by its spent token", "same successor"} - seen
            expect(not seldom, f"not once: {seldom} of {self.became}")
        count = sum(self.clients.lost.values())
        what = ", ".join(f"{times} {word}" for word, times in sorted(self.became.items()))
        rotated = ", ".join(f"{times} {word}" for word, times in sorted(self.rotations.items()))
        return (f"{self.kills} kills, {self.clients.answers} answers, {count} questions without one; sessions: {what}; "
                f"rotations: {rotated}; up again in {max(self.restarts):.2f} s")

    def round(self) -> None:
        failures: list[BaseException] = []

        def client(name: str) -> None:
            over = self.gateway.target.connect()
            try:
                while True:
                    self.clients.act(name, self.gateway, over)
            except (OSError, http.client.HTTPException):
                # Killed.
                over.close()
            except BaseException as failure:
                failures.append(failure)

        def rotate() -> None:
            try:
                self.rotate()
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=client, args=(name,)) for name in self.clients.names]
        rotates = random.random() < 0.2
        if rotates:
            threads.append(threading.Thread(target=rotate))
        for thread in threads:
            thread.start()
        time.sleep(random.uniform(0.005, 0.05))
        self.gateway.kill()
        if random.random() < 0.25:
            # Again, while it starts.
            self.gateway.launch()
            time.sleep(random.uniform(0, 0.03))
            self.gateway.kill()
        for thread in threads:
            thread.join(30)
        expect(not any(thread.is_alive() for thread in threads), "a client hangs")
        if failures:
            raise failures[0]
        self.restarts.append(self.gateway.start())
        self.judge_keys(rotates)
        self.became.update(self.clients.judge_touched(leave_alone=0.15))
        self.judge_left_alone()
        young = time.monotonic() - self.YOUNG
        self.clients.sessions = [session for session in self.clients.sessions if session.given > young]

    # --- Keys ----------------------------------------------------------------------------------------------

    def rotate(self) -> None:
        """`key rotate` at some moment of the round, half of the time killed itself."""
        time.sleep(random.uniform(0, 0.04))
        process = subprocess.Popen(self.gateway.command("key", "rotate"), stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        if random.random() < 0.5:
            time.sleep(random.uniform(0, 0.03))
            process.kill()
        said, why = process.communicate(timeout=20)
        if process.returncode == 0:
            self.keys[said.split()[0]] = time.monotonic()
            self.rotations["done"] += 1
        else:
            expect(process.returncode == -signal.SIGKILL, f"key rotate: {said}{why}")
            self.rotations["killed"] += 1

    def judge_keys(self, rotated: bool) -> None:
        """Each key that was made is published, and one that is published signs."""
        young = time.monotonic() - self.YOUNG
        made = {name for name, at in self.keys.items() if at > young}
        published = self.gateway.key_set()
        expect(made <= published, f"{made - published} of {len(made)} new keys are not published")
        pair = self.gateway.log_in(self.clients.names[0])
        for token in pair.values():
            name = json.loads(from_base64url(token.split(".")[0]))["kid"]
            expect(name in published, f"{name} signs, and is not published")
        if rotated:
            done = subprocess.run(self.gateway.command("key", "list"), capture_output=True, text=True, timeout=20)
            expect(done.returncode == 0, f"key list: {done.stdout}{done.stderr}")
            listed = {line.split()[0] for line in done.stdout.splitlines()}
            expect(published <= listed, f"{published - listed} are published, and not listed")
            expect(sum(line.endswith("\tsigns") for line in done.stdout.splitlines()) == 1, f"one signs: {done.stdout}")

    # --- Sessions ------------------------------------------------------------------------------------------

    def judge_left_alone(self) -> None:
        """Those that nobody has at hand, once their spent tokens have no grace any more."""
        over = time.monotonic() - self.GRACE - 0.1
        at_hand = [session for session in self.clients.at_hand.values() if session]
        due = [
            session for session in self.clients.sessions
            if not session.out and session.given < over and (session.lost_refresh or 0) < over
            and not any(session is other for other in at_hand)
        ]
        self.became.update(self.clients.judge(session, late=True) for session in due)

    def first_start(self, number: int) -> None:
        """Killed when there is neither a key nor a store, it makes them the next time."""
        folder = self.gateway.folder / f"first-{number}"
        folder.mkdir()
        first = Gateway(self.gateway.binary, folder, self.gateway.logs, self.TOKENS)
        first.write_users(self.clients.users())
        first.launch()
        time.sleep(random.uniform(0, 0.04))
        first.kill()
        try:
            first.start()
            pair = first.log_in(self.clients.names[0])
            expect(first.me(pair["access"]).status == 200, "the API after a killed first start")
            expect(first.refresh(pair["refresh"]).status == 200, "refresh after a killed first start")
            expect(len(first.key_set()) == 1, f"{len(first.key_set())} keys after a killed first start")
        finally:
            first.child.stop(5)


def nothing_left_behind(gateways: dict[str, Gateway]) -> None:
    """Neither the logs nor the store hold a token or a password."""
    for gateway in gateways.values():
        kept = [path for path in (gateway.folder / "data").rglob("*") if path.is_file()]
        expect(kept, f"{gateway.folder.name}: no store")
        for path in (gateway.child.out, gateway.child.err, *kept):
            content = path.read_bytes()
            for what in (*TOKEN_BEGINS, PASSWORD.encode()):
                expect(what not in content, f"{what!r} in {path.name} of {gateway.folder.name}")


# Gateways that are not compared, but go through things.
ALONE = {
    "at once": {**FREE, "refresh_grace": "0s"},
    "changed": FREE,
    "killed": {**FREE, **Killed.TOKENS},
}


# --- The run -----------------------------------------------------------------------------------------------


class Run:
    """All that runs: a site for each way to set up simplejwt, and the gateways of PAIRS and ALONE."""

    def __init__(self, binary: Path, python: Path, folder: Path):
        self.binary, self.python, self.folder = binary, python, folder
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.children: list[Child] = []
        self.sites: dict[str, Django] = {}
        self.gateways: dict[str, Gateway] = {}

    def start(self, needs: set[str]) -> None:
        """The sites begin first, since they take the longest."""
        waiting = {mode: self.site(mode) for mode in {PAIRS[name][0] for name in needs if name in PAIRS}}
        added = self.users()
        for mode, child in waiting.items():
            site = self.sites[mode].target

            def ready(site=site, child=child) -> bool:
                expect(child.running(), f"the site ended\n{child.tail()}")
                return site.get("/users/").status == 200

            wait_until(ready, 30, f"the site {mode} answers")
        quick = {name: {**said, "password": QUICK[PASSWORD]} for name, said in added.items()}
        for name in sorted(needs):
            if name in ALONE:
                self.gateway(name, ALONE[name], quick)
            elif name == "strict":
                self.gateway(name, PAIRS[name][1], added)
            else:
                # As a migration does it: zoë's hash is Django's own.
                mode, tokens = PAIRS[name]
                django = self.sites[mode].target.get("/users/").json()
                self.gateway(name, tokens, {**quick, "zoë": {**quick["zoë"], "password": django["zoë"]}})

    def gateway(self, name: str, tokens: dict, users: dict[str, dict]) -> None:
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir()
        gateway = self.gateways[name] = Gateway(self.binary, folder, self.logs, tokens)
        gateway.write_users(users)
        gateway.start()

    def site(self, mode: str) -> Child:
        folder = self.folder / f"site-{mode}"
        folder.mkdir()
        (folder / "secret").write_text(secrets.token_hex(32))
        users = [{"name": name, "password": password_of(name), "active": name != "ivan"} for name in USERS]
        port = free_port()
        self.sites[mode] = Django(Target(("127.0.0.1", port), f"127.0.0.1:{port}"), folder)
        script = str(SCRIPTS / "tokens_site.py")
        command = [str(self.python), "-B", script, mode, str(port), str(folder), json.dumps(users)]
        self.children.append(Child(folder.name, command, folder, self.logs))
        return self.children[-1]

    def users(self) -> dict:
        """The users, added with `portcullis user`."""
        folder = self.folder / "users"
        folder.mkdir()
        maker = Gateway(self.binary, folder, self.logs, {})
        for number, name in enumerate(USERS, 1):
            # In Django's tokens the id is a text.
            maker.user("add", name, "--set", f'id="{number}"', password=password_of(name))
        maker.user("disable", "ivan")
        return maker.read_users()

    def stop(self) -> None:
        started = [gateway.child for gateway in self.gateways.values() if gateway.child]
        for child in [*started, *self.children]:
            child.stop(5)

    def tails(self) -> str:
        started = [gateway.child for gateway in self.gateways.values() if gateway.child]
        return "\n".join({child.name: child.tail(8) for child in [*started, *self.children]}.values())


def checks_of(run: Run, kills: int, clients: int) -> list[tuple[str, set[str], Callable]]:
    """Name, what it needs, and function of each check, in their order."""
    every: list[tuple] = []
    for pair in PAIRS:
        for told in ROWS:
            if pair in told.pairs:
                def check(pair=pair, told=told):
                    return compare(pair, told, run.sites[PAIRS[pair][0]], run.gateways[pair])

                every.append((f"{pair}: {told.name}", {pair}, check))
    return [
        *every,
        (f"{clients} refreshes of one token at once", {"grace"}, lambda: crowd(run.gateways["grace"], clients)),
        (f"{clients} refreshes of one token at once, without a grace", {"at once"},
         lambda: crowd_without_grace(run.gateways["at once"], clients)),
        ("clients beside each other", {"grace"}, lambda: side_by_side(run.gateways["grace"])),
        ("users changed behind the gateway's back", {"changed"},
         lambda: changed_behind_its_back(run.gateways["changed"])),
        ("killed while it answers", {"killed"}, lambda: Killed(run.gateways["killed"], kills).run()),
        ("no token and no password in logs and stores", {"grace", "killed"}, lambda: nothing_left_behind(run.gateways)),
    ]


def told_whole() -> str:
    """Every row of B.11 is replayed, and nothing is told of that is not."""
    replayed = {told.of for told in ROWS}
    expect(replayed == set(MEASURED), f"not replayed, or not in the table: {replayed ^ set(MEASURED)}")
    return f"{len(MEASURED)} answers in {len(ROWS)} rows"


def none_idle() -> None:
    idle = [f"{entry.why[:50]}… {what}" for entry in DELIBERATE for what in entry.idle()]
    expect(not idle, "these differences are no longer there:\n      " + "\n      ".join(idle))


def main() -> int:
    parser = argparse.ArgumentParser(description="simplejwt's calls at Portcullis's token service.")
    parser.add_argument("--gateway", type=Path, default=BUILT / "debug" / "portcullis", help="the binary to test")
    parser.add_argument("--venv", type=Path, default=BUILT / "issuers-venv", help="where the Python packages are kept")
    parser.add_argument("--kills", type=int, default=60, help="how often the gateway is killed")
    parser.add_argument("--crowd", type=int, default=400, help="how many refresh one token at once")
    parser.add_argument("--only", help="run the checks whose name has these words")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder with the logs, and say where")
    options = parser.parse_args()
    binary = options.gateway.resolve()
    if not binary.is_file():
        print(f"FAIL no gateway at {options.gateway}: build it, or name it with --gateway")
        return 1
    python = make_venv(options.venv.resolve(), SCRIPTS / "requirements.txt")
    limit_run(int(OVERALL_SECONDS + options.kills * SECONDS_A_KILL + options.crowd * SECONDS_A_CLIENT))

    checks = Checks(options.only)
    folder = Path(tempfile.mkdtemp(prefix="portcullis-"))
    run = Run(binary, python, folder)
    try:
        every = [(name, needs, check) for name, needs, check in checks_of(run, options.kills, options.crowd)
                 if checks.wanted(name)]
        run.start(set().union(*(needs for _, needs, _ in every)))
        for name, _, check in every:
            checks.run(name, check)
        checks.run("all of simplejwt's answers are replayed", told_whole)
        if not options.only:
            checks.run("no difference is told of that is not there", none_idle)
    except TimeLimit as limit:
        checks.fail("the whole run", str(limit))
    except (Failed, OSError, subprocess.SubprocessError) as failure:
        checks.fail("start", str(failure))
    finally:
        signal.alarm(0)
        run.stop()
        if checks.failed:
            print(run.tails())
        if options.keep:
            print(f"logs: {folder / 'logs'}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed or not checks.passed else 0


if __name__ == "__main__":
    sys.exit(main())
