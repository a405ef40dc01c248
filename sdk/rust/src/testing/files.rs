use std::collections::BTreeMap;

use crate::error::{Error, Result, code};
use crate::types::Entry;

/// A file or, without content, a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) content: Option<Vec<u8>>,
    pub(crate) mode: Option<u32>,
}

/// A tree in memory; the keys are whole paths.
#[derive(Default)]
pub(crate) struct Tree(BTreeMap<String, Node>);

impl Tree {
    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(path)
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.0.contains_key(path)
            || self.0.range(below(path)..).next().is_some_and(|(key, _)| key.starts_with(&below(path)))
    }

    pub(crate) fn read(&self, operation: &str, path: &str) -> Result<Vec<u8>> {
        self.get(path).and_then(|node| node.content.clone()).ok_or_else(|| absent(operation, path))
    }

    pub(crate) fn write(&mut self, path: &str, content: &[u8], mode: Option<u32>) {
        self.0.insert(path.to_owned(), Node { content: Some(content.to_vec()), mode });
    }

    pub(crate) fn create(&mut self, path: &str, mode: Option<u32>) {
        self.0.entry(path.to_owned()).or_insert(Node { content: None, mode }).mode = mode;
    }

    pub(crate) fn remove(&mut self, path: &str, recursive: bool) -> bool {
        let mut found = self.0.remove(path).is_some();
        if recursive {
            let prefix = below(path);
            let before = self.0.len();
            self.0.retain(|key, _| !key.starts_with(&prefix));
            found |= self.0.len() < before;
        }
        found
    }

    pub(crate) fn rename(&mut self, operation: &str, from: &str, to: &str) -> Result<()> {
        let node = self.0.remove(from).ok_or_else(|| absent(operation, from))?;
        self.0.insert(to.to_owned(), node);
        Ok(())
    }

    pub(crate) fn list(&self, path: &str) -> Vec<Entry> {
        let prefix = below(path);
        let children = self.0.iter().filter_map(|(key, node)| {
            let name = key.strip_prefix(&prefix)?;
            (!name.is_empty() && !name.contains('/')).then(|| entry(name, node))
        });
        children.collect()
    }

    pub(crate) fn stat(&self, operation: &str, path: &str) -> Result<Entry> {
        let name = crate::path::name(path);
        match self.get(path) {
            Some(node) => Ok(entry(name, node)),
            None if self.exists(path) => Ok(entry(name, &Node { content: None, mode: None })),
            None => Err(absent(operation, path)),
        }
    }
}

fn below(path: &str) -> String {
    format!("{}/", path.trim_end_matches('/'))
}

fn entry(name: &str, node: &Node) -> Entry {
    Entry {
        name: name.to_owned(),
        kind: if node.content.is_some() { "file" } else { "directory" }.to_owned(),
        size: node.content.as_ref().map_or(0, |content| u64::try_from(content.len()).unwrap_or(u64::MAX)),
        modified_ms: None,
    }
}

fn absent(operation: &str, path: &str) -> Error {
    Error::new(code::NOT_FOUND, operation, "there is no such file").subject(path)
}
