use crate::types::{Engine, Launch, SessionInput};

/// What an agent gets to launch from: these engines, and these arguments of the user. Engines have awkward paths,
/// `/engines/NAME/it's bin`, so that a command line which quotes too little fails its test.
pub fn launch(engines: &[&str], args: &[&str]) -> Launch {
    Launch {
        engines: engines.iter().map(|name| engine(name)).collect(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        cwd: "/work".to_owned(),
        home_dir: "/home/user".to_owned(),
        env: Vec::new(),
        options: Vec::new(),
    }
}

/// A session that asks for nothing but this prompt.
pub fn session(prompt: &str, launch: Launch) -> SessionInput {
    SessionInput { prompt: prompt.to_owned(), system_prompt: None, model: None, name: None, resume: None, launch }
}

fn engine(name: &str) -> Engine {
    let root = format!("/engines/{name}");
    Engine {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        entrypoint: format!("{root}/it's bin"),
        path_entries: vec![format!("{root}/path")],
        root,
    }
}
