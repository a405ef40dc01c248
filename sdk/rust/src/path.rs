//! Paths on an instance, which has `/` between their parts whatever the host has.

use crate::error::{Error, Result};

/// Makes a path absolute: `~` and `~/…` become `home` and what is below it, `.`, `..` and doubled slashes go.
///
/// # Errors
/// `invalid` for a path that is neither absolute nor begins with `~/`, for `~user`, for one that leaves the root, and for
/// one with a NUL.
pub fn absolute(path: &str, home: &str) -> Result<String> {
    let wrong = |message: &str| Err(Error::invalid("path.absolute", message).subject(path.escape_debug().to_string()));
    if path.contains('\0') {
        return wrong("a path cannot hold a NUL character");
    }
    let full = match path.strip_prefix('~') {
        Some("") => home.to_owned(),
        Some(rest) if rest.starts_with('/') => format!("{home}{rest}"),
        Some(_) => return wrong("`~` stands for the instance's own user only"),
        None => path.to_owned(),
    };
    if !full.starts_with('/') {
        return wrong("a path begins with `/` or `~/`");
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in full.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => return wrong("the path leads out of the root folder"),
            ".." => {}
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

/// The folder that a path is in.
pub fn parent(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) => "/",
        Some((parent, _)) => parent,
        None => ".",
    }
}

/// The last part of a path.
pub fn name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_absolute() {
        for (path, expected) in [
            ("~", "/home/u"),
            ("~/", "/home/u"),
            ("~/.claude/x", "/home/u/.claude/x"),
            ("/a//b/./c/../d/", "/a/b/d"),
            ("/", "/"),
            ("/a b/'c'", "/a b/'c'"),
        ] {
            assert_eq!(absolute(path, "/home/u").as_deref(), Ok(expected), "{path}");
        }
        assert_eq!(absolute("~", "/").as_deref(), Ok("/"));
        for wrong in ["", "a", "./a", "~root/x", "/..", "/a/../../b", "/a\0"] {
            assert_eq!(absolute(wrong, "/home/u").map_err(|error| error.code), Err("invalid".to_owned()), "{wrong}");
        }
    }

    #[test]
    fn a_path_has_a_folder_and_a_name() {
        for (path, folder, last) in
            [("/a/b", "/a", "b"), ("/a", "/", "a"), ("~/x", "~", "x"), ("x", ".", "x"), ("/a/b/", "/a", "b")]
        {
            assert_eq!((parent(path), name(path)), (folder, last));
        }
    }
}
