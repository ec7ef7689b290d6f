/** Runs the game: two islands, which are started again when they die, and the page. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

const ISLANDS = { north: 2567, south: 2568 };
const PAGE = 8080;

const client = new URL("node_modules/@colyseus/sdk/dist/colyseus.js", import.meta.url);
const files = {
  "/": ["text/html", readFileSync(new URL("page.html", import.meta.url))],
  "/colyseus.js": ["text/javascript", readFileSync(client)],
  "/islands.json": ["application/json", JSON.stringify(ISLANDS)],
};

/** `env` names the server of profiles: PROFILESTORE_URL and PROFILESTORE_KEY. */
export async function startGame(env) {
  const children = {};
  let isOver = false;

  async function run(name) {
    const child = fork(fileURLToPath(new URL("island.js", import.meta.url)), {
      env: { ...process.env, ...env, ISLAND: name, PORT: ISLANDS[name] },
    });
    children[name] = child;
    child.once("exit", () => isOver || run(name).catch(console.error));
    const [told] = await Promise.race([once(child, "message"), once(child, "exit")]);
    if (told !== "listening") throw new Error(`the ${name} island did not start`);
  }

  await Promise.all(Object.keys(ISLANDS).map(run));
  const page = createServer((request, response) => {
    const file = files[request.url.split("?")[0]];
    const [type, body] = file ?? ["text/plain", "not found"];
    response.writeHead(file === undefined ? 404 : 200, { "Content-Type": type }).end(body);
  });
  await once(page.listen(PAGE, "127.0.0.1"), "listening");

  return {
    url: `http://127.0.0.1:${PAGE}/`,
    kill: (name) => children[name].kill("SIGKILL"),
    async stop() {
      isOver = true;
      page.close();
      await Promise.all(
        Object.values(children).map(async (child) => {
          const exit = once(child, "exit");
          if (child.kill("SIGTERM")) await exit;
        }),
      );
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { PROFILESTORE_URL = "ws://127.0.0.1:7400", PROFILESTORE_KEY } = process.env;
  const game = await startGame({ PROFILESTORE_URL, PROFILESTORE_KEY });
  console.log(`the game is at ${game.url}?user=ann`);
}
