/** The real server process, on a store of its own. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { connect, type ConnectOptions, type Server } from "../dist/index.js";

const program = process.env["PROFILESTORE_BIN"];
if (program === undefined) {
  throw new Error(
    "PROFILESTORE_BIN names the program `profilestore`, built with its feature `serve`",
  );
}

export class Serve {
  #child: ChildProcess | undefined;
  #port = 0;
  key = "";

  private constructor(readonly folder: string) {}

  /** A process on a new store, or one more on another's. */
  static async start(beside?: Serve): Promise<Serve> {
    const folder = beside?.folder ?? mkdtempSync(join(tmpdir(), "profilestore-sdk-"));
    const serve = new Serve(folder);
    serve.key = beside?.key ?? "";
    await serve.start();
    return serve;
  }

  async start(): Promise<void> {
    const address = `127.0.0.1:${this.#port}`;
    const child = spawn(resolve(program as string), ["serve", "--listen", address, "--json"], {
      cwd: this.folder,
      stdio: ["ignore", "pipe", process.env["SHOW"] === undefined ? "ignore" : "inherit"],
    });
    this.#child = child;
    for await (const line of createInterface({ input: child.stdout })) {
      const told = JSON.parse(line) as { url: string; key?: string };
      this.#port = Number(new URL(told.url).port);
      this.key = told.key ?? this.key;
      return;
    }
    throw new Error("the server did not start");
  }

  get url(): string {
    return `ws://127.0.0.1:${this.#port}`;
  }

  async stop(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, "exit");
    child.kill(signal);
    await exit;
  }

  async remove(): Promise<void> {
    await this.stop("SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Waits until something is so. */
export async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  for (let left = 6000; left > 0; left--) {
    if (await isSo()) return;
    await new Promise((done) => setTimeout(done, 20));
  }
  throw new Error(`it never came to this: ${what}`);
}

/** Connects, with time for a slow machine. */
export function connected(urls: string | string[], options: ConnectOptions): Promise<Server> {
  return connect(urls, { connectMs: 60_000, ...options });
}
