#!/usr/bin/env python3
"""Client certificates as other programs show them: curl, OpenSSL, Python's ssl and Node, with RSA, ECDSA and Ed25519 keys.

OpenSSL makes the CA, an intermediate CA, the clients and the revocation lists. The real gateway asks for certificates on
listeners that demand different things. What it tells the app of a certificate is compared with what OpenSSL prints of it.
Sessions are resumed with a certificate, over TLS 1.2 and 1.3, and not where something else is demanded, the list is
another one, or the certificate has expired since. A token that is bound to a certificate (RFC 8705) is stolen.

    python3 tests/interop/clients.py --gateway target/debug/portcullis
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import http.server
import json
import secrets
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from harness import Child, Checks, base64url, expect, free_port, limit_run, make_token, wait_until

VERSIONS = ("tls1_2", "tls1_3")
SECRET = secrets.token_urlsafe(64)
REQUEST = b"GET /open HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
EC = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
KEYS = {
    "p256": EC, "p384": ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"], "rsa": ["rsa:2048"], "ed25519": ["ed25519"],
}
NODE = """
const [, , url, cert, key, ca, token] = process.argv, https = require('node:https'), fs = require('node:fs');
const read = (file) => file && fs.readFileSync(file);
const headers = token ? {Authorization: `Bearer ${token}`} : {};
const agent = new https.Agent({keepAlive: true, cert: read(cert), key: read(key), ca: read(ca)});
const get = () => new Promise((done, failed) => https.get(url, {agent, headers}, (answer) => {
  let body = '';
  answer.on('data', (piece) => (body += piece)).on('end', () => done([answer.statusCode, body]));
}).on('error', failed));
get().then(get).then((answer) => console.log(JSON.stringify(answer)), (error) => console.log(JSON.stringify([error.code])))
  .finally(() => agent.destroy());
"""


def run(command: list, folder: Path, given: bytes = b"", seconds: float = 60) -> tuple[int, str]:
    """A command of this machine; its exit status and all that it says."""
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, input=given, timeout=seconds,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout.decode(errors="replace")


def made(command: list, folder: Path) -> str:
    """The same, which must succeed."""
    status, said = run(command, folder)
    expect(status == 0, f"{command}: {said}")
    return said


class Authority:
    """A CA made by OpenSSL."""

    def __init__(self, folder: Path, stem: str, by: "Authority | None" = None):
        self.folder, self.stem = folder, stem
        self.cert, self.key = folder / f"{stem}.pem", folder / f"{stem}.key"
        usage = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        new = ["openssl", "req", "-newkey", *EC, "-nodes", "-keyout", self.key, "-subj", f"/O=Interop/CN={stem}", *usage]
        if by is None:
            made([*new, "-x509", "-days", "100", "-out", self.cert], folder)
        else:
            made([*new, "-out", f"{stem}.csr"], folder)
            by.sign(f"{stem}.csr", self.cert, ["-days", "100"])
        (folder / f"{stem}.index").touch()
        (folder / f"{stem}.number").write_text("01\n")
        (folder / f"{stem}.cnf").write_text(
            f"[ca]\ndefault_ca = here\n[here]\ndatabase = {stem}.index\ncrlnumber = {stem}.number\ndefault_md = sha256\n"
            "default_crl_days = 7\n")

    def sign(self, request: str, out: Path, more: list) -> None:
        made(["openssl", "x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial",
              "-copy_extensions", "copyall", "-out", out, *more], self.folder)

    def client(self, stem: str, key: list[str], names: str = "", days: str = "30", subject: str | None = None) -> "Client":
        """A client's certificate with its key."""
        subject = subject or f"/O=Interop/CN={stem}"
        names = ["-addext", f"subjectAltName={names}"] if names else []
        made(["openssl", "req", "-newkey", *key, "-nodes", "-utf8", "-keyout", f"{stem}.key", "-out", f"{stem}.csr", "-subj",
              subject, *names, "-addext", "extendedKeyUsage=clientAuth"], self.folder)
        self.sign(f"{stem}.csr", self.folder / f"{stem}.pem", ["-days", days])
        return Client(self.folder, stem)

    def revoke(self, *clients: "Client") -> None:
        """Writes the revocation list, with these clients beside those of before."""
        ca = ["openssl", "ca", "-config", f"{self.stem}.cnf", "-cert", self.cert, "-keyfile", self.key]
        for client in clients:
            made([*ca, "-revoke", client.cert], self.folder)
        made([*ca, "-gencrl", "-out", f"{self.stem}.new"], self.folder)
        (self.folder / f"{self.stem}.new").rename(self.folder / f"{self.stem}.crl")


