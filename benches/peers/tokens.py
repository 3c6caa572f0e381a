"""The tokens that the load sends, valid and invalid ones.

HS256 only needs the standard library. For RS256 and ES256 sign.py creates keys and tokens, with PyCA's cryptography.
"""

import base64
import hashlib
import hmac
import json
import subprocess
import time
from dataclasses import dataclass

from system import Failure

SECRET = "0123456789abcdef0123456789abcdef-bench"
HOURS = 12


@dataclass
class Tokens:
    """The tokens of one algorithm: valid ones, invalid ones, and the key that decides."""

    good: list
    bad: dict
    jwks: str
    public_key: str | None = None


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token(algorithm, sign, number=7, expires_in=HOURS * 3600, kid=None):
    """A typical JWT access token: seven claims, about 250 bytes and the signature."""
    now = int(time.time())
    claims = {
        "sub": f"user-{number:07}", "iss": "https://issuer.example", "aud": "bench", "iat": now - 60,
        "exp": now + expires_in, "jti": f"7c3fd2a0{number:08x}", "token_type": "access",
    }
    head = {"alg": algorithm, "typ": "JWT", **({"kid": kid} if kid else {})}
    signed = b".".join(encoded(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims))
    return (signed + b"." + encoded(sign(signed))).decode()


def bad_tokens(algorithm, sign, sign_otherwise, kid=None):
    """Tokens that every server must refuse: {what is wrong: the token}."""
    head, claims, signature = token(algorithm, sign, kid=kid).split(".")
    flipped = signature[:5] + ("A" if signature[5] != "A" else "B") + signature[6:]
    return {
        "no token": None,
        "a changed signature": f"{head}.{claims}.{flipped}",
        "another key": token(algorithm, sign_otherwise, kid=kid),
        "an expired token": token(algorithm, sign, expires_in=-3600, kid=kid),
        "alg none": token("none", lambda _: b"", kid=kid),
    }


def hs256():
    def sign(secret):
        return lambda data: hmac.new(secret.encode(), data, hashlib.sha256).digest()

    key = {"kty": "oct", "alg": "HS256", "k": encoded(SECRET.encode()).decode()}
    return Tokens(
        [token("HS256", sign(SECRET))], bad_tokens("HS256", sign(SECRET), sign(SECRET[::-1])),
        json.dumps({"keys": [key]}),
    )


def signed_by(python, folder, algorithm, count):
    """`count` tokens of RS256 or ES256, signed with a new key. `python` has PyCA's cryptography."""
    script = str(__file__).replace("tokens.py", "sign.py")
    command = [python, "-B", script, algorithm, str(count), folder / f"{algorithm}.pem"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"sign.py failed:\n{done.stderr[-2000:]}")
    said = json.loads(done.stdout)
    return Tokens(said["good"], said["bad"], said["jwks"], folder / f"{algorithm}.pem")
