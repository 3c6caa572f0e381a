// The demo's page: signs in, keeps the access token fresh, and shows what the gateway answers.

const $ = (id) => document.getElementById(id);
const KEPT = "portcullis-demo";
const REFRESH_BEFORE = 30; // seconds of life left
const GATEWAYS_OWN = /^x-(user-(id|roles)|forwarded-(for|proto|host|port)|request-id)$/;

// { access, refresh }, or null. Kept for this tab alone, so that a reload stays signed in.
let tokens = null;
let refreshing = null;
// Counts the calls: an answer that a later call has overtaken is not shown.
let turn = 0;

// ---- Tokens

/** The claims of a token, or null. Only to show them: whoever must trust them checks the signature. */
function claimsOf(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(part), (c) => c.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
}

function keep(next, note = "") {
  tokens = next && claimsOf(next.access) ? next : null;
  if (tokens) sessionStorage.setItem(KEPT, JSON.stringify(tokens));
  else sessionStorage.removeItem(KEPT);
  showNote(note);
  showWho();
}

function restore() {
  try {
    keep(JSON.parse(sessionStorage.getItem(KEPT)));
  } catch {
    keep(null);
  }
}

function post(path, fields) {
  return fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(fields),
  });
}

async function signIn(username, password) {
  const response = await post("/api/token/", { username, password });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) keep(answer);
  else if (response.status === 401) keep(null, "Wrong name or password. The demo prints new passwords at every start.");
  else keep(null, answer.detail ?? `The sign-in failed (${response.status}).`);
}

/** Takes a new access token; one request, however many ask for it. */
function refresh() {
  refreshing ??= (async () => {
    const used = tokens;
    try {
      const response = await post("/api/token/refresh/", { refresh: used.refresh });
      if (tokens !== used) return; // signed out, or in again, meanwhile
      if (response.ok) keep({ ...used, ...(await response.json()) });
      else if (response.status === 401) keep(null, "The session has ended. Sign in again.");
    } catch {
      // The gateway is away: the next second tries again.
    } finally {
      refreshing = null;
    }
  })();
  return refreshing;
}

const secondsLeft = () => (claimsOf(tokens.access)?.exp ?? 0) - Date.now() / 1000;

// ---- Who you are

function showNote(text) {
  $("sign-in-note").textContent = text;
  $("sign-in-note").hidden = !text;
}

function showWho() {
  $("sign-in").hidden = tokens !== null;
  $("signed-in").hidden = tokens === null;
  if (!tokens) return;
  const claims = claimsOf(tokens.access);
  const left = Math.max(0, Math.round(secondsLeft()));
  $("name").textContent = claims.sub ?? "";
  $("avatar").textContent = (claims.sub ?? "?").slice(0, 1);
  $("roles").textContent = [claims.roles].flat().join(", ");
  const clock = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
  $("countdown").textContent = `The token is good for ${clock}, and is renewed by itself.`;
  $("life").value = left / Math.max(1, claims.exp - claims.iat);
}

function everySecond() {
  if (!tokens) return;
  showWho();
  if (secondsLeft() < REFRESH_BEFORE) refresh();
}

// ---- Calls

const CALLS = {
  app: { path: "/api/orders/", token: true },
  anonymous: { path: "/api/orders/" },
  forged: { path: "/api/orders/", token: true, headers: { "X-User-Id": "mallory" } },
  admin: { path: "/api/admin/", token: true },
  ping: { path: "/ping" },
  events: { path: "/api/events", token: true },
};

const MEANINGS = {
  200: "Let through.",
  400: "The gateway could not read this in one way only, and refused it.",
  401: "The gateway asked for a good token. The app never heard of this request.",
  403: "The token is good, but its claims are not enough. The app never heard of this request.",
  404: "No route, or nothing there.",
  502: "The app did not answer as it should.",
  503: "The app, or the keys, are not to be had now.",
  504: "The app took too long.",
};

function meaningOf(name, status, tokenMissing) {
  if (status === 401 && tokenMissing) return "Nobody is signed in, so there was no token to send. The app never heard of this request.";
  if (status !== 200) return MEANINGS[status] ?? "";
  if (name === "ping") return "Answered by the gateway itself. Change the body in gateway.yaml, save, and ping again.";
  if (name === "forged") return "The forged X-User-Id: mallory is gone. The app sees who the token says you are.";
  if (name === "events") return "Each event is shown as it arrives, one a second.";
  return "The token was checked, and the app was told who asks.";
}

