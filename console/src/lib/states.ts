// How a game server is, as the API says it, and as people read it.

import type { Holder } from "./types";

/** The API says `dead` of a server that was shut down too: the store does not tell how it ended. */
export const STATE: Record<Holder["server"], string> = {
  alive: "alive",
  silent: "silent",
  dead: "ended",
  unknown: "unknown",
};

/** Who makes an edit of a profile, by who holds it. */
export function whoEdits(held: Holder | null): string {
  if (!held) return "nobody plays it. The server makes the change.";
  const { job } = held;
  switch (held.server) {
    case "alive":
      return (
        `${job} plays it. It saves play first, then makes the change alone, and says so when it ` +
        "is stored."
      );
    case "silent":
      return (
        `${job} plays it, and is late with its report. The change waits for it; if it stays ` +
        "silent, its session ends and the server makes the change."
      );
    case "dead":
      return (
        `${job} has ended and did not let it go. The server makes the change, and the session ` +
        "ends."
      );
    case "unknown":
      return (
        `${job} held it, and this store does not know that game server. The server makes the ` +
        "change when the session counts as ended."
      );
  }
}
