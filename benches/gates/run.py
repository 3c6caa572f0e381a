#!/usr/bin/env python3
"""What one request costs Portcullis, in figures that do not depend on other load of the machine: instructions in user
space, allocations, and system calls except waits. Each is compared with figures.json, and fails if it has grown too
much.

    benches/gates/run.py [--gateway BINARY] [--only WORDS] [--write]

Two runs of the release build under valgrind's callgrind, and two under strace, of 800 and 3,200 requests over 16
persistent connections; the difference divided by the additional requests is the cost of one, without start and end.
Allocations are calls of the allocator's entry points in callgrind's profile. All default features are on, and the
access log is written to a file. Load and app are part of this program. `--write` stores the results as new figures:
say why in the commit. On a busy machine the instructions are a few percent higher: the event loop runs more often.

Needs Linux, Python 3.11, and Debian's valgrind and strace, which it installs as root. Exits 1 if a figure has grown.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loopback import BODY, SECRET, App, Failed, free_port, install_missing, token, wait_until_it_listens  # noqa: E402

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
listeners: [{{address: 127.0.0.1:{port}}}]
jwt:
  app: {{algorithms: [HS256], secret: "{secret}"}}
upstreams:
  app: {{servers: [http://127.0.0.1:{app}]}}
routes:
  - {{path: /open/*, proxy: app, auth: none}}
  - {{path: /closed/*, proxy: app, auth: {{jwt: app, forward: {{X-User-Id: sub}}}}}}
  - {{path: /files/*, static: files}}
log: {{access: {{to: access.log, format: json}}}}
"""


FIELDS = "Host: www.example.com\r\nUser-Agent: gates/1\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\n"
CASES = {
    "proxy": f"GET /open/orders HTTP/1.1\r\n{FIELDS}\r\n",
    "jwt": f"GET /closed/orders HTTP/1.1\r\n{FIELDS}Authorization: Bearer {token()}\r\n\r\n",
    "static": f"GET /files/small.txt HTTP/1.1\r\n{FIELDS}\r\n",
}


def load(port: int, request: bytes, count: int) -> None:
    """Sends `count` requests, one at a time on each connection."""
    links = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(CONNECTIONS)]
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


def run(gateway: Path, tool: list[str], case: str, count: int, app: App, folder: Path) -> str:
    """Runs the gateway under a tool, whose `OUT` stands for a file; returns the file's content, or else the output."""
    port, out = free_port(), folder / "out"
    out.unlink(missing_ok=True)
    (folder / "files").mkdir(exist_ok=True)
    (folder / "files/small.txt").write_bytes(BODY)
    (folder / "access.log").unlink(missing_ok=True)
    (folder / "gateway.yaml").write_text(CONFIG.format(port=port, app=app.port, secret=SECRET))
    command = [word.replace("OUT", str(out)) for word in tool] + [str(gateway), "run", "-c", str(folder / "gateway.yaml")]
    with open(folder / "said", "w+") as said:
        child = subprocess.Popen(command, stdout=said, stderr=said, cwd=folder, start_new_session=True)
        try:
            wait_until_it_listens(child, port, START_SECONDS)
            # The configuration is read once more two seconds after the start, which must be in both runs or in neither;
            # and a file that was just written is not cached in memory yet.
            time.sleep(SETTLED_SECONDS)
            load(port, CASES[case].encode(), count)
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


def measure(gateway: Path, case: str, app: App, tools: dict) -> dict[str, float]:
    found = {}
    for tool, readers in tools.values():
        reports = []
        for count in (FEW, MANY):
            with tempfile.TemporaryDirectory(prefix="portcullis-gates-") as folder:
                reports.append(run(gateway, tool, case, count, app, Path(folder)))
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
    app, grown = App(), 0
    for case in CASES:
        if options.only not in case:
            continue
        for what, value in measure(options.gateway.resolve(), case, app, tools).items():
            known = figures.get(case, {}).get(what)
            limit = known * TOLERANCE[what] + 0.01 if known is not None else None
            bad = limit is not None and value > limit and not options.write
            grown += bad
            beside = f"{value / known:.3f} of {known:,.2f}" if known else "no figure yet"
            print(f"{'FAIL' if bad else 'ok  '} {case}: {value:,.2f} {what} a request ({beside})", flush=True)
            if options.write:
                figures.setdefault(case, {})[what] = round(value, 2)
    if options.write:
        FIGURES.write_text(json.dumps(figures, indent=2) + "\n")
    if grown:
        print("a figure has grown; where that is worth it, `--write` takes the new ones")
    return 1 if grown else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"gates: {failure}")
