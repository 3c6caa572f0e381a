#!/usr/bin/env python3
"""Real programs behind Portcullis, each with its own clients: what they see through the gateway is what they see without it.

    tests/interop/apps.py [--gateway BINARY] [--venv FOLDER] [--tools FOLDER] [--only WORDS]

verdaccio with npm (a scoped package of 12 MB is published and installed), moto with boto3 (keys that a gateway that tidies
paths would make one), FastAPI under uvicorn with http.client (POSTs that are answered before they were read), Jupyter with a
kernel over its WebSocket, pypiserver with twine and pip (the token is the password of Basic). Each story runs straight at
the program, through a plain listener, and through TLS; where the story has a client of HTTP/2, over that, too. The gateway is
in its default configuration. Installs its pinned packages in a venv and a folder (kept between runs), starts what it needs on
loopback, and prints a line a check. Exit status 1 where one failed. Standard library only beside the packages under test;
ends within ten minutes.
"""

from __future__ import annotations

import argparse
import base64
import concurrent.futures
import hashlib
import http.client
import json
import os
import random
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from harness import Checks, Child, Failed, TimeLimit, expect, free_port, limit_run, make_token, make_venv, wait_until

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent / "apps"
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
OVERALL_SECONDS = 600
SECRET = "a secret of the tests that is long enough"
PACKAGE_BYTES = 12_000_000

# An address of the loopback for each app: the Host that its clients send decides the route, as names do elsewhere.
HOSTS = {"verdaccio": "127.0.0.11", "moto": "127.0.0.12", "fastapi": "127.0.0.13", "jupyter": "127.0.0.14", "pypi": "127.0.0.15"}


@dataclass(frozen=True)
class Way:
    """How a client reaches the apps."""

    name: str
    # The gateway's port; none: straight.
    port: int | None = None
    ca: Path | None = None
    http2: bool = False


