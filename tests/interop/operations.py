#!/usr/bin/env python3
"""What operators point at the gateway: promtool and a real Prometheus, the parsers of PyPI's prometheus_client, the alert rules
and the dashboard that are shipped.

    tests/interop/operations.py --gateway target/debug/portcullis --venv /tmp/venv

promtool and prometheus are Debian's package `prometheus`. Exits 1 if a check failed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.dont_write_bytecode = True
from harness import Checks, Child, expect, free_port, limit_run, make_venv, wait_until  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "packaging/prometheus/alerts.yaml"
DASHBOARD = ROOT / "packaging/grafana/portcullis.json"
PAGE = ROOT / "docs/reference/metrics.md"
TOKEN = "a-token-that-may-change-what-there-is"
READS = "a-token-that-may-only-read-what-there-is"
NAME = re.compile(r"\b((?:portcullis|process)_[a-z_]+)")
SUFFIXES = ("_bucket", "_count", "_sum")

# Both parsers on what both formats say: every sample of the one is in the other, histograms are cumulative.
PARSE = r"""
import json, sys
from prometheus_client.parser import text_string_to_metric_families as prometheus
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
def samples(parse, text):
    found = {}
    for family in parse(text):
        for sample in family.samples:
            # One format writes a bound as 1, the other as 1.0.
            labels = {name: str(float(value)) if name == "le" else value for name, value in sample.labels.items()}
            key = (sample.name, tuple(sorted(labels.items())))
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return found
plain, opened = (open(path).read() for path in sys.argv[1:3])
plain, opened = samples(prometheus, plain), samples(openmetrics, opened)
assert set(plain) == set(opened), sorted(set(plain) ^ set(opened))[:5]
buckets = {}
for (name, labels), value in plain.items():
    if name.endswith("_bucket"):
        rest = tuple(it for it in labels if it[0] != "le")
        buckets.setdefault((name, rest), []).append((float(dict(labels)["le"]), value))
for (name, rest), all in buckets.items():
    counts = [value for _, value in sorted(all)]
    assert counts == sorted(counts), name
    assert counts[-1] == plain[(name.removesuffix("_bucket") + "_count", rest)], name
assert any(('route', 'od"d\\name') in labels for _, labels in plain), "a name with a quotation mark"
print(json.dumps({"samples": len(plain), "names": sorted({name for name, _ in plain})}))
"""


# The public key of RFC 7515, appendix A.3.
KEYS = json.dumps({"keys": [{
    "kty": "EC", "crv": "P-256", "kid": "k1", "alg": "ES256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}).encode()


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = KEYS if self.path == "/keys" else b"a text that is long enough to be compressed. " * 60
        self.send_response(503 if self.path.endswith("/broken") else 200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Story:
    def __init__(self, gateway: Path, folder: Path, python: Path):
        self.gateway, self.folder, self.python = gateway, folder, python
        self.port, self.tls, self.admin = free_port(), free_port(), free_port()
        self.app = ThreadingHTTPServer(("127.0.0.1", 0), App)
        threading.Thread(target=self.app.serve_forever, daemon=True).start()
        self.run("cert", "local", "localhost", "127.0.0.1")
        self.issuer = free_port()
        (folder / "gateway.yaml").write_text(f"""workers: 2
listeners:
  - address: 127.0.0.1:{self.port}
  - address: 127.0.0.1:{self.tls}
    tls: {{certificates: [{{cert: certs/localhost.pem, key: certs/localhost.key}}]}}
admin: {{address: '127.0.0.1:{self.admin}', token: {TOKEN}, read_token: {READS}}}
jwt:
  app: {{algorithms: [HS256], secret: a-secret-that-is-long-enough-for-hs256-tokens}}
  far: {{jwks: 'http://127.0.0.1:{self.app.server_port}/keys', audience: any}}
upstreams:
  shop:
    servers: ['http://127.0.0.1:{self.app.server_port}']
    retries: {{on: [connect_failure, 503], attempts: 1}}
  gone: {{servers: ['http://127.0.0.1:{self.issuer}'], retries: {{hold: 50ms}}}}
