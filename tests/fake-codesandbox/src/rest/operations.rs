//! What the operations do.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Call;
use super::route::Route;
use crate::cloud::{ApiError, Cloud, PITCHER_VERSION, TIERS, word};
use crate::sandbox::{ForkOptions, Phase, PreviewToken, Sandbox, check_tier, check_timeout};

type Done = Result<(u16, Value), ApiError>;

/// The largest page of a list.
const MAX_PAGE: usize = 50;
/// GiB of disk of every tier.
const STORAGE: u32 = 20;

/// Does it; the answer's status and data.
pub(super) async fn perform(cloud: &Arc<Cloud>, route: &Route, call: &Call) -> Done {
    let ok = |data: Value| Ok((200, data));
    match route {
        Route::Info => ok(info(cloud, call.authorized)),
        Route::List => list(cloud, call),
        Route::Create => create(cloud, call),
        Route::Get(id) => get(cloud, id),
        Route::Fork(id) => fork(cloud, id, call).await,
        Route::Tokens(_) | Route::CreateToken(_) | Route::RevokeTokens(_) | Route::UpdateToken(..) => {
            tokens(cloud, route, call)
        }
        Route::Start(id) => ok(cloud.start(&cloud.sandbox(id)?, &parse(call)?).await?),
        Route::Shutdown(id) => {
            cloud.shutdown(&cloud.sandbox(id)?).await?;
            ok(json!({}))
        }
        Route::Hibernate(id) => {
            cloud.hibernate(&cloud.sandbox(id)?, None).await?;
            ok(json!({}))
        }
        Route::Delete(id) => {
            cloud.delete(&cloud.sandbox(id)?).await;
            ok(json!({}))
        }
        Route::Session(id) => session(cloud, id, call),
        Route::HibernationTimeout(id) => {
            let sandbox = cloud.sandbox(id)?;
            let seconds = call.body["hibernation_timeout_seconds"].as_u64();
            let seconds = seconds.ok_or_else(|| ApiError::invalid("hibernation_timeout_seconds", "can't be blank"))?;
            check_timeout(seconds)?;
            sandbox.facts().hibernation_timeout = seconds;
            ok(json!({"id": id, "hibernation_timeout_seconds": seconds}))
        }
        Route::Specs(id) => {
            let sandbox = cloud.sandbox(id)?;
            let tier = call.text("tier")?;
            check_tier(tier)?;
            tier.clone_into(&mut sandbox.facts().tier);
            ok(json!({"id": id, "tier": tier}))
        }
        Route::Running => ok(running(cloud)),
        Route::Clusters => ok(json!({"clusters": [{"host": cloud.agents.to_string(), "slug": "fake-cluster-1"}]})),
        Route::Tag => {
            let sandbox = cloud.sandbox(call.body["vm_ids"][0].as_str().unwrap_or_default())?;
            ok(json!({"tag_id": tag(cloud, &sandbox)}))
        }
        Route::Alias(namespace, alias) => {
            let tag = call.text("tag_id")?;
            let name = format!("{namespace}@{alias}");
            let mut tags = cloud.tags.lock().unwrap_or_else(PoisonError::into_inner);
            let sandbox = tags.get(tag).cloned().ok_or_else(ApiError::not_found)?;
            tags.insert(name.clone(), sandbox);
            ok(json!({"namespace": namespace, "alias": alias, "tag_alias": name, "tag_id": tag}))
        }
        Route::Templates => template(cloud, call),
        Route::Hosts | Route::AddHosts | Route::SetHosts => hosts(cloud, route, call),
    }
}

/// The body, of which nothing is needed that a missing one has not.
fn parse<T: DeserializeOwned + Default>(call: &Call) -> Result<T, ApiError> {
    if call.body.is_null() {
        return Ok(T::default());
    }
    serde_json::from_value(call.body.clone()).map_err(|error| ApiError::new(422, error.to_string()))
}

fn info(cloud: &Cloud, authorized: bool) -> Value {
    let mut info = json!({"api": {"name": "CodeSandbox API", "latest_version": "2023-07-01"}});
    if authorized {
        let (options, used, running) = (&cloud.options, *cloud.used(), cloud.running());
        info["auth"] = json!({"scopes": options.scopes, "team": "ws_fake", "version": "2023-07-01"});
        let vms = options.concurrent_vms;
        let requests = options.requests_hourly;
        let sandboxes = options.sandboxes_hourly;
        let reset = cloud.resets.as_second();
        info["rate_limits"] = json!({
            "concurrent_vms": {"limit": vms, "remaining": vms.saturating_sub(running)},
            "requests_hourly":
                {"limit": requests, "remaining": requests.saturating_sub(used.requests), "reset": reset},
            "sandboxes_hourly":
                {"limit": sandboxes, "remaining": sandboxes.saturating_sub(used.sandboxes), "reset": reset},
        });
    }
    info
}

