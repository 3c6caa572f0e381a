// Keys and tokens of every algorithm, made with node's jose: PEM files, and key sets with `kid`, `alg` and `use`.
//
//   node mint_jose.mjs FOLDER CLAIMS
//
// Writes public keys and secrets to FOLDER and prints one JSON object, which issuers.py reads: see `Minted` there.

import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

import { SignJWT, calculateJwkThumbprint, exportJWK, exportSPKI, generateKeyPair, importJWK } from "jose";

const HMAC = ["HS256", "HS384", "HS512"];
const RSA = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
const OTHERS = ["ES256", "ES384", "ES512", "EdDSA"];

const [folder, text] = process.argv.slice(2);
const claims = JSON.parse(text);

/** A key: what is given to the gateway, and the private half as a JWK. */
async function makeKey(algorithm) {
  const marks = { alg: algorithm, use: "sig" };
  if (HMAC.includes(algorithm)) {
    const secret = randomBytes(32).toString("hex");
    const jwk = { ...(await exportJWK(new TextEncoder().encode(secret))), ...marks };
    jwk.kid = await calculateJwkThumbprint(jwk);
    return { form: "secret", plain: secret, shown: jwk, own: jwk };
  }
  const { publicKey, privateKey } = await generateKeyPair(algorithm, { extractable: true });
  const shown = { ...(await exportJWK(publicKey)), ...marks };
  shown.kid = await calculateJwkThumbprint(shown);
  return { form: "pem", plain: await exportSPKI(publicKey), shown, own: await exportJWK(privateKey) };
}

/** jose binds a key to one algorithm when it is imported, so it is imported for each. */
async function sign(key, algorithm, header) {
  const { alg, use, key_ops, ...bare } = key.own;
  const signing = await importJWK(bare, algorithm);
  return new SignJWT(claims).setProtectedHeader({ typ: "JWT", ...header, alg: algorithm }).sign(signing);
}

async function mint(algorithm) {
  const key = await makeKey(algorithm);
  const stranger = await makeKey(algorithm);
  const named = { kid: key.shown.kid };
  const plain = join(folder, `${algorithm}.${key.form}`);
  const keySet = join(folder, `${algorithm}.json`);
  writeFileSync(plain, key.plain);
  writeFileSync(keySet, JSON.stringify({ keys: [key.shown] }));

  const forged = { "another key": await sign(stranger, algorithm, named) };
  if (key.form === "pem") {
    forged["another key, in its header"] = await sign(stranger, algorithm, { ...named, jwk: stranger.shown });
  }
  for (const family of [HMAC, RSA].filter((one) => one.includes(algorithm))) {
    for (const other of family.filter((one) => one !== algorithm)) {
      forged[`the key's own, but ${other}`] = await sign(key, other, named);
    }
  }
  return { keys: { [key.form]: plain, jwks: keySet }, token: await sign(key, algorithm, named), forged };
}

const minted = {};
for (const algorithm of [...HMAC, ...RSA, ...OTHERS]) minted[algorithm] = await mint(algorithm);
// The package does not export its package.json by name; it stands above the file that is imported.
const main = createRequire(import.meta.url).resolve("jose");
const root = main.slice(0, main.lastIndexOf("/jose/") + "/jose/".length);
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
console.log(JSON.stringify({ library: `jose ${version}`, minted }));
