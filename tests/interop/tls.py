#!/usr/bin/env python3
"""TLS as other programs see it: OpenSSL, sslyze, Chromium, curl, and with --long testssl.sh and ten thousand names.

The real gateway serves a name with an ECDSA and an RSA certificate, both from `portcullis cert local`'s CA. OpenSSL asks for
names in many spellings, with one kind of signature or the other, over TLS 1.2 and 1.3; resumes sessions over a reload; comes
with tickets that are damaged, cut and made up. sslyze holds what is offered against Mozilla's profiles. OpenSSL
3.5 and Chromium agree on X25519MLKEM768. What a stolen local CA signs is refused.

    python3 tests/interop/tls.py --gateway target/debug/portcullis --venv target/tls-venv [--long]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Child, Checks, expect, free_port, limit_run, make_venv, wait_until

PINS = Path(__file__).resolve().parent / "tls-requirements.txt"
VERSIONS = ("tls1_2", "tls1_3")
RSA = "rsa_pss_rsae_sha256:RSA+SHA256"
ECDSA = "ECDSA+SHA256"
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
# The group's number among key exchanges (draft-ietf-tls-ecdhe-mlkem).
X25519MLKEM768 = 0x11EC
# With --long: how many certificates a listener has, and what each may take of the gateway's memory.
NAMES = 10_000
BYTES_A_NAME = 4096


def run(command: list, folder: Path, given: bytes = b"", seconds: float = 60, env: dict | None = None):
    """A command of this machine; its exit status and all that it says."""
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, input=given, timeout=seconds,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env,
    )
    return done.returncode, done.stdout.decode(errors="replace")


class Certificate:
    """A chain and its key in the gateway's folder."""

    def __init__(self, folder: Path, stem: str):
        self.folder, self.stem = folder, stem

    def pair(self) -> str:
        return f"{{cert: certs/{self.stem}.pem, key: certs/{self.stem}.key}}"

    def digest(self) -> str:
        """What s_client shows of the first certificate, as a digest."""
        return digest((self.folder / f"certs/{self.stem}.pem").read_text())


def digest(pem: str) -> str:
    found = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", pem, re.S)
    return hashlib.sha256(found.group().encode()).hexdigest() if found else "none"


def sign(folder: Path, stem: str, names: list[str], key: list[str]) -> Certificate:
    """A certificate for these names with a key of this kind, from the local CA, made by OpenSSL."""
    certs = folder / "certs"
    name = ",".join(f"DNS:{name}" for name in names)
    status, said = run(
        ["openssl", "req", "-new", "-nodes", "-newkey", *key, "-keyout", certs / f"{stem}.key", "-out", certs / f"{stem}.csr",
         "-subj", "/CN=interop", "-addext", f"subjectAltName={name}", "-addext", "extendedKeyUsage=serverAuth"], folder)
    expect(status == 0, said)
    ca = certs / "local-ca" / "intermediate"
    status, said = run(
        ["openssl", "x509", "-req", "-in", certs / f"{stem}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-days", "75",
         "-copy_extensions", "copyall", "-out", certs / f"{stem}.pem"], folder)
    expect(status == 0, said)
    chain = certs / f"{stem}.pem"
    chain.write_text(chain.read_text() + Path(f"{ca}.pem").read_text())
    return Certificate(folder, stem)


