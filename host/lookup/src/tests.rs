//! Programs in folders of the tests' own.

use std::ffi::OsString;
use std::fs;

use tempfile::TempDir;

use super::*;

struct World(TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, executable: bool) -> PathBuf {
        let path = self.0.path().join(if cfg!(windows) { format!("{name}.exe") } else { name.to_owned() });
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = if executable { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        #[cfg(not(unix))]
        let _ = executable;
        path
    }

    fn path(&self, folders: &[&str]) -> OsString {
        std::env::join_paths(folders.iter().map(|folder| self.0.path().join(folder))).unwrap()
    }
}

#[test]
fn the_first_folder_that_has_the_program_counts() {
    let world = World::new();
    let (first, second) = (world.file("first/tool", true), world.file("second/tool", true));
    let other = world.file("second/other", true);
    let path = world.path(&["nothing", "first", "second"]);
    assert_eq!(program("tool", Some(&path)), Some(first));
    assert_eq!(program("other", Some(&path)), Some(other));
    assert_eq!(program("tool", Some(&world.path(&["second", "first"]))), Some(second));
    for name in ["missing", "", "."] {
        assert_eq!(program(name, Some(&path)), None, "{name}");
    }
}

#[test]
fn a_folder_is_no_program() {
    let world = World::new();
    fs::create_dir_all(world.0.path().join("first/tool")).unwrap();
    let second = world.file("second/tool", true);
    assert_eq!(program("tool", Some(&world.path(&["first", "second"]))), Some(second));
}

#[cfg(unix)]
#[test]
fn a_file_that_is_not_executable_is_passed_over_and_a_link_is_followed() {
    let world = World::new();
    world.file("first/tool", false);
    let real = world.file("real/tool-2", true);
    fs::create_dir(world.0.path().join("second")).unwrap();
    let link = world.0.path().join("second/tool");
    std::os::unix::fs::symlink(real, &link).unwrap();
    assert_eq!(program("tool", Some(&world.path(&["first", "second"]))), Some(link));
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_not_absolute_is_passed_over() {
    let world = World::new();
    world.file("bin/tool", true);
    let absolute = world.0.path().join("bin");
    // The same folder, as it is called from here.
    let up = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect::<PathBuf>();
    let relative = up.join(absolute.strip_prefix("/").unwrap());
    assert!(relative.is_relative() && relative.join("tool").is_file());
    assert_eq!(program("tool", Some(relative.as_os_str())), None);
    assert!(program("tool", Some(absolute.as_os_str())).is_some());
    // An empty entry is the working folder to a shell, and none here.
    assert_eq!(program("tool", Some(OsStr::new(":"))), None);
    assert_eq!(program("tool", Some(OsStr::new(""))), None);
    assert_eq!(program("tool", None), None);
}