class Site:
    """All programs, and the gateway in front of them."""

    def __init__(self, folder: Path, gateway: Path, python: Path, modules: Path):
        self.folder = folder
        self.gateway_binary = gateway
        self.python = python
        self.modules = modules
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.ports = {name: free_port() for name in HOSTS}
        self.children: list[Child] = []
        self.ca = folder / "ca.pem"
        # What this machine says of authorities goes before a client's own option.
        others = {name: value for name, value in os.environ.items() if not name.endswith("_CA_BUNDLE") and not name.startswith("PIP_")}
        self.environment = {
            **others, "HOME": str(folder), "JUPYTER_RUNTIME_DIR": str(folder / "jupyter"), "npm_config_cache": str(folder / "npm"),
            "npm_config_update_notifier": "false", "npm_config_audit": "false", "npm_config_fund": "false",
            "PYTHONDONTWRITEBYTECODE": "1", "PIP_CONFIG_FILE": os.devnull,
        }

    def start(self) -> None:
        ports, host = self.ports, "127.0.0.1"
        (self.folder / "verdaccio.yaml").write_text(
            f"storage: {self.folder}/packages\nauth: {{htpasswd: {{file: {self.folder}/users, max_users: 10}}}}\nuplinks: {{}}\n"
            "packages: {'**': {access: $all, publish: $authenticated}}\nmax_body_size: 100mb\nlog: {type: stdout, level: warn}\n"
        )
        packages = self.folder / "wheels"
        notebooks = self.folder / "notebooks"
        packages.mkdir()
        notebooks.mkdir()
        bin = self.python.parent
        commands = {
            "verdaccio": ["node", str(self.modules / "verdaccio/bin/verdaccio"), "-c", str(self.folder / "verdaccio.yaml"),
                          "-l", f"http://{host}:{ports['verdaccio']}"],
            "moto": [str(bin / "moto_server"), "-H", host, "-p", str(ports["moto"])],
            "fastapi": [str(self.python), "-m", "uvicorn", "early:app", "--app-dir", str(HERE), "--host", host,
                        "--port", str(ports["fastapi"]), "--log-level", "warning"],
            "jupyter": [str(self.python), "-m", "jupyter_server", f"--ServerApp.ip={host}", f"--ServerApp.port={ports['jupyter']}",
                        "--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.disable_check_xsrf=True",
                        "--ServerApp.allow_remote_access=True", "--ServerApp.open_browser=False", "--allow-root",
                        f"--ServerApp.root_dir={notebooks}"],
            "pypi": [str(bin / "pypi-server"), "run", "-i", host, "-p", str(ports["pypi"]), "-P", ".", "-a", ".",
                     "--disable-fallback", str(packages)],
        }
        for name, command in commands.items():
            self.children.append(Child(name, command, self.folder, self.logs, self.environment))
        self.make_certificate()
        plain, secure = free_port(), free_port()
        listeners = ", ".join(
            f"{{address: '{host}:{plain}'}}, {{address: '{host}:{secure}', tls: {{certificates: [{{cert: cert.pem, key: key.pem}}]}}}}"
            for host in HOSTS.values()
        )
        # Only what these apps need is said: what is not said is the default.
        routes = "\n".join(
            f"  - {{host: {HOSTS[name]}, path: /*, proxy: '{f'http://127.0.0.1:{port}'}', "
            + ("auth: {jwt: pypi}}" if name == "pypi" else "auth: none, body_bytes: 100MiB}")
            for name, port in self.ports.items()
        )
        (self.folder / "gateway.yaml").write_text(
            f"listeners: [{listeners}]\njwt:\n  pypi: {{algorithms: [HS256], secret: {SECRET}, from: basic}}\nroutes:\n{routes}\n"
        )
        self.gateway = Child(
            "gateway", [str(self.gateway_binary), "run", "-c", "gateway.yaml"], self.folder, self.logs, self.environment,
        )
        self.children.append(self.gateway)
        self.ways = [Way("straight"), Way("plain", plain), Way("TLS", secure, self.ca)]
        self.http2 = Way("HTTP/2", secure, self.ca, True)
        for name, path in (("verdaccio", "/-/ping"), ("moto", "/"), ("fastapi", "/ready"), ("jupyter", "/api"), ("pypi", "/")):
            for way in self.ways[:2]:
                wait_until(lambda: self.answers(name, way, path), 90, f"{name} answers ({way.name})")

    def answers(self, name: str, way: Way, path: str) -> bool:
        for child in self.children:
            expect(child.running(), f"{child.name} ended with status {child.process.returncode}")
        host, port = (HOSTS[name], way.port) if way.port else ("127.0.0.1", self.ports[name])
        connection = http.client.HTTPConnection(host, port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().status in (200, 401)
        finally:
            connection.close()

    def make_certificate(self) -> None:
        """An authority of its own, for pip and npm believe no self-signed server; and a certificate for all addresses."""
        names = ",".join(f"IP:{host}" for host in HOSTS.values())
        (self.folder / "server.ext").write_text(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n")
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        for command in (
            ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=apps", "-days", "2",
             "-addext", "keyUsage=critical,keyCertSign"],
            ["req", *key, "-keyout", "key.pem", "-out", "server.csr", "-subj", "/CN=apps"],
            ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "cert.pem", "-days", "2",
             "-extfile", "server.ext"],
        ):
            subprocess.run(["openssl", *command], check=True, capture_output=True, cwd=self.folder)

    def url(self, name: str, way: Way) -> str:
        if way.port is None:
            return f"http://127.0.0.1:{self.ports[name]}"
        return f"{'https' if way.ca else 'http'}://{HOSTS[name]}:{way.port}"

    def client(self, story: str, name: str, way: Way, lines: str = "") -> object:
        """What a client of apps/clients.py saw."""
        command = [str(self.python), str(HERE / "clients.py"), story, self.url(name, way)]
        command += ["--ca", str(way.ca)] if way.ca else []
        command += ["--http2"] if way.http2 else []
        return json.loads(self.run(command, input=lines))

    def run(self, command: list[str], seconds: float = 180, cwd: Path | None = None, **more) -> str:
        """What a command prints; it must succeed."""
        environment = self.environment | more.pop("environment", {})
        done = subprocess.run(
            command, cwd=cwd or self.folder, env=environment, capture_output=True, text=True, timeout=seconds, **more,
        )
        said = (done.stderr or done.stdout)[-1500:]
        expect(done.returncode == 0, f"{Path(command[0]).name} {' '.join(command[1:4])}: exit {done.returncode}: {said}")
        return done.stdout

    def stop(self) -> None:
        for child in reversed(self.children):
            child.stop(5)


