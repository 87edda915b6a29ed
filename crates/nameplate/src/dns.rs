//! `nameplate dns`: edits the demo DNS of `nameplate dev`, as a customer edits theirs at their provider.
//!
//! Arrives: a name, a type, values. Leaves: records in the demo zone and nothing else: whoever looks at DNS finds out by looking. Goes wrong:
//! what the demo DNS refuses, with its words.

use clap::Subcommand;
use http::Method;
use register_domain::Due;
use serde_json::{Value, json};

use crate::{
    client::{self, Answer},
    config::Config,
    domain::{Remote, unreachable},
    failure::Failure,
    files::Endpoints,
    screen::Screen,
};

#[derive(Subcommand)]
pub(crate) enum DnsCommand {
    /// Sets a record. With a name alone: the records that the registered domain of that name asks for.
    Set {
        /// The record's name.
        name: String,
        /// Its type: A, AAAA, CNAME, TXT, NS, SOA, CAA, MX.
        record_type: Option<String>,
        /// Its values.
        #[arg(requires = "record_type")]
        values: Vec<String>,
        /// Seconds that others may keep it.
        #[arg(long)]
        ttl: Option<u32>,
        /// The tenant, where several claim the name and no type is given.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Removes records of a name, of one type or all.
    Unset {
        /// The records' name.
        name: String,
        /// Only this type.
        record_type: Option<String>,
    },
    /// Lists records.
    List {
        /// Only this name's.
        name: Option<String>,
    },
}

pub(crate) async fn run(command: DnsCommand, config: &Config, screen: &Screen) -> Result<(), Failure> {
    let admin = Endpoints::load(&config.data)
        .map_err(|error| Failure::failed(error.to_string(), "check the folder's permissions"))?
        .and_then(|known| known.dns_admin)
        .unwrap_or_else(|| format!("http://{}", config.listen.dns_admin));
    match command {
        DnsCommand::Set { name, record_type: Some(record_type), values, ttl, .. } => {
            let record = json!({ "name": name, "type": record_type.to_uppercase(), "ttl": ttl, "data": values });
            put(&admin, &[record], screen).await
        }
        DnsCommand::Set { name, record_type: None, ttl, tenant, .. } => {
            let domain = Remote::find(config)?.domain(Method::GET, &name, tenant.as_deref(), "").await?;
            let mut records: Vec<Value> = Vec::new();
            for wanted in domain.records.iter().filter(|wanted| wanted.due == Due::Now) {
                // Records of one name and type are one set.
                match records.iter_mut().find(|known| known["name"] == wanted.name && known["type"] == wanted.record_type) {
                    Some(known) => known["data"].as_array_mut().into_iter().for_each(|data| data.push(json!(wanted.value))),
                    None => records.push(json!({ "name": wanted.name, "type": wanted.record_type, "ttl": ttl, "data": [wanted.value] })),
                }
            }
            if records.is_empty() {
                return Err(Failure::failed(
                    format!("{name} asks for no records: it was removed"),
                    "register it again with `nameplate domains add`",
                ));
            }
            put(&admin, &records, screen).await
        }
        DnsCommand::Unset { name, record_type } => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("name", &name);
            if let Some(record_type) = record_type {
                query.append_pair("type", &record_type.to_uppercase());
            }
            let answer = ask(Method::DELETE, &format!("{admin}/records?{}", query.finish()), None).await?;
            print(&answer.body, "removed", screen);
            Ok(())
        }
        DnsCommand::List { name } => {
            let query =
                name.map(|name| form_urlencoded::Serializer::new("?".to_owned()).append_pair("name", &name).finish()).unwrap_or_default();
            let answer = ask(Method::GET, &format!("{admin}/records{query}"), None).await?;
            print(&answer.body, "", screen);
            Ok(())
        }
    }
}

async fn put(admin: &str, records: &[Value], screen: &Screen) -> Result<(), Failure> {
    let answer = ask(Method::PUT, &format!("{admin}/records"), Some(&json!(records))).await?;
    print(&answer.body, "set", screen);
    Ok(())
}

async fn ask(method: Method, url: &str, body: Option<&Value>) -> Result<Answer, Failure> {
    let answer = client::exchange(method, url, None, body).await.map_err(unreachable)?;
    if answer.status.is_success() {
        return Ok(answer);
    }
    let text = |name: &str| answer.body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Err(Failure::refused("dns", format!("{}: {}", text("title"), text("detail")), Some("`nameplate dns list` shows what is there".into())))
}

fn print(body: &Value, word: &str, screen: &Screen) {
    if screen.is_json() {
        screen.json(body);
        return;
    }
    let records = body.get("records").unwrap_or(body);
    for record in records.as_array().into_iter().flatten().chain(records.is_object().then_some(records)) {
        let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default();
        let data: Vec<_> = record.get("data").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        screen.text(format!("{} {:<36} {:<5} {}", screen.good(word), text("name"), text("type"), data.join(", ")).trim_start());
    }
}
