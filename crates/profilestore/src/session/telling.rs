//! Telling a game server that runs in another process about its session: the next thing that was
//! not told yet.

use tokio::time::Instant;

use super::{
    Session,
    remote::{Next, Told},
};
use crate::edit::request::EditRequest;

impl Session {
    /// What cannot wait, told with this. `confirmed`: when the game server was told of a
    /// confirmation last.
    pub(crate) fn tell_urgent(&self, confirmed: Instant) -> Option<Told> {
        let remote = self.remote.as_deref()?;
        if let Some(why) = remote.tell_closed() {
            return Some(Told::Closed { why, by: self.taken_by() });
        }
        if self.is_over() { None } else { remote.tell_release(confirmed) }
    }

    /// The next message or operator's edit, told with this if it is no larger than `room`.
    pub(crate) fn tell_next(&self, room: usize) -> Next {
        let Some(remote) = self.remote.as_deref().filter(|_| !self.is_over()) else {
            return Next::Nothing;
        };
        let known = self.known.lock();
        let told = remote.told();
        let from = known.inbox.partition_point(|message| message.index <= told);
        for message in &known.inbox[from..] {
            let next = if message.id.is_edit() {
                // One that cannot be read is refused with the next save.
                let Ok(request) = EditRequest::read(&self.key, message) else { continue };
                let EditRequest { operation, edit, by, .. } = request;
                Told::Edit { index: message.index, operation, edit, by }
            } else if message.payload.len() > room {
                return Next::TooLarge;
            } else {
                Told::Message(message.clone())
            };
            remote.note_told(message.index);
            return Next::Told(Box::new(next));
        }
        Next::Nothing
    }
}
