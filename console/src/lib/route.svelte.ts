// Where the reader is. All of it is in the address, so that a link leads to the same sight and the
// back button works.

export interface Route {
  path: string[];
  query: URLSearchParams;
}

function read(): Route {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const decoded = path
    .split("/")
    .filter(Boolean)
    .map((part) => {
      try {
        return decodeURIComponent(part);
      } catch {
        return part;
      }
    });
  return { path: decoded, query: new URLSearchParams(query) };
}

class Here {
  #now = $state.raw(read());

  constructor() {
    addEventListener("hashchange", () => (this.#now = read()));
  }

  get path(): string[] {
    return this.#now.path;
  }

  get query(): URLSearchParams {
    return this.#now.query;
  }

  /** A parameter, or nothing. */
  param(name: string): string {
    return this.#now.query.get(name) ?? "";
  }

  /** Goes to another address. */
  go(hash: string) {
    location.hash = hash;
  }

  /** Every value of a parameter that may stand there more than once. */
  params(name: string): string[] {
    return this.#now.query.getAll(name);
  }

  /** Sets parameters of this address; an empty one is left out. */
  set(changes: Record<string, string | string[]>, how: "push" | "replace" = "replace") {
    const query = new URLSearchParams(this.#now.query);
    for (const [name, value] of Object.entries(changes)) {
      const [first, ...others] = typeof value === "string" ? [value] : value;
      if (first) query.set(name, first);
      else query.delete(name);
      for (const other of others) query.append(name, other);
    }
    const text = query.toString();
    const path = location.hash.split("?")[0] || "#/";
    const hash = path + (text && `?${text}`);
    if (how === "push") location.hash = hash;
    else {
      history.replaceState(null, "", hash);
      this.#now = read();
    }
  }
}

export const here = new Here();
