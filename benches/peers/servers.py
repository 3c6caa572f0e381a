"""The servers' configurations, the checks before a measurement, and one measurement.

Which server is measured when, and how the figures are shown, is run.py's part.
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field

from system import Failure, LogSink, children_of, count_lines, cpu_between, free_ports, snapshot, wait_for_port

PATHS = {"proxy": "/open/1k", "jwt": "/jwt/1k", "static": "/static/1k.txt"}
BODY = ("portcullis " * 100)[:1024]
SECRET = "0123456789abcdef0123456789abcdef-bench"


def token(expires_in=3600, secret=SECRET, algorithm="HS256"):
    """A JWT as an access token usually looks: about 250 bytes, seven claims."""
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    now = int(time.time())
    claims = {
        "sub": "user-0000007", "iss": "https://issuer.example", "aud": "bench", "iat": now - 60,
        "exp": now + expires_in, "jti": "7c3fd2a0d3f14b6e", "token_type": "access",
    }
    head = part(json.dumps({"alg": algorithm, "typ": "JWT"}, separators=(",", ":")).encode())
    signed = head + b"." + part(json.dumps(claims, separators=(",", ":")).encode())
    signature = b"" if algorithm == "none" else hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + part(signature)).decode()


def get(port, path, bearer=None):
    """(status, body) of one GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {bearer}"} if bearer else {})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()


def expect(line, what, found, wanted):
    if found != wanted:
        raise Failure(f"{line.name}: {what}: expected {wanted!r}, found {found!r}; nothing is measured")


def verify(line, case, port):
    """Refuses to measure a server that does not do the work it is measured for."""
    path = PATHS[case]
    good = token() if case == "jwt" else None
    expect(line, f"GET {path}", get(port, path, good), (200, BODY))
    if case in ("proxy", "jwt"):
        status, forwarded = get(port, path.rsplit("/", 1)[0] + "/xff", good)
        expect(line, "X-Forwarded-For at the origin", (status, forwarded), (200, "127.0.0.1"))
    if case == "jwt":
        head, claims, signature = good.split(".")
        flipped = signature[:5] + ("A" if signature[5] != "A" else "B") + signature[6:]
        bad = {
            "no token": None,
            "a changed signature": f"{head}.{claims}.{flipped}",
            "another secret": token(secret=SECRET[::-1]),
            "an expired token": token(expires_in=-3600),
            "alg none": token(algorithm="none"),
        }
        for what, bearer in bad.items():
            expect(line, f"status with {what}", get(port, path, bearer)[0], 401)


@dataclass
class Line:
    """One line of a table: a server with one configuration."""

    name: str
    server: str
    options: dict = field(default_factory=dict)


def lines_of(case, have):
    """The lines of a case, of the servers that are there."""
    lines = [Line("portcullis", "portcullis")]
    if case == "proxy":
        lines.append(Line("nginx", "nginx"))
    if case == "static":
        for name, options in (
            ("nginx, sendfile on", {"sendfile": True, "cache": False}),
            ("nginx, sendfile off", {"sendfile": False, "cache": False}),
            ("nginx, sendfile on, open_file_cache", {"sendfile": True, "cache": True}),
            ("nginx, sendfile off, open_file_cache", {"sendfile": False, "cache": True}),
        ):
            lines.append(Line(name, "nginx", options))
    if case in ("proxy", "jwt"):
        lines.append(Line("haproxy", "haproxy"))
    return [line for line in lines if line.server in have]


