//! The test that every crate with an error type of its own has: all of its errors, as people read them, in a snapshot.
#![forbid(unsafe_code)]

/// Makes that test of the variants of `Error`, a function that gives a list of errors, and one that shows one of them.
/// It also makes `variant`, which gives an error the name of its variant.
///
/// The variants are in a match without a wildcard: a new one does not compile until it is named, and then the test
/// fails until the list has an error of it. The crate that uses this has `insta`.
#[macro_export]
macro_rules! every_error_is_shown {
    ($errors:ident, $shown:ident, $($name:ident)*) => {
        fn variant(error: &Error) -> &'static str {
            match error {
                $(Error::$name { .. } => stringify!($name),)*
            }
        }

        #[test]
        fn every_error_says_what_failed_and_what_to_do() {
            let errors = $errors();
            let mut missing = vec![$(stringify!($name)),*];
            missing.retain(|name| !errors.iter().any(|it| variant(it) == *name));
            assert!(missing.is_empty(), "the list has none of {missing:?}");
            insta::assert_snapshot!("errors", errors.iter().map($shown).collect::<Vec<_>>().join("\n"));
        }
    };
}
