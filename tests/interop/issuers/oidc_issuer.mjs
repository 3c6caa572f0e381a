// An OpenID provider for the interop test: npm's oidc-provider on loopback, which can be told to change its keys.
//
//   node oidc_issuer.mjs PORT CONTROL_PORT
//
// On PORT stands the issuer http://127.0.0.1:PORT. Its one client gets JWT access tokens (RFC 9068) by client
// credentials; what it asks for by `resource` (RFC 8707) decides how they are made:
//   https://orders.example/ALGORITHM   audience orders-api, signed with the standing key of that algorithm
//   https://orders.example/current     audience orders-api, signed with the key that the last rotation made
//   https://orders.example/plain       the same, but its header says `typ: JWT`
//   https://billing.example/           audience billing-api, signed with that key too
// On CONTROL_PORT:
//   POST /rotate?algorithm=PS256       publishes a new key and signs with it at once; the one before goes on being
//                                      published, the one before that does not
//   GET  /status                       the current key, the published keys, how often key sets were asked for
// Keys are made at every start and kept nowhere.

import { createServer } from "node:http";

import { calculateJwkThumbprint, exportJWK, generateKeyPair } from "jose";
import { Provider } from "oidc-provider";

const [port, controlPort] = process.argv.slice(2).map(Number);
const ISSUER = `http://127.0.0.1:${port}`;
const STANDING = [
  "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
];

async function makeKey(algorithm) {
  const { privateKey } = await generateKeyPair(algorithm, { extractable: true });
  const jwk = { ...(await exportJWK(privateKey)), alg: algorithm, use: "sig" };
  return { ...jwk, kid: await calculateJwkThumbprint(jwk) };
}

const standing = await Promise.all(STANDING.map(makeKey));
let rotated = [await makeKey("RS256")];
let keySetsAsked = 0;

/** A provider with the keys of this moment; a rotation makes a new one. */
function makeProvider() {
  const current = rotated[0];
  const provider = new Provider(ISSUER, {
    clients: [{
      client_id: "shop",
      client_secret: "a secret of the interop test",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    }],
    scopes: ["orders:read"],
    jwks: { keys: [...rotated, ...standing] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo(_ctx, resource) {
          const { host, pathname } = new URL(resource);
          const key = standing.find(({ alg }) => pathname === `/${alg}`) ?? current;
          return {
            scope: "orders:read",
            audience: host === "billing.example" ? "billing-api" : "orders-api",
            accessTokenFormat: "jwt",
            accessTokenTTL: 300,
            jwt: { sign: { alg: key.alg, kid: key.kid } },
          };
        },
      },
    },
    formats: {
      customizers: {
        jwt(_ctx, token, parts) {
          if (token.resourceServer.identifier().endsWith("/plain")) parts.header = { typ: "JWT" };
        },
      },
    },
  });
  return provider.callback();
}

let handle = makeProvider();

createServer((request, response) => {
  if (request.url === "/jwks") keySetsAsked += 1;
  handle(request, response);
}).listen(port, "127.0.0.1");

createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, ISSUER);
  if (request.method === "POST" && pathname === "/rotate") {
    rotated = [await makeKey(searchParams.get("algorithm")), rotated[0]];
    handle = makeProvider();
  } else if (pathname !== "/status") {
    response.writeHead(404).end();
    return;
  }
  const published = [...rotated, ...standing].map(({ kid }) => kid);
  response.writeHead(200, { "Content-Type": "application/json" });
  response.end(JSON.stringify({ current: rotated[0].kid, published, key_sets_asked: keySetsAsked }));
}).listen(controlPort, "127.0.0.1");
