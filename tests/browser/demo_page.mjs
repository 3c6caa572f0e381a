// The demo's page in a real browser: every button, over http and https, in light and dark, wide and narrow.
//
//   node demo_page.mjs                               starts `portcullis demo` itself, on a copy of gateway.yaml and static/
//   node demo_page.mjs BASE NAME PASSWORD [ADMIN PASSWORD]   uses a demo that runs; without ADMIN its one step is left out,
//                                                    and so is all that edits the demo's files
//
// Needs node 20, playwright-core (beside this file, or in NODE_PATH) and Chromium. From the environment:
//   CHROMIUM    the browser                  /usr/bin/chromium
//   REPOSITORY  where gateway.yaml is        the nearest folder above this file that has one, else the current folder
//   PORTCULLIS  the program                  REPOSITORY/target/release/portcullis, else .../debug/portcullis
//   TLS         the page over https          https://localhost:8443, with BASE none unless it is set
//   SHOTS       a folder for screenshots     none are taken
// The last line is `N passed, N failed`; the exit code is 1 if a step failed.

import { execFileSync, spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const { chromium } = createRequire(import.meta.url)("playwright-core");

const WAIT = 10_000;
const WIDE = { width: 1280, height: 900 };
const NARROW = { width: 390, height: 844 };
const env = process.env;

let passed = 0;
let failed = 0;

async function step(name, work) {
  try {
    await work();
    passed += 1;
    console.log(`ok    ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${name}: ${String(error?.message ?? error).replaceAll("\n", "\n        ")}`);
  }
}

function equal(actual, expected, what) {
  const [a, b] = [actual, expected].map((value) => JSON.stringify(value));
  if (a !== b) throw new Error(`${what}: ${a}, expected ${b}`);
}

function ok(fact, what) {
  if (!fact) throw new Error(what);
}

/** Waits until `look` gives something true. */
async function until(look, what, wait = WAIT) {
  const end = Date.now() + wait;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited ${wait} ms for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

// ---- The demo

function repository() {
  if (env.REPOSITORY) return env.REPOSITORY;
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    if (existsSync(join(folder, "gateway.yaml"))) return folder;
    if (folder === dirname(folder)) return process.cwd();
  }
}

/** Starts the demo on a copy, and reads from what it prints where it is and who can sign in. */
async function startDemo() {
  const root = repository();
  const program = [env.PORTCULLIS, join(root, "target/release/portcullis"), join(root, "target/debug/portcullis")]
    .find((file) => file && existsSync(file));
  if (!program) throw new Error(`no portcullis in ${root}/target: build it, or set PORTCULLIS`);
  const folder = mkdtempSync(join(tmpdir(), "portcullis-demo-"));
  const file = join(folder, "gateway.yaml");
  // The steps sign in more often than a person; `theTokensLife` has its own step for the throttle.
  const original = readFileSync(join(root, "gateway.yaml"), "utf8");
  writeFileSync(file, original.replace("\ntokens: ", "\ntokens:\n  throttle: {per_ip: 1000/m, per_user: 1000/m}\n  #"));
  cpSync(join(root, "static"), join(folder, "static"), { recursive: true });

  const child = spawn(program, ["demo", "-c", file], { stdio: ["ignore", "pipe", "pipe"] });
  const ended = new Promise((resolve) => child.on("exit", (code, signal) => resolve(code ?? signal)));
  let printed = "";
  let logged = "";
  child.stdout.on("data", (text) => { printed += text; });
  child.stderr.on("data", (text) => { logged += text; });
  const prompt = (...words) => execFileSync(program, [...words, "-c", file], { encoding: "utf8" });
  const stop = async () => {
    child.kill("SIGINT");
    const code = await ended;
    rmSync(folder, { recursive: true, force: true });
    return code;
  };
  try {
    const find = (pattern, what) => until(() => {
      if (child.exitCode !== null) throw new Error(`the demo ended with ${child.exitCode}:\n${logged}`);
      return pattern.exec(printed);
    }, `${what} in what the demo prints`);
    const [, base] = await find(/^ +Browser +(http:\S+?)\/?\s*$/m, "the page's address");
    const [, tls] = await find(/^ +TLS +(https:\S+?)\/? /m, "its address over TLS");
    const [, name, password] = await find(/^ +Sign in +(\S+) +(\S+)/m, "the first user");
    const [, adminName, adminPassword] = await find(/^ +or +(\S+) +(\S+)/m, "the second user");
    const [, link] = await find(/^ +Open +(http:\S+#sign-in=\S+)$/m, "the sign-in link");
    return { base, tls, link, user: { name, password }, admin: { name: adminName, password: adminPassword }, file, prompt, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function runningDemo([base, name, password, adminName, adminPassword]) {
  if (!password) throw new Error("usage: demo_page.mjs [BASE NAME PASSWORD [ADMIN PASSWORD]]");
  const admin = adminPassword && { name: adminName, password: adminPassword };
  return { base: base.replace(/\/$/, ""), tls: env.TLS, user: { name, password }, admin, stop: async () => 0 };
}

// ---- The page

/** Opens the page and notes everything that goes wrong on it. */
async function open(browser, base, options = {}) {
  const context = await browser.newContext({ viewport: WIDE, ignoreHTTPSErrors: true, ...options });
  context.setDefaultTimeout(WAIT);
  const page = await context.newPage();
  const origin = new URL(base).origin;
  const faults = [];
  const statuses = [];
  // Chromium writes an error for every answer of 400 and more; those from /api/ are what the page is there to show.
  page.on("console", (message) => {
    const expected = message.text().startsWith("Failed to load resource") && /^\/(api\/|demo\/sign-in$)/.test(new URL(message.location().url).pathname);
    if (["error", "warning"].includes(message.type()) && !expected) faults.push(`console: ${message.text()} (${message.location().url})`);
  });
  page.on("pageerror", (error) => faults.push(`exception: ${error.message}`));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== origin) faults.push(`a request to elsewhere: ${request.url()}`);
  });
  page.on("response", (response) => {
    const path = new URL(response.url()).pathname;
    statuses.push([path, response.status()]);
    // A link that was used is shown to be.
    if (response.status() >= 400 && !path.startsWith("/api/") && path !== "/demo/sign-in") faults.push(`${response.status()} for ${path}`);
  });
  const response = await page.goto(base.includes("#") ? base : `${base}/`, { waitUntil: "networkidle" });
  return { context, page, faults, statuses, response };
}

const text = async (page, id) => (await page.textContent(`#${id}`)).trim();
const shown = (page, id) => page.isVisible(`#${id}`);

/** Whether what a button began is done. */
const idle = async (button) => (await button.isEnabled()) && (await button.getAttribute("aria-busy")) !== "true";

/** Presses a button and gives what the page shows as the answer. */
async function press(page, name) {
  const button = page.locator(`[data-call=${name}]`);
  await page.evaluate(() => { document.getElementById("status").textContent = ""; });
  await button.click();
  await until(async () => (await text(page, "status")) !== "" && (await idle(button)), `an answer to ${name}`);
  return answer(page);
}

async function answer(page) {
  return {
    status: Number.parseInt(await text(page, "status"), 10),
    good: await page.$eval("#status", (element) => element.classList.contains("good")),
    request: await text(page, "request"),
    timing: await text(page, "timing"),
    meaning: await text(page, "meaning"),
    challenge: (await shown(page, "challenge")) ? await text(page, "challenge") : null,
    body: (await shown(page, "body")) ? await text(page, "body") : null,
    seen: (await shown(page, "seen-box"))
      ? Object.fromEntries(await page.$$eval("#seen tr", (rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent))))
      : null,
    why: (await shown(page, "why"))
      ? { lines: await text(page, "lines"), command: await text(page, "command"), steps: await text(page, "explain") }
      : null,
    marked: await page.$$eval("#seen .mark", (cells) => cells.map((cell) => cell.textContent)),
  };
}

async function signIn(page, { name, password }) {
  await page.fill("#username", name);
  await page.fill("#password", password);
  await page.press("#password", "Enter");
  await until(() => idle(page.locator("#sign-in button")), "the sign-in's answer");
}

/** The lowest contrast of text that can be seen, by WCAG's formula, with whom it belongs to. */
function lowestContrast() {
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const colour = (value) => {
    const [r, g, b, a = 1] = value.match(/[\d.]+/g).map(Number);
    return a === 0 ? null : [r, g, b];
  };
  let lowest = { ratio: 21, of: "" };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (["SCRIPT", "STYLE", "NOSCRIPT"].includes(element.tagName)) continue;
    let ground = null;
    for (let up = element; up && !ground; up = up.parentElement) ground = colour(getComputedStyle(up).backgroundColor);
    const [light, dark] = [colour(getComputedStyle(element).color), ground ?? [255, 255, 255]].map(luminance).sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < lowest.ratio) lowest = { ratio, of: walker.currentNode.data.trim().slice(0, 40) };
  }
  return lowest;
}

