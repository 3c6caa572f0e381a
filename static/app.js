// The demo's page: signs in, keeps the access token fresh, and shows what the gateway answers, and which lines of its
// configuration decided. The tabs of a browser share one session: what one of them takes, renews or ends holds for all.

const $ = (id) => document.getElementById(id);
const KEPT = "portcullis-demo";
const REFRESH_BEFORE = 30; // seconds of life left, or a third of it where that is less
const GATEWAYS_OWN = /^x-(user-(id|roles)|forwarded-(for|proto|host|port)|request-id)$/;
const ENDED = "The session has ended. Sign in again.";

// { access, refresh } as the gateway gave them, and when that was by this browser's clock; or null. Scripts of this
// origin alone can read them, and the Content-Security-Policy in gateway.yaml lets no others in; `tokens.cookies` would
// keep them from all scripts.
let tokens = null;
// No request for tokens is made before, in milliseconds: the gateway said when to come again, or was away.
let notBefore = 0;
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

/** What all tabs share now. */
function kept() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT));
    return found && claimsOf(found.access) ? found : null;
  } catch {
    return null;
  }
}

function show(next, note = "") {
  tokens = next;
  showNote(note);
  showWho();
}

function keep(next, note) {
  const session = next && { ...next, received: Date.now() };
  if (session) localStorage.setItem(KEPT, JSON.stringify(session));
  else localStorage.removeItem(KEPT);
  show(session, note);
}

/** Runs `work` in one tab at a time. */
const alone = (work) => (navigator.locks ? navigator.locks.request(KEPT, work) : work());

function post(path, fields) {
  return fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(fields),
  });
}

/** Milliseconds until a request may be made again, as the answer says. */
const wait = (response) => 1000 * (Number.parseInt(response.headers.get("Retry-After"), 10) || 1);

/** Why there are no tokens, for somebody who waits. */
function refusalOf(response, answer) {
  const seconds = Math.ceil(wait(response) / 1000);
  if (response.status === 401) return "Wrong name or password. The demo prints new passwords at every start.";
  if (response.status === 429) return `Too many attempts. Try again in ${seconds} s.`;
  if (response.status === 503) return `No tokens can be issued now. Try again in ${seconds} s.`;
  return answer.detail ?? `It failed (${response.status}).`;
}

/** Signs in by the link that the demo printed. Its code stands behind the `#`, which no browser sends and no log has. */
async function signInByLink() {
  const code = /^#sign-in=([\w-]+)$/.exec(location.hash)?.[1];
  if (!code) return;
  history.replaceState(null, "", location.pathname);
  if (tokens) return;
  try {
    const response = await post("/demo/sign-in", { code });
    const answer = await response.json().catch(() => ({}));
    if (response.ok) await alone(() => keep(answer));
    else showNote("The link was used, or is too old. Sign in with a password that the demo printed.");
  } catch {
    showNote("The gateway cannot be reached.");
  }
}

async function signIn(username, password) {
  const response = await post("/api/token/", { username, password });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) await alone(() => keep(answer));
  else showNote(refusalOf(response, answer));
}

/** Ends the session, or all of the user's, at the gateway. The one alone is forgotten here whatever becomes of that. */
async function signOut(everywhere) {
  await alone(async () => {
    const session = kept() ?? tokens;
    let response = null;
    try {
      const fields = { refresh: session.refresh, ...(everywhere && { everywhere }) };
      response = await post("/api/token/blacklist/", fields);
    } catch {
      // The gateway is away.
    }
    // 401: it had ended before.
    if (response?.ok || response?.status === 401) keep(null);
    else if (everywhere) showNote("The gateway did not end the sessions. Try again.");
    else keep(null, "You are signed out here, but the gateway could not be told.");
  });
}

/** Takes new tokens in place of `old`, unless another tab has; whether there are others now. */
function refresh(old) {
  return alone(async () => {
    const session = kept();
    if (session?.access !== old.access) {
      show(session, session ? "" : ENDED);
      return session !== null;
    }
    if (Date.now() < notBefore) return false;
    try {
      const response = await post("/api/token/refresh/", { refresh: session.refresh });
      if (response.ok) keep({ ...session, ...(await response.json()) });
      else if (response.status === 401) keep(null, ENDED);
      else notBefore = Date.now() + wait(response);
      return response.ok;
    } catch {
      notBefore = Date.now() + 1000;
      return false;
    }
  });
}

/** Seconds that the access token is good, and of how many it was; the two clocks need not agree. */
function life() {
  const { exp = 0, iat = 0 } = claimsOf(tokens.access);
  const whole = Math.max(1, exp - iat);
  return { left: whole - (Date.now() - tokens.received) / 1000, whole };
}

const isOld = ({ left, whole }) => left < Math.min(REFRESH_BEFORE, whole / 3);

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
  const { left, whole } = life();
  const seconds = Math.max(0, Math.round(left));
  $("name").textContent = claims.sub ?? "";
  $("avatar").textContent = (claims.sub ?? "?").slice(0, 1);
  $("roles").textContent = [claims.roles].flat().join(", ");
  const clock = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  $("countdown").textContent = `The token is valid for ${clock}, and is renewed by itself.`;
  $("life").value = Math.max(0, left / whole);
}

