//! `nameplate setup`: everything that is done once, before the first `serve`.
//!
//! Arrives: a [`Config`], and a person or `--agree-tos`. Leaves: keys, the CA's terms agreed to, accounts, and the DNS records that the
//! operator must create. Goes wrong: a folder that cannot be written, a CA that cannot be reached, terms that are not agreed to. Repeating
//! it changes nothing that is there.

use std::{
    io::{BufRead, IsTerminal, Write},
    sync::Arc,
};

use domains::{Clock, SystemClock};
use issuers::acme::CaDirectory;
use serde_json::json;

use crate::{
    accounts::{Ca, CaPlace, Cas},
    config::{Config, HomePlace},
    consent::{self, Agreement},
    failure::Failure,
    files,
    product::{self, StartError},
    screen::Screen,
};

pub(crate) async fn run(config: &Config, agrees: bool, screen: &Screen) -> Result<(), Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    files::make_private_folder(&config.data).map_err(|error| Failure::failed(error.to_string(), "run this as the user that will serve"))?;
    product::operator_key(&config.data).map_err(failed)?;
    let seal_key = product::seal_key(&config.data).map_err(failed)?;
    let cas = Cas::configured(config, CaPlace::of(&config.acme).map_err(failed)?, seal_key.public(), &clock).map_err(failed)?;
    for ca in cas.all() {
        refuse_another_ca(ca, config)?;
        agree_to_terms(ca, config, agrees, clock.as_ref(), screen).await?;
    }
    cas.make_missing_accounts().await.map_err(failed)?;
    let mut accounts = Vec::new();
    for ca in cas.all() {
        accounts.extend(ca.account().map_err(failed)?.map(|account| account.url().to_owned()));
    }
    show(config, &accounts, screen);
    Ok(())
}

fn failed(error: StartError) -> Failure {
    Failure::failed(error.to_string(), "mend that and run `nameplate setup` again; what is done stays done")
}

/// An installation stays with its CA: the certificates in service are that CA's, and a staging CA's would stay for weeks.
fn refuse_another_ca(ca: &Ca, config: &Config) -> Result<(), Failure> {
    let Some(account) = ca.account().map_err(failed)? else { return Ok(()) };
    let host = |url: &str| url.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
    if host(account.directory_url()) == host(&ca.acme.directory_url) {
        return Ok(());
    }
    Err(Failure::failed(
        format!(
            "{} has an account at {}, but the configuration names {}",
            config.data.display(),
            account.directory_url(),
            ca.acme.directory_url
        ),
        "choose a new folder as `data` for another CA: certificates of the old one would stay in service until they end",
    ))
}

async fn agree_to_terms(ca: &Ca, config: &Config, agrees: bool, clock: &dyn Clock, screen: &Screen) -> Result<(), Failure> {
    let directory = &ca.acme.directory_url;
    if consent::is_given(&config.data, directory).map_err(|error| failed(error.into()))? {
        return Ok(());
    }
    let told = CaDirectory::ask(&ca.acme).await.map_err(|error| {
        Failure::failed(
            format!("the CA at {directory} does not answer: {}", telemetry::error_chain(&error)),
            "check acme.directory and that this machine reaches it over HTTPS",
        )
    })?;
    let terms = told.terms_of_service;
    let named = terms.as_deref().unwrap_or("none that it names");
    if !agrees {
        ask(&format!("The CA at {directory} has these terms: {named}\nDo you agree to them? [yes/no] "))?;
    }
    let agreement = Agreement { directory: directory.clone(), terms: terms.clone(), agreed_at: clock.now() };
    consent::agree(&config.data, agreement).map_err(|error| failed(error.into()))?;
    screen.note(&format!("Agreed to the terms of {directory}: {named}"));
    Ok(())
}

/// Asks a person; who is none must say so beforehand.
fn ask(question: &str) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::failed(
            format!("{}: nobody is here to ask", question.lines().next().unwrap_or_default()),
            "read the terms, then run `nameplate setup --agree-tos`",
        ));
    }
    let mut error = std::io::stderr();
    let asked = write!(error, "{question}").and_then(|()| error.flush());
    let mut answer = String::new();
    let answered = asked.and_then(|()| stdin.lock().read_line(&mut answer));
    match (answered, answer.trim().to_ascii_lowercase().as_str()) {
        (Ok(_), "yes" | "y") => Ok(()),
        _ => Err(Failure::failed("the terms were not agreed to", "without them no certificate can be ordered; nothing was made")),
    }
}