class Story:
    """The gateway with its certificates, and the programs that come to it."""

    def __init__(self, gateway: Path, folder: Path, python: Path, chromium: str | None):
        self.gateway, self.folder, self.python, self.chromium = gateway, folder, python, chromium
        self.port, self.strict, self.modern = free_port(), free_port(), free_port()
        self.child: Child | None = None
        status, said = self.cert("localhost", "127.0.0.1", "*.app.test")
        expect(status == 0, said)
        self.root = folder / "certs/local-ca/root.pem"
        self.ec = Certificate(folder, "localhost")
        self.rsa = sign(folder, "rsa", ["localhost", "*.app.test"], ["rsa:2048"])
        # Mozilla's modern profile wants lives under 90 days.
        self.short = sign(folder, "short", ["localhost"], ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        self.other = sign(folder, "other", ["other.test"], ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        self.start()

    def cert(self, *arguments: str):
        return run([self.gateway, "cert", "local", *arguments], self.folder)

    def configure(self, body: str = "hello") -> None:
        pairs = ", ".join(it.pair() for it in (self.ec, self.rsa, self.other))
        text = f"""listeners:
  - {{address: '127.0.0.1:{self.port}', tls: {{certificates: [{pairs}]}}}}
  - {{address: '127.0.0.1:{self.strict}', tls: {{unknown_name: refuse, certificates: [{pairs}]}}}}
  - {{address: '127.0.0.1:{self.modern}', tls: {{min_version: "1.3", certificates: [{self.short.pair()}]}}}}
routes: [{{path: /*, respond: {{status: 200, body: {body}}}}}]
log: {{level: debug, access: off}}
"""
        beside = self.folder / "gateway.new"
        beside.write_text(text)
        beside.rename(self.folder / "gateway.yaml")

    def start(self) -> None:
        self.configure()
        before = self.log().count("listening") if self.child else 0
        self.child = Child("gateway", [str(self.gateway), "run"], self.folder, self.folder)
        wait_until(lambda: self.log().count("listening") >= before + 3, 20, "the gateway's start")

    def stop(self) -> None:
        if self.child:
            expect(self.child.stop() == 0, "the gateway ended badly:\n" + self.child.tail())

    def log(self) -> str:
        return self.child.out.read_text() + self.child.err.read_text()

    def reload(self, change) -> None:
        before = self.log().count("configuration reloaded")
        change()
        wait_until(lambda: self.log().count("configuration reloaded") > before, 20, "a reload")

    def client(self, *arguments, port: int | None = None, given: bytes = b"") -> str:
        """What `openssl s_client` says; with bytes to send, until the gateway closes."""
        more = ["-ign_eof"] if given else []
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port or self.port}", *arguments, *more]
        return run(command, self.folder, given)[1]

    # The checks.

    def by_signature_and_name(self) -> str:
        count = 0
        for version in VERSIONS:
            for name, schemes, wanted in (
                ("localhost", f"{RSA}:{ECDSA}", self.ec), ("localhost", f"{ECDSA}:{RSA}", self.ec),
                ("localhost", RSA, self.rsa), ("localhost", ECDSA, self.ec),
                ("LOCALHOST", RSA, self.rsa), ("LocalHost.", ECDSA, self.ec), ("localhost.", RSA, self.rsa),
                ("x.app.test", ECDSA, self.ec), ("x.app.test", RSA, self.rsa), ("X.APP.TEST.", ECDSA, self.ec),
                ("other.test", f"{RSA}:{ECDSA}", self.other),
                # Unknown names get what the first certificate's name gets.
                ("a.x.app.test", ECDSA, self.ec), ("unknown.test", RSA, self.rsa), (None, ECDSA, self.ec), (None, RSA, self.rsa),
            ):
                asked = ["-servername", name] if name else ["-noservername"]
                said = self.client(*asked, f"-{version}", "-sigalgs", schemes)
                expect(digest(said) == wanted.digest(), f"{version} {name} {schemes}: not {wanted.stem}:\n{said}")
                count += 1
        for suite, wanted in (("ECDHE-RSA-AES128-GCM-SHA256", self.rsa), ("ECDHE-ECDSA-AES128-GCM-SHA256", self.ec)):
            said = self.client("-servername", "localhost", "-tls1_2", "-cipher", suite)
            expect(digest(said) == wanted.digest(), f"{suite}: not {wanted.stem}:\n{said}")
            count += 1
        return f"{count} handshakes"

    def unknown_names_are_refused(self) -> None:
        for version in VERSIONS:
            said = self.client("-servername", "localhost", f"-{version}", port=self.strict)
            expect(digest(said) == self.ec.digest(), said)
            # The certificate has the address.
            said = self.client("-noservername", f"-{version}", port=self.strict)
            expect(digest(said) == self.ec.digest(), said)
            for name in ("unknown.test", "app.test", "a.x.app.test"):
                said = self.client("-servername", name, f"-{version}", port=self.strict)
                expect("unrecognized name" in said and "no peer certificate" in said, f"{version} {name}:\n{said}")
        expect("reason=\"tls_unknown_name\"" in self.log(), "no line with the reason in the log at debug")

    def session(self, version: str, port: int | None = None) -> Path:
        """A session that the gateway has given, in a file."""
        file = self.folder / f"{version}-{secrets.token_hex(4)}.session"
        said = self.client("-servername", "localhost", f"-{version}", "-sess_out", file, given=REQUEST, port=port)
        expect("New, " in said and file.exists(), said)
        return file

    def resumes(self, version: str, file: Path, port: int | None = None) -> bool:
        """Comes with a session. Whether it was resumed; either way there must be an answer."""
        said = self.client("-servername", "localhost", f"-{version}", "-sess_in", file, given=REQUEST, port=port)
        expect("200 OK" in said and ("Reused, " in said) != ("New, " in said), said)
        return "Reused, " in said

    def a_reload_ends_no_session(self) -> None:
        sessions = {version: [self.session(version) for _ in range(3)] for version in VERSIONS}
        for version, files in sessions.items():
            expect(self.resumes(version, files[0]), f"{version}: not resumed at once")

        def renew() -> None:
            sign(self.folder, "rsa", ["localhost", "*.app.test"], ["rsa:2048"])
            self.configure("changed")

        self.reload(renew)
        for version, files in sessions.items():
            expect(self.resumes(version, files[1]), f"{version}: a reload ended the session")
            # Both listeners demand the same of clients, which is nothing.
            expect(self.resumes(version, self.session(version), port=self.strict), f"{version}: not at the other listener")
        self.stop()
        self.start()
        for version, files in sessions.items():
            expect(not self.resumes(version, files[2]), f"{version}: resumed with keys that are gone")

    def wrong_tickets_are_refused(self) -> str:
        count = 0
        for version in VERSIONS:
            file = self.session(version)
            status, shown = run(["openssl", "sess_id", "-in", file, "-noout", "-text"], self.folder)
            expect(status == 0, shown)
            lines = re.findall(r"^    [0-9a-f]{4} - ([0-9a-f -]{47})", shown.split("TLS session ticket:")[1], re.M)
            ticket = bytes.fromhex("".join(lines).replace("-", "").replace(" ", ""))
            status, _ = run(["openssl", "sess_id", "-in", file, "-outform", "DER", "-out", "session.der"], self.folder)
            whole = (self.folder / "session.der").read_bytes()
            expect(status == 0 and whole.count(ticket) == 1, "the ticket is not in the session")

            def come_with(other: bytes) -> bool:
                expect(len(other) == len(ticket), "only as long")
                (self.folder / "wrong.der").write_bytes(whole.replace(ticket, other))
                made, _ = run(["openssl", "sess_id", "-inform", "DER", "-in", "wrong.der", "-out", "wrong.session"], self.folder)
                expect(made == 0, "no session")
                return self.resumes(version, self.folder / "wrong.session")

            expect(come_with(ticket), "the ticket as it was")
            flipped = [bytes([*ticket[:at], ticket[at] ^ 1, *ticket[at + 1:]]) for at in range(0, len(ticket), 17)]
            others = [
                *flipped, ticket[:-1] + bytes([ticket[-1] ^ 0x80]), secrets.token_bytes(len(ticket)), bytes(len(ticket)),
                # Another's nonce, another's end.
                ticket[:16] + secrets.token_bytes(12) + ticket[28:], ticket[:28] + secrets.token_bytes(len(ticket) - 28),
                # Cut, as far as a session of this length can be: what follows is nothing.
                *(ticket[:at] + bytes(len(ticket) - at) for at in (0, 1, 15, 16, 27, 28, 43, 44)),
            ]
            for other in others:
                if other != ticket:
                    expect(not come_with(other), f"{version}: resumed with {other.hex()}")
                    count += 1
        return f"{count} tickets"

    def the_local_ca_signs_nothing_real(self) -> None:
        certs = self.folder / "certs"
        ca = certs / "local-ca/intermediate.pem"
        for stem in ("localhost", "rsa"):
            verify = ["openssl", "verify", "-CAfile", self.root, "-untrusted", ca, certs / f"{stem}.pem"]
            status, said = run(verify, self.folder)
            expect(status == 0, said)
        for name in ("www.example.com", "localhost.example.com"):
            sign(self.folder, "stolen", [name], ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            status, said = run(["openssl", "verify", "-CAfile", self.root, "-untrusted", ca, certs / "stolen.pem"], self.folder)
            expect(status != 0 and "permitted subtree violation" in said, f"{name}: {said}")
        for host, name, status in (
            ("localhost", "localhost", 0), ("127.0.0.1", "127.0.0.1", 0), ("x.app.test", "x.app.test", 0), ("unknown.test", "x", 60),
        ):
            told = run(["curl", "-sS", "--cacert", self.root, "--connect-to", f"{host}:443:127.0.0.1:{self.port}",
                        f"https://{host}/"], self.folder)
            expect(told[0] == status, f"curl {name}: {told}")
        told = run(["curl", "-sS", f"https://localhost:{self.port}/"], self.folder)
        expect(told[0] == 60, f"curl without the root: {told}")
        status, said = self.cert("www.example.com")
        expect(status == 2 and "no local name" in said, said)

    def openssl_agrees_on_ml_kem(self) -> str:
        script = """
import socket, sys
from OpenSSL import SSL
connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
connection.set_tlsext_host_name(b"localhost")
connection.set_connect_state()
connection.do_handshake()
print(connection.get_group_name(), "by", SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode())
"""
        status, said = run([self.python, "-c", script, self.port], self.folder)
        expect(status == 0 and said.startswith("X25519MLKEM768 by OpenSSL"), said)
        # Who does not have it gets the older groups.
        for group, name in (("X25519", "X25519"), ("P-256", "prime256v1"), ("P-384", "secp384r1")):
            older = self.client("-servername", "localhost", "-tls1_3", "-groups", group)
            expect(f"Server Temp Key: {name.split('1')[0]}" in older or "ECDH, " + name in older, older)
        return said.strip()

    def chromium_agrees_on_ml_kem(self) -> str:
        log = self.folder / "netlog.json"
        run([self.chromium, "--headless", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors",
             f"--user-data-dir={self.folder / 'profile'}", f"--log-net-log={log}", "--dump-dom",
             f"https://localhost:{self.port}/"], self.folder, env={**os.environ, "HOME": str(self.folder)})
        events = [event.get("params") or {} for event in json.loads(log.read_text())["events"]]
        shaken = [event for event in events if "key_exchange_group" in event]
        groups = {event["key_exchange_group"] for event in shaken}
        expect(groups == {X25519MLKEM768}, f"{groups}")
        expect(shaken[0]["version"] == "TLS 1.3" and shaken[0]["next_proto"] == "h2", f"{shaken[0]}")

    def sslyze_finds_mozillas_profiles(self) -> None:
        for profile, port in (("intermediate", self.port), ("modern", self.modern)):
            status, said = run(
                [self.python, "-m", "sslyze", "--certinfo_ca_file", self.root, f"--mozilla_config={profile}",
                 f"localhost:{port}"], self.folder, seconds=240)
            expect(status == 0 and "OK - Compliant" in said, said[-3000:])
            for wanted in ("Client Renegotiation DoS Attack:   OK", "Compression disabled",
                           "TLS 1.0 Cipher Suites:\n     Attempted to connect using 80 cipher suites; the server rejected all"):
                expect(wanted in said, f"not found: {wanted}\n{said[-5000:]}")

    # With --long.

    def testssl_finds_nothing(self) -> str:
        report = self.folder / "testssl.json"
        run(["testssl", "--quiet", "--color", "0", "--warnings", "batch", "--jsonfile", report, "--add-ca", self.root,
             f"https://localhost:{self.port}"], self.folder, seconds=600)
        found = json.loads(report.read_text())
        # A local CA has no revocation lists, HSTS is a header that the configuration sets, and of suites that are all good
        # the client's first is taken, as Mozilla's profile says.
        expected = re.compile("cert_(revocation|crlDistributionPoints|ocspURL)|HSTS|security_headers|DNS_CAArecord|cipher_order")
        bad = [it for it in found if it["severity"] in ("LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL")
               and not expected.match(it["id"])]
        expect(not bad, json.dumps(bad, indent=1))
        expect(len(found) > 100, f"only {len(found)} findings")
        return f"{len(found)} findings"

    def ten_thousand_names(self) -> str:
        """A gateway with as many certificates starts, serves them, and takes little memory for each."""
        folder = self.folder / "many"
        (folder / "certs").mkdir(parents=True)
        script = """
import sys, datetime
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
folder, ca, key, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
issuer = x509.load_pem_x509_certificate(open(ca, "rb").read())
signing = serialization.load_pem_private_key(open(key, "rb").read(), None)
now = datetime.datetime.now(datetime.timezone.utc)
for number in range(count):
    own = ec.generate_private_key(ec.SECP256R1())
    made = (x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "many")]))
        .issuer_name(issuer.subject).public_key(own.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"n{number}.test")]), False).sign(signing, hashes.SHA256()))
    pem = serialization.Encoding.PEM
    chain = made.public_bytes(pem) + issuer.public_bytes(pem)
    open(f"{folder}/n{number}.pem", "wb").write(chain)
    open(f"{folder}/n{number}.key", "wb").write(
        own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
"""
        ca = self.folder / "certs/local-ca/intermediate"
        status, said = run([self.python, "-c", script, folder / "certs", f"{ca}.pem", f"{ca}.key", NAMES], folder, seconds=300)
        expect(status == 0, said)
        memory, took = [], 0.0
        for count in (1, NAMES):
            pairs = "".join(f"        - {{cert: certs/n{n}.pem, key: certs/n{n}.key}}\n" for n in range(count))
            port = free_port()
            (folder / "gateway.yaml").write_text(
                f"listeners:\n  - address: 127.0.0.1:{port}\n    tls:\n      certificates:\n{pairs}"
                "routes: [{path: /*, respond: {status: 200, body: hello}}]\nworkers: 1\nlog: {access: off}\n")
            begun = time.monotonic()
            child = Child(f"many-{count}", [str(self.gateway), "run"], folder, folder)
            try:
                wait_until(lambda: "listening" in child.out.read_text() + child.err.read_text(), 120, "a start")
                took = time.monotonic() - begun
                for number in {0, count // 2, count - 1}:
                    said = self.client("-servername", f"n{number}.test", "-verify_return_error", "-CAfile", self.root, port=port)
                    expect(digest(said) == digest((folder / f"certs/n{number}.pem").read_text()), said)
                # It reads its files once more, and gives back what that needed.
                time.sleep(15)
                rollup = Path(f"/proc/{child.process.pid}/smaps_rollup").read_text()
                memory.append(int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1]))
            finally:
                status = child.stop()
            expect(status == 0, "ended badly")
        each = (memory[1] - memory[0]) * 1024 / NAMES
        expect(each <= BYTES_A_NAME, f"{each:.0f} bytes a name")
        return f"{each:.0f} bytes a name, a start in {took:.1f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", type=Path, required=True)
    parser.add_argument("--venv", type=Path, required=True)
    parser.add_argument("--chromium", default=None, help="the browser; without it its check is left out")
    parser.add_argument("--long", action="store_true", help="testssl.sh and ten thousand names, too: three minutes more")
    parser.add_argument("--only", help="only checks with this in their name")
    arguments = parser.parse_args()
    limit_run(1500 if arguments.long else 400)
    python = make_venv(arguments.venv.resolve(), PINS)
    checks = Checks(arguments.only)
    with tempfile.TemporaryDirectory(prefix="portcullis-tls-") as folder:
        story = Story(arguments.gateway.resolve(), Path(folder), python, arguments.chromium)
        try:
            checks.run("of two certificates each client gets the one that it can verify", story.by_signature_and_name)
            checks.run("unknown names are refused with the right alert", story.unknown_names_are_refused)
            checks.run("wrong tickets are refused and harm nothing", story.wrong_tickets_are_refused)
            checks.run("a reload ends no session, a restart ends all", story.a_reload_ends_no_session)
            checks.run("the local CA signs nothing real", story.the_local_ca_signs_nothing_real)
            checks.run("OpenSSL 3.5 agrees on X25519MLKEM768", story.openssl_agrees_on_ml_kem)
            if arguments.chromium:
                checks.run("Chromium agrees on X25519MLKEM768", story.chromium_agrees_on_ml_kem)
            checks.run("sslyze finds Mozilla's intermediate and modern profiles", story.sslyze_finds_mozillas_profiles)
            if arguments.long:
                checks.run("testssl.sh finds nothing", story.testssl_finds_nothing)
                checks.run("ten thousand names", story.ten_thousand_names)
            checks.run("the gateway ends well", story.stop)
            expect("panicked" not in story.log(), story.log())
        finally:
            if story.child and story.child.running():
                story.child.stop()
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
