// Which stores there are, for pages that let one choose.

import { ask } from "./api.svelte";
import { DEFAULT_SCOPE } from "./ids";
import { Loaded } from "./load.svelte";
import { here } from "./route.svelte";
import { session } from "./session.svelte";
import type { Page } from "./types";

export interface StorePlace {
  store: string;
  scope: string;
}

/** The stores with their scopes. A caller that is narrowed to some may not ask. */
export class Stores extends Loaded<StorePlace[]> {
  constructor() {
    super(async (signal) => {
      if (session.isNarrowed)
        return (session.me?.stores ?? []).map((store) => ({ store, scope: DEFAULT_SCOPE }));
      return (await ask<Page<StorePlace>>({ path: "/v1/stores", signal })).body.items;
    });
  }

  /** The store that the address names, or the first one. */
  get place(): StorePlace {
    const store = here.param("store") || (this.value?.[0]?.store ?? "");
    return { store, scope: here.param("scope") || DEFAULT_SCOPE };
  }
}
