//! The commands: each asks `core`, and shows the answer.

pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod engine;
pub(crate) mod plugin;
pub(crate) mod precompile;
pub(crate) mod run;
pub(crate) mod tools;
