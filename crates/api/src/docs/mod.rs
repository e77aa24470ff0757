//! The OpenAPI document and the pages that show it. Everything a page needs is in the binary.

pub mod document;
pub mod link;
pub mod pages;
pub mod schema;

pub use document::{Document, base, complete};
pub use pages::{PAGES, pages};
