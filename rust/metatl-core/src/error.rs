//! The one error type of the crate.

use thiserror::Error;

/// Why a kernel refused its input or gave up.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Error {
    /// An argument has the wrong shape, order or range.
    #[error("{argument}: found {found}, expected {expected}")]
    InvalidArgument {
        /// Name of the argument, as the Python caller spells it.
        argument: &'static str,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// Too few items are left outside a user's interactions.
    #[error(
        "user {user}: found {available} items that can be drawn as negatives, expected at least {needed}"
    )]
    NoNegative {
        /// Index of the user: its row of the arguments where there is no user index.
        user: i64,
        /// How many negatives were asked for.
        needed: u64,
        /// How many there are.
        available: u64,
    },
    /// Scores contain NaN.
    #[error("{argument}: found {count} NaN, expected none")]
    NotANumber {
        /// Name of the array that holds them, or of the scores computed from it.
        argument: &'static str,
        /// How many there are.
        count: u64,
    },
    /// The result does not fit into memory.
    #[error("cannot allocate {elements} elements for the result")]
    OutOfMemory {
        /// How many elements the result has.
        elements: u128,
    },
    /// The caller raised the interrupt flag.
    #[error("interrupted")]
    Interrupted,
    /// An object that owns a thread was used in a forked child, where that thread does not exist.
    #[error(
        "{object} was created before a fork and cannot be used in the child process; create it there"
    )]
    Fork {
        /// What the object is called.
        object: &'static str,
    },
    /// The operating system refused to start threads.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// How many threads were asked for.
        threads: usize,
        /// What the operating system said.
        reason: String,
    },
}

impl Error {
    /// An [`Error::InvalidArgument`] from anything that can be displayed.
    pub fn invalid(
        argument: &'static str,
        found: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> Self {
        Self::InvalidArgument {
            argument,
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }

    /// The error for an array whose ids were right when they were checked and wrong when they were used.
    #[must_use]
    pub fn changed(argument: &'static str) -> Self {
        Self::invalid(
            argument,
            "values that changed during the call",
            "an array that no other thread writes to",
        )
    }
}
