//! Members: people who log in with a name and a password.

use std::{collections::BTreeSet, sync::Arc};

use profilestore::{
    Attribution, Error, ProfileKey,
    audit::AuditEntry,
    data_store::{Change, DataStore},
    env::Env,
    key::DEFAULT_SCOPE,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use unicode_security::{MixedScript as _, confusable_detection::skeleton};
use utoipa::ToSchema;

use super::{Role, passwords::Passwords};
use crate::{
    keys::Scope,
    problem::Problem,
    secret,
    shelf::{Kept, Recent, Shelf},
};

/// The scope of the reserved store in which the members are.
const MEMBERS_SCOPE: &str = "members";

/// The scope with one value that each change of the members writes, so that two changes at the same
/// time are made one after the other.
const ROSTER_SCOPE: &str = "members-roster";

const ROSTER: &str = "roster";

/// The longest name, in bytes. In characters it is that of any key of the store.
pub(super) const MAX_NAME_BYTES: usize = 100;

/// The most stores that a member is narrowed to.
const MAX_STORES: usize = 100;

/// How often a change is tried that others overtake.
const TRIES: usize = 20;

/// What is known about a member. The password is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct MemberRecord {
    /// The name: the author of what the member does.
    pub(crate) name: String,
    /// What the member may do.
    pub(crate) role: Role,
    /// Only profiles of these stores. None: of all.
    pub(crate) stores: Option<BTreeSet<String>>,
    /// Cannot log in.
    pub(crate) disabled: bool,
    /// When the member was made, Unix milliseconds.
    pub(crate) created_ms: i64,
    /// When the member logged in last, Unix milliseconds.
    pub(crate) last_login_ms: Option<i64>,
}

impl MemberRecord {
    pub(crate) fn may(&self, scope: Scope) -> bool {
        self.role.scopes().contains(&scope)
    }

    pub(crate) fn reaches(&self, key: &ProfileKey) -> bool {
        self.stores.as_ref().is_none_or(|stores| stores.contains(key.store()))
    }

    fn check(&self) -> Result<(), Problem> {
        let name = &*self.name;
        if ProfileKey::new("any", DEFAULT_SCOPE, name).is_err() || name.len() > MAX_NAME_BYTES {
            let detail =
                format!("a name has 1 to 50 characters, and {MAX_NAME_BYTES} bytes at most");
            return Err(Problem::invalid(detail));
        }
        if name.trim() != name || name.chars().any(char::is_control) {
            let detail = "a name has no control characters, and no blanks at its ends";
            return Err(Problem::invalid(detail));
        }
        if matches!(name, "." | "..") {
            let detail = "no path can name a member `.` or `..`; take another name";
            return Err(Problem::invalid(detail));
        }
        let Some(stores) = &self.stores else { return Ok(()) };
        if self.role == Role::Admin {
            let detail = "an admin reaches everything, and cannot be narrowed to stores";
            return Err(Problem::invalid(detail));
        }
        if stores.is_empty() || stores.len() > MAX_STORES {
            let detail =
                format!("stores names 1 to {MAX_STORES} stores, or is null for all of them");
            return Err(Problem::invalid(detail));
        }
        for store in stores {
            ProfileKey::new(store, DEFAULT_SCOPE, "any")
                .map_err(|error| Problem::invalid(error.to_string()))?;
        }
        Ok(())
    }
}

/// A member to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMember {
    /// The name: 1 to 50 characters.
    name: String,
    /// What the member may do.
    role: Role,
    /// The password: at least 10 characters.
    password: String,
    /// Only profiles of these stores. Null: of all.
    #[serde(default)]
    stores: Option<BTreeSet<String>>,
}

/// What is to be changed of a member. What is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Changes {
    /// What the member may do.
    role: Option<Role>,
    /// Only profiles of these stores. Null: of all.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<BTreeSet<String>>)]
    stores: Option<Option<BTreeSet<String>>>,
    /// Cannot log in. Ends all log-ins.
    disabled: Option<bool>,
    /// The password: at least 10 characters. Ends all log-ins.
    password: Option<String>,
}

/// Tells null from what is left out.
fn given<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(from).map(Some)
}

/// A member as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The argon2id hash of the password.
    hash: String,
    /// Log-ins with another one are over: it changes with the password.
    pub(crate) stamp: String,
    #[serde(flatten)]
    pub(crate) record: MemberRecord,
}

impl Member {
    fn is_active_admin(&self) -> bool {
        self.record.role == Role::Admin && !self.record.disabled
    }
}

/// What becomes of one member. None: the member is removed.
struct Planned {
    name: String,
    member: Option<Member>,
    action: &'static str,
}

/// The members of a store.
pub(crate) struct Members {
    shelf: Shelf,
    roster: Shelf,
    env: Env,
    passwords: Passwords,
    recent: Recent<Member>,
}

impl Members {
    pub(crate) fn new(store: Arc<dyn DataStore>, env: Env) -> Self {
        Self {
            shelf: Shelf::new(store.clone(), env.clone(), MEMBERS_SCOPE),
            roster: Shelf::new(store, env.clone(), ROSTER_SCOPE),
            passwords: Passwords::new(),
            recent: Recent::new(env.clone()),
            env,
        }
    }

