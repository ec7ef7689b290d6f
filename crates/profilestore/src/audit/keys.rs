//! Where entries are stored, and what their keys tell.

use uuid::Uuid;

use crate::{
    data_store::Digest,
    key::{ProfileKey, RESERVED_STORE, began_ms},
    record::user::tag_of,
};

/// The scope of [`RESERVED_STORE`] in which the entries are.
pub const AUDIT_SCOPE: &str = "audit";

const LAST_MS: u64 = 0xffff_ffff_ffff;

/// Where the entry of an operation on these profiles is: the time turned round, 48 bits of the
/// operation, 100 bits of a digest over all of it.
pub(crate) fn entry_key(operation: Uuid, keys: &[ProfileKey]) -> ProfileKey {
    let mut named = operation.to_string();
    for key in keys {
        for name in [key.store(), key.scope(), key.key()] {
            named.push('\0');
            named.push_str(name);
        }
    }
    let digest = format!("{:032x}", u128::from_be_bytes(Digest::of(named.as_bytes()).0));
    reserved_key(&format!("{}-{}", operation_prefix(operation), &digest[..25]))
}

/// The tag of the entries about a profile. Two profiles may share one.
pub(super) fn profile_tag(key: &ProfileKey) -> i64 {
    tag_of(&["profile", key.store(), key.scope(), key.key()])
}

/// The tag of the entries of erasures after which the log still holds what was erased.
pub(super) fn unredacted_tag() -> i64 {
    tag_of(&["unredacted erasure"])
}

/// The identity that an operation's request to a holder has: it names the operation, and is of
/// another version (8) than the identities of all other requests (7).
pub(crate) fn order_id(operation: Uuid) -> Uuid {
    with_version(operation, 8)
}

/// The operation that such an identity names. None: it is another one.
pub(crate) fn operation_of_order(id: Uuid) -> Option<Uuid> {
    (id.get_version_num() == 8).then(|| with_version(id, 7))
}

fn with_version(id: Uuid, version: u8) -> Uuid {
    let mut bytes = id.into_bytes();
    bytes[6] = (bytes[6] & 0x0f) | (version << 4);
    Uuid::from_bytes(bytes)
}

pub(super) fn operation_prefix(operation: Uuid) -> String {
    format!(
        "{}{:012x}",
        turned_round(began_ms(operation)),
        operation.as_u128() & u128::from(LAST_MS)
    )
}

/// The same, from an entry's key.
pub(super) fn prefix_of(key: &ProfileKey) -> &str {
    key.key().split('-').next().unwrap_or_default()
}

/// Twelve digits that are the smaller the later the time.
pub(super) fn turned_round(ms: i64) -> String {
    format!("{:012x}", LAST_MS - ms.max(0).cast_unsigned().min(LAST_MS))
}

pub(super) fn reserved_key(key: &str) -> ProfileKey {
    ProfileKey::new(RESERVED_STORE, AUDIT_SCOPE, key)
        .expect("at most 50 characters of hexadecimal digits")
}
