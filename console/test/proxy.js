// The built page in front of a server, as the server itself shows it: for trying a new page against
// a program that was built before it.
import { readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const dist = join(dirname(fileURLToPath(import.meta.url)), "../dist");
const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
};
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
  "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** Listens on a free port; answers with its address and what closes it. */
export async function proxy(target) {
  const server = createServer((from, to) => {
    const path = from.url.split("?")[0];
    if (path === "/" || path.startsWith("/assets/")) {
      const file = join(dist, path === "/" ? "index.html" : path);
      to.writeHead(200, {
        "Content-Type": TYPES[extname(file)],
        "Content-Security-Policy": POLICY,
        "Content-Encoding": "gzip",
        "Cache-Control": path === "/" ? "no-cache" : "public, max-age=31536000, immutable",
      });
      to.end(gzipSync(readFileSync(file)));
      return;
    }
    const there = new URL(from.url, target);
    const headers = { ...from.headers, host: there.host };
    if (headers.origin) headers.origin = target;
    const on = request(there, { method: from.method, headers }, (answer) => {
      to.writeHead(answer.statusCode, answer.headers);
      answer.pipe(to);
    });
    on.on("error", () => to.destroy());
    // A stream of events ends when the page looks no more.
    to.on("close", () => on.destroy());
    from.pipe(on);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}
