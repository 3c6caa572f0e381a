#!/usr/bin/env python3
"""An MCP server behind Portcullis: the example in examples/mcp, with the official Python SDK and npm's oidc-provider.

    tests/interop/mcp.py [--gateway BINARY] [--venv FOLDER] [--tools FOLDER] [--only WORDS]

The SDK's client is given the gateway's URL and nothing else: it is refused, reads the protected resource metadata
(RFC 9728), registers at the provider found there, gets a token by the authorization code flow, and calls tools. A
program gets one by client credentials. Tokens without the scope, for another resource, forged and expired are refused.
Installs its pinned packages in a venv and a tools folder (kept between runs), starts what it needs on loopback, and
prints a line a check. Exit status 1 where one failed. Standard library only beside the packages under test; ends
within two minutes.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlencode

from harness import (
    TOKEN_BEGINS, Answer, Checks, Child, Failed, Target, TimeLimit, claims_of, expect, free_port, limit_run, make_venv, wait_until,
)
from issuers import expect_refused, forgeries, install_npm

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "mcp"
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
OVERALL_SECONDS = 120
METADATA = "/.well-known/oauth-protected-resource"
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


def on(port: int) -> Target:
    return Target(("127.0.0.1", port), f"127.0.0.1:{port}")


class Story:
    """The example's three servers on ports of their own, and what is asked of them."""

    def __init__(self, folder: Path, gateway: Path, python: Path, modules: Path):
        self.folder = folder / "mcp"
        self.logs = folder / "logs"
        self.logs.mkdir()
        left_out = shutil.ignore_patterns(".venv", "node_modules", "package-lock.json", "run.log", "__pycache__")
        shutil.copytree(EXAMPLE, self.folder, ignore=left_out)
        (self.folder / "node_modules").symlink_to(modules)
        self.python, self.binary = python, gateway
        self.gateway, self.app, self.issuer = on(free_port()), on(free_port()), on(free_port())
        self.url = f"{self.gateway.origin}/mcp"
        self.environment = {
            **os.environ, "PORT": str(self.gateway.address[1]), "APP_PORT": str(self.app.address[1]),
            "ISSUER": self.issuer.origin, "RESOURCE": self.url, "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.children: list[Child] = []

    def child(self, name: str, *command: str | Path) -> None:
        started = [str(word) for word in command]
        self.children.append(Child(name, started, self.folder, self.logs, self.environment))

    def start(self) -> None:
        self.child("issuer", "node", "issuer.mjs", str(self.issuer.address[1]))
        self.child("app", self.python, "server.py", str(self.app.address[1]))
        self.child("gateway", self.binary, "run")
        wait_until(lambda: self.issuer.get("/.well-known/openid-configuration").status == 200, 20, "the provider answers")
        wait_until(lambda: self.app.get("/mcp").status < 500, 20, "the MCP server answers")
        wait_until(lambda: self.post().status == 401, 15, "the gateway answers")

    def stop(self) -> None:
        for child in reversed(self.children):
            child.stop(5)

    def post(self, token: str | None = None, path: str = "/mcp") -> Answer:
        return self.gateway.post(path, form=PING, token=token, headers={"Accept": "application/json, text/event-stream"})

    def token(self, client: str, scope: str, resource: str | None = None) -> str:
        """A token by client credentials, for this server unless `resource` names another."""
        login = base64.b64encode(f"{client}:secret-of-{client}".encode()).decode()
        asked = {"grant_type": "client_credentials", "scope": scope, "resource": resource or self.url}
        answer = self.issuer.post("/token", body=urlencode(asked), headers={
            "Authorization": f"Basic {login}", "Content-Type": "application/x-www-form-urlencoded",
        })
        expect(answer.status == 200, f"the provider: {answer.brief()}")
        return answer.json()["access_token"]

    # --- Checks ---

    def policy(self):
        done = subprocess.run(
            [self.binary, "test"], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=20,
        )
        expect(done.returncode == 0, done.stdout + done.stderr)

    def refused_and_told_where(self):
        for path in ("/mcp", "/mcp/", "/mcp/messages"):
            answer = self.post(path=path)
            challenge = answer.headers["WWW-Authenticate"]
            expect(answer.status == 401, answer.brief())
            named = f'resource_metadata="{self.gateway.origin}{METADATA}{path}"'
            expect(named in challenge and "error=" not in challenge, challenge)

    def metadata(self):
        answer = self.gateway.get(f"{METADATA}/mcp")
        expect(answer.status == 200 and answer.headers.get_content_type() == "application/json", answer.brief())
        expected = {
            "resource": self.url, "authorization_servers": [self.issuer.origin], "scopes_supported": ["orders:read"],
            "bearer_methods_supported": ["header"],
        }
        expect(answer.json() == expected, answer.brief())
        other = self.gateway.get(f"{METADATA}/other")
        expect(other.status == 404, f"a path without a route: {other.brief()}")

    def sdk(self):
        done = subprocess.run(
            [self.python, "client.py", self.url], cwd=self.folder, env=self.environment,
            capture_output=True, text=True, timeout=60,
        )
        expect(done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:])
        calls = [line.strip() for line in done.stdout.splitlines() if "->" in line]
        found = "find_order(7) -> two lamps"
        expect(calls == [found, "who_am_i() -> ada", found, "who_am_i() -> reports"], done.stdout)

    def without_scope(self):
        for token in (self.token("visitor", "orders:list"), self.token("reports", "")):
            answer = self.post(token)
            challenge = answer.headers["WWW-Authenticate"]
            named = 'error="insufficient_scope", scope="orders:read"' in challenge
            expect(answer.status == 403 and named, f"{answer.brief()} {challenge}")
            expect("resource_metadata=" in challenge, challenge)

    def another_resource(self):
        token = self.token("reports", "orders:read", "https://billing.example/mcp")
        expect(claims_of(token)["aud"] == "https://billing.example/mcp", str(claims_of(token)))
        answer = self.post(token)
        expect_refused("another resource", token, answer)

    def forged(self):
        token = self.token("reports", "orders:read")
        expect(self.post(token).status != 401, "the good token is refused")
        made = forgeries(token, [self.issuer.get("/jwks").body])
        for name, bad in made.items():
            answer = self.post(bad)
            expect_refused(name, bad, answer)
        return f"{len(made)} forgeries"

    def records(self):
        """The access log names the caller and the reasons, and no log has a token."""
        self.stop()
        lines = [json.loads(line) for line in self.children[2].out.read_text().splitlines()]
        expect({"ada", "reports"} <= {line.get("sub") for line in lines}, "the log has no callers")
        reasons = {line.get("reason") for line in lines}
        expect({"token_missing", "forbidden", "token_audience", "token_signature"} <= reasons, str(reasons))
        for child in self.children[1:]:
            for log in (child.out, child.err):
                expect(not any(begin in log.read_bytes() for begin in TOKEN_BEGINS), f"a token's beginning is in {log.name}")

    def run(self, checks: Checks) -> None:
        checks.run("mcp: the example's policy tests hold", self.policy)
        checks.run("mcp: without a token, 401 that names the metadata", self.refused_and_told_where)
        checks.run("mcp: the metadata names the provider, the resource and the scopes", self.metadata)
        checks.run("mcp: the SDK finds its way from a URL to tool calls, in both protocols", self.sdk, always=True)
        checks.run("mcp: a token without the scope is 403, and is told which", self.without_scope, always=True)
        checks.run("mcp: a token for another resource is refused", self.another_resource, always=True)
        checks.run("mcp: forged tokens are refused", self.forged, always=True)
        checks.run("mcp: the log says who and why, and holds no token", self.records)