fn show(sandbox: &Sandbox, pint: bool) -> Value {
    let facts = sandbox.facts();
    json!({
        "id": sandbox.id,
        "title": facts.title,
        "description": facts.description,
        "privacy": facts.privacy,
        "tags": facts.tags,
        "created_at": sandbox.created,
        "updated_at": facts.updated,
        "is_frozen": facts.frozen,
        "settings": {"use_pint": pint},
    })
}

fn pint(cloud: &Cloud) -> bool {
    cloud.options.agent.has_pint()
}

fn list(cloud: &Cloud, call: &Call) -> Done {
    let find = |name: &str| call.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let number = |name: &str, default: usize| match find(name) {
        None => Ok(default),
        Some(text) => match text.parse() {
            Ok(number) if number >= 1 => Ok(number),
            _ => Err(ApiError::invalid(name, "is invalid")),
        },
    };
    let (page, size) = (number("page", 1)?, number("page_size", 20)?);
    if size > MAX_PAGE {
        return Err(ApiError::invalid("page_size", "must be less than or equal to 50"));
    }
    let tags: Vec<_> =
        find("tags").into_iter().flat_map(|tags| tags.split(',')).filter(|tag| !tag.is_empty()).collect();
    let mut found: Vec<_> = cloud.sandboxes();
    found.retain(|sandbox| {
        let facts = sandbox.facts();
        let tagged = tags.iter().all(|tag| facts.tags.iter().any(|has| has == tag));
        tagged && (find("status") != Some("running") || facts.phase == Phase::Running)
    });
    if find("order_by") == Some("updated_at") {
        found.sort_by_key(|sandbox| (sandbox.facts().updated, sandbox.number));
    } else {
        found.sort_by_key(|sandbox| sandbox.number);
    }
    if find("direction") != Some("asc") {
        found.reverse();
    }
    let first = page.saturating_sub(1).saturating_mul(size);
    let next = (found.len() > first.saturating_add(size)).then_some(page + 1);
    let shown: Vec<_> = found.iter().skip(first).take(size).map(|sandbox| show(sandbox, pint(cloud))).collect();
    let pagination = json!({"current_page": page, "next_page": next, "total_records": found.len()});
    Ok((200, json!({"sandboxes": shown, "pagination": pagination})))
}

fn get(cloud: &Cloud, id: &str) -> Done {
    if let Some(sandbox) = cloud.get(id) {
        return Ok((200, show(&sandbox, pint(cloud))));
    }
    let template = cloud.options.templates.iter().find(|template| *template == id).ok_or_else(ApiError::not_found)?;
    let (created, settings) = ("2025-01-01T00:00:00Z", json!({"use_pint": pint(cloud)}));
    Ok((
        200,
        json!({"id": template, "title": "Template", "description": null, "privacy": 0, "tags": ["template"],
            "created_at": created, "updated_at": created, "is_frozen": true, "settings": settings}),
    ))
}

fn created(sandbox: &Sandbox) -> Value {
    json!({"id": sandbox.id, "alias": sandbox.id, "title": sandbox.facts().title})
}

fn create(cloud: &Cloud, call: &Call) -> Done {
    let files = call.body["files"].as_object().ok_or_else(|| ApiError::invalid("files", "can't be blank"))?;
    let mut contents = BTreeMap::new();
    for (name, file) in files {
        let text = file.as_str().or_else(|| file["content"].as_str()).unwrap_or_default();
        contents.insert(name.trim_start_matches('/').to_owned(), text.as_bytes().to_vec());
    }
    let sandbox = cloud.create(None, &contents, &parse(call)?)?;
    Ok((201, created(&sandbox)))
}

async fn fork(cloud: &Arc<Cloud>, id: &str, call: &Call) -> Done {
    let options: ForkOptions = parse(call)?;
    let (from, making, id) = (cloud.clone(), options.clone(), id.to_owned());
    let sandbox = tokio::task::spawn_blocking(move || from.create(Some(&id), &BTreeMap::new(), &making)).await;
    let sandbox = sandbox.map_err(|error| ApiError::new(500, error.to_string()))??;
    let mut data = created(&sandbox);
    if let Some(start) = &options.start_options {
        data["start_response"] = cloud.start(&sandbox, start).await?;
    }
    Ok((201, data))
}

fn session(cloud: &Cloud, id: &str, call: &Call) -> Done {
    let sandbox = cloud.sandbox(id)?;
    if !sandbox.running() {
        return Err(ApiError::not_found());
    }
    let name = call.body["session_id"].as_str().unwrap_or_default();
    let plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_');
    if name.is_empty() || name.len() > 20 || !plain {
        return Err(ApiError::invalid("session_id", "is invalid"));
    }
    let write = match call.body["permission"].as_str() {
        Some("write") => true,
        Some("read") => false,
        _ => return Err(ApiError::invalid("permission", "is invalid")),
    };
    let (token, access) = cloud.session(&sandbox, name, write)?;
    Ok((
        200,
        json!({
            "pitcher_token": token,
            "pitcher_url": cloud.pitcher_url(&sandbox),
            "user_workspace_path": access.workspace,
            "username": access.username,
            "capabilities": [],
            "permissions": {},
        }),
    ))
}

