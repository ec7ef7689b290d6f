// Before `npm pack`, on every system: what an earlier build left goes, and the licences come along.
import { copyFileSync, readdirSync, rmSync } from "node:fs";

const root = new URL("../../", import.meta.url);
const here = new URL("./", import.meta.url);

rmSync(new URL("dist", here), { recursive: true, force: true });
for (const name of readdirSync(root).filter((name) => name.startsWith("LICENSE-"))) {
  copyFileSync(new URL(name, root), new URL(name, here));
}
