// Beginning an edit of many profiles.

import { change, Refusal } from "./api.svelte";
import { withSteps } from "./bulk.svelte";
import type { ReasonForm } from "./forms.svelte";
import { uuid7 } from "./ids";
import { forget } from "./kept";
import { here } from "./route.svelte";
import type { Bulk } from "./types";

/** Sends the request of a form, and goes to the page of the edit that it began. */
export class Begin {
  busy = $state(false);
  error = $state<unknown>(null);

  /** `name` is what the form is kept under. */
  constructor(
    readonly name: string,
    readonly form: ReasonForm,
  ) {}

  /** `what` it does stands below the page. The same request again begins no second edit. */
  async run(what: string, request: Record<string, unknown>, steps: string) {
    this.busy = true;
    this.error = null;
    const body = withSteps({ ...request, reason: this.form.reason.trim() }, steps);
    try {
      const headers = { "Idempotency-Key": this.form.identify(body) };
      const call = { method: "POST", path: "/v1/edits", headers, body } as const;
      const { body: begun } = await change<Bulk>(what, call);
      forget(this.name);
      here.go(`#/edits/${begun.operation}`);
    } catch (caught) {
      this.error = caught;
      if (caught instanceof Refusal && caught.advice === "fix") this.form.operation = uuid7();
    } finally {
      this.busy = false;
    }
  }
}