async function call(name) {
  const { path, token, headers } = CALLS[name];
  const mine = ++turn;
  if (token && tokens && secondsLeft() < 5) await refresh();
  const sent = { ...headers };
  if (token && tokens) sent.Authorization = `Bearer ${tokens.access}`;
  const tokenMissing = token && !tokens;

  const began = performance.now();
  let response;
  try {
    response = await fetch(path, { headers: sent, cache: "no-store" });
  } catch {
    if (mine !== turn) return;
    showAnswer({ good: false, status: "no answer", request: `GET ${path}`, meaning: "The gateway cannot be reached." });
    return;
  }
  const answer = {
    good: response.ok,
    status: `${response.status} ${response.statusText}`.trim(),
    request: `GET ${path}`,
    timing: `${(performance.now() - began).toFixed(1)} ms`,
    meaning: meaningOf(name, response.status, tokenMissing),
    challenge: response.headers.get("WWW-Authenticate"),
  };
  if (response.ok && response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
    if (mine === turn) showAnswer({ ...answer, body: "" });
    await follow(response.body, began, () => mine === turn);
    return;
  }
  const text = await response.text().catch(() => "The answer broke off.");
  if (mine !== turn) return;
  let json = null;
  try {
    json = JSON.parse(text);
  } catch {
    // Plain text is shown as it is.
  }
  if (json?.app === "sample") showAnswer({ ...answer, seen: json.headers });
  else showAnswer({ ...answer, body: json ? JSON.stringify(json, null, 2) : text });
}

/** Shows a stream's events as they arrive. EventSource would do, but cannot send a token. */
async function follow(stream, began, wanted) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      if (!wanted()) return await reader.cancel();
      rest += value;
      const events = rest.split("\n\n");
      rest = events.pop();
      const at = ((performance.now() - began) / 1000).toFixed(2).padStart(6);
      for (const event of events) {
        const data = event.split("\n").find((line) => line.startsWith("data:"))?.slice(5).trim();
        $("body").textContent += `${at} s  ${data ?? ""}\n`;
      }
    }
  } catch {
    if (wanted()) $("body").textContent += "The stream broke off.\n";
  }
}

// ---- The answer

function showAnswer({ good, status, request, timing, meaning, challenge, seen, body }) {
  $("empty").hidden = true;
  $("answer").hidden = false;
  $("status").textContent = status;
  $("status").classList.toggle("good", good);
  $("request").textContent = request;
  $("timing").textContent = timing ?? "";
  $("meaning").textContent = meaning;
  $("challenge-box").hidden = !challenge;
  $("challenge").textContent = challenge ?? "";
  $("seen-box").hidden = !seen;
  $("seen").replaceChildren(...Object.entries(seen ?? {}).sort(byOrigin).map(row));
  $("body-box").hidden = body === undefined || (body === "" && !good);
  $("body").textContent = body ?? "";
  // On a phone the answer is below the buttons.
  const { top, bottom } = $("status").getBoundingClientRect();
  if (top < 0 || bottom > innerHeight) $("answer-title").scrollIntoView();
}

/** The gateway's own headers first, then by name. */
function byOrigin([a], [b]) {
  return GATEWAYS_OWN.test(b) - GATEWAYS_OWN.test(a) || a.localeCompare(b);
}

function row([name, value]) {
  const cells = [name, value].map((text) => {
    const cell = document.createElement("td");
    cell.textContent = text;
    return cell;
  });
  cells[0].classList.toggle("mark", GATEWAYS_OWN.test(name));
  const line = document.createElement("tr");
  line.append(...cells);
  return line;
}

// ---- Start

/** Runs `work`, unless the button's last is not done. It is not disabled, which would take the keyboard's focus from it. */
async function busy(button, work) {
  if (button.ariaBusy === "true") return;
  button.ariaBusy = "true";
  try {
    await work();
  } finally {
    button.ariaBusy = null;
  }
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.currentTarget;
  busy(form.querySelector("button"), async () => {
    try {
      await signIn(form.username.value, form.password.value);
    } catch {
      showNote("The gateway cannot be reached.");
    }
    form.password.value = "";
    (tokens ? $("sign-out") : form.password).focus();
  });
});

$("sign-out").addEventListener("click", () => {
  keep(null);
  $("username").focus();
});

for (const button of document.querySelectorAll("[data-call]")) {
  button.addEventListener("click", () => busy(button, () => call(button.dataset.call)));
}

restore();
setInterval(everySecond, 1000);
