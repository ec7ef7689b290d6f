//! The table of errors: what each means over HTTP.

/// What one kind of error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its name: the end of its type, `/errors/NAME`.
    pub name: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What to do, in one word: `retry`, `retry-as`, `leave`, `ignore` or `fix`.
    pub advice: &'static str,
    /// What happened, in one line.
    pub title: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

const fn row(
    name: &'static str,
    status: u16,
    advice: &'static str,
    title: &'static str,
    remedy: &'static str,
) -> Row {
    Row { name, status, advice, title, remedy }
}

/// The library's kinds first, then those of the server itself.
pub const TABLE: &[Row] = &[
    row(
        "already-loaded",
        409,
        "fix",
        "The profile has a live session on this game server already.",
        "End that session first.",
    ),
    row(
        "superseded",
        409,
        "ignore",
        "A later start for the same profile took the place of this one.",
        "Nothing. The later start has the profile.",
    ),
    row(
        "taken-elsewhere",
        409,
        "leave",
        "Another game server asked for the profile later, so it gets the profile.",
        "Let the player go. The player plays on the other server.",
    ),
    row(
        "cancelled",
        409,
        "ignore",
        "The call was called off.",
        "Nothing. It was not needed any more.",
    ),
    row(
        "timed-out",
        504,
        "retry",
        "It could not be done in time. Nothing was done.",
        "Try the same call again later.",
    ),
    row(
        "closing",
        503,
        "retry",
        "This server process is stopping. Nothing was done.",
        "Try the same call again; another process, or this one after its restart, answers it.",
    ),
    row(
        "session-ended",
        409,
        "leave",
        "The session is over: ended, handed over, or lost.",
        "Let the player go. Changes that were not saved are lost.",
    ),
    row(
        "busy",
        409,
        "retry",
        "The data cannot be changed at this moment.",
        "Try the same call again in a moment.",
    ),
    row(
        "unconfirmed",
        503,
        "retry",
        "The lease is not confirmed, so another server may have taken the profile.",
        "Wait until the store answers again, then try the same call again.",
    ),
    row(
        "done-before",
        409,
        "ignore",
        "It was done before, under the same id with the same content.",
        "Nothing. Count it as done.",
    ),
    row(
        "not-found",
        404,
        "fix",
        "There is no such profile, version or entry.",
        "Check the name. A player who has never played has no profile.",
    ),
    row(
        "foreign",
        409,
        "fix",
        "What is stored under this key is not a profile. It is left alone.",
        "Look at it with `profilestore get`, and remove it if it is not needed.",
    ),
    row("removed", 409, "fix", "The profile was removed since it was read.", "Read it again."),
    row(
        "changed",
        412,
        "fix",
        "The profile is not what If-Match, If-None-Match or `epoch` says. Nothing was changed.",
        "Read it again, decide again, and send the new ETag in If-Match, or the new `epoch`.",
    ),
    row(
        "held",
        409,
        "retry",
        "A session holds the profile, so it cannot be written from outside.",
        "Use POST on edits: the game server that holds the profile makes the edit. Or end the \
         session first.",
    ),
    row(
        "newer-data",
        409,
        "fix",
        "The data was saved by a newer version of the program, which does not let this one open it.",
        "Update this program.",
    ),
    row(
        "undecodable",
        409,
        "fix",
        "The stored data does not fit the program's type. It is left alone.",
        "Correct the data with an edit, or the program.",
    ),
    row(
        "inbox-full",
        429,
        "retry",
        "As many messages wait for the profile as may. Nothing was stored.",
        "Send it again later, under the same id.",
    ),
    row(
        "message-id-reused",
        422,
        "fix",
        "The idempotency key was used before with another content.",
        "Use a new key for a new request. For a retry, send exactly the same body.",
    ),
    row(
        "request-id-reused",
        422,
        "fix",
        "The identity of the request was used before, for another request. Nothing was done now.",
        "Use a new identity for a new request. For a retry, send exactly the same request.",
    ),
    row(
        "message-id-expired",
        422,
        "fix",
        "The time in the idempotency key is more than 30 days ago, or more than a day ahead.",
        "Use a key whose time is that of the request.",
    ),
    row(
        "too-large",
        413,
        "fix",
        "It is larger than what can be stored or read.",
        "Send less. Data has at most 4 MiB of JSON, a message 256 KiB, an edit 64 KiB.",
    ),
    row(
        "edit-refused",
        422,
        "fix",
        "The edit does not fit the profile's data. Nothing was changed.",
        "Read the profile, and correct the edit.",
    ),
    row(
        "refused",
        422,
        "fix",
        "The game's own program refused the data. Nothing was changed.",
        "Its reason is in the detail.",
    ),
    row(
        "invalid",
        400,
        "fix",
        "The request is wrong: a name, a parameter, or JSON that cannot be stored.",
        "The detail says what is wrong and where.",
    ),
    row(
        "unavailable",
        503,
        "retry",
        "The store cannot be used at the moment. Nothing was done.",
        "Try the same call again later.",
    ),
    row(
        "unknown",
        504,
        "retry-as",
        "Whether it took effect is not known, and it may yet take effect.",
        "Send the same request again, with the same idempotency key if it has one.",
    ),
    row(
        "replaced",
        409,
        "leave",
        "A backup was restored in the meantime; what was read before is no longer there.",
        "Read the profile again.",
    ),
    row(
        "taken-away",
        500,
        "fix",
        "The store's files were deleted, moved or overwritten. Nothing is saved any more.",
        "End this server process, and do what its log says. See docs/trouble.md.",
    ),
    row(
        "corrupt",
        500,
        "fix",
        "What the store holds cannot be understood.",
        "Run `profilestore check`, and see the support runbook.",
    ),
    row(
        "damaged",
        500,
        "fix",
        "A stored value is not the one that was written.",
        "Roll the profile back to an earlier version, or restore a backup.",
    ),
    row(
        "overloaded",
        503,
        "retry",
        "Too much waits for this profile.",
        "Try the same call again later.",
    ),
    row(
        "unauthorized",
        401,
        "fix",
        "The request has no key and no log-in, or one that is not valid.",
        "Send `Authorization: Bearer ps_…` with a key that `profilestore keys add` made, or log in.",
    ),
    row(
        "forbidden",
        403,
        "fix",
        "The key, or the member's role, does not allow this.",
        "Use a key with the scope that the detail names, and that reaches the profile; or ask an \
         admin for a role that has it.",
    ),
    row(
        "read-only",
        403,
        "fix",
        "The log-in is read-only, as every log-in is at first. Nothing was changed.",
        "Arm it for 15 minutes, with POST /v1/arm, and send the request again.",
    ),
    row(
        "cross-site",
        403,
        "fix",
        "The request comes from a page of another site, or does not say where it comes from.",
        "Use the console of this server. A program sends a key and no cookie.",
    ),
    row(
        "too-many-tries",
        429,
        "retry",
        "Too many passwords were tried.",
        "Wait for the seconds that Retry-After says, then try again.",
    ),
    row(
        "too-many-requests",
        429,
        "retry",
        "The key, or the log-in, sends more requests than it may. Nothing was done.",
        "Wait for the seconds that Retry-After says, then try again. The server's setting \
         `requests_per_second` says how many a second it takes.",
    ),
    row(
        "already-undone",
        409,
        "fix",
        "Another operation undoes the edit already. Nothing was changed.",
        "Look at the operation that `undone_by` names: go on with it, or undo it in its turn.",
    ),
    row(
        "already-set-up",
        409,
        "fix",
        "There is a member already.",
        "Log in. Who cannot asks an admin, or uses a key with the scope `admin`.",
    ),
    row(
        "name-taken",
        409,
        "fix",
        "There is a member of this name already, or of one that looks like it.",
        "Take another name.",
    ),
    row(
        "last-admin",
        409,
        "fix",
        "It is the last admin who can log in. Nothing was changed.",
        "Make another admin first.",
    ),
    row(
        "no-such-resource",
        404,
        "fix",
        "There is nothing at this path.",
        "See /docs for what there is.",
    ),
    row(
        "method-not-allowed",
        405,
        "fix",
        "The path is right, the method is not.",
        "See /docs for what there is.",
    ),
    row(
        "unsupported-media-type",
        415,
        "fix",
        "The body is of a kind that this resource does not take.",
        "The detail names the media types that it takes.",
    ),
    row(
        "misdirected",
        421,
        "fix",
        "The request names another host than this machine.",
        "On loopback the server answers to localhost, 127.0.0.1 and [::1] only, so that no web \
         page reaches it under another name. To serve others, see docs/server.md.",
    ),
    row(
        "run-replaced",
        409,
        "leave",
        "Another run of this game server has resumed it, and goes on in its place.",
        "Connect no more as this game server, and let its players go: the other run has them.",
    ),
    row(
        "upgrade-required",
        426,
        "fix",
        "This resource is a WebSocket of the protocol `profilestore.v1+json`.",
        "Connect with a WebSocket client that names the protocol. See docs/protocol.md.",
    ),
    row(
        "idempotency-key-reused",
        422,
        "fix",
        "The idempotency key was used before for another request.",
        "Use a new key for a new request. For a retry, send exactly the same body.",
    ),
    row(
        "precondition-required",
        428,
        "fix",
        "The request could overwrite what its sender has not seen.",
        "Send If-Match with the ETag that was read, or If-None-Match: * to make a new profile.",
    ),
    row(
        "internal",
        500,
        "retry-as",
        "The server failed in a way that it does not know.",
        "Send the same request again; report it with the instance if it stays.",
    ),
];

/// The row of a name.
pub fn find(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.name == name)
}
