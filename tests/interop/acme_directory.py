"""An ACME directory (RFC 8555) for tests, with renewal information (RFC 9773), profiles and external accounts, that also
fails, hangs and lies as it is told. It checks nonces and signatures, and validates challenges at the gateway itself.

Standard library and openssl's command line only. It knows nothing of the stories that use it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import http.server
import json
import secrets
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

from harness import base64url, from_base64url

# How a public key on P-256 begins in DER; the point follows.
P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
# The extension that a tls-alpn-01 certificate must have, critical, before its digest (RFC 8737 section 3).
ACME_IDENTIFIER = bytes.fromhex("06082b0601050507011f0101ff042204" + "20")
# How long a slow answer takes, in seconds.
SLOW = 5.0
PROBLEM = "urn:ietf:params:acme:error:"
PROFILES = {"classic": "90 days", "shortlived": "six days"}


def openssl(*words: str, given: bytes | None = None) -> str:
    done = subprocess.run(["openssl", *words], input=given, capture_output=True, check=False, timeout=30)
    if done.returncode:
        raise RuntimeError(f"openssl {words}: {done.stderr.decode()}")
    return done.stdout.decode()


def make_ca(folder: Path, host: str = "localhost") -> Path:
    """A root, and the certificate of a server at loopback: `server.pem` and `server.key`. The root's path."""
    folder.mkdir(parents=True, exist_ok=True)
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    root, server = folder / "ca.pem", folder / "server.pem"
    openssl("req", "-x509", *curve, "-days", "30", "-keyout", str(folder / "ca.key"), "-out", str(root),
            "-subj", f"/CN={folder.name}")
    openssl("req", "-new", *curve, "-keyout", str(folder / "server.key"), "-out", str(folder / "server.csr"),
            "-subj", "/")
    (folder / "server.ext").write_text(f"subjectAltName=DNS:{host},IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", str(folder / "server.csr"), "-CA", str(root), "-CAkey", str(folder / "ca.key"),
            "-CAcreateserial", "-days", "30", "-extfile", str(folder / "server.ext"), "-out", str(server))
    return root


class Refusal(Exception):
    """A problem document (RFC 7807)."""

    def __init__(self, name: str, detail: str, status: int = 400):
        super().__init__(detail)
        self.name, self.detail, self.status = name, detail, status


