//! Transactions whose participants are handed to the closure: `between((&alice, &bob))`.

use std::{fmt, marker::PhantomData, time::Duration};

use self::sealed::{Drafted, Named};
use crate::{
    api::{
        profile::{OTHER_TYPE, Profile},
        transaction::{Transaction, TransactionBuilder},
    },
    data::{ProfileData, typed_mut},
    error::{Error, Result},
};

mod sealed {
    use std::{slice::IterMut, sync::Arc};

    use crate::session::{Session, transaction::Draft};

    /// The sessions of participants, in their order.
    pub struct Named(pub(crate) Vec<Arc<Session>>);

    /// Their data in the making, in the same order.
    pub struct Drafted<'a>(pub(crate) IterMut<'a, Draft>);

    /// Names the sessions.
    pub trait Name {
        fn named(&self) -> Named;
    }

    /// Hands the data over.
    pub trait Hand: 'static {
        type Data<'a>;

        fn hand(drafted: Drafted<'_>) -> Self::Data<'_>;
    }
}

/// Profiles that take part in a transaction together: a tuple of references to one to six
/// [`Profile`]s of any types, or a slice of profiles of one type. See
/// [`TransactionBuilder::between`].
pub trait Participants: sealed::Name {
    /// The types of their data.
    type Types: ParticipantTypes;
}

/// The types of the data of [`Participants`]. The closure gets a `&mut` for each: a tuple for a
/// tuple, a `Vec` for a slice.
pub trait ParticipantTypes: sealed::Hand {}

/// The data of a participant of this type, as the closure may change it.
fn next<'a, T: ProfileData>(drafted: &mut Drafted<'a>) -> &'a mut T {
    let draft = drafted.0.next().expect("there is a draft for each participant");
    typed_mut(draft.data()).expect(OTHER_TYPE)
}

macro_rules! tuple {
    ($($type:ident $at:tt),+) => {
        impl<$($type: ProfileData),+> sealed::Name for ($(&Profile<$type>,)+) {
            fn named(&self) -> Named {
                Named(vec![$(self.$at.session.clone()),+])
            }
        }

        impl<$($type: ProfileData),+> Participants for ($(&Profile<$type>,)+) {
            type Types = ($($type,)+);
        }

        impl<$($type: ProfileData),+> sealed::Hand for ($($type,)+) {
            type Data<'a> = ($(&'a mut $type,)+);

            fn hand(mut drafted: Drafted<'_>) -> Self::Data<'_> {
                ($(next::<$type>(&mut drafted),)+)
            }
        }

        impl<$($type: ProfileData),+> ParticipantTypes for ($($type,)+) {}
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);

/// Any number of participants of one type.
#[derive(Debug)]
pub struct Many<T>(PhantomData<fn() -> T>);

impl<T: ProfileData> sealed::Name for &[Profile<T>] {
    fn named(&self) -> Named {
        Named(self.iter().map(|profile| profile.session.clone()).collect())
    }
}

impl<T: ProfileData> Participants for &[Profile<T>] {
    type Types = Many<T>;
}

impl<T: ProfileData> sealed::Hand for Many<T> {
    type Data<'a> = Vec<&'a mut T>;

    fn hand(mut drafted: Drafted<'_>) -> Self::Data<'_> {
        (0..drafted.0.len()).map(|_| next(&mut drafted)).collect()
    }
}

impl<T: ProfileData> ParticipantTypes for Many<T> {}

impl TransactionBuilder {
    /// Names profiles that take part, whose data the closure gets as its second argument, to be
    /// changed directly. They are copies, as everywhere in a transaction: nothing is done when the
    /// closure gives an error. Naming a profile twice is [`crate::ErrorKind::Invalid`].
    ///
    /// ```
    /// # use profilestore::{GameServer, Profile, Result};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Player { coins: u64 }
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Guild { bank: u64 }
    /// # async fn pay_in(
    /// #     server: GameServer,
    /// #     player: Profile<Player>,
    /// #     guild: Profile<Guild>,
    /// #     members: Vec<Profile<Player>>,
    /// # ) -> Result<()> {
    /// // Of different types.
    /// let paid = server.transaction().between((&player, &guild)).run(|_, (player, guild)| {
    ///     guild.bank += std::mem::take(&mut player.coins);
    ///     Ok::<_, profilestore::Error>(guild.bank)
    /// });
    /// paid.await?;
    /// // Any number of one type.
    /// let paid = server.transaction().between(&members[..]).run(|_, members| {
    ///     members.into_iter().for_each(|member| member.coins += 10);
    ///     Ok::<_, profilestore::Error>(())
    /// });
    /// paid.await
    /// # }
    /// ```
    pub fn between<P: Participants>(mut self, participants: P) -> Between<P::Types> {
        let Named(sessions) = participants.named();
        let first = self.sessions.len();
        self.sessions.extend(sessions);
        Between { builder: self, first, types: PhantomData }
    }
}

/// A [`TransactionBuilder`] whose participants are handed to the closure. See
/// [`TransactionBuilder::between`].
#[must_use = "a transaction does nothing before `run`"]
pub struct Between<H> {
    builder: TransactionBuilder,
    /// How many are before those that are handed over.
    first: usize,
    types: PhantomData<fn() -> H>,
}

impl<H> fmt::Debug for Between<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Between").field(&self.builder).finish()
    }
}

impl<H: ParticipantTypes> Between<H> {
    /// See [`TransactionBuilder::deadline`].
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.builder = self.builder.deadline(deadline);
        self
    }

    /// Runs the transaction, as [`TransactionBuilder::run`] does, with the participants' data as
    /// the second argument of `work`.
    pub fn run<R, E, F>(
        self,
        work: F,
    ) -> impl Future<Output = Result<R, E>> + Send + 'static + use<R, E, F, H>
    where
        F: FnOnce(&mut Transaction<'_>, H::Data<'_>) -> Result<R, E> + Send + 'static,
        R: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let first = self.first;
        self.builder.run_script(move |drafts| {
            // After a panic nothing is committed, so they need not be put back then.
            let mut handed = drafts.drafts.split_off(first);
            let data = H::hand(Drafted(handed.iter_mut()));
            let answer = work(&mut Transaction::new(drafts), data);
            drafts.drafts.append(&mut handed);
            answer
        })
    }
}
