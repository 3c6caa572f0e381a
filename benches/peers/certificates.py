"""The certificates that openssl makes: the one that servers show, and a client's with its CA. All keys are on P-256.

names.py makes those of many names.
"""

import subprocess

from system import Failure


def own(folder):
    """bench.pem and bench.key: a certificate of localhost, signed by its own key."""
    make(folder / "bench", "/CN=localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1")


def client(folder):
    """client-ca.pem, and client.pem and client.key, which it signs."""
    make(folder / "client-ca", "/O=Bench/CN=clients")
    make(
        folder / "client", "/O=Bench/CN=client", "basicConstraints=critical,CA:FALSE",
        "extendedKeyUsage=clientAuth", "subjectAltName=URI:spiffe://bench.example/client",
        signed_by=("-CA", folder / "client-ca.pem", "-CAkey", folder / "client-ca.key"),
    )


def make(stem, subject, *extensions, signed_by=()):
    extensions = [word for extension in extensions for word in ("-addext", extension)]
    done = subprocess.run([
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "30", "-subj", subject, *extensions, *signed_by, "-keyout", f"{stem}.key", "-out", f"{stem}.pem",
    ], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"openssl failed:\n{done.stderr}")