class Directory:
    """A directory on a port of loopback, or at an address and under a name. `ports` are the gateway's, plain and TLS, where answers are looked for."""

    def __init__(self, folder: Path, ports: tuple[int, int], plain: bool = False, window: tuple | None = None,
                 window_again: int = 3600, already_replaced: bool = False, not_ready: int = 0,
                 faults: dict | None = None, endless: str = "", hang: str = "", slow: str = "",
                 eab: tuple[str, str] | None = None,
                 lie: str = "", plain_urls: bool = False, hold: float = 0.0, refuse: set[str] = frozenset(),
                 at: tuple[str, int] = ("127.0.0.1", 0), host: str = "", path: str = "/dir"):
        self.folder, self.ports, self.path = folder, ports, path
        self.ca = make_ca(folder, host or "localhost")
        self.window, self.window_again, self.already_replaced = window, window_again, already_replaced
        self.not_ready, self.faults, self.endless, self.hang = not_ready, faults or {}, endless, hang
        # Where an answer takes its time; and the ports of other gateways that must answer, too.
        self.slow, self.also = slow, []
        self.eab, self.lie, self.plain_urls, self.hold, self.refuse = eab, lie, plain_urls, hold, refuse
        # What was asked, for the stories.
        self.seen: list[str] = []
        self.orders: list[dict] = []
        self.ids: list[str] = []
        self.refused: list[str] = []
        self.tokens: list[str] = []
        self.validated: list[tuple[str, str]] = []
        self.outcomes: list[bool] = []
        self.contacts: list[list[str]] = []
        self.accounts: dict[str, dict] = {}
        self.nonces: set[str] = set()
        self.things: dict[str, dict] = {}
        self.lock = threading.RLock()
        self.serial = int.from_bytes(secrets.token_bytes(6), "big") | 1 << 47
        self.make_issuer()
        self.server = http.server.ThreadingHTTPServer(at, self.handler())
        self.server.daemon_threads = True
        # A gateway that does not trust it, or is stopped, ends its handshakes.
        self.server.handle_error = lambda *_: None
        scheme = "http"
        if not plain:
            scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / "server.pem", folder / "server.key")
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True,
                                                     do_handshake_on_connect=False)
        self.base = f"{scheme}://{host or f'127.0.0.1:{self.server.server_port}'}"
        self.url = f"{self.base}{path}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    # --- The CA ---

    def make_issuer(self) -> None:
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650",
                "-keyout", str(self.folder / "issuer.key"), "-out", str(self.folder / "issuer.pem"),
                "-subj", "/CN=Test Issuer")
        (self.folder / "index.txt").write_text("")
        (self.folder / "ca.cnf").write_text(
            f"[ca]\ndefault_ca = it\n[it]\ndir = {self.folder}\ndatabase = $dir/index.txt\nnew_certs_dir = $dir\n"
            "serial = $dir/serial\ndefault_md = sha256\npolicy = any\nunique_subject = no\n"
            "[any]\ncommonName = optional\n")
        text = openssl("x509", "-in", str(self.folder / "issuer.pem"), "-noout", "-ext", "subjectKeyIdentifier")
        self.key_id = bytes.fromhex(text.strip().splitlines()[-1].strip().replace(":", ""))

    def issue(self, order: dict, csr: bytes) -> str:
        """The chain for a request, PEM."""
        folder = self.folder
        (folder / "csr.der").write_bytes(csr)
        openssl("req", "-inform", "der", "-in", str(folder / "csr.der"), "-out", str(folder / "csr.pem"), "-verify")
        names = [it["value"] for it in order["identifiers"]]
        if self.lie == "another-name":
            names = ["other.test"]
        if self.lie == "another-name-too":
            names.append("other.test")
        if self.lie == "another-key":
            openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                    str(folder / "other.key"), "-out", str(folder / "csr.pem"), "-subj", "/")
        days = 6 if order.get("profile") == "shortlived" else 90
        now = time.time()
        begins, ends = now - 3600, now - 3600 + days * 86400
        if self.lie == "expired":
            begins, ends = now - 90 * 86400, now - 3600
        if self.lie == "future":
            begins, ends = now + 30 * 86400, now + 120 * 86400
        self.serial += 1
        (folder / "serial").write_text(f"{self.serial:X}\n")
        (folder / "ext").write_text(
            f"subjectAltName={','.join('DNS:' + name for name in names)}\nauthorityKeyIdentifier=keyid\n"
            "extendedKeyUsage=serverAuth\nbasicConstraints=critical,CA:FALSE\n")

        def date(at: float) -> str:
            return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(at))

        openssl("ca", "-batch", "-notext", "-config", str(folder / "ca.cnf"), "-in", str(folder / "csr.pem"), "-out",
                str(folder / "cert.pem"), "-cert", str(folder / "issuer.pem"), "-keyfile", str(folder / "issuer.key"),
                "-extfile", str(folder / "ext"), "-startdate", date(begins), "-enddate", date(ends), "-subj", "/")
        length = self.serial.bit_length() // 8 + 1
        self.ids.append(f"{base64url(self.key_id)}.{base64url(self.serial.to_bytes(length, 'big'))}")
        if self.lie == "no-pem":
            return "nothing\n"
        return (folder / "cert.pem").read_text() + (folder / "issuer.pem").read_text()

    # --- Calls ---

    def handler(self):
        directory = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def log_message(self, *_):
                pass

            def answer(self, status: int, headers: dict, body: bytes | dict | str) -> None:
                kind = "application/json"
                if isinstance(body, dict):
                    kind = "application/problem+json" if status >= 400 else kind
                    body = json.dumps(body).encode()
                if isinstance(body, str):
                    kind, body = "application/pem-certificate-chain", body.encode()
                self.send_response(status)
                for name, value in {"Content-Type": kind, "Replay-Nonce": directory.nonce(),
                                    "Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def serve(self) -> None:
                directory.seen.append(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                if self.path == directory.hang:
                    time.sleep(120)
                    return
                if self.path == directory.slow:
                    time.sleep(SLOW)
                if self.path == directory.endless:
                    self.send_response(200)
                    self.end_headers()
                    with contextlib.suppress(OSError):
                        while True:
                            self.wfile.write(b" " * 65536)
                    return
                if self.path in directory.faults:
                    status, headers, body = directory.faults[self.path]
                    self.answer(status, headers, body)
                    return
                try:
                    with directory.lock:
                        status, headers, answer = directory.call(self.command, self.path, body, self.headers)
                except Refusal as refusal:
                    directory.refused.append(refusal.name)
                    status, headers = refusal.status, {}
                    answer = {"type": PROBLEM + refusal.name, "detail": refusal.detail, "status": refusal.status}
                self.answer(status, headers, answer)

            def served(self) -> None:
                # A gateway that is stopped leaves its calls.
                with contextlib.suppress(OSError):
                    self.serve()

            do_GET = do_HEAD = do_POST = served

        return Handler

    def nonce(self) -> str:
        nonce = secrets.token_urlsafe(12)
        self.nonces.add(nonce)
        return nonce

    def call(self, method: str, path: str, body: bytes, headers) -> tuple[int, dict, object]:
        if path == self.path:
            base = self.base.replace("https:", "http:") if self.plain_urls else self.base
            meta = {"termsOfService": f"{self.base}/terms", "profiles": PROFILES}
            if self.eab:
                meta["externalAccountRequired"] = True
            urls = {"newNonce": f"{base}/nonce", "newAccount": f"{base}/new-account", "newOrder": f"{base}/new-order",
                    "revokeCert": f"{base}/revoke", "keyChange": f"{base}/key-change", "meta": meta}
            if self.window:
                urls["renewalInfo"] = f"{base}/renewal"
            return 200, {}, urls
        if path == "/nonce":
            return 200, {}, b""
        if path.startswith("/renewal/"):
            if path.removeprefix("/renewal/") not in self.ids:
                raise Refusal("malformed", "no such certificate", 404)
            start, end = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + it)) for it in self.window)
            return 200, {"Retry-After": str(self.window_again)}, {
                "suggestedWindow": {"start": start, "end": end}, "explanationURL": f"{self.base}/why"}
        if method != "POST":
            raise Refusal("malformed", "POST it", 405)
        account, payload = self.opened(path, body, headers)
        if path == "/new-account":
            return self.new_account(account, payload)
        if path.startswith("/account/"):
            if payload and "contact" in payload:
                self.contacts.append(payload["contact"])
            return 200, {}, {"status": "valid"}
        if path == "/new-order":
            return self.new_order(payload)
        return self.thing(path, payload, account)

    def opened(self, path: str, body: bytes, headers) -> tuple[dict, dict | None]:
        """The account (its key, where it is new) and the payload of a request whose signature holds."""
        if headers.get("Content-Type") != "application/jose+json":
            raise Refusal("malformed", "the type is application/jose+json", 415)
        if "portcullis/" not in headers.get("User-Agent", ""):
            raise Refusal("malformed", "who are you?")
        jws = json.loads(body)
        header = json.loads(from_base64url(jws["protected"]))
        if header["url"] != f"{self.base}{path}":
            raise Refusal("unauthorized", f"the request is for {header['url']}", 401)
        if header.get("nonce") not in self.nonces:
            raise Refusal("badNonce", "the nonce is unknown")
        self.nonces.remove(header["nonce"])
        if "jwk" in header:
            account = {"jwk": header["jwk"]}
        elif header["kid"] in self.accounts:
            account = self.accounts[header["kid"]]
        else:
            raise Refusal("accountDoesNotExist", "there is no such account")
        jwk = account["jwk"]
        if header["alg"] != "ES256" or jwk["crv"] != "P-256":
            raise Refusal("badSignatureAlgorithm", "ES256 alone")
        signature = from_base64url(jws["signature"])
        numbers = b"".join(self.integer(signature[at:at + 32]) for at in (0, 32))
        point = b"\x04" + from_base64url(jwk["x"]) + from_base64url(jwk["y"])
        spki = P256 + point
        work = self.folder / f"jws-{secrets.token_hex(4)}"
        files = [work.with_suffix(suffix) for suffix in (".key", ".sig", ".txt")]
        for file, content in zip(files, [spki, b"\x30" + bytes([len(numbers)]) + numbers,
                                         f"{jws['protected']}.{jws['payload']}".encode()]):
            file.write_bytes(content)
        try:
            openssl("dgst", "-sha256", "-verify", str(files[0]), "-keyform", "DER", "-signature", str(files[1]),
                    str(files[2]))
        except RuntimeError as error:
            raise Refusal("malformed", f"the signature does not hold: {error}") from None
        finally:
            for file in files:
                file.unlink()
        payload = jws["payload"]
        return account, json.loads(from_base64url(payload)) if payload else None

    @staticmethod
    def integer(number: bytes) -> bytes:
        number = number.lstrip(b"\0") or b"\0"
        number = b"\0" + number if number[0] & 0x80 else number
        return b"\x02" + bytes([len(number)]) + number

    @staticmethod
    def thumbprint(jwk: dict) -> str:
        text = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
        return base64url(hashlib.sha256(text.encode()).digest())

    def new_account(self, account: dict, payload: dict) -> tuple[int, dict, dict]:
        if not payload.get("termsOfServiceAgreed"):
            raise Refusal("userActionRequired", "agree to the terms")
        thumb = self.thumbprint(account["jwk"])
        for url, known in self.accounts.items():
            if known["thumb"] == thumb:
                return 200, {"Location": url}, {"status": "valid"}
        if self.eab:
            binding = payload.get("externalAccountBinding")
            if not binding:
                raise Refusal("externalAccountRequired", "bind an external account")
            header = json.loads(from_base64url(binding["protected"]))
            message = f"{binding['protected']}.{binding['payload']}".encode()
            mac = hmac.new(from_base64url(self.eab[1]), message, hashlib.sha256).digest()
            bound = json.loads(from_base64url(binding["payload"]))
            if header != {"alg": "HS256", "kid": self.eab[0], "url": f"{self.base}/new-account"} \
                    or base64url(mac) != binding["signature"] or self.thumbprint(bound) != thumb:
                raise Refusal("unauthorized", "the binding does not hold", 401)
        self.contacts.append(payload.get("contact", []))
        url = f"{self.base}/account/{len(self.accounts) + 1}"
        self.accounts[url] = {**account, "thumb": thumb}
        return 201, {"Location": url}, {"status": "valid"}

    def new_order(self, payload: dict) -> tuple[int, dict, dict]:
        if payload.get("replaces"):
            if self.already_replaced:
                raise Refusal("alreadyReplaced", "it is replaced already", 409)
            if payload["replaces"] not in self.ids:
                raise Refusal("malformed", "it replaces no certificate of ours")
        self.orders.append(payload)
        number = len(self.orders)
        order = {"status": "pending", "identifiers": payload["identifiers"], "authorizations": [],
                 "finalize": f"{self.base}/finalize/{number}"}
        for name in ("replaces", "profile"):
            if name in payload:
                order[name] = payload[name]
        for at, identifier in enumerate(payload["identifiers"]):
            if self.lie == "another-authorization":
                identifier = {"type": "dns", "value": "other.test"}
            url = f"{self.base}/authorization/{number}-{at}"
            token = secrets.token_urlsafe(16)
            challenges = [{"type": kind, "url": f"{self.base}/challenge/{number}-{at}-{kind}", "token": token,
                           "status": "pending"} for kind in ("http-01", "dns-01", "tls-alpn-01")]
            authorization = {"status": "pending", "identifier": identifier, "challenges": challenges}
            order["authorizations"].append(url)
            self.things[url] = authorization
            for challenge in challenges:
                self.things[challenge["url"]] = {"of": authorization, "challenge": challenge, "order": order}
        url = f"{self.base}/order/{number}"
        self.things[url] = order
        self.things[order["finalize"]] = {"finalizes": order, "url": url, "number": number}
        return 201, {"Location": url}, order

    def thing(self, path: str, payload: dict | None, account: dict) -> tuple[int, dict, object]:
        thing = self.things.get(f"{self.base}{path}")
        if thing is None:
            raise Refusal("malformed", "there is no such thing", 404)
        if "challenge" in thing and payload is not None:
            thing["challenge"]["status"] = "processing"
            self.tokens.append(thing["challenge"]["token"])
            threading.Thread(target=self.validate, args=(thing, account["thumb"]), daemon=True).start()
            return 200, {}, thing["challenge"]
        if "finalizes" in thing:
            order = thing["finalizes"]
            if self.not_ready:
                self.not_ready -= 1
                raise Refusal("orderNotReady", "not yet", 403)
            if order["status"] != "ready":
                raise Refusal("orderNotReady", f"the order is {order['status']}", 403)
            chain = self.issue(order, from_base64url(payload["csr"]))
            order["status"], order["certificate"] = "valid", f"{self.base}/certificate/{thing['number']}"
            self.things[order["certificate"]] = {"chain": chain}
            return 200, {"Location": thing["url"]}, order
        if "chain" in thing:
            return 200, {}, thing["chain"]
        return 200, {}, {name: value for name, value in thing.items() if name != "of"}

    # --- Validation ---

    def validate(self, thing: dict, thumb: str) -> None:
        challenge, authorization = thing["challenge"], thing["of"]
        kind, name = challenge["type"], authorization["identifier"]["value"]
        proof = f"{challenge['token']}.{thumb}"
        time.sleep(self.hold)
        problem = None
        try:
            look = {"http-01": self.look_http, "tls-alpn-01": self.look_tls}[kind]
            if kind in self.refuse or not all(
                    look(ports, name, challenge["token"], proof) for ports in [self.ports, *self.also]):
                problem = {"type": PROBLEM + "unauthorized", "detail": f"{name}: nobody answers as it should"}
        except (OSError, http.client.HTTPException) as error:
            problem = {"type": PROBLEM + "connection", "detail": f"{name}: {error}"}
        with self.lock:
            self.validated.append((kind, name))
            self.outcomes.append(problem is None)
            challenge["status"] = authorization["status"] = "invalid" if problem else "valid"
            if problem:
                challenge["error"] = problem
                thing["order"]["status"] = "invalid"
            elif all(self.things[it]["status"] == "valid" for it in thing["order"]["authorizations"]):
                thing["order"]["status"] = "ready"

    def look_http(self, ports: tuple[int, int], name: str, token: str, proof: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", ports[0], timeout=5)
        connection.request("GET", f"/.well-known/acme-challenge/{token}", headers={"Host": name})
        answer = connection.getresponse()
        return answer.status == 200 and answer.read().decode() == proof

    def look_tls(self, ports: tuple[int, int], name: str, _token: str, proof: str) -> bool:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["acme-tls/1"])
        with socket.create_connection(("127.0.0.1", ports[1]), timeout=5) as connection, \
                context.wrap_socket(connection, server_hostname=name) as secured:
            shown = secured.getpeercert(binary_form=True)
            digest = hashlib.sha256(proof.encode()).digest()
            return secured.selected_alpn_protocol() == "acme-tls/1" and ACME_IDENTIFIER + digest in shown \
                and name.encode() in shown
