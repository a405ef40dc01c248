use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::fake::lives;
use super::files::Tree;
use crate::error::{Error, Result, code};
use crate::host::Talk;
use crate::types::ExitStatus;

/// A program that a [`FakeHost`](super::FakeHost) runs as a service, played by a test.
pub trait Program {
    /// What it says by itself by now, `since` its start. It is asked whenever somebody looks at it.
    fn goes_on(&mut self, since: Duration, folder: &Folder) -> Vec<String> {
        let _ = (since, folder);
        Vec::new()
    }
    /// What it says to a line that it is told.
    fn told(&mut self, line: &str, folder: &Folder) -> Vec<String>;
    /// What it wrote to standard error.
    fn log(&self) -> Vec<u8> {
        Vec::new()
    }
    /// How it ended, once it has.
    fn ended(&self) -> Option<ExitStatus> {
        None
    }
}

/// The folder that a service works in.
pub struct Folder(Rc<RefCell<Tree>>, String);

impl Folder {
    fn path(&self, path: &str) -> String {
        if self.1 == "." { format!("state:{path}") } else { format!("state:{}/{path}", self.1) }
    }

    /// Writes a file there.
    pub fn put(&self, path: &str, content: &[u8]) {
        self.0.borrow_mut().write(&self.path(path), content, None);
    }

    /// The content of a file there.
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.0.borrow().get(&self.path(path)).and_then(|node| node.content.clone())
    }
}

/// A program that runs, or ran.
pub(crate) struct Running {
    program: RefCell<Box<dyn Program>>,
    folder: Folder,
    now: Rc<Cell<Duration>>,
    left: Rc<Cell<Option<usize>>>,
    started: Duration,
    said: RefCell<VecDeque<String>>,
    stopped: Cell<bool>,
    talking: Cell<bool>,
}

impl Running {
    pub(crate) fn start(
        program: Box<dyn Program>,
        tree: &Rc<RefCell<Tree>>,
        folder: &str,
        now: &Rc<Cell<Duration>>,
        left: &Rc<Cell<Option<usize>>>,
    ) -> Self {
        Self {
            program: RefCell::new(program),
            folder: Folder(Rc::clone(tree), folder.to_owned()),
            now: Rc::clone(now),
            left: Rc::clone(left),
            started: now.get(),
            said: RefCell::default(),
            stopped: Cell::new(false),
            talking: Cell::new(false),
        }
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        if self.stopped.get() {
            return Some(ExitStatus::Signaled(15));
        }
        let said = self.program.borrow_mut().goes_on(self.now.get().saturating_sub(self.started), &self.folder);
        self.said.borrow_mut().extend(said);
        self.program.borrow().ended()
    }

    pub(crate) fn stop(&self) -> Option<ExitStatus> {
        let ended = self.ended();
        self.stopped.set(ended.is_none());
        ended.or_else(|| self.ended())
    }

    pub(crate) fn log(&self) -> Vec<u8> {
        self.program.borrow().log()
    }

    pub(crate) fn talk(self: &Rc<Self>) -> Result<Box<dyn Talk>> {
        if self.talking.replace(true) {
            return Err(Error::new(code::CONFLICT, "service.talk", "somebody else talks with it"));
        }
        Ok(Box::new(FakeTalk(Rc::clone(self))))
    }
}

struct FakeTalk(Rc<Running>);

impl FakeTalk {
    fn over() -> Error {
        Error::new(code::UNAVAILABLE, "service.receive", "the program's output has ended")
    }
}

impl Talk for FakeTalk {
    fn send(&self, message: &str) -> Result<()> {
        lives(&self.0.left, "service.send")?;
        if self.0.ended().is_some() {
            return Err(Self::over());
        }
        let said = self.0.program.borrow_mut().told(message, &self.0.folder);
        self.0.said.borrow_mut().extend(said);
        Ok(())
    }

    fn try_receive(&self) -> Result<Option<String>> {
        let ended = self.0.ended().is_some();
        match self.0.said.borrow_mut().pop_front() {
            Some(line) => Ok(Some(line)),
            None if ended => Err(Self::over()),
            None => Ok(None),
        }
    }

    /// Only the time goes on.
    fn wait(&self, longest: Duration) {
        if self.0.ended().is_none() && self.0.said.borrow().is_empty() {
            self.0.now.set(self.0.now.get().saturating_add(longest));
        }
    }
}

impl Drop for FakeTalk {
    fn drop(&mut self) {
        self.0.talking.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Services;
    use crate::testing::FakeHost;
    use crate::types::ServiceSpec;

    /// Says `tick` after a second, repeats what it is told, and ends when it is told so.
    #[derive(Default)]
    struct Parrot {
        ticked: bool,
        over: bool,
    }

    impl Program for Parrot {
        fn goes_on(&mut self, since: Duration, folder: &Folder) -> Vec<String> {
            if since < Duration::from_secs(1) || std::mem::replace(&mut self.ticked, true) {
                return Vec::new();
            }
            folder.put("ticks", b"1");
            vec!["tick".to_owned()]
        }

        fn told(&mut self, line: &str, _: &Folder) -> Vec<String> {
            self.over = line == "end";
            vec![line.to_owned()]
        }

        fn log(&self) -> Vec<u8> {
            b"parrot".to_vec()
        }

        fn ended(&self) -> Option<ExitStatus> {
            self.over.then_some(ExitStatus::Exited(3))
        }
    }

    #[test]
    fn a_program_is_played() {
        let host = FakeHost::new().running(|_, _| Ok(Box::new(Parrot::default())));
        let spec = ServiceSpec { program: "parrot".to_owned(), args: Vec::new(), folder: "sub".to_owned() };
        assert_eq!(host.start("p", &spec).unwrap().state, "running");
        let talk = host.talk("p", Duration::ZERO).unwrap();
        assert!(host.talk("p", Duration::ZERO).is_err(), "one talks at a time");
        assert_eq!(talk.try_receive(), Ok(None));
        talk.wait(Duration::from_secs(1));
        assert_eq!(talk.try_receive(), Ok(Some("tick".to_owned())));
        assert_eq!(host.host_file("state", "sub/ticks"), Some(b"1".to_vec()));
        talk.send("end").unwrap();
        assert_eq!(talk.try_receive(), Ok(Some("end".to_owned())));
        assert!(talk.try_receive().is_err());
        drop(talk);
        let status = host.status("p").unwrap().unwrap();
        assert_eq!((status.state.as_str(), status.exit), ("ended", Some(ExitStatus::Exited(3))));
        assert_eq!(host.log_tail("p", 9).unwrap(), b"parrot");
        host.start("p", &spec).unwrap();
        assert!(host.start("p", &spec).is_err(), "it runs already");
        assert_eq!(host.stop("p", Duration::ZERO), Ok(Some(ExitStatus::Signaled(15))));
    }
}
