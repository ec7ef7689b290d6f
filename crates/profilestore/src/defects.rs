//! Deliberate defects, with which the simulation shows that it finds such things. They are compiled
//! in only with `RUSTFLAGS="--cfg profilestore_defects"`, never by a feature, and one is chosen at
//! run time.

/// True where a deliberate defect is at work; always false in a build without them.
#[cfg(not(profilestore_defects))]
macro_rules! defect {
    ($name:ident) => {
        false
    };
}

/// True where a deliberate defect is at work.
#[cfg(profilestore_defects)]
macro_rules! defect {
    ($name:ident) => {
        $crate::defects::Defect::$name.is_chosen()
    };
}

#[cfg(profilestore_defects)]
mod chosen {
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The chosen defect's place in [`Defect::ALL`] plus one; 0: none.
    static CHOSEN: AtomicUsize = AtomicUsize::new(0);

    macro_rules! defects {
        ($($(#[doc = $doc:literal])* $name:ident),* $(,)?) => {
            /// A deliberate defect.
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum Defect { $($(#[doc = $doc])* $name),* }

            impl Defect {
                /// Every defect, with what it is.
                pub const ALL: &[(Self, &str)] = &[$((Self::$name, concat!($($doc),*))),*];
            }
        };
    }

    defects! {
        /// The store checks neither epoch nor version
        FenceCheckRemoved,
        /// The epoch is the session count
        EpochFromSessionCount,
        /// The release is committed before the last save
        ReleaseBeforeSave,
        /// An unknown outcome is tried again under a new identity
        BlindRetry,
        /// An unknown outcome is judged by reading
        JudgedByReading,
        /// Consuming a message leaves no receipt
        ReceiptForgotten,
        /// A message is removed in a second commit
        MessageRemovedLater,
        /// A trade is two commits
        TradeInTwoCommits,
        /// Death is judged by the caller's clock
        CallersClockTrusted,
        /// A hint is taken as the truth
        HintTakenAsTruth,
        /// A session believes in itself without a confirmed lease
        SelfDemotionRemoved,
        /// An offer never expires
        OfferNeverExpires,
        /// A dead server's row can still be renewed
        DeadRowRenewable,
        /// (found here) A take-over does not say which version it is built on
        TakeOverUnversioned,
        /// (found here) A late answer to a take lends the epoch of the server that took the profile
        /// since
        LateAnswerBelieved,
        /// (found here) A step of the store's clock is noticed at the next renewal only
        StepNoticedLate,
        /// (found by chaos from outside) A start hears the refusal of the start before it
        RefusalOfAnotherStart,
        /// (found by chaos from outside) A profile is delivered to a start of another type
        DeliveredToAnotherType,
        /// (found by chaos from outside) An end overtakes a transaction that was called before it
        EndOvertakesTransaction,
        /// (found by chaos from outside) A lease is confirmed before the notices that came along
        /// are looked at
        ConfirmedBeforeNotices,
        /// A host changes a lease without a check that it is the host
        HostUnchecked,
        /// Two hosts renew the row of one game server side by side
        AnyHostRenews,
        /// A host takes what it sent as stored, though the store has done the request before
        DoneBeforeMarkedStored,
        /// A host renews the row of a game server that is silent
        SilentServerRenewed,
        /// A profile is released while its game server may believe that it holds it
        BeliefCutShort,
        /// A pong says that the confirmation is fresh, however old it is
        AgeForgotten,
        /// A host ends the sessions of a game server that is silent
        SilentServerReleased,
        /// A profile that is held without a session is not let go
        OrphanKept,
        /// A host lets a profile go before the game server has said that the session is its own
        OrphanTakenTooSoon,
        /// A request that comes again with another content is taken for done
        ReusedRequestDone,
        /// A request that found nothing to change is done when it comes again behind others
        UnchangedForgotten,
        /// A save by the holder leaves no id behind
        LastSaveForgotten,
        /// The id of a holder's last save is gone once another server has the profile
        LastSaveNotHandedOn,
        /// A stranger may resume a game server
        OwnerUnchecked,
        /// A host calls a session lost without a check that it is the host
        LostUnchecked,
    }

    impl Defect {
        /// Those of hosting, which the simulation's world `--hosted` finds.
        pub const OF_HOSTING: &[Self] = &[
            Self::HostUnchecked,
            Self::AnyHostRenews,
            Self::DoneBeforeMarkedStored,
            Self::SilentServerRenewed,
            Self::BeliefCutShort,
            Self::AgeForgotten,
            Self::SilentServerReleased,
            Self::OrphanKept,
            Self::OrphanTakenTooSoon,
            Self::ReusedRequestDone,
            Self::UnchangedForgotten,
            Self::OwnerUnchecked,
            Self::LostUnchecked,
        ];

        /// Puts this one to work in the whole process, or none.
        pub fn choose(defect: Option<Self>) {
            CHOSEN.store(defect.map_or(0, |defect| defect as usize + 1), Ordering::Relaxed);
        }

        pub(crate) fn is_chosen(self) -> bool {
            CHOSEN.load(Ordering::Relaxed) == self as usize + 1
        }
    }
}

#[cfg(profilestore_defects)]
pub use chosen::Defect;
