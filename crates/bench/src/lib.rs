//! The board beside a server written by hand (`mundap-floor`), on the same rows in the same run.
//!
//! | module | holds |
//! | --- | --- |
//! | [`fill`] | the rows: members, questions, and comments that a few of the questions have most of |
//! | [`contender`] | who is measured, as a process: its port, its processor time, its memory |
//! | [`scenario`] | what is asked, of whom |
//! | [`measure`] | rounds in which the contenders take turns, and their medians |
//! | [`report`] | the table of ratios, and everything as JSON |
//!
//! Machines differ and are never quiet: what counts is a ratio within one run.

pub mod contender;
pub mod fill;
pub mod measure;
pub mod report;
pub mod scenario;

/// What cannot be measured ends the run with a line that says why.
pub use mundap_trial::Result;
