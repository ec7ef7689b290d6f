//! What another thread does while the library runs the program's code.
//!
//! A world runs on one thread, so nothing can come between two steps of the library that do not
//! wait. Real servers have many threads. The places where the library runs code of the program
//! (a cancel function, a decoder) are where a world can let another thread's call come in.

use std::cell::RefCell;

type Call = Box<dyn FnOnce()>;

thread_local! {
    static NEXT: RefCell<Option<Call>> = const { RefCell::new(None) };
}

/// Arranges for a call to come in the next time that the library decodes data of a second type.
pub fn arrange(call: impl FnOnce() + 'static) {
    NEXT.set(Some(Box::new(call)));
}

/// Takes the arrangement back. True when the call has not come in.
pub fn cancel() -> bool {
    NEXT.take().is_some()
}

/// The moment at which the arranged call comes in, if there is one.
pub fn comes_in() {
    if let Some(call) = NEXT.take() {
        call();
    }
}
