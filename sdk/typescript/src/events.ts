import { isPromise, quiet } from "./errors.js";

/** Told of what a handler threw, since there is no caller to tell. */
export type Report = (fault: unknown) => void;

/** Handlers by the event's name. What one of them throws reaches no caller and no other handler. */
export class Events<All extends object> {
  readonly #handlers = new Map<keyof All, Set<(event: never) => unknown>>();

  constructor(readonly report: Report) {}

  /** Calls `handler` at each event. The function that comes back takes the handler away. */
  on<Name extends keyof All>(name: Name, handler: (event: All[Name]) => unknown): () => void {
    const handlers = this.#handlers.get(name) ?? new Set();
    this.#handlers.set(name, handlers.add(handler));
    return () => void handlers.delete(handler);
  }

  emit<Name extends keyof All>(name: Name, event: All[Name]): void {
    for (const handler of [...(this.#handlers.get(name) ?? [])]) {
      call(() => (handler as (event: All[Name]) => unknown)(event), this.report);
    }
  }
}

/** Calls what the game brought. */
export function call(handler: () => unknown, report: Report): void {
  try {
    const result = handler();
    if (isPromise(result)) quiet(Promise.resolve(result).catch(report));
  } catch (thrown) {
    try {
      report(thrown);
    } catch {
      // The reporter failed too, and nobody is left to tell.
    }
  }
}
