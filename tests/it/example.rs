//! The plugin that `docs/plugins.md` shows whole: the page has the crate's files word for word, and the crate is a
//! plugin.

use std::collections::BTreeMap;
use std::path::Path;

use pcoder_runtime::call::CallContext;
use pcoder_runtime::contract::provider::BootOptions;
use pcoder_tests::{Grant, House, root};

/// The files that the page shows: those whose path stands in front of a block of code.
fn shown() -> BTreeMap<String, String> {
    let page = std::fs::read_to_string(root().join("docs").join("plugins.md")).expect("the page");
    let mut shown = BTreeMap::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some((path, _)) = line.strip_prefix("`examples/").and_then(|rest| rest.split_once('`')) else { continue };
        let fence = lines.find(|line| line.starts_with("```"));
        assert!(fence.is_some(), "{path} is followed by no code");
        let code = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        assert!(shown.insert(path.to_owned(), code).is_none(), "{path} is shown twice");
    }
    shown
}

fn files(folder: &Path, below: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = format!("{below}/{}", path.file_name().expect("a name").to_string_lossy());
        if path.is_dir() {
            files.extend(self::files(&path, &name));
        } else {
            files.insert(name, std::fs::read_to_string(&path).expect("a text"));
        }
    }
    files
}

#[test]
fn the_page_shows_every_file_of_the_crate_as_it_is() {
    let (shown, real) = (shown(), files(&root().join("examples").join("provider-box"), "provider-box"));
    assert_eq!(shown.keys().collect::<Vec<_>>(), real.keys().collect::<Vec<_>>());
    for (name, content) in real {
        assert_eq!(shown[&name], content, "docs/plugins.md shows another examples/{name}");
    }
}

#[tokio::test]
async fn the_example_loads_and_answers() {
    let house = House::example("provider-box", Grant::Nothing);
    let provider = house.plugin.provider().expect("a provider");
    assert_eq!(provider.info(CallContext::default()).await.expect("an answer").name, "box");
    let error = provider.get(CallContext::default(), "../admin").await.expect_err("a name that is none");
    assert_eq!((error.code.as_ref(), error.subject.as_deref()), ("not-found", Some("../admin")));
    assert_eq!(house.decisions(), []);
    let options = BootOptions {
        image: None,
        name: None,
        ttl_seconds: None,
        ttl_action: None,
        project: None,
        options: Vec::new(),
    };
    let error = provider.boot(CallContext::default(), &options).await.expect_err("nothing was granted");
    assert_eq!((error.code.as_ref(), error.subject.as_deref()), ("denied", Some("BOX_API_KEY")));
    assert_eq!(house.effects(), []);
}
