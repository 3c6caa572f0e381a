// An identity provider for trying things out: npm's oidc-provider on loopback, whose tokens have Keycloak's claims.
//
//   node issuer.mjs [PORT]
//
// Its issuer is http://127.0.0.1:PORT/realms/main. Three clients get tokens by client credentials: `ada`, a clerk;
// `eve`, an administrator; `visitor`, who has no role. In earnest these would be users who sign in in a browser; the
// gateway sees the same tokens. Keys are made at every start.

import { createServer } from "node:http";

import { exportJWK, generateKeyPair } from "jose";
import { Provider } from "oidc-provider";

const port = Number(process.argv[2] ?? 9000);
const REALM = "/realms/main";
const ROLES = { ada: ["clerk"], eve: ["clerk", "admin"], visitor: [] };
const { privateKey } = await generateKeyPair("RS256", { extractable: true });

const provider = new Provider(`http://127.0.0.1:${port}${REALM}`, {
  clients: Object.keys(ROLES).map((client_id) => ({
    client_id,
    client_secret: `secret-of-${client_id}`,
    grant_types: ["client_credentials"],
    redirect_uris: [],
    response_types: [],
  })),
  jwks: { keys: [{ ...(await exportJWK(privateKey)), kid: "first", alg: "RS256", use: "sig" }] },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      // Keycloak has no `resource`; its audience mapper adds this to every token.
      defaultResource: () => "https://orders.example.com",
      getResourceServerInfo: () => ({
        scope: "",
        audience: "orders-api",
        accessTokenFormat: "jwt",
        accessTokenTTL: 300,
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
  extraTokenClaims: (_context, { clientId }) => ({
    typ: "Bearer",
    azp: clientId,
    preferred_username: clientId,
    realm_access: { roles: ROLES[clientId] },
  }),
});

// The provider's paths stand below the realm's, as Keycloak's do.
createServer((request, response) => {
  if (!request.url.startsWith(`${REALM}/`)) return response.writeHead(404).end();
  request.originalUrl = request.url;
  request.url = request.url.slice(REALM.length);
  provider.callback()(request, response);
}).listen(port, "127.0.0.1");
