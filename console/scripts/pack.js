// Puts the built files where the server's crate embeds them: as they are, and compressed. With
// `--compare` it changes nothing, and fails when other files are there.
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, extname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { constants, gunzipSync, gzipSync } from "node:zlib";

const console_ = join(dirname(fileURLToPath(import.meta.url)), "..");
const from = join(console_, "dist");
const to = join(console_, "../crates/profilestore-server/console");

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** What belongs into the crate, by its name there. */
const wanted = new Map();
const rows = readdirSync(from, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => relative(from, join(entry.parentPath, entry.name)).split(sep).join("/"))
  .sort()
  .map((name) => {
    const flat = name.replaceAll("/", "-");
    const type = TYPES[extname(name)];
    if (!type) throw new Error(`what is the type of ${name}?`);
    wanted.set(flat, readFileSync(join(from, name)));
    return `    File {
        path: "/${name === "index.html" ? "" : name}",
        media: "${type}",
        plain: include_bytes!("${flat}"),
        packed: include_bytes!("${flat}.gz"),
    },\n`;
  });
const title = "// Written by console/scripts/pack.js: what the console is made of.";
const list = `${title}\n[\n${rows.join("")}]\n`;

/** Without a time and a system in its header. */
function packed(plain) {
  const bytes = gzipSync(plain, { level: constants.Z_BEST_COMPRESSION });
  bytes.fill(0, 4, 8);
  bytes[9] = 255;
  return bytes;
}

/** Another version of Node may compress to other bytes, so what is in them is compared. */
function compare() {
  const names = [...wanted.keys()].flatMap((name) => [name, `${name}.gz`]);
  assert.deepEqual(readdirSync(to).sort(), [...names, "files.rs"].sort());
  for (const [name, plain] of wanted) {
    assert.ok(plain.equals(readFileSync(join(to, name))), `${name} differs`);
    assert.ok(plain.equals(gunzipSync(readFileSync(join(to, `${name}.gz`)))), `${name}.gz differs`);
  }
  assert.equal(readFileSync(join(to, "files.rs"), "utf8"), list);
}

if (process.argv[2] === "--compare") {
  try {
    compare();
  } catch (error) {
    console.error(`${to} is not what console/ gives: npm run build\n${error.message}`);
    process.exit(1);
  }
} else {
  rmSync(to, { recursive: true, force: true });
  mkdirSync(to, { recursive: true });
  for (const [name, plain] of wanted) {
    writeFileSync(join(to, name), plain);
    writeFileSync(join(to, `${name}.gz`), packed(plain));
  }
  writeFileSync(join(to, "files.rs"), list);
}