async function checkLayout(page, what) {
  const { ratio, of } = await page.evaluate(lowestContrast);
  ok(ratio >= 4.5, `${what}: contrast ${ratio.toFixed(2)} of ${JSON.stringify(of)}`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  equal(wide, 0, `${what}: pixels wider than the window`);
  const cut = await page.$$eval("button, .status, h1, h2, label, td:first-child", (all) => all
    .filter((element) => element.checkVisibility() && element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0)
    .map((element) => element.textContent.trim()));
  equal(cut, [], `${what}: words that are cut off`);
  const table = await page.$eval(".scroll", (element) => element.scrollWidth - element.clientWidth);
  equal(table, 0, `${what}: pixels of the headers' table that stick out`);
  const small = await page.$$eval("button, input", (all) => all
    .filter((element) => element.checkVisibility() && element.getBoundingClientRect().height < 24)
    .map((element) => element.textContent || element.name));
  equal(small, [], `${what}: too small to hit`);
}

// ---- The steps

async function theWholeVisit(browser, demo, base) {
  const scheme = new URL(base).protocol.slice(0, -1);
  const on = (name) => `${scheme}: ${name}`;
  const { user, admin } = demo;
  const { context, page, faults, statuses, response } = await open(browser, base);

  await step(on("the page opens with its style, script and icon"), async () => {
    equal(response.status(), 200, "status");
    const headers = await response.allHeaders();
    ok(headers["content-security-policy"]?.includes("default-src 'self'"), "no Content-Security-Policy");
    equal(headers.server ?? null, null, "Server");
    equal(await page.title(), "Portcullis", "title");
    for (const path of ["/style.css", "/app.js", "/favicon.svg"]) {
      equal(statuses.find(([asked]) => asked === path)?.[1], 200, path);
    }
    ok(await page.$eval(".top img", (image) => image.complete && image.naturalWidth > 0), "the picture is broken");
    const protocol = await page.evaluate(() => performance.getEntriesByType("navigation")[0].nextHopProtocol);
    equal(protocol, scheme === "https" ? "h2" : "http/1.1", "protocol");
    ok(await shown(page, "sign-in"), "no sign-in form");
    ok(!(await shown(page, "signed-in")), "signed in already");
  });

  await step(on("nothing is empty before the first click"), async () => {
    const { status, request, meaning, why, body } = await answer(page);
    equal([status, request], [401, "GET /api/orders/"], "the call that the page makes itself");
    ok(meaning.includes("Nobody is signed in"), meaning);
    ok(body?.includes("bearer token"), `body ${body}`);
    ok(why.lines.includes("path: /api/*") && why.steps.includes("401 token_missing"), JSON.stringify(why));
    equal(await page.evaluate(() => scrollY), 0, "scrolled by");
  });

  await step(on("nobody: the app is not reached"), async () => {
    for (const name of ["anonymous", "app", "admin", "forged", "events"]) {
      const { status, good, challenge, seen, meaning, why } = await press(page, name);
      equal(status, 401, name);
      ok(why.steps.includes("401 token_missing"), `${name}: ${why.steps}`);
      ok(!good, `${name}: shown as good`);
      ok(challenge?.startsWith("Bearer"), `${name}: WWW-Authenticate is ${challenge}`);
      equal(seen, null, `${name}: seen by the app`);
      ok(meaning.includes("never heard"), `${name}: ${meaning}`);
    }
  });

  await step(on("nobody: whose token is missing is said"), async () => {
    ok((await press(page, "app")).meaning.includes("Nobody is signed in"), "the words for a call without a sign-in");
    ok(!(await press(page, "anonymous")).meaning.includes("Nobody is signed in"), "the words for a call without a token");
  });

  await step(on("a wrong password"), async () => {
    await signIn(page, { name: user.name, password: "wrong" });
    ok(await shown(page, "sign-in-note"), "no note");
    ok((await text(page, "sign-in-note")).length > 10, "the note says nothing");
    ok(await shown(page, "sign-in"), "the form is gone");
    ok(!(await shown(page, "signed-in")), "signed in with a wrong password");
    equal(await page.inputValue("#password"), "", "password");
    equal(await page.inputValue("#username"), user.name, "name");
    equal(await page.evaluate(() => localStorage.length), 0, "entries kept");
  });

  await step(on("the right password"), async () => {
    await signIn(page, user);
    ok(await shown(page, "signed-in"), "not signed in");
    ok(!(await shown(page, "sign-in")), "the form is still there");
    ok(!(await shown(page, "sign-in-note")), "the note is still there");
    equal(await text(page, "name"), user.name, "name");
    ok((await text(page, "roles")).length > 0, "no roles");
    ok(/\b[45]:\d\d\b/.test(await text(page, "countdown")), await text(page, "countdown"));
    equal(await page.inputValue("#password"), "", "password kept in the form");
  });

  await step(on("the app is told who asks, and how"), async () => {
    const { status, good, seen, marked, challenge, timing, request, why } = await press(page, "app");
    equal(why.command, "portcullis explain /api/orders/", "command");
    ok(why.steps.includes("accepts it") && why.steps.includes("x-user-id: " + user.name), why.steps);
    ok(/^gateway\.yaml, line (\d+)\1 - path: \/api\/\*/.test(why.lines), why.lines);
    equal(status, 200, "status");
    ok(good, "not shown as good");
    equal(challenge, null, "WWW-Authenticate");
    equal(request, "GET /api/orders/", "request");
    ok(/^\d+\.\d ms$/.test(timing), `timing ${timing}`);
    equal(seen["x-user-id"], user.name, "x-user-id");
    equal(seen["x-user-roles"], await text(page, "roles"), "x-user-roles");
    equal(seen["x-forwarded-proto"], scheme, "x-forwarded-proto");
    equal(seen["x-forwarded-host"], new URL(base).host, "x-forwarded-host");
    ok(seen["x-forwarded-for"], "no x-forwarded-for");
    ok(seen["x-request-id"], "no x-request-id");
    equal([null, "Bearer ..."].includes(seen.authorization ?? null), true, "authorization hidden");
    for (const name of ["x-user-id", "x-user-roles", "x-forwarded-for", "x-forwarded-proto", "x-request-id"]) {
      ok(marked.includes(name), `${name} is not marked`);
    }
    ok(!marked.includes("user-agent"), "user-agent is marked");
    equal(Object.keys(seen).slice(0, marked.length).sort(), [...marked].sort(), "the marked ones come first");
  });

  await step(on("signed in, but without the token: 401"), async () => {
    const { status, seen, challenge, body } = await press(page, "anonymous");
    equal(status, 401, "status");
    equal(seen, null, "the earlier answer's table");
    ok(challenge, "no WWW-Authenticate");
    ok(body, "no body");
  });

  await step(on("a forged X-User-Id is replaced"), async () => {
    const { status, seen, meaning } = await press(page, "forged");
    equal(status, 200, "status");
    equal(seen["x-user-id"], user.name, "x-user-id");
    ok(!JSON.stringify(seen).includes("mallory"), "mallory came through");
    ok(meaning.includes("mallory"), meaning);
  });

  await step(on("admin: 403 for a clerk"), async () => {
    const { status, good, seen, challenge, meaning, why } = await press(page, "admin");
    equal(status, 403, "status");
    ok(why.lines.includes("require: {roles: [admin]}") && why.steps.includes("403 forbidden"), JSON.stringify(why));
    ok(!good, "shown as good");
    equal(seen, null, "seen by the app");
    ok(challenge?.includes("insufficient_scope"), `WWW-Authenticate is ${challenge}`);
    ok(meaning.includes("claims"), meaning);
  });

  await step(on("ping is answered by the gateway"), async () => {
    const { status, body, seen, challenge, why } = await press(page, "ping");
    ok(why.lines.includes("body: pong") && why.steps.includes("200, fixed"), JSON.stringify(why));
    equal([status, body, seen, challenge], [200, "pong", null, null], "ping");
  });

  if (demo.file) {
    await step(on("a live edit, and a mistake that changes nothing"), async () => {
      const before = readFileSync(demo.file, "utf8");
      const pinged = async () => (await press(page, "ping")).body;
      try {
        writeFileSync(demo.file, before.replace("body: pong", "body: edited"));
        await until(async () => (await pinged()) === "edited", "the edit");
        ok((await answer(page)).why.lines.includes("body: edited"), "the edited line is shown");
        writeFileSync(demo.file, before.replace("body: pong", "bodi: pong"));
        await new Promise((resolve) => setTimeout(resolve, 1500));
        equal(await pinged(), "edited", "after a mistake");
        ok((await shown(page, "edit-box")) && (await text(page, "edit")).includes("unknown key `bodi`"), "the error is shown");
      } finally {
        writeFileSync(demo.file, before);
      }
      await until(async () => (await pinged()) === "pong", "the edit taken back");
      ok(!(await shown(page, "edit-box")), "the error is still shown");
    });
  }

  await step(on("events come one by one, and give way to another call"), async () => {
    const lines = async () => (await text(page, "body")).split("\n").filter((line) => line.includes("tick"));
    await page.click("[data-call=events]");
    await until(async () => (await lines()).length === 1, "the first event");
    equal(Number.parseInt(await text(page, "status"), 10), 200, "status");
    await until(async () => (await lines()).length === 3, "the third event");
    const times = (await lines()).map((line) => Number.parseFloat(line));
    ok(times[2] - times[0] > 1.5, `not one by one: ${times}`);
    const { body } = await press(page, "ping");
    equal(body, "pong", "the answer after the events");
    await until(() => idle(page.locator("[data-call=events]")), "the stream given up");
    equal(await text(page, "body"), "pong", "the answer is not written over");
  });

  await step(on("a reload stays signed in"), async () => {
    await page.reload({ waitUntil: "networkidle" });
    equal(await text(page, "name"), user.name, "name");
    equal((await press(page, "app")).status, 200, "status");
  });

  await step(on("sign out"), async () => {
    const session = await kept(page);
    await page.click("#sign-out");
    await until(() => shown(page, "sign-in"), "the sign-in form");
    ok(!(await shown(page, "signed-in")), "still signed in");
    equal(await page.evaluate(() => [sessionStorage.length, localStorage.length, document.cookie]), [0, 0, ""], "what is kept");
    equal(await page.evaluate(() => document.activeElement.id), "username", "focus");
    equal((await press(page, "app")).status, 401, "status");
    equal(await tried(page, session), [401, 401], "what the tokens are still good for");
  });

  if (admin) {
    await step(on("admin: 200 for an admin"), async () => {
      await signIn(page, admin);
      const { status, seen } = await press(page, "admin");
      equal(status, 200, "status");
      equal([seen["x-user-id"], seen["x-user-roles"]], [admin.name, "admin"], "who asks");
      await page.click("#sign-out");
      await until(() => shown(page, "sign-in"), "the sign-in form");
    });
  }

  await step(on("a script that somebody slips in does not run"), async () => {
    const ran = await page.evaluate(async () => {
      const violation = new Promise((resolve) => addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective), { once: true }));
      const script = document.createElement("script");
      script.textContent = "document.title = localStorage.getItem('portcullis-demo')";
      document.body.append(script);
      return [await violation, document.title];
    });
    equal(ran, ["script-src-elem", "Portcullis"], "the script");
    faults.splice(0, faults.length, ...faults.filter((fault) => !fault.includes("Content Security Policy")));
  });

  await step(on("nothing else went wrong on the page"), () => equal(faults, [], "faults"));
  await context.close();
}