fn running(cloud: &Cloud) -> Value {
    let mut vms = Vec::new();
    for sandbox in cloud.sandboxes() {
        let facts = sandbox.facts();
        if facts.phase == Phase::Running {
            let tier = TIERS.iter().find(|(name, ..)| *name == facts.tier);
            let (_, cpu, memory) = tier.copied().unwrap_or(TIERS[0]);
            vms.push(json!({
                "id": sandbox.id,
                "credit_basis": "5",
                "last_active_at": facts.active_at,
                "session_started_at": facts.started_at,
                "specs": {"cpu": cpu, "memory": memory, "storage": STORAGE},
            }));
        }
    }
    json!({"concurrent_vm_count": vms.len(), "concurrent_vm_limit": cloud.options.concurrent_vms, "vms": vms})
}

fn show_token(token: &PreviewToken, whole: bool) -> Value {
    let prefix: String = token.token.chars().take(8).collect();
    let mut shown = json!({
        "token_id": token.id,
        "token_prefix": prefix,
        "expires_at": token.expires,
        "last_used_at": token.last_used,
    });
    if whole {
        shown["token"] = token.token.as_str().into();
    }
    shown
}

fn expiry(call: &Call) -> Result<Option<Timestamp>, ApiError> {
    match &call.body["expires_at"] {
        Value::Null => Ok(None),
        Value::String(text) => text.parse().map(Some).map_err(|_| ApiError::invalid("expires_at", "is invalid")),
        _ => Err(ApiError::invalid("expires_at", "is invalid")),
    }
}

fn tokens(cloud: &Cloud, route: &Route, call: &Call) -> Done {
    let id = route.sandbox().unwrap_or_default();
    let sandbox = cloud.sandbox(id)?;
    let mut facts = sandbox.facts();
    match route {
        Route::CreateToken(_) => {
            let expires = expiry(call)?;
            let token = PreviewToken {
                id: format!("prv_{}", word(10)),
                token: format!("prv_v1_{}", word(32)),
                expires,
                last_used: None,
            };
            let shown = show_token(&token, true);
            facts.preview_tokens.push(token);
            Ok((201, json!({"sandbox_id": id, "token": shown})))
        }
        Route::UpdateToken(_, token) => {
            let expires = expiry(call)?;
            let found = facts.preview_tokens.iter_mut().find(|known| known.id == *token);
            let found = found.ok_or_else(ApiError::not_found)?;
            found.expires = expires;
            Ok((200, json!({"sandbox_id": id, "token": show_token(found, false)})))
        }
        Route::RevokeTokens(_) => {
            facts.preview_tokens.clear();
            Ok((200, json!({})))
        }
        _ => {
            let valid = facts.preview_tokens.iter().filter(|token| token.valid());
            let shown: Vec<_> = valid.map(|token| show_token(token, false)).collect();
            Ok((200, json!({"tokens": shown})))
        }
    }
}

/// A new tag for a sandbox, which can be forked by it.
fn tag(cloud: &Cloud, sandbox: &Sandbox) -> String {
    let tag = format!("pt_{}", word(8));
    cloud.tags.lock().unwrap_or_else(PoisonError::into_inner).insert(tag.clone(), sandbox.id.clone());
    tag
}

fn template(cloud: &Cloud, call: &Call) -> Done {
    let from = call.text("forkOf")?;
    let sandbox = cloud.create(Some(from), &BTreeMap::new(), &parse(call)?)?;
    let built = json!([{"cluster": "fake-cluster-1", "id": sandbox.id}]);
    Ok((200, json!({"tag": tag(cloud, &sandbox), "sandboxes": built, "version": PITCHER_VERSION})))
}

fn hosts(cloud: &Cloud, route: &Route, call: &Call) -> Done {
    let mut hosts = cloud.preview_hosts.lock().unwrap_or_else(PoisonError::into_inner);
    if !matches!(route, Route::Hosts) {
        let given = call.body["hosts"].as_array().ok_or_else(|| ApiError::invalid("hosts", "can't be blank"))?;
        if matches!(route, Route::SetHosts) {
            hosts.clear();
        }
        for host in given.iter().filter_map(Value::as_str) {
            if !hosts.iter().any(|(known, _)| known == host) {
                hosts.push((host.to_owned(), Timestamp::now()));
            }
        }
    }
    let shown: Vec<_> = hosts.iter().map(|(host, at)| json!({"host": host, "inserted_at": at})).collect();
    Ok((200, json!({"preview_hosts": shown})))
}
