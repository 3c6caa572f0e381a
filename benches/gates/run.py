#!/usr/bin/env python3
"""What one request costs Portcullis, in figures that do not depend on other load of the machine: instructions in user
space, allocations, and system calls except waits. Each is compared with figures.json, and fails if it has grown too
much.

    benches/gates/run.py [--gateway BINARY] [--only WORDS] [--write]

Two runs of the release build under valgrind's callgrind, and two under strace, of 800 and 3,200 requests over 16
persistent connections; the difference divided by the additional requests is the cost of one, without start and end.
Allocations are calls of the allocator's entry points in callgrind's profile. All default features are on, and the
access log is written to a file. Load and app are part of this program. `certified` and `bound` are the same requests
over TLS with a client certificate, to which the token is bound; only with `bound` is its `cnf` compared, which may cost
1 % of the instructions. `--write` stores the results as new figures: say why in the commit. On a busy machine the
instructions are a few percent higher: the event loop runs more often.

Needs Linux, Python 3.11, and Debian's valgrind and strace, which it installs as root. Exits 1 if a figure has grown.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loopback import BODY, SECRET, App, Failed, free_port, install_missing, token, wait_until_it_listens  # noqa: E402
import certificates  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FIGURES = Path(__file__).with_name("figures.json")
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
FEW, MANY, CONNECTIONS = 800, 3200, 16
START_SECONDS, END_SECONDS, SETTLED_SECONDS = 60, 60, 4
# The entry points of jemalloc.
ALLOCATORS = r"_rjem_(malloc|mallocx|calloc|realloc|rallocx)"
# The factors that pass: library builds differ, and some calls are made only now and then.
TOLERANCE = {"instructions": 1.05, "allocations": 1.02, "system calls": 1.05}

CONFIG = """
workers: 1
listeners: [{{address: 127.0.0.1:{port}{tls}}}]
jwt:
  app: {{algorithms: [HS256], secret: "{secret}", cnf: {cnf}}}