class Client:
    """A certificate and its key."""

    def __init__(self, folder: Path, stem: str):
        self.folder, self.stem = folder, stem
        self.cert, self.key = folder / f"{stem}.pem", folder / f"{stem}.key"

    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.cert.read_text())

    def thumbprint(self) -> str:
        return base64url(hashlib.sha256(self.der()).digest())

    def told(self, *arguments: str) -> str:
        """What OpenSSL says of it, behind the last equals sign of its own."""
        return made(["openssl", "x509", "-in", self.cert, "-noout", *arguments], self.folder).strip()


class Echo(http.server.BaseHTTPRequestHandler):
    """The app: answers with the header fields that it got."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Story:
    """The gateway, its clients and the app."""

    def __init__(self, gateway: Path, folder: Path):
        self.gateway, self.folder = gateway, folder
        made(["openssl", "req", "-x509", "-newkey", *EC, "-nodes", "-keyout", "server.key", "-out", "server.pem", "-days", "9",
              "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], folder)
        self.root = Authority(folder, "root")
        self.inner = Authority(folder, "inner", self.root)
        self.others = Authority(folder, "others")
        self.clients = {stem: self.root.client(stem, key) for stem, key in KEYS.items()}
        # Its own CA's certificate is not in `ca`: it has to send it.
        self.chained = self.inner.client("chained", EC)
        self.stranger = self.others.client("stranger", EC)
        self.root.revoke()
        self.app = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
        threading.Thread(target=self.app.serve_forever, daemon=True).start()
        self.ports = {name: free_port() for name in ("required", "optional", "other", "listed", "open")}
        self.configure()
        self.child = Child("gateway", [str(gateway), "run"], folder, folder)
        wait_until(lambda: self.log().count("listening") >= len(self.ports), 20, "the gateway's start")

    def configure(self) -> None:
        def listener(name: str, demands: str) -> str:
            tls = f"certificates: [{{cert: server.pem, key: server.key}}]{demands}"
            return f"  - {{address: '127.0.0.1:{self.ports[name]}', tls: {{{tls}}}}}\n"

        parts = ("subject", "serial", "fingerprint", "san", "not_after", "rfc9440", "xfcc")
        forward = ", ".join(f"X-{part.replace('_', '-')}: 'certificate:{part}'" for part in parts)
        app = f"http://127.0.0.1:{self.app.server_address[1]}"
        (self.folder / "gateway.yaml").write_text(
            "listeners:\n"
            + listener("required", ", client_auth: {ca: root.pem}")
            + listener("optional", ", client_auth: {ca: root.pem, required: false}")
            + listener("other", ", client_auth: {ca: others.pem}")
            + listener("listed", ", client_auth: {ca: root.pem, crl: root.crl}")
            + listener("open", "")
            + f"""jwt:
  bound: {{algorithms: [HS256], secret: {SECRET}, from: [header, 'cookie:at', 'query:at', websocket]}}
