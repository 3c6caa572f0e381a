"""The loads: each sends requests for a while and reports their number. A failed request ends the measurement."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from system import Failure

PATHS = 1000  # distinct ones, however many routes there are
HERE = Path(__file__).resolve().parent
# OpenSSL's configuration of a client that offers one key exchange alone.
GROUPS = """openssl_conf = first
[first]
ssl_conf = tls
[tls]
system_default = every
[every]
Groups = {groups}
"""


@dataclass
class Work:
    """The result of a load. `answered` is the expected number of access log lines; for WebSockets it is lower."""

    requests: int
    seconds: float
    answered: int


class Loads:
    """Starts the clients, on the load's CPU, against the server on `port`."""

    def __init__(self, tools, processes, cpu, folder, port):
        self.tools, self.processes, self.cpu, self.folder, self.port = tools, processes, cpu, folder, port
        self.rate = None

    def __call__(self, scenario, tokens, seconds, warm=False):
        """Runs the load of a scenario. With `warm` every token of a list is sent once before any is repeated."""
        if scenario.load in ("wrk", "wrk_list"):
            return self.wrk(scenario, tokens, seconds, warm)
        if scenario.load == "h2":
            return self.h2load(scenario, seconds, warm)
        return self.client(scenario, seconds)

    def url(self, scenario):
        return f"http{'s' if scenario.tls else ''}://127.0.0.1:{self.port}{scenario.path}"

    def said_by(self, name, command):
        """The output of a program, read to its end."""
        process = self.processes.start(name, command, self.cpu, subprocess.PIPE)
        said = process.communicate()[0].decode(errors="replace")
        self.processes.running.remove(process)
        if process.returncode != 0:
            raise Failure(f"{name} failed: {' '.join(said.strip().splitlines()[-1:])}")
        return said

    def wrk(self, scenario, tokens, seconds, warm):
        command = [
            self.tools["wrk"], "-t1", f"-c{scenario.connections}", f"-d{seconds}s", "--timeout", "10s",
            self.url(scenario),
        ]
        if scenario.load == "wrk_list":
            rows = self.folder / "list"
            rows.write_text(self.rows(scenario, tokens))
            command += ["-s", HERE / "list.lua", "--", rows, "sequence" if warm else "random"]
        elif scenario.algorithm:
            command += ["-H", f"Authorization: Bearer {tokens.good[0]}"]
        said = self.said_by("wrk", command)
        count = re.search(r"(\d+) requests in [^,]+, ([\d.]+)([KMGT]?)B read", said)
        bad = re.search(r"(Non-2xx|Socket errors).*", said)
        if not count or bad or int(count[1]) == 0:
            raise Failure(f"wrk saw failed requests, or none: {bad[0] if bad else count and count[0]}")
        read = float(count[2]) * 1024 ** " KMGT".index(count[3] or " ")
        if read < 0.99 * int(count[1]) * scenario.size:
            raise Failure(f"wrk read {read:,.0f} bytes in {count[1]} answers of {scenario.size}")
        return Work(int(count[1]), seconds, int(count[1]))

    def rows(self, scenario, tokens):
        """Lines for list.lua: one token each, or a thousand paths, spread over all routes."""
        if scenario.tokens > 1:
            return "".join(f"{scenario.path} {token}\n" for token in tokens.good)
        step = max(1, scenario.routes // PATHS)
        return "".join(f"/r{number * step % scenario.routes}/{number}\n" for number in range(PATHS))

    def h2load(self, scenario, seconds, warm):
        """A fixed number of requests, so that each is counted: as many as the warm-up's rate gives in the time."""
        count = 4000 if warm else max(1000, int(self.rate * seconds))
        said = self.said_by("h2load", [
            self.tools["h2load"], f"-c{scenario.connections}", "-m8", f"-n{count}", self.url(scenario),
        ])
        took = re.search(r"finished in ([\d.]+)(ms|s|us), ([\d.]+) req/s", said)
        counted = re.search(r"(\d+) succeeded, 0 failed, 0 errored, 0 timeout", said)
        good = re.search(r"status codes: (\d+) 2xx", said)
        came = re.search(r"\((\d+)\) data", said)
        wanted = ("Application protocol: h2", "TLS Protocol: TLSv1.3")
        if not took or not counted or not good or {int(counted[1]), int(good[1])} != {count}:
            raise Failure(f"h2load saw failed requests: {counted and counted[0]}, {good and good[0]}")
        if not came or int(came[1]) != count * scenario.size:
            raise Failure(f"{came and came[1]} bytes came in {count} answers")
        if not all(word in said for word in wanted):
            raise Failure(f"h2load did not get {' and '.join(wanted)}")
        self.rate = float(took[3])
        return Work(count, count / self.rate, count)

    def order(self, scenario, seconds):
        """The argument of clients.py."""
        return json.dumps({
            "port": self.port, "path": scenario.path, "tls": scenario.tls, "size": scenario.size,
            "connections": scenario.connections, "seconds": seconds, "names": scenario.names,
            "client": [str(self.folder / name) for name in ("client.pem", "client.key")] if scenario.clients else None,
            "preamble": scenario.preamble,
        })

    def client(self, scenario, seconds):
        command = [sys.executable, "-B", HERE / "clients.py", scenario.load, self.order(scenario, seconds)]
        if scenario.load == "kem":
            if "openssl-python" not in self.tools:
                raise Failure("no client speaks ML-KEM: pyOpenSSL is not installed")
            settings = self.folder / f"{scenario.groups}.cnf"
            settings.write_text(GROUPS.format(groups=scenario.groups))
            command = [
                "env", f"OPENSSL_CONF={settings}", self.tools["openssl-python"], "-B", HERE / "kem.py", scenario.groups,
                self.order(scenario, seconds),
            ]
        said = json.loads(self.said_by("clients.py", command))
        answered = scenario.connections if scenario.load == "websocket" else said["requests"]
        return Work(said["requests"], said["seconds"], answered)
