/** Player data that no two game servers can write at once. */
export { connect, Server, type ConnectOptions } from "./server.js";
export { Store, type StartOptions, type StoreOptions } from "./store.js";
export {
  Profile,
  type End,
  type ProfileEvents,
  type Reading,
  type Received,
} from "./session/profile.js";
export type { Table } from "./session/beside.js";
export type { User } from "./session/users.js";
export type { AnyProfile, DataOf, Gift, TransactionOptions } from "./transaction.js";
export { ProfileError, type Advice, type Kind, type Problem } from "./errors.js";
export {
  Http,
  messageId,
  operationId,
  type Address,
  type Call,
  type Ending,
  type HeldBy,
  type Holding,
  type Page,
  type Restored,
  type StoredProfile,
  type Version,
  type Waiting,
  type Why,
} from "./http.js";
export type { Report } from "./events.js";
export type { Numbers } from "./json.js";
export type { Asker, ByServer, Meta } from "./frames.js";
export { activeUntil } from "./belief.js";
