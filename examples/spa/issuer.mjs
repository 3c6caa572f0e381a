// An identity provider for trying things out: npm's oidc-provider on loopback, with a page that signs anybody in.
//
//   node issuer.mjs [PORT]
//
// It has one client, the single-page app: public (no secret), authorization code with PKCE. Its page may call the token
// endpoint from http://127.0.0.1:8080 (CORS). Keys are made at every start.

import { exportJWK, generateKeyPair } from "jose";
import { Provider } from "oidc-provider";

const port = Number(process.argv[2] ?? 9000);
const APP = "http://127.0.0.1:8080";
const { privateKey } = await generateKeyPair("RS256", { extractable: true });

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: "shop",
    token_endpoint_auth_method: "none",
    grant_types: ["authorization_code"],
    response_types: ["code"],
    redirect_uris: [`${APP}/callback`],
  }],
  scopes: ["openid", "orders:read"],
  jwks: { keys: [{ ...(await exportJWK(privateKey)), kid: "first", alg: "RS256", use: "sig" }] },
  cookies: { keys: [crypto.randomUUID()] },
  clientBasedCORS: (_context, origin) => origin === APP,
  features: {
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: () => ({
        scope: "orders:read",
        audience: "shop-api",
        accessTokenFormat: "jwt",
        accessTokenTTL: 300,
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});

provider.listen(port, "127.0.0.1");
