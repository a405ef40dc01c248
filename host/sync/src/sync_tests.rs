//! What a caller says, and what a script says.

use super::*;

#[test]
fn a_label_is_made_part_of_a_name() {
    let sync = Sync::new("/a", "/b", "/c").label("../my VM: 1");
    assert_eq!(sync.label, "..-my-VM--1");
}

#[test]
fn the_last_words_of_a_script_are_one_line_without_commands_for_a_terminal() {
    assert_eq!(last_line(b"one\ntar: \x1b[31mno space\n\n"), "tar:  [31mno space");
    assert_eq!(last_line(b""), "it gave no reason");
    let full =
        b"tar: t/a: Cannot write: No space left on device\ntar: Exiting with failure status due to previous errors\n\
                 zstd: error 70 : Write error : cannot write block : Broken pipe\n";
    assert_eq!(last_line(full), "tar: t/a: Cannot write: No space left on device");
    assert_eq!(last_line(b"x: Broken pipe\n"), "x: Broken pipe");
}

#[test]
fn what_windows_cannot_have_is_left_out_with_all_that_is_in_it() {
    let path = |it: &str| TreePath::new(it.as_bytes()).expect("a path");
    let folder = Entry { kind: Kind::Folder, mode: 0o755, mtime: 0 };
    let link = Entry { kind: Kind::Link { target: b"x".to_vec() }, mode: 0o777, mtime: 0 };
    let mut tree = Tree::default();
    for it in ["a:b", "a:b/c", "d", "d/nul"] {
        tree.entries.insert(path(it), folder.clone());
    }
    tree.entries.insert(path("d/l"), link);
    leave_out_for_windows(&mut tree);
    assert_eq!(tree.entries.into_keys().collect::<Vec<_>>(), [path("d")]);
    assert_eq!(tree.unknown.keys().collect::<Vec<_>>(), [&path("a:b"), &path("d/l"), &path("d/nul")]);
}