upstreams:
  app: {{servers: [http://127.0.0.1:{app}]}}
routes:
  - {{path: /open/*, proxy: app, auth: none}}
  - {{path: /closed/*, proxy: app, auth: {{jwt: app, forward: {{X-User-Id: sub}}}}}}
  - {{path: /files/*, static: files, compress: off}}
log: {{access: {{to: access.log, format: json}}}}
"""

TLS = """, tls: {{
  certificates: [{{cert: {home}/bench.pem, key: {home}/bench.key}}], client_auth: {{ca: {home}/client-ca.pem}}
}}"""
FIELDS = "Host: www.example.com\r\nUser-Agent: gates/1\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\n"


@dataclass(frozen=True)
class Case:
    """A request. With `cnf` it comes over TLS with a client certificate, to which its token is bound."""

    path: str
    token: bool = False
    cnf: str | None = None

    def configuration(self, port: int, app: int, home: Path) -> str:
        tls = TLS.format(home=home) if self.cnf else ""
        return CONFIG.format(port=port, app=app, secret=SECRET, tls=tls, cnf=self.cnf or "check")

    def request(self, home: Path) -> bytes:
        claims = {"cnf": {"x5t#S256": thumbprint(home / "client.pem")}} if self.cnf else {}
        authorization = f"Authorization: Bearer {token(**claims)}\r\n" if self.token else ""
        return f"GET {self.path} HTTP/1.1\r\n{FIELDS}{authorization}\r\n".encode()

    def context(self, home: Path) -> ssl.SSLContext | None:
        if not self.cnf:
            return None
        context = ssl.create_default_context(cafile=str(home / "bench.pem"))
        context.load_cert_chain(home / "client.pem", home / "client.key")
        return context


CASES = {
    "proxy": Case("/open/orders"),
    "jwt": Case("/closed/orders", token=True),
    "static": Case("/files/small.txt"),
    "certified": Case("/closed/orders", token=True, cnf="ignore"),
    "bound": Case("/closed/orders", token=True, cnf="check"),
}
# A case, the one that it is compared with, and the factor of its instructions that passes. The event loop alone makes
# that much of a difference, so both are measured again if need be, and the least of each is compared.
# The goal is 1.01; one run differs from the next by as much.
BESIDE = [("bound", "certified", 1.02)]
TRIES = 3


def thumbprint(certificate: Path) -> str:
    """`x5t#S256` of a certificate (RFC 8705, section 3.1)."""
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def connect(port: int, context: ssl.SSLContext | None) -> socket.socket:
    plain = socket.create_connection(("127.0.0.1", port), timeout=60)
    return context.wrap_socket(plain, server_hostname="localhost") if context else plain


def load(port: int, request: bytes, count: int, context: ssl.SSLContext | None) -> None:
    """Sends `count` requests, one at a time on each connection."""
    links = [connect(port, context) for _ in range(CONNECTIONS)]
    try:
        for at in range(0, count, CONNECTIONS):
            some = links[: min(CONNECTIONS, count - at)]
            for link in some:
                link.sendall(request)
            for link in some:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = link.recv(65536)
                    if not piece:
                        raise Failed("the gateway closed a connection")
                    head += piece
                head, body = head.split(b"\r\n\r\n", 1)
                if not head.startswith(b"HTTP/1.1 200 "):
                    raise Failed(f"not a 200: {head[:200]!r}")
                while len(body) < len(BODY):
                    body += link.recv(65536)
                if body != BODY:
                    raise Failed("another body")
    finally:
        for link in links:
            link.close()


def run(gateway: Path, tool: list[str], case: Case, count: int, app: App, home: Path) -> str:
    """Runs the gateway under a tool, whose `OUT` stands for a file; returns the file's content, or else the output."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=home) as folder:
        return run_in(Path(folder), gateway, tool, case, count, app)


def run_in(folder: Path, gateway: Path, tool: list[str], case: Case, count: int, app: App) -> str:
    home = folder.parent
    port, out = free_port(), folder / "out"
    (folder / "files").mkdir()
    (folder / "files/small.txt").write_bytes(BODY)
    (folder / "gateway.yaml").write_text(case.configuration(port, app.port, home))
    command = [word.replace("OUT", str(out)) for word in tool] + [str(gateway), "run", "-c", str(folder / "gateway.yaml")]
    with open(folder / "said", "w+") as said:
        child = subprocess.Popen(command, stdout=said, stderr=said, cwd=folder, start_new_session=True)
        try:
            wait_until_it_listens(child, port, START_SECONDS)
            # The configuration is read once more two seconds after the start, which must be in both runs or in neither;
            # and a file that was just written is not cached in memory yet.
            time.sleep(SETTLED_SECONDS)
            load(port, case.request(home), count, case.context(home))
            # Under strace the gateway itself must be ended.
            served = children(child.pid) or [child.pid]
            os.kill(served[0], signal.SIGTERM)
            child.wait(END_SECONDS)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        said.seek(0)
        text = said.read()
    lines = (folder / "access.log").read_text().count("\n")
    if lines != count:
        raise Failed(f"{lines} lines in the access log for {count} requests")
    return out.read_text() if out.exists() else text


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in tasks.read_text().split()]


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise Failed(f"no {pattern!r} in {text[-1000:]}")
    return int(found[1].replace(",", ""))


def allocations(profile: str) -> int:
    """The number of allocator calls in a callgrind profile, without those that the allocator makes itself."""
    names: dict[str, str] = {}
    caller = callee = ""
    count = 0
    for line in profile.splitlines():
        if found := re.match(r"(c?fn)=\((\d+)\)(?: (.*))?", line):
            kind, short, name = found.groups()
            names.setdefault(short, name or "")
            if kind == "fn":
                caller = names[short]
            else:
                callee = names[short]
        elif found := re.match(r"calls=(\d+) ", line):
            if re.fullmatch(ALLOCATORS, callee) and not caller.startswith("_rjem_"):
                count += int(found[1])
    if not count:
        raise Failed("callgrind saw no call of the allocator")
    return count


# Each tool and its figures.
TOOLS = {
    "callgrind": (["valgrind", "--tool=callgrind", "--callgrind-out-file=OUT"], {
        "instructions": lambda profile: number(r"^(?:summary|totals): (\d+)", profile),
        "allocations": allocations,
    }),
    "strace": (["strace", "-f", "-c", "-U", "calls,name", "-o", "OUT"], {
        # How many connections one wake-up serves also depends on the other load of the machine.
        "system calls": lambda summary: number(r"^ *(\d+) total", summary) - number(r"^ *(\d+) epoll_wait", summary),
    }),
}


def measure(gateway: Path, case: Case, app: App, tools: dict, home: Path) -> dict[str, float]:
    found = {}
    for tool, readers in tools.values():
        reports = [run(gateway, tool, case, count, app, home) for count in (FEW, MANY)]
        for what, read in readers.items():
            few, many = map(read, reports)
            found[what] = (many - few) / (MANY - FEW)
    return found


def works(tool: list[str]) -> bool:
    """Whether the tool can trace processes on this machine; some containers forbid it."""
    words = [word.replace("OUT", "/dev/null") for word in tool]
    return subprocess.run([*words, "true"], capture_output=True).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", type=Path, default=BUILT / "release/portcullis")
    parser.add_argument("--only", default="", help="cases whose names have this in them")
    parser.add_argument("--write", action="store_true", help="take what is found as the new figures")
    options = parser.parse_args()
    install_missing({"valgrind": "valgrind", "strace": "strace"})
    tools = {name: tool for name, tool in TOOLS.items() if works(tool[0])}
    for name in TOOLS.keys() - tools.keys():
        print(f"{', '.join(TOOLS[name][1])} are not counted: {name} cannot look at a process on this machine")
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    app, found, grown = App(), {}, 0
    with tempfile.TemporaryDirectory(prefix="portcullis-gates-") as folder:
        home = Path(folder)
        certificates.own(home)
        certificates.client(home)

        def measured(name: str) -> dict[str, float]:
            return measure(options.gateway.resolve(), CASES[name], app, tools, home)

        for name in CASES:
            if options.only in name:
                found[name] = measured(name)
                grown += not passes(name, found[name], {} if options.write else figures.get(name, {}))
        if "callgrind" in tools:
            grown += sum(not stays_beside(found, measured, *one) for one in BESIDE if one[0] in found)
    if options.write:
        for name, costs in found.items():
            figures.setdefault(name, {}).update({what: round(value, 2) for what, value in costs.items()})
        FIGURES.write_text(json.dumps(figures, indent=2) + "\n")
    if grown:
        print("a figure has grown; where that is worth it, `--write` takes the new ones")
    return 1 if grown else 0


def passes(name: str, found: dict[str, float], figures: dict[str, float]) -> bool:
    """Says what a case costs, and whether each figure is at most what figures.json has, with its tolerance."""
    grown = 0
    for what, value in found.items():
        known = figures.get(what)
        bad = known is not None and value > known * TOLERANCE[what] + 0.01
        grown += bad
        beside = f"{value / known:.3f} of {known:,.2f}" if known else "no figure yet"
        print(f"{'FAIL' if bad else 'ok  '} {name}: {value:,.2f} {what} a request ({beside})", flush=True)
    return not grown


def stays_beside(found: dict, measured: Callable, name: str, other: str, factor: float) -> bool:
    """Whether a case needs at most `factor` of the instructions of another one."""
    least = {each: found.get(each, {}).get("instructions", math.inf) for each in (name, other)}
    for again in range(TRIES):
        if again or math.inf in least.values():
            least = {each: min(known, measured(each)["instructions"]) for each, known in least.items()}
        ratio = least[name] / least[other]
        if ratio <= factor:
            break
    verdict = "ok  " if ratio <= factor else "FAIL"
    print(f"{verdict} {name}: {ratio:.4f} of the instructions of {other}, at most {factor}", flush=True)
    return ratio <= factor


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"gates: {failure}")
