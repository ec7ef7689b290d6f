// How a game server is, as the API says it, and as people read it.

import type { Holder } from "./types";

/** The API says `dead` of a server that was shut down too: the store does not tell how it ended. */
export const STATE: Record<Holder["server"], string> = {
  alive: "alive",
  silent: "silent",
  dead: "ended",
  unknown: "unknown",
};
