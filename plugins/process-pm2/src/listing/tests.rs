use serde_json::json;

use super::*;

const FOLDER: &str = "w.0123456789abcdef";

/// An element as PM2 7.0.4 prints it, with these fields of `pm2_env` in place of its own.
fn element(pid: u64, fields: &Value) -> Value {
    let mut env = json!({
        "name": "w", "namespace": "default", "args": ["-c", "TOP SECRET"], "env": { "TOKEN": "TOP SECRET" },
        "TOKEN": "TOP SECRET", "autorestart": false, "exec_mode": "fork_mode", "PCODER_PM2_RUN": FOLDER,
        "pm_out_log_path": "/h/out.log", "pm_err_log_path": "/h/err.log", "pm_pid_path": "/h/pids/w-4.pid",
        "status": "stopped", "pm_uptime": 1_795_799_658_880_u64, "restart_time": 2, "pm_id": 4,
    });
    env.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({ "pid": pid, "name": "w", "pm_id": 4, "pm2_env": env, "monit": { "memory": 1, "cpu": 0 } })
}

fn one(pid: u64, fields: &Value, left: &str) -> Entry {
    let text = format!("{}\n{left}", Value::Array(vec![element(pid, fields)]));
    parse(&text).unwrap().remove(0)
}

#[test]
fn statuses_and_exit_codes_are_the_contracts() {
    let exit = |code: i32| format!("pcoder {FOLDER}/exit.4 {code}\n");
    let last = format!("pcoder {FOLDER}/last.4 9\n");
    let stopped = format!("pcoder {FOLDER}/stopped.4 \n");
    for (pid, fields, left, status, code) in [
        (7, json!({ "status": "online" }), String::new(), "online", None),
        (7, json!({ "status": "online" }), last.clone(), "online", Some(9)),
        (7, json!({ "status": "stopping" }), String::new(), "online", None),
        (0, json!({ "status": "launching" }), String::new(), "launching", None),
        (0, json!({ "status": "waiting restart", "autorestart": true }), exit(3), "launching", Some(3)),
        (0, json!({ "exit_code": 0 }), exit(0), "finished", Some(0)),
        // PM2 says 0 after a signal.
        (0, json!({ "exit_code": 0 }), exit(137), "errored", Some(137)),
        (0, json!({ "exit_code": 0 }), String::new(), "stopped", None),
        (0, json!({ "exit_code": 0 }), last.clone(), "stopped", None),
        (0, json!({ "exit_code": 5 }), String::new(), "errored", Some(5)),
        (0, json!({ "exit_code": 0 }), exit(130) + &stopped, "stopped", Some(130)),
        (0, json!({ "status": "errored" }), stopped.clone(), "stopped", None),
        (0, json!({ "status": "errored", "autorestart": true }), exit(7), "errored", Some(7)),
        (0, json!({ "autorestart": true }), exit(7), "stopped", Some(7)),
        (0, json!({ "autorestart": "false" }), exit(7), "errored", Some(7)),
        (0, json!({ "status": "of a later version" }), String::new(), "stopped", None),
        (7, json!({ "status": "of a later version" }), String::new(), "online", None),
        // Another copy's, and another run's.
        (0, json!({}), format!("pcoder {FOLDER}/exit.5 1\npcoder w.fedcba9876543210/exit.4 1\n"), "stopped", None),
    ] {
        let info = one(pid, &fields, &left).info();
        assert_eq!((info.status.as_str(), info.exit_code), (status, code), "{pid} {fields} {left}");
    }
}

#[test]
fn what_may_start_again_is_not_over() {
    let stopped = format!("pcoder {FOLDER}/stopped.4 \n");
    for (fields, left, over) in [
        (json!({}), "", true),
        (json!({ "autorestart": true }), "", false),
        (json!({ "autorestart": true }), stopped.as_str(), true),
        (json!({ "autorestart": true, "status": "errored" }), "", true),
        (json!({ "status": "launching" }), "", false),
    ] {
        assert_eq!(one(0, &fields, left).is_over(), over, "{fields} {left}");
    }
    assert!(!one(7, &json!({ "status": "errored" }), "").is_over());
}

#[test]
fn only_named_fields_are_taken() {
    let entry = one(0, &json!({}), "");
    let shown = format!("{entry:?} {:?}", entry.info());
    assert!(!shown.contains("SECRET"), "{shown}");
    insta::assert_snapshot!("info", format!("{:#?}", one(7, &json!({ "status": "online" }), "").info()));
}

#[test]
fn banners_are_no_list() {
    let list = Value::Array(vec![element(0, &json!({}))]).to_string();
    let banner = "\n   -------------\n\n__/\\\\\\\\\n[PM2] Spawning PM2 daemon with pm2_home=/h/.pm2\n\
                  \u{1b}[32m[PM2] \u{1b}[39mPM2 Successfully daemonized\n>>>> In-memory PM2 is out-of-date, do:\n";
    for text in [list.clone(), format!("{banner}{list}"), format!("{banner}{list}\r\n"), format!("[]\n{list}\n")] {
        assert_eq!(parse(&text).map(|entries| entries.len()), Some(1), "{text}");
    }
    assert_eq!(parse("[]"), Some(Vec::new()));
    assert_eq!(parse(&format!("{banner}[]\npcoder {FOLDER}/exit.4 1")), Some(Vec::new()));
    for garbage in ["", "garbage", banner, "{}", "[{\"pid\":1", &list[..list.len() - 1]] {
        assert_eq!(parse(garbage), None, "{garbage}");
    }
}

#[test]
fn elements_without_a_name_or_an_id_are_left_out() {
    let text = json!([1, {}, { "name": "x" }, { "name": "x", "pm_id": 1 }, element(0, &json!({}))]).to_string();
    assert_eq!(parse(&text).unwrap().len(), 1);
    let entry = &parse(&json!([{ "name": "x", "pm_id": 1, "pm2_env": {} }]).to_string()).unwrap()[0];
    assert_eq!((entry.info().status.as_str(), entry.info().pid, &entry.run), ("stopped", None, &None));
}

#[test]
fn a_run_is_only_what_can_be_its_folder() {
    for (run, process, ours) in [
        (FOLDER, "w", true),
        (FOLDER, "v", false),
        ("w.0123456789abcdeg", "w", false),
        ("w.0123", "w", false),
        ("w./../../../../etc", "w", false),
        ("w b.0123456789abcdef", "w b", false),
        ("", "w", false),
    ] {
        assert_eq!(is_run_of(run, process), ours, "{run}");
    }
    assert_eq!(one(0, &json!({ "PCODER_PM2_RUN": "../../etc" }), "").run, None);
}
