/** Operators' edits: JSON Patch (RFC 6902), a merge patch (RFC 7396), and some steps of our own. */

interface Step {
  readonly op: string;
  readonly path?: string;
  readonly from?: string;
  readonly value?: unknown;
  readonly by?: number | bigint;
  readonly create?: boolean;
  readonly patch?: unknown;
  readonly is?: unknown;
  readonly was?: unknown;
}

/** The data with the edit made. It changes `data`. What does not fit is an error that says so. */
export function edited(data: unknown, steps: unknown): unknown {
  const root = { data };
  (steps as Step[]).forEach((step, index) => {
    try {
      make(root, step);
    } catch (thrown) {
      const why = thrown instanceof Error ? thrown.message : String(thrown);
      throw new Error(`step ${index + 1} (${step.op} \`${step.path ?? ""}\`): ${why}`);
    }
  });
  return root.data;
}

function make(root: { data: unknown }, step: Step): void {
  const path = step.path ?? "";
  switch (step.op) {
    case "add":
      return add(root, path, step.value);
    case "set":
      return set(root, path, step.value);
    case "replace":
      need(root, path);
      return set(root, path, step.value);
    case "remove":
      need(root, path);
      return remove(root, path);
    case "copy":
      return add(root, path, structuredClone(need(root, step.from ?? "")));
    case "move": {
      const from = step.from ?? "";
      if (path.startsWith(`${from}/`)) throw new Error("it cannot be moved into itself");
      const moved = need(root, from);
      if (path === from) return;
      remove(root, from);
      return add(root, path, moved);
    }
    case "test":
      if (!same(look(root, path), step.value)) throw new Error("another value is there");
      return;
    case "increase":
      if (step.create === true && look(root, path) === undefined) return set(root, path, step.by);
      return set(root, path, sum(need(root, path), step.by));
    case "merge":
      root.data = merged(root.data, step.patch);
      return;
    case "restore":
      if (!same(look(root, path), step.is)) throw new Error("it was changed since");
      if ("was" in step) return set(root, path, step.was);
      return step.is === undefined ? undefined : remove(root, path);
    default:
      throw new Error("this SDK does not know the step");
  }
}

function sum(value: unknown, by: unknown): number | bigint {
  if (typeof value === "bigint" && typeof by === "bigint") return value + by;
  if (typeof value === "number" && typeof by === "number") return value + by;
  throw new Error("there is no number of that kind");
}

type Container = Record<string, unknown> | unknown[];

function isContainer(value: unknown): value is Container {
  return typeof value === "object" && value !== null;
}

function parts(path: string): string[] {
  if (path === "") return [];
  if (!path.startsWith("/")) throw new Error("a path begins with a slash");
  const unescape = (part: string) => part.replaceAll("~1", "/").replaceAll("~0", "~");
  return path.slice(1).split("/").map(unescape);
}

function position(list: unknown[], name: string, most: number): number {
  if (name === "-") return list.length;
  const index = /^(0|[1-9]\d*)$/.test(name) ? Number(name) : NaN;
  if (!(index <= most)) throw new Error("the list has no such place");
  return index;
}

function child(value: unknown, name: string): unknown {
  if (Array.isArray(value))
    return /^(0|[1-9]\d*)$/.test(name) ? (value[Number(name)] as unknown) : undefined;
  return isContainer(value) && Object.hasOwn(value, name)
    ? (value as Record<string, unknown>)[name]
    : undefined;
}

/** What is at a path. undefined: nothing. */
function look(root: { data: unknown }, path: string): unknown {
  return parts(path).reduce(child, root.data);
}

function need(root: { data: unknown }, path: string): unknown {
  const found = look(root, path);
  if (found === undefined) throw new Error("there is nothing at its path");
  return found;
}

/** What holds the path's last part, and that part. undefined: the path is the whole document. */
function holder(root: { data: unknown }, path: string): [Container, string] | undefined {
  const names = parts(path);
  const last = names.pop();
  if (last === undefined) return undefined;
  const found = names.reduce(child, root.data);
  if (!isContainer(found)) throw new Error("there is nothing at its path");
  return [found, last];
}

/** Sets a member, whatever its name is. */
export function put(members: Record<string, unknown>, name: string, value: unknown): void {
  Object.defineProperty(members, name, {
    value,
    writable: true,
    enumerable: true,
    configurable: true,
  });
}

function add(root: { data: unknown }, path: string, value: unknown): void {
  const at = holder(root, path);
  if (at === undefined) root.data = value;
  else if (Array.isArray(at[0])) at[0].splice(position(at[0], at[1], at[0].length), 0, value);
  else put(at[0], at[1], value);
}

function set(root: { data: unknown }, path: string, value: unknown): void {
  const at = holder(root, path);
  if (at === undefined) root.data = value;
  else if (Array.isArray(at[0])) at[0][position(at[0], at[1], at[0].length - 1)] = value;
  else put(at[0], at[1], value);
}

function remove(root: { data: unknown }, path: string): void {
  const at = holder(root, path);
  if (at === undefined) throw new Error("the whole document cannot be removed");
  if (Array.isArray(at[0])) at[0].splice(position(at[0], at[1], at[0].length - 1), 1);
  else delete at[0][at[1]];
}

function merged(data: unknown, patch: unknown): unknown {
  if (!isContainer(patch) || Array.isArray(patch)) return patch;
  const members = isContainer(data) && !Array.isArray(data) ? data : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete members[name];
    else put(members, name, merged(child(members, name), value));
  }
  return members;
}

function isNumber(value: unknown): value is number | bigint {
  return typeof value === "number" || typeof value === "bigint";
}

/** Whether two values are the same; numbers by their value, whichever type holds them. */
function same(a: unknown, b: unknown): boolean {
  if (isNumber(a) && isNumber(b)) return a == b;
  if (!isContainer(a) || !isContainer(b)) return a === b;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const names = Object.keys(a);
  if (names.length !== Object.keys(b).length) return false;
  return names.every((name) => Object.hasOwn(b, name) && same(child(a, name), child(b, name)));
}
