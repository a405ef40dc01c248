//! Names that every process manager and every file system takes.

/// The longest name.
pub const LONGEST: usize = 49;

/// Makes a name safe: letters, digits and dashes of ASCII, shorter than 50, not a number, not `all` (both mean
/// something else to process managers), never empty.
///
/// A safe name stays as it is, so that doing it twice changes nothing.
pub fn sanitize(name: &str) -> String {
    let mut safe = String::new();
    for character in name.chars() {
        if character.is_ascii_alphanumeric() || character == '-' {
            safe.push(character);
        } else if !safe.is_empty() && !safe.ends_with('-') {
            safe.push('-');
        }
    }
    safe.truncate(LONGEST);
    let trimmed = safe.trim_matches('-');
    if trimmed.is_empty() {
        return "unnamed".to_owned();
    }
    if trimmed.eq_ignore_ascii_case("all") || trimmed.bytes().all(|byte| byte.is_ascii_digit()) {
        let mut named = format!("n-{trimmed}");
        named.truncate(LONGEST);
        return named;
    }
    trimmed.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_become_safe() {
        for (name, safe) in [
            ("fix tests", "fix-tests"),
            ("a/../b", "a-b"),
            ("a--b", "a--b"),
            ("", "unnamed"),
            ("--", "unnamed"),
            ("日本", "unnamed"),
            ("all", "n-all"),
            ("ALL", "n-ALL"),
            ("42", "n-42"),
            ("-42-", "n-42"),
            ("cc-42", "cc-42"),
            ("--name", "name"),
        ] {
            assert_eq!(sanitize(name), safe, "{name}");
        }
        assert_eq!(sanitize(&"1".repeat(80)).len(), 49);
    }

    proptest! {
        #[test]
        fn any_name_becomes_safe_and_stays_so(name in any::<String>()) {
            let safe = sanitize(&name);
            prop_assert!(!safe.is_empty() && safe.len() < 50);
            prop_assert!(safe.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
            prop_assert!(!safe.starts_with('-'));
            prop_assert!(!safe.bytes().all(|byte| byte.is_ascii_digit()));
            prop_assert!(!safe.eq_ignore_ascii_case("all"));
            prop_assert_eq!(sanitize(&safe), safe);
        }
    }
}