/** The link that the demo printed signs in one browser, once. */
async function theLink(browser, demo) {
  await step("the link signs in, once, and is gone from the address", async () => {
    const { context, page, faults } = await open(browser, demo.link);
    await until(() => shown(page, "signed-in"), "the sign-in");
    equal(await text(page, "name"), demo.user.name, "name");
    equal(await page.evaluate(() => location.href), `${demo.base}/`, "address");
    await until(async () => (await answer(page)).status === 200, "the first call");
    ok((await answer(page)).seen["x-user-id"] === demo.user.name, "the app was not told who asks");
    equal(faults, [], "faults");
    await context.close();
    const other = await open(browser, demo.link);
    await until(() => shown(other.page, "sign-in-note"), "the note");
    ok((await text(other.page, "sign-in-note")).includes("was used"), "the words for a used link");
    ok(await shown(other.page, "sign-in"), "no form");
    equal(await other.page.evaluate(() => [location.hash, localStorage.length]), ["", 0], "what is kept");
    await other.context.close();
  });
}

/** What a browser is shown that asks for something that is not there. */
async function theErrorPage(browser, demo) {
  for (const colorScheme of ["light", "dark"]) {
    for (const [size, viewport] of [["wide", WIDE], ["narrow", NARROW]]) {
      await step(`the page of a refusal, ${colorScheme}, ${size}: in the middle, and readable`, async () => {
        const context = await browser.newContext({ viewport, colorScheme });
        const page = await context.newPage();
        const problems = [];
        page.on("console", (message) => { if (!message.text().startsWith("Failed to load resource")) problems.push(message.text()); });
        const response = await page.goto(`${demo.base}/nothing/here`);
        equal(response.status(), 404, "status");
        if (env.SHOTS) await page.screenshot({ path: join(env.SHOTS, `${colorScheme}-${size}-7-404.png`) });
        const { ratio, of } = await page.evaluate(lowestContrast);
        ok(ratio >= 4.5, `contrast ${ratio.toFixed(2)} of ${JSON.stringify(of)}`);
        const off = await page.$eval("main", (element) => {
          const { left, right, top, bottom } = element.getBoundingClientRect();
          return [Math.abs(left + right - innerWidth), Math.abs(top + bottom - innerHeight), document.documentElement.scrollWidth - innerWidth];
        });
        ok(off[0] <= 2 && off[1] <= 2 && off[2] <= 0, `not in the middle: ${off}`);
        ok((await page.textContent("p")).startsWith("There is nothing at this address."), "the sentence");
        const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
        equal(dark, colorScheme === "dark" ? "rgb(15, 18, 24)" : "rgb(247, 248, 250)", "ground");
        equal(problems, [], "console");
        await context.close();
      });
    }
  }
}

