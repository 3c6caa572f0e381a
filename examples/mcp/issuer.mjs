// An identity provider for trying things out: npm's oidc-provider on loopback, with a page that signs anybody in.
//
//   node issuer.mjs [PORT]
//
// MCP clients register themselves (RFC 7591) and use the authorization code flow with PKCE. Beside them there are two
// clients for programs, both with client credentials: `reports` may ask for the scope orders:read, `visitor` for
// orders:list alone.
// A token's audience is the `resource` (RFC 8707) that the client asks for. Keys are made at every start.

import { exportJWK, generateKeyPair } from "jose";
import { Provider } from "oidc-provider";

const port = Number(process.argv[2] ?? 9000);
const { privateKey } = await generateKeyPair("RS256", { extractable: true });

const program = (client_id, scope) => ({
  client_id,
  client_secret: `secret-of-${client_id}`,
  grant_types: ["client_credentials"],
  redirect_uris: [],
  response_types: [],
  scope,
});

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [program("reports", "orders:read"), program("visitor", "orders:list")],
  scopes: ["orders:read", "orders:list"],
  jwks: { keys: [{ ...(await exportJWK(privateKey)), kid: "first", alg: "RS256", use: "sig" }] },
  cookies: { keys: [crypto.randomUUID()] },
  features: {
    devInteractions: { enabled: true },
    registration: { enabled: true },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_context, resource) => ({
        scope: "orders:read orders:list",
        audience: resource,
        accessTokenFormat: "jwt",
        accessTokenTTL: 300,
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});

provider.listen(port, "127.0.0.1");
