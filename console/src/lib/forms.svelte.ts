// What pages keep while it is typed: see `kept.ts`.

import { uuid7 } from "./ids";
import type { Json } from "./json";
import type { Draft } from "./steps";

/** An edit of one profile. */
export class EditForm {
  drafts = $state<Draft[]>([]);
  reason = $state("");
  /** What the drafts were made from; it stays while the profile moves on. */
  read: Json = $state.raw(null);
  /** The identity of what is sent next. */
  operation = uuid7();

  constructor(read: Json) {
    this.read = read;
  }
}

/** A message. */
export class MessageForm {
  text = $state('{"type":"gift","coins":500}');
  reason = $state("");
  id = $state(uuid7());
}

/** Why something is done. */
export class ReasonForm {
  reason = $state("");
  /** The identity of what is sent next. */
  operation = uuid7();
  /** What was sent under it. */
  sent = "";

  /** The identity of this request: that of the last one, if that was the same. */
  identify(request: string): string {
    if (this.sent && this.sent !== request) this.operation = uuid7();
    this.sent = request;
    return this.operation;
  }
}

/** An edit of many profiles. Which profiles is in the address. */
export class BulkForm extends ReasonForm {
  drafts = $state<Draft[]>([{ path: "", type: "number", text: "" }]);
}
