//! Programs on the host: started with a permit, owned as a tree, ended with their call.

mod guard;
mod spawn;
mod tree;

pub use guard::{GuardCommand, guard};
pub use spawn::{Captured, Plan, capture, run};
pub use tree::{ProcessTree, Processes, Signal};