class Stories:
    """The checks. Each gives what is the same on every way, and `alike` compares."""

    def __init__(self, site: Site):
        self.site = site

    def alike(self, story, http2: bool = True) -> str:
        """Runs a story on every way; what it saw straight it has to see on each."""
        ways = [*self.site.ways, *([self.site.http2] if http2 else [])]
        seconds = []
        first = None
        for way in ways:
            begun = time.monotonic()
            try:
                seen = story(way)
            except Failed as failure:
                raise Failed(f"{way.name}: {failure}") from failure
            seconds.append(f"{way.name} {time.monotonic() - begun:.1f} s")
            first = first if first is not None else seen
            expect(seen == first, f"{way.name} saw {seen}, and straight at it {first}"[:1500])
        return ", ".join(seconds)

    def moto(self, way: Way):
        return self.site.client("s3", "moto", way)

    def fastapi(self, way: Way):
        return self.site.client("early", "fastapi", way)

    def jupyter(self, way: Way):
        return self.site.client("kernel", "jupyter", way)

    def npm(self, way: Way):
        """A user signs up, publishes a scoped package and installs it again."""
        site, url = self.site, self.site.url("verdaccio", way)
        at = [way.name for way in [*site.ways, site.http2]].index(way.name)
        folder = site.folder / f"npm-{at}"
        package, install = folder / "package", folder / "install"
        package.mkdir(parents=True)
        install.mkdir()
        content = random.Random(5).randbytes(PACKAGE_BYTES)
        (package / "blob").write_bytes(content)
        name = f"@acme/big-{at}"
        (package / "package.json").write_text(json.dumps({"name": name, "version": "1.0.0", "files": ["blob"]}))
        user = {"name": f"user{at}", "password": "correct horse", "_id": f"org.couchdb.user:user{at}", "type": "user", "roles": []}
        ca = [f"--cafile={way.ca}"] if way.ca else []
        token = sign_up(url, way.ca, user)
        npmrc = folder / "npmrc"
        npmrc.write_text(f"registry={url}/\n{url.split(':', 1)[1]}/:_authToken={token}\n")
        environment = {"npm_config_userconfig": str(npmrc)}
        site.run(["npm", "publish", *ca], cwd=package, environment=environment)
        site.run(["npm", "install", name, *ca], cwd=install, environment=environment)
        installed = (install / "node_modules" / name / "blob").read_bytes()
        integrity = site.run(["npm", "view", name, "dist.integrity", *ca], cwd=install, environment=environment).strip()
        # What is inside is compared; the archive itself has the package's name in it.
        expect(integrity.startswith("sha512-"), f"integrity {integrity!r}")
        return hashlib.sha256(installed).hexdigest() == hashlib.sha256(content).hexdigest()

    def npm_http2(self):
        """The archive that was published straight, and a package that is not there: npm itself has no HTTP/2."""
        site = self.site
        lines = "".join(json.dumps({"method": "GET", "path": path}) + "\n" for path in ("/@acme/big-0/-/big-0-1.0.0.tgz", "/@acme%2fnone"))
        seen = [site.client("fetch", "verdaccio", way, lines) for way in (*site.ways, site.http2)]
        archive, none = seen[0]
        expect(archive["status"] == 200 and archive["length"] > PACKAGE_BYTES and none["status"] == 404, f"straight {seen[0]}")
        expect(all(one == seen[0] for one in seen), f"not the same: {seen}")

    def pypi(self, way: Way):
        """twine uploads a wheel and pip installs it: the token is the password."""
        site = self.site
        at = [way.name for way in site.ways].index(way.name)
        folder = site.folder / f"pypi-{at}"
        folder.mkdir()
        wheel = make_wheel(folder, f"apps_wheel_{at}")
        url = site.url("pypi", way)
        token = make_token({"sub": "ci", "exp": int(time.time()) + 3600}, SECRET)
        ca = ["--cert", str(way.ca)] if way.ca else []
        python = str(site.python)
        site.run([python, "-m", "twine", "upload", "--disable-progress-bar", "--non-interactive", "--repository-url", f"{url}/",
                  "-u", "__token__", "-p", token, *ca, str(wheel)])
        with_token = url.replace("://", f"://__token__:{token}@") + "/simple/"
        site.run([python, "-m", "pip", "install", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--target", str(folder / "got"),
                  "--index-url", with_token, "--trusted-host", HOSTS["pypi"], *ca, f"apps-wheel-{at}"])
        got = (folder / "got" / f"apps_wheel_{at}.py").read_bytes()
        if way.port:
            refused = subprocess.run(
                [python, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--retries", "0", "--no-input",
                 "--dest", str(folder / "none"), "--index-url", with_token.replace(token, token[:-4] + "AAAA"),
                 "--trusted-host", HOSTS["pypi"], *ca, f"apps-wheel-{at}"],
                capture_output=True, text=True, timeout=60, env=site.environment, cwd=site.folder,
            )
            expect(refused.returncode != 0, "pip got the wheel with a forged token")
        return hashlib.sha256(got).hexdigest()


