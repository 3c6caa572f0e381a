// A single-page app without a framework: two pages, sign-in at an OpenID provider (authorization code with PKCE), calls
// of an API with the access token. The token is kept in memory alone, so a reload of the page signs in again; where the
// provider still has its session, nobody notices.

const ISSUER = "http://127.0.0.1:9000";
const CLIENT = "shop";
const RESOURCE = "https://shop.example.com/api"; // the API, as the provider knows it: the token's audience
const CALLBACK = `${location.origin}/callback`;

let token = null;

const base64 = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes)));
const base64url = (bytes) => base64(bytes).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

async function provider() {
  return (await fetch(`${ISSUER}/.well-known/openid-configuration`)).json();
}

async function signIn() {
  const verifier = random();
  const state = random();
  sessionStorage.setItem("sign-in", JSON.stringify({ verifier, state, from: location.pathname }));
  const challenge = base64url(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier)));
  const asked = new URLSearchParams({
    response_type: "code", client_id: CLIENT, redirect_uri: CALLBACK, scope: "openid orders:read", resource: RESOURCE,
    state, code_challenge: challenge, code_challenge_method: "S256",
  });
  location.assign(`${(await provider()).authorization_endpoint}?${asked}`);
}

async function cameBack() {
  const begun = JSON.parse(sessionStorage.getItem("sign-in"));
  sessionStorage.removeItem("sign-in");
  const given = new URLSearchParams(location.search);
  if (!begun || given.get("state") !== begun.state || !given.get("code")) {
    throw new Error(given.get("error_description") ?? "the sign-in failed");
  }
  const response = await fetch((await provider()).token_endpoint, {
    method: "POST",
    body: new URLSearchParams({
      grant_type: "authorization_code", code: given.get("code"), redirect_uri: CALLBACK, client_id: CLIENT,
      code_verifier: begun.verifier, resource: RESOURCE,
    }),
  });
  const tokens = await response.json();
  if (!response.ok) throw new Error(tokens.error_description);
  token = tokens.access_token;
  history.replaceState(null, "", begun.from);
}

async function api(path) {
  const response = await fetch(path, { headers: token ? { Authorization: `Bearer ${token}` } : {} });
  // The gateway says why: 401 for no token or one that has expired, 403 where a scope or role is missing.
  if (response.status === 401) return signIn();
  const body = await response.json();
  if (!response.ok) throw new Error(`${response.status}: ${body.detail}`);
  return body;
}

async function show() {
  const view = document.querySelector("#view");
  const button = document.querySelector("#session");
  button.hidden = false;
  button.textContent = token ? "Sign out" : "Sign in";
  try {
    if (location.pathname === "/orders") {
      const orders = await api("/api/orders");
      if (orders) view.textContent = `Orders of ${orders.user}: ${orders.orders.join(", ")}`;
    } else {
      view.textContent = location.pathname === "/" ? "Welcome." : "There is no such page.";
    }
  } catch (error) {
    view.textContent = error.message;
  }
}

document.querySelector("#session").addEventListener("click", () => {
  if (!token) return signIn();
  token = null;
  history.pushState(null, "", "/");
  show();
});
document.querySelector("nav").addEventListener("click", (event) => {
  if (event.target.tagName !== "A") return;
  event.preventDefault();
  history.pushState(null, "", event.target.href);
  show();
});
addEventListener("popstate", show);

try {
  if (location.pathname === "/callback") await cameBack();
  show();
} catch (error) {
  document.querySelector("#view").textContent = error.message;
}