routes:
  - {{path: /*, respond: {{body: hello}}, auth: none}}
  - {{name: 'od"d\\name', path: /odd, respond: {{body: odd}}, auth: none}}
  - {{path: /app/*, proxy: shop, auth: none, compress: true}}
  - {{path: /gone/*, proxy: gone, auth: none}}
  - {{path: /api/*, proxy: shop, auth: app}}
  - {{path: /shadow, respond: {{body: x}}, auth: {{jwt: app, enforce: report}}}}
  - {{path: /few, respond: {{body: x}}, auth: none, rate_limit: {{name: few, rate: 1/h}}, in_flight: {{name: some, max: 5}}}}
log: {{access: {{to: access.log, format: json}}}}
""")
        self.child: Child | None = None

    def run(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run([self.gateway, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=60)
        expect(done.returncode == code, f"{arguments}: {done.returncode} {done.stdout}{done.stderr}")
        return done.stdout

    def start(self) -> None:
        self.child = Child("gateway", [str(self.gateway), "run"], self.folder, self.folder)
        wait_until(lambda: self.ask("/healthz", None)[0] == 200, 20, "the admin listener to answer")

    def ask(self, path: str, token: str | None, accept: str = "", method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", method=method)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        if accept:
            request.add_header("Accept", accept)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def get(self, path: str, **fields: str) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=fields)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                answer.read()
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def traffic(self) -> str:
        codes = [self.get(path) for path in ("/", "/odd", "/app/x", "/app/broken", "/gone/x", "/api/x", "/shadow", "/few", "/few")]
        expect(codes == [200, 200, 200, 503, 502, 401, 200, 200, 429], str(codes))
        expect(self.get("/app/x", **{"Accept-Encoding": "gzip"}) == 200, "compressed")
        expect(self.get("/api/x", Authorization="Bearer nonsense") == 401, "a token that is none")
        expect(self.get("/far", Authorization="Bearer nonsense") == 200, "an open route")
        done = subprocess.run(["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", f"https://localhost:{self.tls}/"],
                              capture_output=True, text=True, timeout=20)
        expect(done.stdout == "200", done.stdout)
        return f"{len(codes) + 4} requests"

    def scrape(self) -> tuple[str, str]:
        status, plain = self.ask("/metrics", READS)
        expect(status == 200, plain)
        _, opened = self.ask("/metrics", READS, "application/openmetrics-text;version=1.0.0")
        (self.folder / "plain.txt").write_text(plain)
        (self.folder / "opened.txt").write_text(opened)
        return plain, opened

    def promtool(self) -> str:
        plain, _ = self.scrape()
        done = subprocess.run(["promtool", "check", "metrics"], input=plain, capture_output=True, text=True, timeout=30)
        expect(done.returncode == 0 and not done.stderr.strip(), done.stdout + done.stderr)
        return f"{len(plain)} bytes"

    def parsers(self) -> str:
        self.scrape()
        done = subprocess.run([self.python, "-c", PARSE, self.folder / "plain.txt", self.folder / "opened.txt"],
                              capture_output=True, text=True, timeout=60)
        expect(done.returncode == 0, done.stdout + done.stderr)
        told = json.loads(done.stdout)
        self.names = set(told["names"])
        return f"{told['samples']} samples in both"

    def documented(self) -> str:
        """What is told is in the reference, and the other way round, but for what cannot happen in this story."""
        documented = set(re.findall(r"`((?:portcullis|process)_[a-z_]+)`", PAGE.read_text()))
        told = {name for name in self.names if not name.endswith(SUFFIXES)}
        told |= {name.removesuffix("_count") for name in self.names if name.endswith("_count")}
        told -= {name for name in told if name.endswith("_created")}
        expect(told <= documented, f"not in the reference: {sorted(told - documented)}")
        # An order of a certificate needs a directory, a refused connection a flood, a login users.
        elsewhere = {"portcullis_acme_orders_total", "portcullis_connections_refused_total",
                     "portcullis_token_logins_total", "portcullis_token_refreshes_total"}
        expect(documented - told <= elsewhere, f"never told: {sorted(documented - told - elsewhere)}")
        for shipped in (ALERTS, DASHBOARD):
            names = set(NAME.findall(shipped.read_text()))
            names = {name for name in names if name not in ("portcullis_up",)}
            unknown = {name for name in names if name not in self.names and name not in elsewhere}
            expect(not unknown, f"{shipped.name} names what is not told: {sorted(unknown)}")
        return f"{len(documented)} names"

    def rules(self) -> str:
        for arguments in (["check", "rules", str(ALERTS)], ["test", "rules", str(ALERTS.with_name("alerts.test.yaml"))]):
            done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, cwd=ALERTS.parent)
            expect(done.returncode == 0, done.stdout + done.stderr)
        rules = set(re.findall(r"- alert: (\w+)", ALERTS.read_text()))
        tested = set(re.findall(r"alertname: (\w+)", ALERTS.with_name("alerts.test.yaml").read_text()))
        expect(rules == tested, f"rules without a test: {rules - tested}")
        return f"{len(rules)} rules"

    def prometheus(self) -> str:
        """A real Prometheus scrapes with the token that may read, and answers every query of the dashboard."""
        port = free_port()
        (self.folder / "read-token").write_text(READS)
        (self.folder / "prometheus.yml").write_text(f"""global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ['{ALERTS}']
scrape_configs:
  - job_name: portcullis
    authorization: {{credentials_file: {self.folder / 'read-token'}}}
    static_configs: [{{targets: ['127.0.0.1:{self.admin}']}}]
""")
        child = Child("prometheus", ["prometheus", f"--config.file={self.folder / 'prometheus.yml'}",
                                     f"--storage.tsdb.path={self.folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}",
                                     "--log.level=warn"], self.folder, self.folder)

        def query(expression: str):
            url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]["result"]

        try:
            wait_until(lambda: query("portcullis_build_info"), 20, "Prometheus to scrape")
            expect(query('up{job="portcullis"}')[0]["value"][1] == "1", "up")
            wait_until(lambda: len(query("count_over_time(portcullis_build_info[1m]) > 3")) == 1, 20, "four scrapes")
            asked = 0
            for panel in json.loads(DASHBOARD.read_text())["panels"]:
                for target in panel.get("targets", ()):
                    expression = target["expr"].replace("$instance", ".*").replace("$route", ".*").replace("$__rate_interval", "1m")
                    query(expression)
                    asked += 1
            value = query('sum(portcullis_requests_total{route="/few"})')[0]["value"][1]
            expect(value == "2", f"requests of /few: {value}")
            return f"{asked} queries of the dashboard"
        except Exception:
            print(child.tail(), flush=True)
            raise
        finally:
            child.stop()

    def sum_of_lines(self) -> str:
        time.sleep(0.5)
        lines = len((self.folder / "access.log").read_text().splitlines())
        plain, _ = self.scrape()
        counted = sum(float(line.rsplit(" ", 1)[1]) for line in plain.splitlines() if line.startswith("portcullis_requests_total{"))
        expect(counted == lines, f"{counted} requests counted, {lines} lines logged")
        return f"{lines} lines"

    def many_routes(self) -> str:
        """A thousand routes that had requests are scraped in no time."""
        routes = "".join(f"  - {{path: /r/{number}, respond: {{body: x}}, auth: none}}\n" for number in range(1000))
        text = (self.folder / "gateway.yaml").read_text()
        (self.folder / "gateway.yaml").write_text(text.replace("log: {access", routes + "log: {access"))
        status, said = self.ask("/reload", TOKEN, method="POST")
        expect(status in (200, 409), said)
        wait_until(lambda: self.get("/r/999") == 200, 20, "the new routes")
        import http.client
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        for number in range(1000):
            connection.request("GET", f"/r/{number}")
            connection.getresponse().read()
        took = []
        for _ in range(5):
            began = time.monotonic()
            plain, = self.ask("/metrics", READS)[1:]
            took.append(time.monotonic() - began)
        expect(plain.count("portcullis_request_duration_seconds_count") == 1000 + 2, "the first thousand, (none) and (other)")
        expect('route="(other)"' in plain, "the others are together")
        return f"{min(took) * 1000:.0f} ms, {len(plain) // 1024} KiB"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gateway", type=Path, required=True)
    parser.add_argument("--venv", type=Path, required=True)
    parser.add_argument("--only")
    arguments = parser.parse_args()
    limit_run(120)
    python = make_venv(arguments.venv.resolve(), Path(__file__).with_name("operations-requirements.txt"))
    for tool in ("promtool", "prometheus", "curl"):
        expect(shutil.which(tool), f"{tool} is missing: Debian's package prometheus")
    checks = Checks(arguments.only)
    with tempfile.TemporaryDirectory(prefix="portcullis-operations-") as folder:
        story = Story(arguments.gateway.resolve(), Path(folder), python)
        try:
            checks.run("the admin listener answers", story.start, always=True)
            checks.run("requests of all kinds", story.traffic, always=True)
            checks.run("promtool accepts the metrics", story.promtool)
            checks.run("prometheus_client reads both formats", story.parsers, always=True)
            checks.run("the reference, the rules and the dashboard name what is told", story.documented)
            checks.run("promtool accepts and tests the alert rules", story.rules)
            checks.run("Prometheus scrapes, and answers the dashboard", story.prometheus)
            checks.run("requests counted are lines logged", story.sum_of_lines)
            checks.run("a thousand routes are scraped quickly", story.many_routes)
            if checks.failed and story.child:
                print(story.child.tail(), flush=True)
        finally:
            if story.child:
                story.child.stop()
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