async function everySecond() {
  if (!tokens) return;
  showWho();
  if (isOld(life())) await refresh(tokens);
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
  200: "Allowed.",
  400: "The gateway could not read this in one way only, and refused it.",
  401: "The gateway asked for a valid token. The app never heard of this request.",
  403: "The token is valid, but its claims are not enough. The app never heard of this request.",
  404: "No route, or nothing there.",
  429: "Too many requests. Retry-After says when to come again.",
  502: "The app did not respond as it should.",
  503: "The app, or the keys, are not available now.",
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

/** What `explain` says of a request, and the lines that decided; null where the gateway is away, or has no such route. */
async function explained(path, headers) {
  try {
    const response = await post("/demo/explain", { method: "GET", url: `${location.origin}${path}`, headers });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

/** Makes a call and shows its response; the first one of a visit leaves the window where it is. */
async function call(name, first = false) {
  const { path, token, headers } = CALLS[name];
  const mine = ++turn;
  const fields = () => {
    const sent = { ...headers };
    if (token && tokens) sent.Authorization = `Bearer ${tokens.access}`;
    return sent;
  };
  const ask = () => fetch(path, { headers: fields(), cache: "no-store" });
  const tokenMissing = token && !tokens;

  let began = performance.now();
  let response;
  try {
    const used = tokens;
    response = await ask();
    // The token was good here, but not there: it is old, or the session has ended.
    if (response.status === 401 && token && used && (await refresh(used))) {
      began = performance.now();
      response = await ask();
    }
  } catch {
    if (mine !== turn) return;
    showAnswer({ good: false, status: "no answer", request: `GET ${path}`, meaning: "The gateway cannot be reached." });
    showWhy(path, null);
    return;
  }
  const answer = {
    good: response.ok,
    status: `${response.status} ${response.statusText}`.trim(),
    request: `GET ${path}`,
    timing: `${(performance.now() - began).toFixed(1)} ms`,
    meaning: meaningOf(name, response.status, tokenMissing),
    challenge: response.headers.get("WWW-Authenticate"),
    first,
  };
  const why = explained(path, fields()).then((said) => mine === turn && showWhy(path, said));
  if (response.ok && response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
    if (mine === turn) showAnswer({ ...answer, body: "" });
    await follow(response.body, began, () => mine === turn);
    return;
  }
  const text = await response.text().catch(() => "The response broke off.");
  // What decided is there with the response, not after it.
  await why;
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

function showAnswer({ good, status, request, timing, meaning, challenge, seen, body, first }) {
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
  if (first) return;
  // On a phone the answer is below the buttons.
  const { top, bottom } = $("status").getBoundingClientRect();
  if (top < 0 || bottom > innerHeight) $("answer-title").scrollIntoView();
}

// ---- What decided

/** Shows the lines of the configuration that decided, and the steps of `explain`. */
function showWhy(path, said) {
  $("why").hidden = said === null;
  if (said === null) return;
  $("command").textContent = `portcullis explain ${path}`;
  $("edit-box").hidden = said.refused === null;
  $("edit").textContent = said.refused ?? "";
  $("lines-box").hidden = said.excerpts.length === 0;
  $("lines").replaceChildren(...said.excerpts.flatMap(excerpt));
  let before = "";
  $("explain").replaceChildren(...said.steps.map(({ step, text }) => {
    const line = document.createElement("div");
    const [name, words] = [document.createElement("span"), document.createElement("span")];
    name.textContent = step === before ? "" : step;
    words.textContent = text;
    before = step;
    line.append(name, " ", words);
    return line;
  }));
}

/** Some lines of a file, with their numbers, below what they are. */
function excerpt({ of, file, first, lines }) {
  const title = document.createElement("p");
  title.className = "hint";
  title.textContent = of === "route" ? `${file}, line ${first}` : `${file}, line ${first}: ${of}, since the route has no auth of its own`;
  if (of === "tokens") title.textContent = `${file}, line ${first}: tokens, whose endpoint this is`;
  const text = document.createElement("pre");
  // The indentation that all have says nothing here.
  const indent = Math.min(...lines.filter((line) => line.trim()).map((line) => line.search(/\S/)));
  for (const [at, line] of lines.entries()) {
    const number = document.createElement("span");
    number.textContent = first + at;
    const whole = document.createElement("div");
    whole.append(number, " ", line.slice(indent));
    text.append(whole);
  }
  return [title, text];
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

for (const [id, everywhere] of [["sign-out", false], ["sign-out-everywhere", true]]) {
  $(id).addEventListener("click", (event) => busy(event.currentTarget, async () => {
    await signOut(everywhere);
    if (!tokens) $("username").focus();
  }));
}

addEventListener("storage", ({ key }) => {
  if (key !== null && key !== KEPT) return;
  const session = kept();
  show(session, tokens && !session ? "Signed out in another tab." : "");
});

for (const button of document.querySelectorAll("[data-call]")) {
  button.addEventListener("click", () => busy(button, () => call(button.dataset.call)));
}

show(kept());
setInterval(everySecond, 1000);
await signInByLink();
await call("app", true);
