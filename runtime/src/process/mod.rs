//! Programs on the host: started with a permit, owned as a tree, ended with their call.

mod guard;
#[cfg(target_os = "linux")]
mod private_tmp;
mod spawn;
mod tree;

pub use guard::{GuardCommand, guard};
#[cfg(target_os = "linux")]
pub use private_tmp::enter as enter_private_tmp;
pub use spawn::{Captured, Plan, capture, run};
pub use tree::{ProcessTree, Processes, Signal};