class Bench:
    """The temporary folder, the origin and the means to start each server."""

    def __init__(self, options, folder, processes, tools):
        self.options, self.folder, self.processes, self.tools = options, folder, processes, tools
        self.origin_port, self.port = free_ports(2)
        self.static = folder / "www" / "static"
        self.static.mkdir(parents=True)
        (self.static / "1k.txt").write_text(BODY)
        self.log = folder / "access.log"
        self.sink = LogSink(self.log)

    def nginx_config(self, name, http):
        """An nginx.conf that touches nothing outside the temporary folder."""
        temp = " ".join(
            f"{kind}_temp_path {self.folder}/{name}-{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        path = self.folder / f"{name}.conf"
        path.write_text(
            f"{user}\ndaemon off;\nworker_processes 1;\npid {self.folder}/{name}.pid;\n"
            f"error_log {self.folder}/{name}.error.log warn;\nworker_rlimit_nofile 65536;\n"
            f"events {{ worker_connections 16384; }}\n"
            f"http {{\n{temp}\ntypes {{ text/plain txt; }}\ndefault_type text/plain;\n"
            f"keepalive_requests 100000000;\nkeepalive_timeout 1h;\n{http}\n}}\n"
        )
        return [self.tools["nginx"], "-c", path, "-p", self.folder, "-e", self.folder / f"{name}.error.log"]

    def start_origin(self):
        command = self.nginx_config(
            "origin",
            "access_log off;\n"
            f"server {{ listen 127.0.0.1:{self.origin_port};\n"
            f'location / {{ return 200 "{BODY}"; }}\n'
            'location = /open/xff { return 200 "$http_x_forwarded_for"; }\n'
            'location = /jwt/xff { return 200 "$http_x_forwarded_for"; }\n}',
        )
        wait_for_port(self.processes.start("origin", command, self.options.load_cpu), self.origin_port)

    def nginx(self, sendfile=True, cache=False):
        on_off = "sendfile on; tcp_nopush on;" if sendfile else "sendfile off;"
        cached = "open_file_cache max=1000 inactive=1h; open_file_cache_valid 60s;" if cache else ""
        return self.nginx_config(
            "nginx",
            f"access_log {self.log} combined buffer=32k;\n{on_off} {cached}\n"
            f"upstream app {{ server 127.0.0.1:{self.origin_port};"
            " keepalive 64; keepalive_requests 100000000; keepalive_time 1h; keepalive_timeout 1h; }\n"
            f"server {{ listen 127.0.0.1:{self.port};\n"
            "location /open/ { proxy_pass http://app; proxy_http_version 1.1;"
            ' proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }\n'
            f"location /static/ {{ root {self.folder}/www; }}\n}}",
        )

    def haproxy(self):
        path = self.folder / "haproxy.cfg"
        # The algorithm is a constant: cheaper than comparing the token's `alg`, and as safe, as the
        # signature is then always checked as HS256. A token without `exp` is refused: no number, no match.
        path.write_text(f"""
global
    nbthread 1
    maxconn 4096
    log ring@access format raw local0
ring access
    format raw
    maxlen 2048
    size 4194304
    timeout connect 5s
    timeout server 1h
    server sink 127.0.0.1:{self.sink.port}
defaults
    mode http
    log global
    option httplog
    option forwardfor
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend bench
    bind 127.0.0.1:{self.port}
    acl guarded path_beg /jwt/
    http-request set-var(txn.token) http_auth_bearer if guarded
    http-request return status 401 if guarded !{{ var(txn.token),jwt_verify("HS256","{SECRET}") -m int 1 }}
    http-request set-var(txn.now) date() if guarded
    http-request set-var(txn.left) var(txn.token),jwt_payload_query('$.exp','int'),sub(txn.now) if guarded
    http-request return status 401 if guarded !{{ var(txn.left) -m int gt 0 }}
    default_backend app
backend app
    server app 127.0.0.1:{self.origin_port}
""")
        return [self.tools["haproxy"], "-db", "-f", path]

    def portcullis(self):
        path = self.folder / "gateway.yaml"
        path.write_text(f"""
workers: 1
listeners: [{{address: "127.0.0.1:{self.port}"}}]
jwt: {{bench: {{algorithms: [HS256], audience: any, secret: "{SECRET}"}}}}
upstreams: {{app: {{servers: ["http://127.0.0.1:{self.origin_port}"]}}}}
routes:
  - {{path: /open/*, proxy: app, auth: none}}
  - {{path: /jwt/*, proxy: app, auth: bench}}
  - {{path: /static/*, static: {{root: "{self.static}"}}, auth: none}}
log: {{level: warn, access: {{to: "{self.log}", format: json}}}}
""")
        return [self.tools["portcullis"], "run", "-c", path]

    def start(self, line):
        """(the process, the id of the one that serves)."""
        self.log.unlink(missing_ok=True)
        command = getattr(self, line.server)(**line.options)
        process = self.processes.start(line.server, command, self.options.cpu)
        wait_for_port(process, self.port)
        if line.server != "nginx":
            return process, process.pid
        workers = children_of(process.pid)
        if len(workers) != 1:
            raise Failure(f"nginx has {len(workers)} workers instead of 1")
        return process, workers[0]

    def load(self, case, seconds):
        """Runs wrk; gives (requests, requests a second)."""
        command = [
            self.tools["wrk"], "-t1", f"-c{self.options.connections}", f"-d{seconds}s",
            f"http://127.0.0.1:{self.port}{PATHS[case]}",
        ]
        if case == "jwt":
            command += ["-H", f"Authorization: Bearer {self.token}"]
        process = self.processes.start("wrk", command, self.options.load_cpu, subprocess.PIPE)
        said = process.communicate()[0].decode(errors="replace")
        self.processes.running.remove(process)
        count = re.search(r"(\d+) requests in", said)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
        bad = re.search(r"(Non-2xx|Socket errors).*", said)
        if process.returncode != 0 or not count or not rate or bad or int(count[1]) == 0:
            raise Failure(f"wrk failed or saw failed requests:\n{said}")
        return int(count[1]), float(rate[1])

    def measure(self, case, line):
        """One fresh process: checks, warm-up, measured load, and a look at its access log."""
        self.token = token()
        process, pid = self.start(line)
        verify(line, case, self.port)
        warm, _ = self.load(case, self.options.warmup)
        before = snapshot(pid)
        requests, rate = self.load(case, self.options.seconds)
        after = snapshot(pid)
        seconds, user, waiting, exact = cpu_between(before, after)
        self.check_log(line, process, warm + requests)
        per_request = seconds / requests * 1e6
        return {
            "us": per_request, "user": per_request * user, "kernel": per_request * (1 - user),
            "rate": rate, "busy": seconds / self.options.seconds,
            "waiting": waiting / self.options.seconds, "exact": exact,
        }

    def check_log(self, line, process, requests):
        """Stops the server, and fails unless it logged what it served (1 % may be lost on the way)."""
        if line.server == "haproxy":
            limit = time.monotonic() + 3
            while count_lines(self.log) < requests and time.monotonic() < limit:
                time.sleep(0.1)
        self.processes.stop(process)
        logged = count_lines(self.log)
        if logged < 0.99 * requests:
            raise Failure(f"{line.name}: {logged} lines in the access log for {requests} requests")
        self.log.unlink()

    def profile(self, case):
        """Samples Portcullis under load with perf and prints the top of the report."""
        if "portcullis" not in self.tools or not shutil.which("perf"):
            raise Failure("--perf needs perf and the gateway")
        self.token = token()
        line = Line("portcullis", "portcullis")
        process, pid = self.start(line)
        verify(line, case, self.port)
        self.load(case, self.options.warmup)
        data = self.folder / "perf.data"
        perf = self.processes.start("perf", [
            "perf", "record", "-g", "-e", "cpu-clock", "-F", "999", "-o", data, "-p", pid,
            "--", "sleep", self.options.seconds,
        ], self.options.load_cpu)
        self.load(case, self.options.seconds + 1)
        perf.wait()
        self.processes.running.remove(perf)
        self.processes.stop(process)
        self.log.unlink(missing_ok=True)
        for title, flags in (("self", ["--no-children"]), ("with callees", ["--children"])):
            done = subprocess.run(
                ["perf", "report", "--stdio", "-g", "none", "--percent-limit", "0.3", *flags, "-i", data],
                capture_output=True, text=True,
            )
            rows = [row.rstrip() for row in done.stdout.splitlines() if row.strip() and row[0] != "#"]
            print(f"\n## perf, {case}, {title}\n")
            print("\n".join(rows[:45]) or done.stderr)
