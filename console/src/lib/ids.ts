// Identities: a profile's address, and the identity that makes a request happen once.

import { clock } from "./clock";

export interface Address {
  store: string;
  scope: string;
  key: string;
}

export const DEFAULT_SCOPE = "global";

const part = encodeURIComponent;

/** Where a store's resources are in the API. */
export function scopePath(store: string, scope: string): string {
  const base = `/v1/stores/${part(store)}`;
  return scope === DEFAULT_SCOPE ? base : `${base}/scopes/${part(scope)}`;
}

/** Where a profile is in the API. */
export const profilePath = ({ store, scope, key }: Address) =>
  `${scopePath(store, scope)}/profiles/${part(key)}`;

/** Where a profile is in the console. */
export function profileHash(
  address: Address,
  tab = "",
  query: Record<string, string> = {},
): string {
  const base = `#/p/${part(address.store)}/${part(address.scope)}/${part(address.key)}`;
  const params = new URLSearchParams(query).toString();
  return base + (tab && `/${tab}`) + (params && `?${params}`);
}

/** A % that would be taken for the beginning of an escape. */
const PERCENT = /%(?=[\da-f]{2}|u[\da-f]{4}|U[\da-f]{6})/gi;

const named = (part: string) => part.replace(PERCENT, "%25");

/** Its name as the program and the audit log have it. A key may have slashes, the others not. */
export function profileName({ store, scope, key }: Address): string {
  const outer = (part: string) => named(part).replaceAll("/", "%2F");
  const isShort = scope === DEFAULT_SCOPE && !key.includes("/");
  return `${outer(store)}/${isShort ? "" : `${outer(scope)}/`}${named(key)}`;
}

/** A version 7 UUID: it begins with the time. */
export function uuid7(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  let ms = clock.now();
  for (let at = 5; at >= 0; at--) {
    bytes[at] = ms % 256;
    ms = Math.floor(ms / 256);
  }
  bytes[6] = 0x70 | ((bytes[6] ?? 0) & 0x0f);
  bytes[8] = 0x80 | ((bytes[8] ?? 0) & 0x3f);
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
