#!/usr/bin/env python3
"""The release build with profile-guided optimisation: built with instrumentation, run under a load of all frequent
operations, and rebuilt with the profile.

    benches/pgo/build.py [--install] [--seconds 2] [--out FILE]

The load: proxied requests, HS256 and ES256 tokens, static files, refusals, over HTTP/1.1 and HTTP/2, plain and TLS.
Needs Linux, Python 3.11, `openssl`, `h2load` and an `llvm-profdata` that is not older than the compiler's LLVM;
`--install` installs missing ones from Debian. Without them it makes the plain release build instead, and says so.
The result is target/pgo/portcullis.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loopback import BODY, SECRET, App, Failed, free_port, install_missing, token, wait_until_it_listens  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()

CONFIG = """
workers: 1
listeners:
  - {{address: 127.0.0.1:{plain}}}
  - address: 127.0.0.1:{tls}
    tls: {{certificates: [{{cert: cert.pem, key: key.pem}}]}}
jwt:
  app: {{algorithms: [HS256], secret: "{secret}"}}
tokens: {{keys: keys/, users: users.yaml, claims: {{roles: "{{user.roles}}"}}}}
state: data/
upstreams:
  app: {{servers: [http://127.0.0.1:{app}]}}
defaults:
  headers: {{response: {{set: {{Referrer-Policy: no-referrer}}, remove: [Server]}}}}
routes:
  - {{path: /open/*, proxy: app, auth: none}}
  - {{path: "/users/{{user}}/orders/*", proxy: app, auth: {{jwt: app, require: {{roles: [clerk]}}, forward: {{X-User-Id: sub}}}}}}
  - {{path: /own/*, proxy: app, auth: tokens}}
  - {{path: /files/*, static: files}}
  - {{path: /ping, respond: {{body: pong}}}}
log: {{access: {{to: access.log, format: {format}}}}}
"""


def rustc() -> tuple[str, int]:
    """The host triple, and the major version of the compiler's LLVM."""
    said = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    host, llvm = re.search(r"^host: (\S+)", said, re.M), re.search(r"^LLVM version: (\d+)", said, re.M)
    if not host or not llvm:
        raise Failed("rustc does not say which LLVM it has")
    return host[1], int(llvm[1])


def find_profdata(host: str, least: int) -> Path | None:
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True, cwd=ROOT)
    candidates = [os.environ.get("LLVM_PROFDATA"), f"{sysroot.stdout.strip()}/lib/rustlib/{host}/bin/llvm-profdata"]
    candidates += [shutil.which(f"llvm-profdata-{version}") for version in range(least, least + 6)]
    candidates.append(shutil.which("llvm-profdata"))
    for candidate in candidates:
        if candidate and Path(candidate).exists():
            said = subprocess.run([candidate, "--version"], capture_output=True, text=True).stdout
            found = re.search(r"version (\d+)", said)
            if found and int(found[1]) >= least:
                return Path(candidate)
    return None


def build(flags: str, host: str, target: Path) -> Path:
    """Builds with these flags for our code and the libraries', but not for build scripts."""
    environment = {**os.environ, "RUSTFLAGS": f"{os.environ.get('RUSTFLAGS', '')} {flags}".strip(), "CARGO_TARGET_DIR": str(target)}
    subprocess.run(["cargo", "build", "--release", "--locked", "--target", host], check=True, env=environment, cwd=ROOT)
    return target / host / "release/portcullis"


def train(gateway: Path, profiles: Path, seconds: int) -> None:
    app, plain, tls = App(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="portcullis-pgo-") as name:
        folder = Path(name)
        (folder / "files").mkdir()
        for file, size in [("small.txt", 1), ("page.html", 16), ("script.js", 64), ("large.bin", 4096)]:
            (folder / "files" / file).write_bytes(BODY * size)
        certificate = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
        subprocess.run(["openssl", "req", "-x509", *certificate, "-keyout", "key.pem", "-out", "cert.pem"],
                       check=True, cwd=folder, stderr=subprocess.DEVNULL)
        configure = lambda log: (folder / "gateway.yaml").write_text(  # noqa: E731
            CONFIG.format(plain=plain, tls=tls, app=app.port, secret=SECRET, format=log))
        configure("json")
        environment = {**os.environ, "LLVM_PROFILE_FILE": str(profiles / "%p-%m.profraw")}
        # Commands are not what the profile should optimise.
        aside = {**os.environ, "LLVM_PROFILE_FILE": str(folder / "%p.profraw")}

        def prompt(*words: str, said: str | None = None) -> str:
            done = subprocess.run([gateway, *words], check=True, cwd=folder, env=aside, input=said, stdout=subprocess.PIPE, text=True)
            return done.stdout.strip()

        prompt("user", "add", "alice", "--set", 'roles=["clerk"]', said="open sesame\n")
        prompt("key", "generate")
        own = prompt("token", "issue", "alice")
        bearer = lambda token: ["-H", f"authorization: Bearer {token}"]  # noqa: E731
        kinds = [
            ("/open/orders?page=2", []),
            ("/users/7/orders/1", bearer(token())),
            ("/own/orders", bearer(own)),
            ("/own/orders", []),
            ("/files/small.txt", []),
            ("/files/page.html", ["-H", 'if-none-match: "x"']),
            ("/files/script.js", []),
            ("/files/large.bin", []),
            ("/files/none.txt", []),
            ("/ping", []),
        ]
        # Also the other log format, on the shortest path.
        for log, some in [("json", kinds), ("combined", kinds[:1])]:
            configure(log)
            child = subprocess.Popen([gateway, "run"], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                wait_until_it_listens(child, plain, 30)
                load(some, plain, tls, seconds)
                child.send_signal(signal.SIGTERM)
                child.wait(60)
            finally:
                if child.poll() is None:
                    child.kill()
                    child.wait()


def load(kinds: list[tuple[str, list[str]]], plain: int, tls: int, seconds: int) -> None:
    for path, more in kinds:
        # Most requests use HTTP/1.1, and proxied ones have the most weight.
        for scheme, port, version in [("http", plain, ["--h1"]), ("https", tls, ["--h1"]), ("https", tls, [])]:
            share = 2 if "orders" in path and scheme == "http" else 1
            command = ["h2load", "-t1", "-c16", f"-D{seconds * share}", *version, *more]
            headers = ["-H", "user-agent: Mozilla/5.0", "-H", "accept: */*", "-H", "accept-encoding: gzip, br"]
            url = f"{scheme}://127.0.0.1:{port}{path}"
            said = subprocess.run([*command, *headers, url], check=True, capture_output=True, text=True).stdout
            if not re.search(r"requests: .* (?!0 )\d+ succeeded|[1-9]\d* 4xx", said):
                raise Failed(f"{url}: {said}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="take what is missing from Debian, as root")
    parser.add_argument("--seconds", type=int, default=2, help="of each kind of load")
    parser.add_argument("--out", type=Path, default=TARGET / "pgo/portcullis")
    options = parser.parse_args()
    host, llvm = rustc()
    if options.install:
        install_missing({"h2load": "nghttp2-client", "openssl": "openssl"})
        if not find_profdata(host, llvm):
            install_missing({f"llvm-profdata-{llvm}": f"llvm-{llvm}"})
    profdata = find_profdata(host, llvm)
    missing = [tool for tool in ("h2load", "openssl") if not shutil.which(tool)]
    missing += [] if profdata else [f"llvm-profdata of LLVM {llvm} or later"]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if missing:
        print(f"no profile: there is no {' and no '.join(missing)}; this is the plain release build", file=sys.stderr)
        built = build("", host, TARGET)
    else:
        profiles = TARGET / "pgo/profiles"
        shutil.rmtree(profiles, ignore_errors=True)
        train(build(f"-Cprofile-generate={profiles}", host, TARGET / "pgo/watched"), profiles, options.seconds)
        merged = TARGET / "pgo/merged.profdata"
        subprocess.run([profdata, "merge", "-o", merged, profiles], check=True)
        built = build(f"-Cprofile-use={merged}", host, TARGET / "pgo/guided")
    shutil.copy2(built, options.out)
    print(options.out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failed, subprocess.CalledProcessError) as failure:
        sys.exit(f"pgo: {failure}")