/** What the tabs keep. */
const kept = (page) => page.evaluate(() => JSON.parse(localStorage.getItem("portcullis-demo")));

/** The statuses that a call with these tokens' access token, and a refresh with the other, get from elsewhere. */
async function tried(page, { access, refresh }) {
  const { origin } = new URL(page.url());
  const call = await page.request.get(`${origin}/api/orders/`, { headers: { Authorization: `Bearer ${access}` } });
  const renewal = await page.request.post(`${origin}/api/token/refresh/`, { data: { refresh } });
  return [call.status(), renewal.status()];
}

/** The refreshes of a page from now on: what each sent, and the status that it got. */
function refreshesOf(page) {
  const seen = [];
  page.on("response", (response) => {
    if (!response.url().endsWith("/api/token/refresh/")) return;
    seen.push({ sent: response.request().postDataJSON().refresh, status: response.status() });
  });
  return seen;
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Edits the demo's file, and waits until the gateway goes by it. */
async function edit(page, demo, change) {
  const pong = `pong ${Math.random()}`;
  writeFileSync(demo.file, change(readFileSync(demo.file, "utf8")).replace(/body: pong[^}]*/, `body: ${pong}`));
  await until(async () => (await page.request.get(`${demo.base}/ping`).then((answer) => answer.text())) === pong, "the edit");
}