def sign_up(url: str, ca: Path | None, user: dict) -> str:
    """A new user of verdaccio, as `npm adduser` makes one. Its token."""
    scheme, _, rest = url.partition("://")
    host, _, port = rest.partition(":")
    if scheme == "https":
        connection = http.client.HTTPSConnection(host, int(port), timeout=30, context=ssl.create_default_context(cafile=ca))
    else:
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        body = json.dumps(user)
        connection.request("PUT", f"/-/user/{user['_id']}", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        said = response.read()
        expect(response.status == 201, f"signing up: {response.status} {said[:200]!r}")
        return json.loads(said)["token"]
    finally:
        connection.close()


def make_wheel(folder: Path, name: str) -> Path:
    """A wheel with one module, 2 MB that do not compress, in it."""
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    module = b"DATA = '" + base64.b64encode(random.Random(7).randbytes(2_000_000)) + b"'\n"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        files = {
            f"{name}.py": module,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: apps\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = ""
        for path, content in files.items():
            archive.writestr(path, content)
            sha = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={sha},{len(content)}\n"
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return wheel


def install_npm(folder: Path) -> Path:
    """The pinned packages, installed again only when the list changes. node_modules."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted, marker = (HERE / "package.json").read_text(), folder / "installed-package.json"
    if not (marker.exists() and marker.read_text() == wanted and (folder / "node_modules").exists()):
        marker.unlink(missing_ok=True)
        (folder / "package.json").write_text(wanted)
        subprocess.run(
            ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder, check=True, timeout=1200,
            stdin=subprocess.DEVNULL,
        )
        marker.write_text(wanted)
    return folder / "node_modules"


def tell(checks: Checks, site: Site) -> None:
    stories = Stories(site)
    checks.run("moto and boto3: keys that differ in //, ./, %, +, blanks, unicode stay apart", stories.alike, stories.moto)
    checks.run("FastAPI and http.client: 500 POSTs that are answered before they were read", stories.alike, stories.fastapi)
    checks.run("Jupyter: REST, and a kernel over its WebSocket", stories.alike, stories.jupyter)
    checks.run("verdaccio and npm: a scoped package of 12 MB is published and installed", stories.alike, stories.npm, False)
    checks.run("verdaccio over HTTP/2: the archive of the scoped package", stories.npm_http2)
    checks.run("pypiserver, twine and pip: the token is the password of Basic", stories.alike, stories.pypi, False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", type=Path, default=BUILT / "debug/portcullis")
    parser.add_argument("--venv", type=Path, default=BUILT / "apps-venv")
    parser.add_argument("--tools", type=Path, default=BUILT / "apps-tools", help="where the npm packages are kept")
    parser.add_argument("--only", help="only checks whose name has these words")
    parser.add_argument("--install", action="store_true", help="install what is needed and do nothing else")
    options = parser.parse_args()
    checks = Checks(options.only)
    # What is brought may take longer than what is told: nothing else waits for it.
    limit_run(OVERALL_SECONDS if not options.install else 4 * OVERALL_SECONDS)
    folder = Path(tempfile.mkdtemp(prefix="portcullis-apps-"))
    site = None
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            modules = pool.submit(install_npm, options.tools.resolve())
            python = make_venv(options.venv.resolve(), HERE / "requirements.txt")
            modules = modules.result()
        if options.install:
            return 0
        site = Site(folder, options.gateway.resolve(), python, modules)
        site.start()
        tell(checks, site)
    except TimeLimit as limit:
        checks.fail("the run", str(limit))
    except Failed as failure:
        checks.fail("the start", str(failure))
    finally:
        if site:
            site.stop()
            if checks.failed:
                print("\n".join(child.tail(8) for child in site.children))
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
