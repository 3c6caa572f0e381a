"""names.py FOLDER COUNT: makes certificates with keys on P-256, each for one name: nNUMBER.bench.example.

A separate program, since it needs PyCA's cryptography from a virtual environment.
"""

import datetime
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM


def main():
    folder = Path(sys.argv[1])
    now = datetime.datetime.now(datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    for number in range(int(sys.argv[2])):
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(f"n{number}.bench.example")])
        made = x509.CertificateBuilder(
            subject, subject, key.public_key(), x509.random_serial_number(), now - datetime.timedelta(hours=1),
            now + datetime.timedelta(days=30),
        ).add_extension(names, False).sign(key, hashes.SHA256())
        (folder / f"n{number}.pem").write_bytes(made.public_bytes(PEM))
        (folder / f"n{number}.key").write_bytes(
            key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )


if __name__ == "__main__":
    main()