async function theTokensLife(browser, demo) {
  const { context, page, faults } = await open(browser, demo.base);
  const before = readFileSync(demo.file, "utf8");
  const access = 3; // seconds; the page renews in the last one
  await edit(page, demo, (text) => text.replace("  keys: data/keys/", `  access_lifetime: ${access}s\n  keys: data/keys/`));

  await step("tokens are renewed by themselves, life after life", async () => {
    await signIn(page, demo.user);
    const first = await kept(page);
    const refreshes = refreshesOf(page);
    const end = Date.now() + 4 * access * 1000;
    while (Date.now() < end) {
      equal((await press(page, "app")).status, 200, "a call meanwhile");
      await pause(200);
    }
    ok(refreshes.length >= 3 && refreshes.length <= 8, `${refreshes.length} refreshes`);
    equal(new Set(refreshes.map(({ status }) => status)).size, 1, "their statuses");
    equal(refreshes[0].sent, first.refresh, "the first one's token");
    equal(new Set(refreshes.map(({ sent }) => sent)).size, refreshes.length, "tokens that were sent once");
    ok(await shown(page, "signed-in"), "signed out");
  });

  await step("two tabs share a session, and send no refresh token twice", async () => {
    const other = await context.newPage();
    await other.goto(`${demo.base}/`, { waitUntil: "networkidle" });
    equal(await text(other, "name"), demo.user.name, "name in the other tab");
    const refreshes = [page, other].map(refreshesOf);
    const end = Date.now() + 4 * access * 1000;
    while (Date.now() < end) {
      for (const tab of [page, other]) equal((await press(tab, "app")).status, 200, "a call");
      await pause(200);
    }
    const all = refreshes.flat();
    ok(all.length >= 3, `${all.length} refreshes`);
    equal(all.filter(({ status }) => status !== 200), [], "refused ones");
    equal(new Set(all.map(({ sent }) => sent)).size, all.length, "tokens that were sent once");

    const session = await kept(page);
    await other.click("#sign-out");
    await until(() => shown(page, "sign-in"), "the form in the first tab");
    ok((await text(page, "sign-in-note")).includes("another tab"), "no note");
    equal(await tried(page, session), [401, 401], "what the tokens are still good for");
    await signIn(page, demo.user);
    await until(() => shown(other, "signed-in"), "the other tab signed in");
    await other.close();
  });

  await step("a token that grew old while the tab could not reach the gateway is renewed at the next call", async () => {
    await page.route("**/api/token/refresh/", (route) => route.abort());
    await pause((access + 1) * 1000);
    ok((await text(page, "countdown")).includes("0:00"), "it is still good");
    await page.unroute("**/api/token/refresh/");
    await until(async () => (await press(page, "app")).status === 200, "a call");
    ok(await shown(page, "signed-in"), "signed out");
  });

  await step("503 with Retry-After is waited for, and the session goes on", async () => {
    let asked = 0;
    await page.route("**/api/token/refresh/", (route) => {
      asked += 1;
      return route.fulfill({ status: 503, headers: { "Retry-After": "3" }, json: { detail: "Tokens cannot be issued at the moment." } });
    });
    await until(() => asked === 1, "the first try");
    await pause(2000);
    equal(asked, 1, "tries within the wait");
    await page.unroute("**/api/token/refresh/");
    await until(async () => (await press(page, "app")).status === 200, "a call after the wait");
    ok(await shown(page, "signed-in"), "signed out");
  });

  await step("signing out everywhere ends the session in another browser", async () => {
    const elsewhere = await open(browser, demo.base);
    await signIn(elsewhere.page, demo.user);
    await elsewhere.page.click("#sign-out-everywhere");
    await until(() => shown(elsewhere.page, "sign-in"), "the form there");
    await until(() => shown(page, "sign-in"), "the form here");
    ok((await text(page, "sign-in-note")).includes("ended"), await text(page, "sign-in-note"));
    equal(await page.evaluate(() => localStorage.length), 0, "entries kept");
    equal(elsewhere.faults, [], "faults there");
    await elsewhere.context.close();
  });

  await step("a user who is disabled is out at the next call, and cannot come back until enabled", async () => {
    await signIn(page, demo.user);
    equal((await press(page, "app")).status, 200, "before");
    demo.prompt("user", "disable", demo.user.name);
    await until(() => shown(page, "sign-in"), "the form");
    await signIn(page, demo.user);
    ok((await text(page, "sign-in-note")).startsWith("Wrong name or password"), await text(page, "sign-in-note"));
    demo.prompt("user", "enable", demo.user.name);
    await until(async () => {
      await signIn(page, demo.user);
      return shown(page, "signed-in");
    }, "the sign-in");
  });

  await step("the gateway is away when somebody signs out: the page says so", async () => {
    await page.route("**/api/token/blacklist/", (route) => route.abort());
    await page.click("#sign-out-everywhere");
    await until(async () => (await text(page, "sign-in-note")).includes("did not end"), "the words");
    ok(await shown(page, "signed-in"), "signed out, as if it had worked");
    await page.click("#sign-out");
    await until(() => shown(page, "sign-in"), "the form");
    ok((await text(page, "sign-in-note")).includes("could not be told"), "no note");
    equal(await page.evaluate(() => localStorage.length), 0, "entries kept");
    await page.unroute("**/api/token/blacklist/");
  });

  await step("too many attempts are told how long to wait", async () => {
    await edit(page, demo, (text) => text.replace("per_user: 1000/m", "per_user: 3/m"));
    for (let tries = 0; tries < 3; tries += 1) {
      await signIn(page, { name: demo.user.name, password: "wrong" });
      ok((await text(page, "sign-in-note")).startsWith("Wrong"), await text(page, "sign-in-note"));
    }
    await signIn(page, demo.user);
    ok(/^Too many attempts\. Try again in \d+ s\.$/.test(await text(page, "sign-in-note")), await text(page, "sign-in-note"));
    ok(!(await shown(page, "signed-in")), "signed in");
  });

  await step("a gateway that is away is said to be", async () => {
    await page.route("**/*", (route) => route.abort());
    await page.click("[data-call=ping]");
    await until(async () => (await text(page, "meaning")).includes("cannot be reached"), "the words");
    await signIn(page, demo.user);
    ok((await text(page, "sign-in-note")).includes("cannot be reached"), "no note at the sign-in");
    await page.unroute("**/*");
    equal((await press(page, "ping")).status, 200, "back again");
  });

  await step("nothing else went wrong meanwhile", async () => {
    await edit(page, demo, () => before);
    equal(faults.filter((fault) => !fault.includes("net::ERR_FAILED")), [], "faults");
  });
  await context.close();
}