routes:
  - {{path: /open, respond: {{body: open}}, auth: none}}
  - {{path: /any/*, proxy: '{app}', auth: {{certificate: any, forward: {{{forward}}}}}}}
  - {{path: /bound/*, proxy: '{app}', auth: bound}}
log: {{level: debug, access: {{to: stdout, format: json}}}}
""")

    def stop(self) -> None:
        expect(self.child.stop() == 0, "the gateway ended badly:\n" + self.child.tail())
        self.app.shutdown()

    def log(self) -> str:
        return self.child.out.read_text() + self.child.err.read_text()

    def reload(self, change) -> None:
        before = self.log().count("configuration reloaded")
        change()
        wait_until(lambda: self.log().count("configuration reloaded") > before, 20, "a reload")

    def url(self, listener: str, path: str) -> str:
        return f"https://localhost:{self.ports[listener]}{path}"

    def curl(self, listener: str, path: str, client: Client | None, *more: str) -> tuple[int, str]:
        """The status, or curl's own error as a negative number, and the body."""
        shown = ["--cert", client.cert, "--key", client.key] if client else []
        status, said = run(["curl", "-s", "--cacert", "server.pem", "-w", "\n%{http_code}", *shown, *more,
                            self.url(listener, path)], self.folder)
        body, _, code = said.rpartition("\n")
        return (int(code) if status == 0 else -status), body

    def s_client(self, listener: str, client: Client | None, *more: object) -> str:
        shown = ["-cert", client.cert, "-key", client.key] if client else []
        return run(["openssl", "s_client", "-connect", f"127.0.0.1:{self.ports[listener]}", "-servername", "localhost",
                    "-ign_eof", *shown, *more], self.folder, REQUEST)[1]

    def connection(self, listener: str, client: Client | None) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.folder / "server.pem"))
        if client:
            context.load_cert_chain(client.cert, client.key)
        return http.client.HTTPSConnection("localhost", self.ports[listener], context=context, timeout=20)

    def python(self, listener: str, path: str, client: Client | None, token: str = "") -> int | None:
        """The status; None where there is no connection."""
        connection = self.connection(listener, client)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
            return connection.getresponse().status
        except (ssl.SSLError, ConnectionError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def node(self, listener: str, path: str, client: Client | None, token: str = "") -> list:
        """The status and the body of the second request on a connection; or the error."""
        (self.folder / "get.js").write_text(NODE)
        shown = [client.cert, client.key] if client else ["", ""]
        status, said = run(["node", "get.js", self.url(listener, path), *shown, "server.pem", token], self.folder)
        expect(status == 0, said)
        return json.loads(said)

    # The checks.

    def every_kind_of_key(self) -> str:
        count = 0
        for stem, client in self.clients.items():
            subject = client.told("-subject", "-nameopt", "RFC2253").removeprefix("subject=")
            for more in (["--tlsv1.3"], ["--tls-max", "1.2"], ["--http1.1"]):
                status, body = self.curl("required", "/any/", client, *more)
                expect(status == 200, f"curl {stem} {more}: {status}")
                seen = json.loads(body)["x-subject"]
                expect(seen == subject, f"curl {stem}: the app saw {seen}, not {subject}")
                count += 1
            expect(self.python("required", "/any/", client) == 200, f"Python, {stem}")
            status, body = self.node("required", "/any/", client)
            expect(status == 200 and json.loads(body)["x-subject"] == subject, f"Node, {stem}: {status} {body}")
            count += 2
        return f"{count} connections"

    def who_is_not_let_in(self) -> None:
        good = self.clients["p256"]
        for listener, client, wanted in (
            ("required", None, None), ("required", self.stranger, None), ("optional", self.stranger, None),
            ("other", good, None), ("other", self.stranger, 200), ("optional", None, 200), ("open", None, 200),
            # It sends no intermediate certificate, and with it.
            ("required", self.chained, None),
        ):
            expect(self.python(listener, "/open", client) == wanted, f"Python at {listener}: {client and client.stem}")
            status, _ = self.curl(listener, "/open", client)
            expect((status == 200) == (wanted == 200), f"curl at {listener}: {client and client.stem}: {status}")
            node = self.node(listener, "/open", client)
            expect((node[0] == 200) == (wanted == 200), f"Node at {listener}: {client and client.stem}: {node}")
        whole = self.chained.cert.read_text()
        self.chained.cert.write_text(whole + self.inner.cert.read_text())
        for seen in (self.python("required", "/open", self.chained), self.curl("required", "/open", self.chained)[0],
                     self.node("required", "/open", self.chained)[0]):
            expect(seen == 200, f"a chain with its intermediate CA: {seen}")
        self.chained.cert.write_text(whole)
        for version in VERSIONS:
            said = self.s_client("required", None, f"-{version}")
            expect("alert certificate required" in said, f"{version}: no alert of a missing certificate in\n{said}")
            said = self.s_client("required", self.stranger, f"-{version}")
            expect("alert unknown ca" in said, f"{version}: no alert of an unknown CA in\n{said}")
        said = self.s_client("optional", None)
        expect("Acceptable client certificate CA names\nO = Interop, CN = root" in said, said)
        expect(self.log().count("tls_client_certificate") >= 10, "no lines with the reason in the log at debug")

    def what_the_app_is_told(self) -> str:
        names = "URI:spiffe://example.org/pay/7,DNS:till.example.org,email:till@example.org,IP:10.0.0.7"
        subject = "/C=DE/O=A, B & Söhne/OU=x\\+y/emailAddress=till@example.org/CN=till \"7\" <#1>; 'ø'"
        client = self.root.client("told", EC, names, subject=subject)
        status, body = self.curl("required", "/any/", client)
        expect(status == 200, f"{status} {body}")
        seen = json.loads(body)
        ends = client.told("-enddate", "-dateopt", "iso_8601").removeprefix("notAfter=").replace(" ", "T")
        wanted = {
            "x-subject": client.told("-subject", "-nameopt", "RFC2253").removeprefix("subject="),
            "x-serial": client.told("-serial").removeprefix("serial="),
            "x-fingerprint": client.thumbprint(),
            "x-san": "uri:spiffe://example.org/pay/7, dns:till.example.org, email:till@example.org, ip:10.0.0.7",
            "x-not-after": ends,
            "x-rfc9440": f":{base64.b64encode(client.der()).decode()}:",
        }
        for name, value in wanted.items():
            expect(seen.get(name) == value, f"{name}: the app saw {seen.get(name)!r}, not {value!r}")
        digest = hashlib.sha256(client.der()).hexdigest()
        expect(seen["x-xfcc"].startswith(f"Hash={digest};Subject=\""), seen["x-xfcc"])
        expect(seen["x-xfcc"].endswith(";URI=spiffe://example.org/pay/7;DNS=till.example.org"), seen["x-xfcc"])
        forged = [word for name in ("X-Subject", "x_subject", "X-San", "Client-Cert", "X-Forwarded-Client-Cert")
                  for word in ("-H", f"{name}: admin")]
        for listener, path, who in (("required", "/any/", client), ("optional", "/bound/?at=" + self.token(client), client)):
            status, body = self.curl(listener, path, who, *forged)
            expect(status == 200 and "admin" not in body, f"{path}: {status} {body}")
        return wanted["x-subject"]

    def session(self, listener: str, client: Client, version: str) -> Path:
        file = self.folder / f"{secrets.token_hex(4)}.session"
        said = self.s_client(listener, client, f"-{version}", "-sess_out", file)
        expect("New, " in said and "200 OK" in said and file.exists(), said)
        return file

    def resumes(self, listener: str, client: Client, version: str, file: Path) -> str:
        """`Reused`, `New`, or `refused`."""
        said = self.s_client(listener, client, f"-{version}", "-sess_in", file)
        if "200 OK" not in said:
            return "refused"
        return "Reused" if "Reused, " in said else "New"

    def sessions_with_a_certificate(self) -> str:
        count = 0
        for version in VERSIONS:
            for stem in ("p256", "rsa"):
                client = self.clients[stem]
                for listener, wanted in (
                    ("required", "Reused"), ("optional", "New"), ("listed", "New"), ("open", "New"), ("other", "refused"),
                ):
                    seen = self.resumes(listener, client, version, self.session("required", client, version))
                    expect(seen == wanted, f"{version} {stem}: a session of `required` at `{listener}`: {seen}")
                    count += 1
        # Resumed, the client is who it was; over TLS 1.2 nothing else says so.
        records = [json.loads(line) for line in self.child.out.read_text().splitlines()]
        told = {record.get("certificate") for record in records if record["path"] == "/open"}
        expect({"CN=p256,O=Interop", "CN=rsa,O=Interop"} <= told, f"access records name {told}")
        return f"{count} sessions"

    def a_session_ends_with_its_certificate(self) -> None:
        short = self.root.client("short", EC)
        ends = time.time() + 6
        # openssl x509 knows days alone.
        (self.folder / "short.cnf").write_text(
            "[ca]\ndefault_ca = here\n[here]\ndatabase = short.index\nserial = short.number\nnew_certs_dir = .\n"
            "default_md = sha256\npolicy = any\ncopy_extensions = copyall\nunique_subject = no\n[any]\ncommonName = supplied\n")
        (self.folder / "short.index").touch()
        (self.folder / "short.number").write_text("77\n")
        date = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(ends))
        made(["openssl", "ca", "-batch", "-notext", "-config", "short.cnf", "-cert", self.root.cert, "-keyfile", self.root.key,
              "-in", "short.csr", "-out", short.cert, "-startdate", "20200101000000Z", "-enddate", date], self.folder)
        sessions = {version: [self.session("required", short, version) for _ in range(2)] for version in VERSIONS}
        for version, files in sessions.items():
            seen = self.resumes("required", short, version, files[0])
            expect(seen == "Reused", f"{version}: {seen} while the certificate is valid")
        wait_until(lambda: time.time() > ends + 1.5, 20, "the end of the certificate")
        for version, files in sessions.items():
            seen = self.resumes("required", short, version, files[1])
            expect(seen == "refused", f"{version}: {seen} after the certificate has expired")
            # Whoever has another one by now shows it.
            seen = self.resumes("required", self.clients["p256"], version, files[1])
            expect(seen == "New", f"{version}: {seen} with a new certificate")

    def a_revoked_client(self) -> None:
        bad, good = self.root.client("bad", EC), self.clients["rsa"]
        sessions = {version: self.session("listed", bad, version) for version in VERSIONS}
        kept = self.connection("listed", bad)
        kept.request("GET", "/open")
        expect(kept.getresponse().read() == b"open", "no response before it is revoked")
        self.reload(lambda: self.root.revoke(bad))
        try:
            kept.sock.settimeout(10)
            expect(kept.sock.recv(1) == b"", "the connection of a revoked client goes on")
        except (ssl.SSLError, ConnectionError):
            pass
        finally:
            kept.close()
        for version, file in sessions.items():
            seen = self.resumes("listed", bad, version, file)
            expect(seen == "refused", f"{version}: a session of a revoked client: {seen}")
            said = self.s_client("listed", bad, f"-{version}")
            expect("alert certificate revoked" in said, said)
        expect(self.python("listed", "/open", bad) is None, "Python with the revoked certificate")
        expect(self.python("listed", "/open", good) == 200, "Python with another one")
        expect(self.python("required", "/open", bad) == 200, "the list is of the listener `listed` alone")

    def token(self, holder: Client) -> str:
        now = int(time.time())
        claims = {"sub": "7", "iat": now, "exp": now + 600, "jti": secrets.token_hex(8)}
        return make_token({**claims, "cnf": {"x5t#S256": holder.thumbprint()}}, SECRET)

    def a_stolen_token(self) -> str:
        holder, thief = self.clients["rsa"], self.clients["p256"]
        count = 0
        for place in ("header", "cookie", "query"):
            for http_version in ("--http1.1", "--http2"):
                token = self.token(holder)
                path = f"/bound/?at={token}" if place == "query" else "/bound/"
                more = {"header": ["-H", f"Authorization: Bearer {token}"], "cookie": ["-b", f"at={token}"], "query": []}[place]
                for listener, client, wanted in (
                    ("optional", thief, 401), ("required", holder, 200), ("optional", thief, 401), ("optional", None, 401),
                    ("open", holder, 401), ("required", thief, 401), ("optional", holder, 200),
                ):
                    status, body = self.curl(listener, path, client, http_version, *more)
                    expect(status == wanted, f"{place} {http_version} at {listener}: {status}, not {wanted}: {body}")
                    expect(wanted == 200 or holder.thumbprint() not in body, "the binding is in the refusal")
                    count += 1
        token = self.token(holder)
        for client, wanted in ((holder, 200), (thief, 401), (holder, 200)):
            expect(self.python("required", "/bound/", client, token) == wanted, f"Python, {client.stem}")
            expect(self.node("required", "/bound/", client, token)[0] == wanted, f"Node, {client.stem}")
            count += 3
        reasons = self.log().count('"reason":"token_binding"')
        expect(reasons >= 30, f"{reasons} records with the reason")
        return f"{count} requests"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", type=Path, required=True, help="the portcullis binary")
    parser.add_argument("--only", help="only checks whose names have this in them")
    options = parser.parse_args()
    limit_run(300)
    checks = Checks(options.only)
    with tempfile.TemporaryDirectory(prefix="portcullis-clients-") as folder:
        story = Story(options.gateway.resolve(), Path(folder))
        try:
            checks.run("curl, Python and Node with each kind of key", story.every_kind_of_key)
            checks.run("who is not let in", story.who_is_not_let_in)
            checks.run("the app is told what OpenSSL prints", story.what_the_app_is_told)
            checks.run("sessions are resumed with a certificate, and nowhere else", story.sessions_with_a_certificate)
            checks.run("a session ends with its certificate", story.a_session_ends_with_its_certificate)
            checks.run("a revoked client", story.a_revoked_client)
            checks.run("a stolen token", story.a_stolen_token)
        finally:
            if checks.failed:
                print(story.child.tail())
            story.stop()
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