    /// All members, by their names.
    pub(crate) async fn list(&self) -> Result<Vec<MemberRecord>, Error> {
        let members = self.shelf.list::<Member>().await?;
        Ok(members.into_iter().map(|(member, _)| member.record).collect())
    }

    /// The member of this name, as of two seconds ago at most.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Arc<Member>>, Error> {
        if let Some(known) = self.recent.get(name) {
            return Ok(known);
        }
        let found = self.shelf.read::<Member>(name).await?.value.map(Arc::new);
        self.recent.put(name, found.clone());
        Ok(found)
    }

    /// The member of this name and password, if there is one who may log in. What is wrong is not
    /// told, and takes as long.
    pub(crate) async fn recognise(
        &self,
        name: &str,
        password: String,
    ) -> Result<Option<Kept<Member>>, Problem> {
        let kept = match self.shelf.place(name) {
            Ok(_) => self.shelf.read::<Member>(name).await?,
            Err(_) => Kept { value: None, version: 0 },
        };
        let hash = kept.value.as_ref().map(|member| member.hash.clone());
        let same = self.passwords.is(password, hash).await?;
        let may = kept.value.as_ref().is_some_and(|member| !member.record.disabled);
        Ok((same && may).then_some(kept))
    }

    /// Makes a member.
    pub(crate) async fn add(
        &self,
        new: NewMember,
        by: &Attribution,
    ) -> Result<MemberRecord, Problem> {
        let NewMember { name, role, password, stores } = new;
        let member = self.member(name, role, stores, password).await?;
        self.change(by, |members| {
            let look = look(&member.record.name);
            let taken = members.iter().find(|(other, _)| self::look(&other.record.name) == look);
            if let Some((other, _)) = taken {
                let other = &other.record.name;
                let detail = format!(
                    "there is a member of this name, or of one that looks like it: `{other}`"
                );
                return Err(Problem::new("name-taken", detail));
            }
            Ok(Planned::of(member.clone(), "member-add"))
        })
        .await?;
        Ok(member.record)
    }

    /// Makes the first member, an admin. Fails when there is one.
    pub(crate) async fn add_first(
        &self,
        name: String,
        password: String,
    ) -> Result<MemberRecord, Problem> {
        let member = self.member(name, Role::Admin, None, password).await?;
        let by = by_member(&member.record.name);
        self.change(&by, |members| {
            if !members.is_empty() {
                let detail = "there is a member already, who can log in and make others";
                return Err(Problem::new("already-set-up", detail));
            }
            Ok(Planned::of(member.clone(), "member-add"))
        })
        .await?;
        Ok(member.record)
    }

    async fn member(
        &self,
        name: String,
        role: Role,
        stores: Option<BTreeSet<String>>,
        password: String,
    ) -> Result<Member, Problem> {
        let created_ms = self.env.unix_ms();
        let record =
            MemberRecord { name, role, stores, disabled: false, created_ms, last_login_ms: None };
        record.check()?;
        if !record.name.as_str().is_single_script() {
            let detail = "a name has letters of one script, so that it looks like no other one";
            return Err(Problem::invalid(detail));
        }
        Ok(Member { hash: self.passwords.hash(password).await?, stamp: stamp()?, record })
    }

    /// Changes a member.
    pub(crate) async fn alter(
        &self,
        name: &str,
        changes: Changes,
        by: &Attribution,
    ) -> Result<MemberRecord, Problem> {
        let Changes { role, stores, disabled, password } = changes;
        let hash = match password {
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        let stamp = stamp()?;
        let planned = self
            .change(by, |members| {
                let mut member = of_name(members, name)?;
                let record = &mut member.record;
                record.role = role.unwrap_or(record.role);
                record.disabled = disabled.unwrap_or(record.disabled);
                if let Some(stores) = &stores {
                    record.stores.clone_from(stores);
                }
                record.check()?;
                if hash.is_some() || disabled == Some(true) {
                    member.stamp.clone_from(&stamp);
                }
                member.hash = hash.clone().unwrap_or(member.hash);
                let action = if hash.is_some() { "member-password" } else { "member-change" };
                Ok(Planned::of(member, action))
            })
            .await?;
        planned.member.map(|member| member.record).ok_or_else(|| no_member(name))
    }

    /// Gives a member who knows the old one a new password, which ends all log-ins.
    pub(crate) async fn set_password(&self, name: &str, password: String) -> Result<(), Problem> {
        let changes =
            Changes { role: None, stores: None, disabled: None, password: Some(password) };
        self.alter(name, changes, &by_member(name)).await.map(drop)
    }

    /// The member as of now, if the password is still the same and the member may log in.
    pub(crate) async fn again(&self, member: &Member) -> Result<Option<Kept<Member>>, Error> {
        let kept = self.shelf.read::<Member>(&member.record.name).await?;
        let same = |now: &Member| now.stamp == member.stamp && !now.record.disabled;
        Ok(kept.value.as_ref().is_some_and(same).then_some(kept))
    }

    /// Removes a member, which ends all log-ins.
    pub(crate) async fn remove(&self, name: &str, by: &Attribution) -> Result<(), Problem> {
        self.change(by, |members| {
            let name = of_name(members, name)?.record.name;
            Ok(Planned { name, member: None, action: "member-remove" })
        })
        .await
        .map(drop)
    }

    /// Makes one change of the members and its entry in the audit log, after all earlier ones.
    async fn change(
        &self,
        by: &Attribution,
        plan: impl Fn(&[(Member, u64)]) -> Result<Planned, Problem>,
    ) -> Result<Planned, Problem> {
        for _ in 0..TRIES {
            let roster = self.roster.read::<serde_json::Value>(ROSTER).await?.version;
            let members = self.shelf.list::<Member>().await?;
            let planned = plan(&members)?;
            keeps_an_admin(&members, &planned)?;
            let version = match members.iter().find(|(it, _)| it.record.name == planned.name) {
                Some((_, version)) => *version,
                // The name may have been another member's once.
                None => self.shelf.read::<Member>(&planned.name).await?.version,
            };
            let mut changes = match &planned.member {
                Some(member) => vec![self.shelf.write(&planned.name, version, member)?],
                None => self.shelf.remove(&planned.name, version)?.into(),
            };
            changes.push(self.roster.write(ROSTER, roster, &json!({}))?);
            changes.push(self.booked(&planned, by)?);
            if self.shelf.commit(changes).await? {
                self.recent.forget(&planned.name);
                return Ok(planned);
            }
        }
        Err(Problem::new("busy", "the members kept changing"))
    }

    fn booked(&self, planned: &Planned, by: &Attribution) -> Result<Change, Error> {
        let place = self.shelf.place(&planned.name)?;
        let mut entry = AuditEntry::new(self.env.uuid(), planned.action, vec![place], by.clone());
        if let Some(Member { record, .. }) = &planned.member {
            entry = entry
                .detail("role", record.role.as_str())
                .detail("stores", json!(record.stores))
                .detail("disabled", record.disabled);
        }
        entry.change()
    }

    /// The changes that note a log-in: when it was, and its entry in the audit log.
    pub(crate) fn noted_login(
        &self,
        kept: &Kept<Member>,
        address: &str,
    ) -> Result<Vec<Change>, Error> {
        let Some(mut member) = kept.value.clone() else { return Ok(Vec::new()) };
        let name = member.record.name.clone();
        member.record.last_login_ms = Some(self.env.unix_ms());
        let place = self.shelf.place(&name)?;
        let entry = AuditEntry::new(self.env.uuid(), "log-in", vec![place], by_member(&name))
            .detail("address", address);
        Ok(vec![self.shelf.write(&name, kept.version, &member)?, entry.change()?])
    }

    /// Books a log-in that failed. A name that is no member's is not booked: people type passwords
    /// there.
    pub(crate) async fn book_failure(&self, name: &str, address: &str) -> Result<(), Error> {
        let is_there = self.shelf.place(name).is_ok()
            && self.shelf.read::<Member>(name).await?.value.is_some();
        let places = if is_there { vec![self.shelf.place(name)?] } else { Vec::new() };
        let entry =
            AuditEntry::new(self.env.uuid(), "log-in-failed", places, Attribution::new("log-in"))
                .detail("address", address);
        self.shelf.commit(vec![entry.change()?]).await.map(drop)
    }
}

