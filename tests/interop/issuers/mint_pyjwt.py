"""Keys and tokens of every algorithm, made with PyJWT: PEM files, and key sets as bare as PyJWT exports them.

    mint_pyjwt.py FOLDER CLAIMS

Writes public keys and secrets to FOLDER and prints one JSON object, which issuers.py reads: see `Minted` there.
Its tokens and keys have no `kid`, and its key sets no `alg`: what PyJWT does unless it is told more.
"""

import json
import secrets
import sys
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

HMAC = ["HS256", "HS384", "HS512"]
RSA = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}

folder, claims = Path(sys.argv[1]), json.loads(sys.argv[2])


def make_key(algorithm: str):
    if algorithm in HMAC:
        return secrets.token_hex(32)
    if algorithm in RSA:
        return rsa.generate_private_key(65537, 2048)
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm]())
    return ed25519.Ed25519PrivateKey.generate()


def mint(algorithm: str) -> dict:
    key, stranger = make_key(algorithm), make_key(algorithm)
    shared = isinstance(key, str)
    exported = key if shared else key.public_key()
    key_set = folder / f"{algorithm}.json"
    key_set.write_text(json.dumps({"keys": [get_default_algorithms()[algorithm].to_jwk(exported, as_dict=True)]}))
    plain = folder / f"{algorithm}.{'secret' if shared else 'pem'}"
    if shared:
        plain.write_text(key)
    else:
        plain.write_bytes(exported.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    forged = {"another key": jwt.encode(claims, stranger, algorithm)}
    if not shared:
        own = get_default_algorithms()[algorithm].to_jwk(stranger.public_key(), as_dict=True)
        forged["another key, in its header"] = jwt.encode(claims, stranger, algorithm, headers={"jwk": own})
    for family in (HMAC, RSA):
        for other in set(family) - {algorithm} if algorithm in family else ():
            forged[f"the key's own, but {other}"] = jwt.encode(claims, key, other)
    return {
        "keys": {"secret" if shared else "pem": str(plain), "jwks": str(key_set)},
        "token": jwt.encode(claims, key, algorithm),
        "forged": forged,
    }


minted = {algorithm: mint(algorithm) for algorithm in [*HMAC, *RSA, *CURVES, "EdDSA"]}
print(json.dumps({"library": f"PyJWT {jwt.__version__}", "minted": minted}))