/** A page at another origin, here another name of the same listener, that calls the gateway from its script. */
async function aPageOfAnotherOrigin(browser, demo) {
  const elsewhere = demo.base.replace("127.0.0.1", "localhost");
  // The demo's own Content-Security-Policy lets its page ask nobody else.
  const context = await browser.newContext({ bypassCSP: true });
  const page = await context.newPage();
  await page.goto(`${elsewhere}/`, { waitUntil: "networkidle" });
  const before = readFileSync(demo.file, "utf8");
  const calls = () => page.evaluate(async ({ base, user }) => {
    const ask = (path, options) => fetch(`${base}${path}`, options).then(
      async (answer) => ({ status: answer.status, challenge: answer.headers.get("www-authenticate"), body: await answer.text() }),
      (error) => ({ status: error.name, body: "{}" }),
    );
    const json = { "Content-Type": "application/json" };
    const signIn = await ask("/api/token/", { method: "POST", headers: json, body: JSON.stringify(user) });
    const token = { Authorization: `Bearer ${JSON.parse(signIn.body).access ?? "none"}` };
    const orders = await ask("/api/orders/", { headers: token });
    const nobody = await ask("/api/orders/", {});
    const sent = await ask("/api/orders/", { method: "PUT", headers: { ...token, ...json }, body: "{}" });
    const unasked = await ask("/api/orders/", { headers: { ...token, "X-Other": "1" } });
    const admin = await ask("/api/admin/", { headers: token });
    return { signIn: signIn.status, orders: orders.status, nobody: [nobody.status, nobody.challenge?.split(" ")[0]], sent: sent.status, unasked: unasked.status, admin: admin.status };
  }, { base: demo.base, user: { username: demo.user.name, password: demo.user.password } });
  const refused = "TypeError";

  await step("another origin: without cors its page reads nothing", async () => {
    equal(await calls(), { signIn: refused, orders: refused, nobody: [refused, undefined], sent: refused, unasked: refused, admin: refused }, "calls");
  });

  await step("another origin: with cors its page signs in, calls the app with the token, and reads a 401", async () => {
    const cors = `cors: {origins: ["${elsewhere}"]}`;
    await edit(page, demo, (text) => text.replace("  keys: data/keys/", `  ${cors}\n  keys: data/keys/`)
      .replace(/( +- path: \/api\/\*.*\n)/, `$1    ${cors}\n`));
    // What `cors` does not name, a header or a route, stays refused.
    equal(await calls(), { signIn: 200, orders: 200, nobody: [401, "Bearer"], sent: 200, unasked: refused, admin: refused }, "calls");
    await edit(page, demo, () => before);
    equal((await calls()).orders, refused, "when it is taken back");
  });
  await context.close();
}

