"""Sets up the measurement, checks that a server does the work it is measured for, and measures it.

scenarios.py defines what is measured, run.py the order.
"""

import http.client
import importlib
import shutil
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import replace

import certificates
import configs.nginx
from clients import PREAMBLE, PREAMBLE_CLIENT
from configs import Site
from load import HERE, Loads
from measures import MEASURES, cpu
from system import Failure, LogSink, children_of, count_lines, free_ports, wait_for_port
from tokens import hs256, signed_by

PIECE = b"portcullis "
SIZES = {"1k.txt": 1024, "16k.txt": 16384, "100m.txt": 100 << 20}


def body(size):
    return (PIECE * (size // len(PIECE) + 1))[:size]


def get(site, scenario, path, bearer=None, certified=True):
    """(status, body) of one GET; over TLS it must be version 1.3. It shows a client certificate where the scenario has
    one, unless it is not to be `certified`."""
    if scenario.tls:
        context = ssl._create_unverified_context()
        if scenario.clients and certified:
            context.load_cert_chain(site.client_certificate, site.client_key)
        connection = http.client.HTTPSConnection("127.0.0.1", site.port, timeout=10, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    try:
        if scenario.preamble:
            connection.connect()
            connection.sock.sendall(PREAMBLE)
        connection.request("GET", path, headers={"Authorization": f"Bearer {bearer}"} if bearer else {})
        if scenario.tls and connection.sock.version() != "TLSv1.3":
            raise Failure(f"{connection.sock.version()} instead of TLSv1.3")
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as problem:
        raise Failure(f"GET {path}: {problem!r}") from problem
    finally:
        connection.close()


def is_own_address(text):
    """Whether the address is local. Envoy reports another local address for a client on loopback."""
    with socket.socket() as probe:
        try:
            probe.bind((text, 0))
        except OSError:
            return False
    return bool(text)


def wait_until_ready(site, scenario):
    """Waits for the routes: some servers listen before they have loaded them."""
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        try:
            if get(site, scenario, "/open/xff")[0] != 404:
                return
        except Failure:
            pass
        time.sleep(0.05)


def expect(what, found, wanted):
    if found != wanted:
        raise Failure(f"{what}: expected {str(wanted)[:80]}, found {str(found)[:200]}")


def lets_anybody_in(site, scenario):
    """Whether a client without a certificate gets an answer of the app."""
    try:
        return get(site, scenario, scenario.path, certified=False)[0] == 200
    except Failure:
        return False


def verify(site, scenario):
    """Refuses to measure a server that does not do the expected work."""
    if scenario.clients:
        expect("a client without a certificate is let in", lets_anybody_in(site, scenario), False)
    tokens = site.tokens
    good = tokens.good[0] if scenario.algorithm else None
    if scenario.load not in ("put", "websocket"):
        expect(f"GET {scenario.path}", get(site, scenario, scenario.path, good), (200, body(scenario.size)))
    if scenario.path.startswith(("/open/", "/jwt/")) and scenario.load != "websocket":
        path = scenario.path.rsplit("/", 1)[0] + "/xff"
        status, forwarded = get(site, scenario, path, good)
        if status != 200 or not is_own_address(forwarded.decode()):
            raise Failure(f"X-Forwarded-For at the origin: {status} {forwarded[:100]}")
        if scenario.preamble:
            expect("X-Forwarded-For at the origin", forwarded.decode(), PREAMBLE_CLIENT)
    if scenario.algorithm:
        for one in tokens.good[::1000]:
            expect("status with a good token", get(site, scenario, scenario.path, one)[0], 200)
        for what, bearer in tokens.bad.items():
            expect(f"status with {what}", get(site, scenario, scenario.path, bearer)[0], 401)


class Bench:
    """The temporary directory, the origins and the means to start each server and each load."""

    def __init__(self, options, folder, processes, tools, scenarios):
        self.options, self.folder, self.processes, self.tools = options, folder, processes, tools
        port, self.origin_port, self.sink_port, self.echo_port = free_ports(4)
        self.log = folder / "access.log"
        self.sink = LogSink(self.log)
        self.site = Site(
            folder=folder, tools=tools, port=port, backends=[], log=self.log, log_port=self.sink.port,
            certificate=folder / "bench.pem", key=folder / "bench.key",
        )
        self.loads = Loads(tools, processes, options.load_cpu, folder, port)
        self.tokens = {None: None}
        self.make_files({scenario.path.rpartition("/")[2] for scenario in scenarios})
        if any(scenario.tls for scenario in scenarios):
            certificates.own(self.folder)
        if any(scenario.clients for scenario in scenarios):
            certificates.client(self.folder)
        names = max((line.change.get("names", 0) for one in scenarios for line in one.lines), default=0)
        if names:
            self.make_names(names)
        for algorithm in {scenario.algorithm for scenario in scenarios} - {None}:
            many = max(scenario.tokens for scenario in scenarios if scenario.algorithm == algorithm)
            self.make_tokens(algorithm, many)

    def make_files(self, names):
        folder = self.site.www / "static"
        folder.mkdir(parents=True)
        for name, size in SIZES.items():
            if name in names:
                (folder / name).write_bytes(body(size))

    def make_names(self, count):
        """Creates as many certificates, each with a name and a key of its own."""
        (self.folder / "names").mkdir()
        if "python" not in self.tools:
            raise Failure("nothing makes certificates: PyCA's cryptography is not installed")
        command = [self.tools["python"], HERE / "names.py", self.folder / "names", str(count)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"names.py failed:\n{done.stderr}")

    def make_tokens(self, algorithm, many):
        """Creates tokens; those that need PyCA's cryptography are skipped where it is missing."""
        if algorithm == "HS256":
            self.tokens[algorithm] = hs256()
        elif "python" in self.tools:
            self.tokens[algorithm] = signed_by(self.tools["python"], self.folder, algorithm, many)

    def start_origins(self, scenarios):
        """Starts nginx for requests, and the parts of origins.py that the scenarios need."""
        many = max((line.change.get("servers", 1) for one in scenarios for line in one.lines), default=1)
        bodies = {"": body(1024).decode(), "/open/128": body(128).decode()}
        command = configs.nginx.origin(self.site, self.addresses(many), bodies)
        wait_for_port(self.processes.start("origin", command, self.options.load_cpu), self.origin_port)
        for kind, load, port in (("sink", "put", self.sink_port), ("echo", "websocket", self.echo_port)):
            if any(scenario.load == load for scenario in scenarios):
                command = [sys.executable, "-B", HERE / "origins.py", kind, port]
                wait_for_port(self.processes.start(kind, command, self.options.load_cpu), port)

    def addresses(self, count):
        """127.0.0.1 and, for many upstream servers, other loopback addresses; all reach the one origin."""
        return [f"127.0.{number // 250}.{number % 250 + 1}:{self.origin_port}" for number in range(count)]

    def prepared(self, scenario):
        """The scenario with its number of connections, and the site set up for it."""
        port = {"put": self.sink_port, "websocket": self.echo_port}.get(scenario.load)
        self.site.backends = [f"127.0.0.1:{port}"] if port else self.addresses(scenario.servers)
        self.site.tokens = self.tokens.get(scenario.algorithm)
        if scenario.algorithm and not self.site.tokens:
            raise Failure(f"nothing signs {scenario.algorithm} tokens: PyCA's cryptography is not installed")
        return replace(scenario, connections=scenario.connections or self.options.connections)

    def start(self, scenario, line):
        """(the process, the id of the process that serves)."""
        self.log.unlink(missing_ok=True)
        module = importlib.import_module("configs." + line.server.replace("-", "_"))
        command = module.command(self.site, scenario, **line.options)
        cpus = self.options.cpu if scenario.workers == 1 else f"{self.options.cpu},{self.options.load_cpu}"
        begun = time.monotonic()
        process = self.processes.start(line.server, command, cpus)
        try:
            wait_for_port(process, self.site.port)
            process.listens_after = time.monotonic() - begun
            wait_until_ready(self.site, scenario)
            if not line.server.startswith("nginx"):
                return process, process.pid
            workers = children_of(process.pid)
            if len(workers) != 1:
                raise Failure(f"nginx has {len(workers)} workers instead of 1")
            return process, workers[0]
        except Failure:
            self.processes.stop(process)
            raise

    def measure(self, scenario, line):
        """One run of a fresh process: checks, warm-up, measured load, and a check of its access log."""
        scenario = self.prepared(scenario.for_line(line))
        process, pid = self.start(scenario, line)
        try:
            verify(self.site, scenario)
            measured = MEASURES.get(scenario.load, cpu)
            result, answered = measured(self, scenario, process, pid)
            self.check_log(line, process, answered)
        finally:
            if process in self.processes.running:
                self.processes.stop(process)
        return result

    def check_log(self, line, process, requests):
        """Stops the server, and fails unless it logged its requests (up to 1 % may be lost).
        HAProxy writes its log asynchronously, and does not flush it when stopped."""
        if line.server == "haproxy":
            limit = time.monotonic() + 3
            while count_lines(self.log) < requests and time.monotonic() < limit:
                time.sleep(0.1)
        self.processes.stop(process)
        logged = count_lines(self.log)
        if logged < 0.99 * requests:
            raise Failure(f"{logged} lines in the access log for {requests} requests")
        self.log.unlink()

    def profile(self, scenario):
        """Samples Portcullis under load with perf and prints the top of the report."""
        if "portcullis" not in self.tools or not shutil.which("perf"):
            raise Failure("--perf needs perf and the gateway")
        line = scenario.lines[0]
        scenario = self.prepared(scenario.for_line(line))
        process, pid = self.start(scenario, line)
        verify(self.site, scenario)
        self.loads(scenario, self.site.tokens, self.options.warmup, warm=True)
        data = self.folder / "perf.data"
        perf = self.processes.start("perf", [
            "perf", "record", "-g", "-e", "cpu-clock", "-F", "999", "-o", data, "-p", pid,
            "--", "sleep", self.options.seconds,
        ], self.options.load_cpu)
        self.loads(scenario, self.site.tokens, self.options.seconds + 1)
        perf.wait()
        self.processes.running.remove(perf)
        self.processes.stop(process)
        for title, flags in (("self", ["--no-children"]), ("with callees", ["--children"])):
            done = subprocess.run(
                ["perf", "report", "--stdio", "-g", "none", "--percent-limit", "0.3", *flags, "-i", data],
                capture_output=True, text=True,
            )
            rows = [row.rstrip() for row in done.stdout.splitlines() if row.strip() and row[0] != "#"]
            print(f"\n## perf, {scenario.name}, {title}\n")
            print("\n".join(rows[:45]) or done.stderr)
