//! The rules of the board, each as a test: what a text may be, who may do what, what is stored and in which order.
//!
//! Repositories are mocked: a call that a test does not expect fails it, so that "nothing was written" needs no words.

mod access;
mod account;
mod admin;
mod comment;
mod deps;
mod errors;
mod event;
mod export;
mod idempotency;
mod image;
mod mail;
mod page;
mod properties;
mod qna;
mod rate;
mod retry;
mod stage;
mod user;
mod values;
