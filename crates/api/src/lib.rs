//! The REST face of the board and the program around it.
//!
//! [`app`] wires everything; [`routes`] holds one file a resource, wire shapes and handlers together; [`edge`] is what
//! happens around every request, with [`client`], [`rate`], [`admission`] and [`connection`] for its limits; [`problem`] is what goes wrong, and [`words`]
//! how it is said; [`settings`] is every setting.

pub mod account;
pub mod admission;
pub mod app;
pub mod client;
pub mod command;
pub mod connection;
pub mod content;
pub mod cors;
pub mod docs;
pub mod edge;
pub mod fallback;
pub mod grpc;
pub mod headers;
pub mod health;
pub mod input;
pub mod mail;
pub mod ops;
pub mod otlp;
pub mod problem;
pub mod rate;
pub mod reply;
pub mod routes;
pub mod serve;
mod server;
pub mod settings;
pub mod target;
pub mod telemetry;
pub mod trace;
pub mod upload;
pub mod words;