def main() -> int:
    parser = argparse.ArgumentParser(description="An MCP server behind Portcullis, with the official SDK.")
    parser.add_argument("--gateway", type=Path, default=BUILT / "release" / "portcullis", help="the binary to test")
    parser.add_argument("--venv", type=Path, default=BUILT / "mcp-venv", help="where the Python packages are kept")
    parser.add_argument("--tools", type=Path, default=BUILT / "issuers-tools", help="where the npm packages are kept")
    parser.add_argument("--only", help="run the checks whose name has these words")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder with the logs, and say where")
    options = parser.parse_args()
    gateway = options.gateway.resolve()
    if not gateway.is_file():
        print(f"FAIL no gateway at {options.gateway}: build it, or name it with --gateway")
        return 1
    limit_run(OVERALL_SECONDS)

    checks = Checks(options.only)
    folder = Path(tempfile.mkdtemp(prefix="portcullis-"))
    story = None
    try:
        python = make_venv(options.venv.resolve(), EXAMPLE / "requirements.txt")
        story = Story(folder, gateway, python, install_npm(options.tools.resolve()))
        story.start()
        story.run(checks)
    except TimeLimit as limit:
        checks.fail("the whole run", str(limit))
    except (Failed, OSError, subprocess.SubprocessError) as failure:
        checks.fail("start", str(failure))
    finally:
        signal.alarm(0)
        if story:
            story.stop()
            if checks.failed:
                print("\n".join(child.tail() for child in story.children))
        if options.keep:
            print(f"logs: {folder / 'logs'}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed or not checks.passed else 0


if __name__ == "__main__":
    sys.exit(main())
