//! Optimistic concurrency: every editable thing counts its versions, and a change may name the one it was made on.

use crate::error::Error;

/// Counts a thing's edits, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(i32);

impl Version {
    pub const FIRST: Self = Self(1);

    #[must_use]
    pub const fn new(n: i32) -> Self {
        Self(n)
    }

    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }

    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0 - 1)
    }
}

/// The versions that a caller accepts as current: what `If-Match` says (RFC 9110, 13.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Any: the last write wins.
    Any,
    /// One of these. An empty list matches nothing.
    OneOf(Vec<Version>),
}

impl Expected {
    /// # Errors
    /// [`Error::VersionMismatch`] where `current` is none of the expected ones.
    pub fn check(&self, current: Version) -> Result<(), Error> {
        match self {
            Self::Any => Ok(()),
            Self::OneOf(versions) if versions.contains(&current) => Ok(()),
            Self::OneOf(_) => Err(Error::VersionMismatch),
        }
    }
}
