// Writes dist/ as Vite and its like do: assets with a hash of their content in the name, and an index.html that names
// them. So an asset never changes, and may be cached for ever; index.html changes, and may not.
//
//   node build.mjs

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";

const at = (path) => new URL(path, import.meta.url);

rmSync(at("dist"), { recursive: true, force: true });
mkdirSync(at("dist/assets"), { recursive: true });
let page = readFileSync(at("src/index.html"), "utf8");
for (const name of ["main.js", "style.css"]) {
  const content = readFileSync(at(`src/${name}`));
  const hash = createHash("sha256").update(content).digest("base64url").slice(0, 8);
  const hashed = name.replace(".", `-${hash}.`);
  writeFileSync(at(`dist/assets/${hashed}`), content);
  page = page.replace(`/assets/${name}`, `/assets/${hashed}`);
  console.log(`dist/assets/${hashed}`);
}
writeFileSync(at("dist/index.html"), page);
