"""sign.py ALGORITHM COUNT PUBLIC_KEY_FILE: signs tokens with a new key and prints them as JSON.

A separate program, since it needs PyCA's cryptography from a virtual environment. See tokens.py.
"""

import json
import sys

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tokens import bad_tokens, encoded, token

KID = "bench"


def rs256():
    key = rsa.generate_private_key(65537, 2048)
    return key, lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def es256():
    key = ec.generate_private_key(ec.SECP256R1())

    def sign(data):
        return b"".join(part.to_bytes(32) for part in decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256()))))

    return key, sign


def jwk(public):
    """The members of the key as of RFC 7518."""
    def number(value, size):
        return encoded(value.to_bytes(size)).decode()

    numbers = public.public_numbers()
    if isinstance(public, rsa.RSAPublicKey):
        return {"kty": "RSA", "n": number(numbers.n, 256), "e": number(numbers.e, 3)}
    return {"kty": "EC", "crv": "P-256", "x": number(numbers.x, 32), "y": number(numbers.y, 32)}


def main():
    algorithm, count, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    make = {"RS256": rs256, "ES256": es256}[algorithm]
    (key, sign), (_, sign_otherwise) = make(), make()
    public = key.public_key()
    with open(path, "wb") as opened:
        opened.write(public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ))
    json.dump({
        "good": [token(algorithm, sign, number, kid=KID) for number in range(count)],
        "bad": bad_tokens(algorithm, sign, sign_otherwise, kid=KID),
        "jwks": json.dumps({"keys": [{"kid": KID, "alg": algorithm, "use": "sig", **jwk(public)}]}),
    }, sys.stdout)


if __name__ == "__main__":
    main()
