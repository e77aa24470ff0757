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

    /// The one that an edit of this one makes. The last one there can be has none and stays as it is.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The one that this one was made on: what is stored until an edit is. Of [`FIRST`](Self::FIRST) it is 0, which nothing
    /// has; it stops at the least number as [`next`](Self::next) does at the greatest.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
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

/// What stands among entity tags and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoTag(pub String);

impl Expected {
    /// The versions that a list of entity tags carries: each tag begins with its version, as in `"3-9f…"`. `None` and `*`
    /// are any version; a weak tag never matches, for `If-Match` compares strongly.
    ///
    /// # Errors
    /// [`NoTag`] where something in the list is no entity tag, or nothing is.
    pub fn of_tags(list: Option<&str>) -> Result<Self, NoTag> {
        let Some(list) = list.map(str::trim).filter(|list| *list != "*") else { return Ok(Self::Any) };
        let mut versions = Vec::new();
        let mut tags = 0;
        for tag in elements(list) {
            tags += 1;
            let strong = tag.strip_prefix("W/");
            let quoted = strong.unwrap_or(tag);
            let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let Some(inner) = inner.filter(|inner| !inner.contains('"')) else {
                return Err(NoTag(tag.to_owned()));
            };
            if strong.is_none() {
                versions.extend(inner.split_once('-').and_then(|(version, _)| version.parse().ok()).map(Version::new));
            }
        }
        if tags == 0 { Err(NoTag(list.to_owned())) } else { Ok(Self::OneOf(versions)) }
    }

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

/// The elements of a list of entity tags; a comma between quotes belongs to its element, and between two commas there may be nothing
/// (RFC 9110, 5.6.1).
pub fn elements(list: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let elements = list.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    elements.map(str::trim).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_and_stop_at_the_ends() {
        for (n, next, previous) in
            [(1, 2, 0), (7, 8, 6), (i32::MAX, i32::MAX, i32::MAX - 1), (i32::MIN, i32::MIN + 1, i32::MIN)]
        {
            let version = Version::new(n);
            assert_eq!((version.next(), version.previous()), (Version::new(next), Version::new(previous)), "{n}");
        }
    }
}