/// One record that the operator creates at the DNS provider.
struct Wanted {
    name: String,
    record_type: &'static str,
    value: String,
    why: &'static str,
}

fn wanted(config: &Config) -> Vec<Wanted> {
    let zone = &config.zone;
    let address = |name: String, why: &'static str| {
        zone.edge_addresses.iter().map(move |address| Wanted {
            name: name.clone(),
            record_type: if address.is_ipv4() { "A" } else { "AAAA" },
            value: address.to_string(),
            why,
        })
    };
    let server = format!("ns1.{}", zone.answers_zone());
    let mut records: Vec<Wanted> = address(format!("*.{}", zone.targets_zone()), "leads every customer's record to the edge").collect();
    // A zone on AWS is served by AWS.
    if let HomePlace::Aws(_) = config.home {
        return records;
    }
    records.push(Wanted {
        name: zone.answers_zone(),
        record_type: "NS",
        value: server.clone(),
        why: "lets this machine answer dns-01 challenges",
    });
    records.extend(address(server, "where that name server is"));
    records
}

/// What is to be done for the answer zone, where this machine does not serve it.
fn about_answers(config: &Config) -> Option<String> {
    let HomePlace::Aws(places) = &config.home else { return None };
    let zone = config.zone.answers_zone();
    Some(match &places.answers_hosted_zone {
        Some(id) => format!(
            "The hosted zone {id} of Route 53 answers for {zone}. If it is {zone} itself, create NS records for {zone} in the zone above with the name \
             servers that `aws route53 get-hosted-zone --id {id}` lists; if it is the zone above, there is nothing to create."
        ),
        None => format!(
            "Nothing answers for {zone}: names are proved by http-01 alone, and wildcards not at all. To change that, create a hosted zone {zone} \
             in Route 53 and name its id as aws.answers_hosted_zone."
        ),
    })
}

fn show(config: &Config, accounts: &[String], screen: &Screen) {
    let records = wanted(config);
    let key = files::operator_key_path(&config.data);
    if screen.is_json() {
        let records: Vec<_> = records
            .iter()
            .map(|record| json!({ "name": record.name, "type": record.record_type, "value": record.value, "purpose": record.why }))
            .collect();
        let answers = about_answers(config);
        screen.json(&json!({
            "accounts": accounts, "operator_key": key.display().to_string(), "records": records, "answer_zone": answers,
        }));
        return;
    }
    screen.text(&format!("Keys and accounts are in {}; the operator's API key is {}.", config.data.display(), key.display()));
    for account in accounts {
        screen.text(&format!("  account  {account}"));
    }
    screen.text("\nCreate these records at the DNS provider of your zone:\n");
    for record in &records {
        screen.text(&format!("  {:<40} {:<5} {:<40} {}", record.name, record.record_type, record.value, record.why));
    }
    if let Some(answers) = about_answers(config) {
        screen.text(&format!("\n{answers}"));
    }
    screen.text("\nThen `nameplate doctor` checks them, and `nameplate serve` starts; both take the same --config.");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Program, on_aws};

    #[test]
    fn this_machine_is_named_as_a_name_server_only_where_it_answers() {
        let servers = |config: &Config| wanted(config).iter().filter(|record| record.record_type == "NS").count();
        let local = Config::read(Program::Dev, "", []).unwrap();
        assert_eq!((servers(&local), about_answers(&local)), (1, None));
        let Some(hosted) = on_aws(Some("Z0123")) else { return };
        assert_eq!(servers(&hosted), 0, "{:?}", wanted(&hosted).iter().map(|record| &record.name).collect::<Vec<_>>());
        assert_eq!(wanted(&hosted).len(), hosted.zone.edge_addresses.len(), "the targets' addresses");
        assert!(about_answers(&hosted).unwrap().contains("get-hosted-zone --id Z0123"));
        assert!(about_answers(&on_aws(None).unwrap()).unwrap().contains("http-01 alone"));
    }
}