async function theLooks(browser, demo) {
  for (const colorScheme of ["light", "dark"]) {
    for (const [size, viewport] of [["wide", WIDE], ["narrow", NARROW]]) {
      await step(`${colorScheme}, ${size}: all can be read, and nothing sticks out`, async () => {
        const { context, page } = await open(browser, demo.base, { colorScheme, viewport, isMobile: size === "narrow", hasTouch: size === "narrow" });
        const look = async (what) => {
          if (env.SHOTS) await page.screenshot({ path: join(env.SHOTS, `${colorScheme}-${size}-${what}.png`), fullPage: true });
          await checkLayout(page, what);
        };
        await look("1-start");
        await signIn(page, { name: demo.user.name, password: "wrong" });
        await look("2-wrong-password");
        await press(page, "anonymous");
        await look("3-401");
        await signIn(page, demo.user);
        await press(page, "app");
        await look("4-app");
        await press(page, "admin");
        await look("5-403");
        await press(page, "ping");
        await look("6-ping");
        await context.close();
      });
    }
  }

  await step("by keyboard alone", async () => {
    const { context, page } = await open(browser, demo.base);
    const focused = () => page.evaluate(() => document.activeElement.dataset.call ?? document.activeElement.id);
    await page.focus("#password");
    await page.keyboard.type(demo.user.password);
    await page.keyboard.press("Enter");
    await until(() => shown(page, "signed-in"), "the sign-in");
    await until(async () => (await focused()) === "sign-out", "the focus on what replaced the form");
    await page.keyboard.press("Tab");
    equal(await focused(), "sign-out-everywhere", "beside it");
    for (const name of ["app", "anonymous", "forged", "admin", "ping"]) {
      await page.keyboard.press("Tab");
      equal(await focused(), name, "the next by Tab");
      await page.keyboard.press("Enter");
      await until(() => idle(page.locator(`[data-call=${name}]`)), `an answer to ${name}`);
      await page.waitForTimeout(100);
      equal(await focused(), name, "the focus after Enter");
    }
    await context.close();
  });

  await step("narrow: the answer comes into view", async () => {
    const { context, page } = await open(browser, demo.base, { viewport: NARROW, isMobile: true, hasTouch: true });
    for (const name of ["app", "ping", "events"]) {
      await press(page, name);
      await until(() => page.$eval("#status", (element) => {
        const { top, bottom } = element.getBoundingClientRect();
        return top >= 0 && bottom <= innerHeight;
      }), `the status of ${name} in the window`, 2000);
    }
    await context.close();
  });

  await step("without JavaScript the page says so", async () => {
    const { context, page } = await open(browser, demo.base, { javaScriptEnabled: false });
    ok(await page.isVisible("noscript p, noscript"), "no words");
    await context.close();
  });
}

// ---- All

if (env.SHOTS) mkdirSync(env.SHOTS, { recursive: true });
let demo;
let browser;
try {
  demo = process.argv.length > 2 ? runningDemo(process.argv.slice(2)) : await startDemo();
  // A launch has a fresh profile of its own.
  browser = await chromium.launch({
    executablePath: env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
  if (demo.link) await theLink(browser, demo);
  await theWholeVisit(browser, demo, demo.base);
  if (demo.tls) await theWholeVisit(browser, demo, demo.tls);
  if (demo.file) await theTokensLife(browser, demo);
  if (demo.file) await aPageOfAnotherOrigin(browser, demo);
  await theLooks(browser, demo);
  await theErrorPage(browser, demo);
} catch (error) {
  failed += 1;
  console.log(`FAIL  ${error?.stack ?? error}`);
} finally {
  await browser?.close();
  if (demo) await step("the demo ends with 0 on SIGINT", async () => equal(await demo.stop(), 0, "exit code"));
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
