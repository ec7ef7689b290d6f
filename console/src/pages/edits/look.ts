// How the states of an edit of many profiles look.

import type { Bulk } from "../../lib/types";

export const LOOK: Record<Bulk["state"], string> = {
  running: "warn",
  paused: "bad",
  done: "good",
  undone: "",
};
