//! Keyset pages. A cursor names the last id that was seen, so that a walk meets each item that lives throughout exactly
//! once, whatever is written or deleted meanwhile, and page 10,000 costs what page 1 does.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::error::{Broken, Error};

/// How many items a page holds: 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize(u8);

impl PageSize {
    /// Items.
    pub const MIN: u8 = 1;
    /// Items.
    pub const MAX: u8 = 100;
    pub const DEFAULT: Self = Self(20);

    /// # Errors
    /// [`Broken::OutOfRange`] outside 1..=100.
    pub fn parse(n: i64) -> Result<Self, Broken> {
        match u8::try_from(n) {
            Ok(n) if (Self::MIN..=Self::MAX).contains(&n) => Ok(Self(n)),
            _ => Err(Broken::OutOfRange { min: Self::MIN.into(), max: Self::MAX.into() }),
        }
    }

    /// A number of items to bring along, of which 0 is none.
    ///
    /// # Errors
    /// [`Broken::OutOfRange`] outside 0..=100.
    pub fn parse_or_none(n: i64) -> Result<Option<Self>, Broken> {
        match n {
            0 => Ok(None),
            n => Self::parse(n).map(Some).map_err(|_| Broken::OutOfRange { min: 0, max: Self::MAX.into() }),
        }
    }

    #[must_use]
    pub const fn get(self) -> u64 {
        self.0 as u64
    }
}

/// Which end of a list comes first. Ids are given in order, so the order of ids is the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    Newest,
    Oldest,
}

impl Order {
    pub const NAMES: [&'static str; 2] = ["newest", "oldest"];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
        }
    }

    /// # Errors
    /// [`Broken::NotOneOf`] for any other word.
    pub fn parse(name: &str) -> Result<Self, Broken> {
        match name {
            "newest" => Ok(Self::Newest),
            "oldest" => Ok(Self::Oldest),
            _ => Err(Broken::NotOneOf { allowed: &Self::NAMES }),
        }
    }
}

/// What a caller asks of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    pub size: PageSize,
    /// The `next` of an earlier page of the same list, as it was given out.
    pub cursor: Option<String>,
}

impl PageRequest {
    /// The first page of this size.
    #[must_use]
    pub const fn first(size: PageSize) -> Self {
        Self { size, cursor: None }
    }
}

/// What a repository is asked for: up to `limit` items behind `after` in `order`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    pub after: Option<i64>,
    pub order: Order,
    pub limit: u64,
    /// Where what people wrote in the items comes to as many bytes, no more of them follow. There is at least one, so that
    /// whoever walks through a list gets on.
    pub bytes: usize,
}

impl Slice {
    /// Of a page, which has as many items as were asked for.
    pub const ANY_SIZE: usize = usize::MAX;

    /// How many bytes a walk reads at once, and with the item that passes them hardly more: a thousand readers of the
    /// longest texts must fit into memory.
    const PIECE: usize = 256 << 10;
    /// How many it reads at once as a stream.
    const SMALL_PIECE: usize = 16 << 10;
    /// How many items a walk begins with, and how many it never exceeds.
    const FIRST: u64 = 32;
    const MOST: u64 = 512;

    /// The first piece of a walk through everything, oldest first.
    #[must_use]
    pub const fn walk() -> Self {
        Self { after: None, order: Order::Oldest, limit: Self::FIRST, bytes: Self::PIECE }
    }

    /// As [`walk`](Self::walk), in smaller pieces: for a face on which one connection may carry hundreds of walks that
    /// nobody reads.
    #[must_use]
    pub const fn stream() -> Self {
        Self { after: None, order: Order::Oldest, limit: Self::FIRST, bytes: Self::SMALL_PIECE }
    }

    /// The piece behind one that had `count` items, the last of which is `last`: it asks for twice as many, for a database
    /// may read all that it is asked for, also what does not fit any more.
    pub(crate) fn behind(self, last: i64, count: usize) -> Self {
        let count = u64::try_from(count).unwrap_or(Self::MOST);
        Self { after: Some(last), limit: count.saturating_mul(2).clamp(2, Self::MOST), ..self }
    }

    /// The first piece of another walk, cut like this one.
    pub(crate) const fn restarted(self) -> Self {
        Self { after: None, limit: Self::FIRST, ..self }
    }

    /// What was read of this piece, with the piece behind it; `None` at the end of the walk.
    pub(crate) fn and_next<T>(self, items: Vec<T>, id: impl Fn(&T) -> i64) -> Option<(Vec<T>, Self)> {
        let last = id(items.last()?);
        let next = self.behind(last, items.len());
        Some((items, next))
    }
}

/// One page and the cursor of the next, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
}

/// Seals cursors with HMAC-SHA-256 (RFC 2104, cut to 128 bits), so that nobody can make or alter one. Every node must
/// hold the same key.
pub struct CursorKey(Hmac<Sha256>);

const ID: usize = size_of::<i64>();
const TAG: usize = 16;