impl Planned {
    fn of(member: Member, action: &'static str) -> Self {
        Self { name: member.record.name.clone(), member: Some(member), action }
    }
}

/// In whose name a member does something.
pub(crate) fn by_member(name: &str) -> Attribution {
    Attribution::new(format!("{name} (member)"))
}

fn of_name(members: &[(Member, u64)], name: &str) -> Result<Member, Problem> {
    let found = members.iter().find(|(member, _)| member.record.name == name);
    found.map(|(member, _)| member.clone()).ok_or_else(|| no_member(name))
}

fn no_member(name: &str) -> Problem {
    Problem::new("not-found", format!("there is no such member: name=`{name}`"))
}

/// Fails when nobody could manage the members afterwards.
fn keeps_an_admin(members: &[(Member, u64)], planned: &Planned) -> Result<(), Problem> {
    let others = members.iter().filter(|(member, _)| member.record.name != planned.name);
    let stays = others.map(|(member, _)| member).chain(&planned.member);
    if stays.into_iter().any(Member::is_active_admin) {
        return Ok(());
    }
    // The first member may be made with a key, in any role.
    if !members.iter().any(|(member, _)| member.is_active_admin()) {
        return Ok(());
    }
    let detail = "this is the last admin who can log in; make another one first";
    Err(Problem::new("last-admin", detail))
}

/// The same for names that look alike, by Unicode's table of such characters (UTS 39), in capitals
/// or not: a member does not pass for another one in the audit log.
fn look(name: &str) -> String {
    skeleton(&name.to_lowercase()).collect()
}

fn stamp() -> Result<String, Problem> {
    secret::text::<16>().map_err(|why| Problem::new("internal", why))
}
