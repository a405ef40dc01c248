//! Where a machine begins: with its kernel, or with a memory that was saved.

use crate::store::folder;

/// What the memory of a machine is at its start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Start<'a> {
    /// Empty: the kernel boots.
    Cold,
    /// Empty, and in the file of the template that this machine becomes.
    Template,
    /// This template's, which all that begin with it share until they write to it.
    Copy(&'a str),
    /// What another machine had in it when it was saved for this one.
    Saved,
}

/// The name of the memory in what is saved. It is what QEMU calls it where nothing is said, so that a memory fits a machine
/// that was started in another way.
const NAME: &str = "pc.ram";

/// What to begin with is said over QMP.
const INCOMING: [&str; 2] = ["-incoming", "defer"];

/// The memory of a template, below the root `state`.
pub(crate) fn memory(template: &str) -> String {
    format!("{}/ram.img", folder(template))
}

/// What is saved in the folder of a template, or of the instance that is to go on with it.
pub(crate) fn state(id: &str) -> String {
    format!("{}/state", folder(id))
}

impl Start<'_> {
    /// The arguments of a machine that begins so, made of those of one that boots. `id` is the machine.
    pub(crate) fn arguments(self, mut boots: Vec<String>, id: &str, memory_mib: u64) -> Vec<String> {
        let (template, how) = match self {
            Self::Cold => return boots,
            Self::Saved => {
                boots.extend(INCOMING.map(str::to_owned));
                return boots;
            }
            Self::Template => (id, "share=on"),
            // A QEMU that may not write to the file cannot, whatever its guest does.
            Self::Copy(template) => (template, "share=off,readonly=on,rom=off"),
        };
        if let Some(machine) = boots.iter().position(|it| it == "-machine").and_then(|at| boots.get_mut(at + 1)) {
            *machine += &format!(",memory-backend={NAME}");
        }
        let path = memory(template);
        boots.push("-object".to_owned());
        boots.push(format!("memory-backend-file,id={NAME},mem-path={path},size={memory_mib}M,{how}"));
        if self.is_restored() {
            boots.extend(INCOMING.map(str::to_owned));
        }
        boots
    }

    /// The file that has the state of its devices, and its memory where that is in no file of its own.
    pub(crate) fn state(self, id: &str) -> Option<String> {
        match self {
            Self::Cold | Self::Template => None,
            Self::Copy(template) => Some(state(template)),
            Self::Saved => Some(state(id)),
        }
    }

    pub(crate) fn is_restored(self) -> bool {
        matches!(self, Self::Copy(_) | Self::Saved)
    }
}