impl CursorKey {
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        // RFC 2104 pads a short key with zeros to the hash's block of 64 bytes.
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key);
        Self(Hmac::new(&block.into()))
    }

    /// The slice that `request` asks of `list`. A list's name holds all that a cursor is bound to: resource and filters;
    /// the order is bound too.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`] where the cursor was not sealed by [`page`](Self::page) for the same list and order.
    pub fn slice(&self, list: &str, order: Order, request: &PageRequest) -> Result<Slice, Error> {
        let after = request.cursor.as_deref().map(|cursor| self.open(list, order, cursor)).transpose()?;
        // One more than asked for tells whether there is a next page, without a count.
        Ok(Slice { after, order, limit: request.size.get() + 1, bytes: Slice::ANY_SIZE })
    }

    /// The page that `items` make: those of [`slice`](Self::slice), one more than asked for where there are more.
    pub fn page<T>(&self, list: &str, slice: &Slice, mut items: Vec<T>, id: impl Fn(&T) -> i64) -> Page<T> {
        let size = usize::try_from(slice.limit - 1).unwrap_or(usize::MAX);
        let more = items.len() > size;
        items.truncate(size);
        let next = items.last().filter(|_| more).map(|last| self.seal(list, slice.order, id(last)));
        Page { items, next }
    }

    fn seal(&self, list: &str, order: Order, id: i64) -> String {
        let mut bytes = [0; ID + TAG];
        bytes[..ID].copy_from_slice(&id.to_be_bytes());
        let tag = self.mac(list, order, &bytes[..ID]).finalize().into_bytes();
        bytes[ID..].copy_from_slice(&tag[..TAG]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn open(&self, list: &str, order: Order, cursor: &str) -> Result<i64, Error> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| Error::InvalidCursor)?;
        let (id, tag) = bytes.split_first_chunk::<ID>().ok_or(Error::InvalidCursor)?;
        if tag.len() != TAG {
            return Err(Error::InvalidCursor);
        }
        self.mac(list, order, id).verify_truncated_left(tag).map_err(|_| Error::InvalidCursor)?;
        Ok(i64::from_be_bytes(*id))
    }

    fn mac(&self, list: &str, order: Order, id: &[u8]) -> Hmac<Sha256> {
        // NUL-separated: neither a list's name nor an order's holds one, so no two inputs read alike.
        self.0
            .clone()
            .chain_update(list)
            .chain_update([0])
            .chain_update(order.name())
            .chain_update([0])
            .chain_update(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(cursor: Option<String>) -> PageRequest {
        PageRequest { size: PageSize::parse(2).unwrap(), cursor }
    }

    #[test]
    fn a_walk_asks_for_what_is_likely_to_fit() {
        let mut piece = Slice::walk();
        let limits = [32, 64, 512, 7, 1].map(|count| {
            piece = piece.behind(9, count);
            assert_eq!((piece.after, piece.bytes), (Some(9), 256 << 10));
            piece.limit
        });
        assert_eq!(limits, [64, 128, 512, 14, 2]);
    }

    #[test]
    fn a_stream_is_a_walk_in_smaller_pieces_to_its_end() {
        let first = Slice::stream();
        assert_eq!(first, Slice { bytes: 16 << 10, ..Slice::walk() });
        assert_eq!(first.behind(9, 32), Slice { after: Some(9), limit: 64, ..first });
    }

    #[test]
    fn a_page_is_followed_by_the_rest() {
        let key = CursorKey::new(&[7; 32]);
        let slice = key.slice("qna", Order::Newest, &ask(None)).unwrap();
        assert_eq!(slice, Slice { after: None, order: Order::Newest, limit: 3, bytes: Slice::ANY_SIZE });
        let page = key.page("qna", &slice, vec![9, 8, 7], |n| *n);
        assert_eq!(page.items, [9, 8]);
        let slice = key.slice("qna", Order::Newest, &ask(page.next)).unwrap();
        assert_eq!(slice.after, Some(8));
        assert_eq!(key.page("qna", &slice, vec![7], |n| *n), Page { items: vec![7], next: None });
    }

    #[test]
    fn a_full_last_page_has_no_next() {
        let key = CursorKey::new(&[7; 32]);
        let slice = key.slice("qna", Order::Oldest, &ask(None)).unwrap();
        assert_eq!(key.page("qna", &slice, vec![1, 2], |n| *n).next, None);
    }

    #[test]
    fn a_cursor_is_bound_to_its_list_its_order_and_its_key() {
        let key = CursorKey::new(&[7; 32]);
        let cursor = || Some(key.seal("qna", Order::Newest, 8));
        assert!(key.slice("qna", Order::Newest, &ask(cursor())).is_ok());
        for (other, list, order) in [
            (&key, "qna", Order::Oldest),
            (&key, "qna?author=1", Order::Newest),
            (&CursorKey::new(&[8; 32]), "qna", Order::Newest),
        ] {
            let refused = other.slice(list, order, &ask(cursor())).unwrap_err();
            assert_eq!(refused.code(), "invalid_cursor");
        }
    }

    #[test]
    fn no_bit_of_a_cursor_can_be_changed() {
        let key = CursorKey::new(&[7; 32]);
        let good = URL_SAFE_NO_PAD.decode(key.seal("qna", Order::Newest, 8)).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open("qna", Order::Newest, &URL_SAFE_NO_PAD.encode(bad)).is_err(), "bit {bit}");
        }
        for bad in ["", "x", "8", "한국어", &URL_SAFE_NO_PAD.encode(&good[..20])] {
            assert!(key.open("qna", Order::Newest, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_page_holds_1_to_100() {
        for (n, good) in [(0, false), (1, true), (100, true), (101, false), (-1, false), (i64::MAX, false)] {
            assert_eq!(PageSize::parse(n).is_ok(), good, "{n}");
        }
    }
}
