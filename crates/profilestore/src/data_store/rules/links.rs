//! What a commit does to others than the profile that it writes: messages and trades.

use super::View;
use crate::{
    data_store::{Cause, Change, Commit, Links, MAX_LINKS, SentMessage, Trade, VersionLinks},
    key::ProfileKey,
};

/// What a commit does beyond each profile that it writes, by the profiles' keys: to be found in the
/// state *before* it, and to be kept with the new version. Empty for most commits.
///
/// Counted are the game's own doings: saves, ends, transactions, and edits that a session makes. A
/// message is *taken* when it is removed with a receipt in the commit that writes its profile, and
/// *sent* when it is appended in a commit that writes another one. A *trade* is a transaction that
/// writes several profiles. Operators' edits travel as messages as well, and are none.
pub fn links<V: View>(
    view: &mut V,
    commit: &Commit,
    now_ms: i64,
) -> Result<Vec<(ProfileKey, VersionLinks)>, V::Error> {
    let written = || {
        commit.changes.iter().filter_map(|change| match change {
            Change::Write { key, version, cause, .. } if !key.is_reserved() && is_play(*cause) => {
                Some((key, version + 1, *cause))
            }
            _ => None,
        })
    };
    let mut all = Vec::new();
    for (key, version, cause) in written() {
        let mut links = Links::default();
        for change in &commit.changes {
            match change {
                Change::RemoveMessage { key: of, index, receipt: true } if of == key => {
                    if links.taken.len() == MAX_LINKS {
                        links.left_out += 1;
                        continue;
                    }
                    let id = view.message_id(key, *index)?;
                    links.taken.extend(id.filter(|id| !id.is_edit()));
                }
                Change::AppendMessage { key: to, message, .. } if !message.id.is_edit() => {
                    if links.sent.len() == MAX_LINKS {
                        links.left_out += 1;
                        continue;
                    }
                    links.sent.push(SentMessage { to: to.clone(), id: message.id.clone() });
                }
                _ => {}
            }
        }
        if cause == Cause::Transaction {
            let with: Vec<ProfileKey> = written()
                .filter(|(other, _, cause)| *other != key && *cause == Cause::Transaction)
                .map(|(other, ..)| other.clone())
                .collect();
            links.trade = (!with.is_empty()).then_some(Trade { id: commit.id, with });
        }
        if !links.is_empty() {
            all.push((key.clone(), VersionLinks::new(version, now_ms, links)));
        }
    }
    Ok(all)
}

fn is_play(cause: Cause) -> bool {
    matches!(cause, Cause::Start | Cause::Save | Cause::End | Cause::Edit | Cause::Transaction)
}
