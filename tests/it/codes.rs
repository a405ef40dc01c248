//! The codes of errors are written down three times: for authors in the contract, for the host in `runtime`, for
//! plugins in the SDK. They are the same ones, in the same order.

use pcoder_tests::root;
use wit_parser::Resolve;

/// The codes that the comment on `types.error` lists: the words in backticks before the colon of each of its points.
fn documented() -> Vec<String> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root().join("wit").join("pcoder-plugin@0.1.0")).expect("the contract");
    let interface = resolve.packages[package].interfaces["types"];
    let error = resolve.interfaces[interface].types["error"];
    let comment = resolve.types[error].docs.contents.as_deref().expect("a comment");
    let points = comment.lines().filter_map(|line| line.strip_prefix("- "));
    points
        .flat_map(|point| {
            let (codes, _) = point.split_once(": ").expect("a point is `code`: meaning");
            codes.split(", ").map(move |code| {
                let code = code.strip_prefix('`').and_then(|code| code.strip_suffix('`'));
                code.unwrap_or_else(|| panic!("not a code in backticks: {point}")).to_owned()
            })
        })
        .collect()
}

#[test]
fn host_and_sdk_have_the_codes_that_the_contract_lists() {
    let documented = documented();
    assert!(documented.iter().any(|code| code == "denied") && documented.len() > 10, "{documented:?}");
    assert_eq!(pcoder_runtime::error::code::ALL, documented, "runtime/src/error.rs");
    assert_eq!(pcoder_sdk::code::ALL, documented, "sdk/rust/src/error.rs");
}
