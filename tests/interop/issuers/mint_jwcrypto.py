"""Keys and tokens of every algorithm, made with jwcrypto: PEM files, and key sets with `kid`, `alg` and `use`.

    mint_jwcrypto.py FOLDER CLAIMS

Writes public keys and secrets to FOLDER and prints one JSON object, which issuers.py reads: see `Minted` there.
"""

import json
import secrets
import sys
from importlib.metadata import version
from pathlib import Path

from jwcrypto.jwk import JWK, JWKSet
from jwcrypto.jwt import JWT

HMAC = ["HS256", "HS384", "HS512"]
RSA = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}

folder, claims = Path(sys.argv[1]), json.loads(sys.argv[2])


def make_key(algorithm: str, text: str = "") -> JWK:
    marks = {"alg": algorithm, "use": "sig"}
    if algorithm in HMAC:
        return JWK(**{**JWK.from_password(text).export(as_dict=True), **marks, "kid": secrets.token_hex(4)})
    if algorithm in RSA:
        key = JWK.generate(kty="RSA", size=2048, **marks)
    elif algorithm in CURVES:
        key = JWK.generate(kty="EC", crv=CURVES[algorithm], **marks)
    else:
        key = JWK.generate(kty="OKP", crv="Ed25519", **marks)
    key.update(kid=key.thumbprint())
    return key


def sign(key: JWK, algorithm: str, header: dict) -> str:
    """A token; a key's own `alg` binds jwcrypto too, so it is left out where another is asked for."""
    key = JWK(**{name: value for name, value in key.export(as_dict=True).items() if name != "alg"})
    token = JWT(header={"typ": "JWT", **header, "alg": algorithm}, claims=claims)
    token.make_signed_token(key)
    return token.serialize()


def mint(algorithm: str) -> dict:
    text = secrets.token_hex(32)
    shared = algorithm in HMAC
    key, stranger = make_key(algorithm, text), make_key(algorithm, secrets.token_hex(32))
    named = {"kid": key["kid"]}
    plain = folder / f"{algorithm}.{'secret' if shared else 'pem'}"
    plain.write_bytes(text.encode() if shared else key.export_to_pem())
    key_set = folder / f"{algorithm}.json"
    members = JWKSet()
    members.add(key)
    key_set.write_text(members.export(private_keys=shared))

    forged = {"another key": sign(stranger, algorithm, named)}
    if not shared:
        own = {**named, "jwk": stranger.export_public(as_dict=True)}
        forged["another key, in its header"] = sign(stranger, algorithm, own)
    for family in (HMAC, RSA):
        for other in set(family) - {algorithm} if algorithm in family else ():
            forged[f"the key's own, but {other}"] = sign(key, other, named)
    return {
        "keys": {"secret" if shared else "pem": str(plain), "jwks": str(key_set)},
        "token": sign(key, algorithm, named),
        "forged": forged,
    }


minted = {algorithm: mint(algorithm) for algorithm in [*HMAC, *RSA, *CURVES, "EdDSA"]}
print(json.dumps({"library": f"jwcrypto {version('jwcrypto')}", "minted": minted}))
