//! What the API does: one description per operation, from which requests are told apart and the API's document is made.
//!
//! Arrives: a method and a path. Leaves: the operation and the path's variable parts. Goes wrong: a path that nothing is at, a method that
//! the path does not know. What is not described here is not answered, and what is described must be: both matches are exhaustive.

use http::Method;
use schemars::{Schema, SchemaGenerator};

use crate::{
    AskView, Code, DomainPage, DomainView, EventPageView, HistoryPage, ImportPage, ImportSummary, ImportView, LimitsView, WebhookPage,
    WebhookSecretView, WebhookStatus,
    claims::{NewDomain, NewOrigin, NewSuspension},
    imports::NewImport,
    parameters::Parameter::{self, AfterEvent, AfterNumber, AskDomain, Cursor, Hostname, Hostnames, Id, Limit, Secret, State, Tenant},
    webhooks::NewWebhook,
};

/// Who may use an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody.
    Public,
    /// Whoever has an API key; a tenant's key sees that tenant only.
    Key,
    /// Whoever has an operator's API key.
    Operator,
}

/// Makes a type's schema.
pub(crate) type Shape = fn(&mut SchemaGenerator) -> Schema;

/// An answer that grants the request.
pub(crate) struct Success {
    pub(crate) status: u16,
    pub(crate) meaning: &'static str,
    /// The body; `None` when it is empty.
    pub(crate) body: Option<Shape>,
}

/// Where an answer leads.
pub(crate) struct Link {
    pub(crate) name: &'static str,
    pub(crate) to: Operation,
    /// The parameter and where in the answer its value stands.
    pub(crate) parameters: &'static [(Parameter, &'static str)],
}

/// One operation, described.
pub(crate) struct Description {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) id: &'static str,
    pub(crate) tag: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) more: &'static str,
    pub(crate) access: Access,
    pub(crate) parameters: &'static [Parameter],
    pub(crate) body: Option<(Shape, fn() -> serde_json::Value)>,
    pub(crate) successes: Vec<Success>,
    /// What it is refused with, beyond what any operation with this access is refused with.
    pub(crate) codes: Vec<Code>,
    pub(crate) links: &'static [Link],
}

/// Everything the API does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    DescribeApi,
    RegisterDomain,
    ListDomains,
    ShowDomain,
    RemoveDomain,
    CheckDomain,
    SuspendDomain,
    ResumeDomain,
    SetOrigin,
    ListLooks,
    ListHistory,
    ListEvents,
    CreateImport,
    ListImports,
    ShowImport,
    CreateWebhook,
    ListWebhooks,
    ShowWebhook,
    RemoveWebhook,
    RotateWebhook,
    TestWebhook,
    RedeliverWebhook,
    ShowLimits,
    ShowAsk,
    RotateAsk,
    Ask,
}

/// What a domain in an answer's body leads to.
const OF_A_DOMAIN: &[(Parameter, &str)] = &[(Hostname, "$response.body#/hostname"), (Tenant, "$response.body#/tenant")];
const DOMAIN_LINKS: &[Link] = &[
    Link { name: "show", to: Operation::ShowDomain, parameters: OF_A_DOMAIN },
    Link { name: "check", to: Operation::CheckDomain, parameters: OF_A_DOMAIN },
    Link { name: "looks", to: Operation::ListLooks, parameters: OF_A_DOMAIN },
    Link { name: "history", to: Operation::ListHistory, parameters: OF_A_DOMAIN },
    Link { name: "suspend", to: Operation::SuspendDomain, parameters: OF_A_DOMAIN },
    Link { name: "resume", to: Operation::ResumeDomain, parameters: OF_A_DOMAIN },
    Link { name: "setOrigin", to: Operation::SetOrigin, parameters: OF_A_DOMAIN },
    Link { name: "remove", to: Operation::RemoveDomain, parameters: OF_A_DOMAIN },
];
const OF_THE_FIRST: &[(Parameter, &str)] = &[(Hostname, "$response.body#/items/0/hostname"), (Tenant, "$response.body#/items/0/tenant")];

/// What an endpoint in an answer's body leads to.
const OF_A_WEBHOOK: &[(Parameter, &str)] = &[(Id, "$response.body#/id")];
const WEBHOOK_LINKS: &[Link] = &[
    Link { name: "show", to: Operation::ShowWebhook, parameters: OF_A_WEBHOOK },
    Link { name: "rotate", to: Operation::RotateWebhook, parameters: OF_A_WEBHOOK },
    Link { name: "test", to: Operation::TestWebhook, parameters: OF_A_WEBHOOK },
    Link { name: "redeliver", to: Operation::RedeliverWebhook, parameters: OF_A_WEBHOOK },
    Link { name: "remove", to: Operation::RemoveWebhook, parameters: OF_A_WEBHOOK },
];

fn shape<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

fn ok(meaning: &'static str, body: Shape) -> Vec<Success> {
    vec![Success { status: 200, meaning, body: Some(body) }]
}

/// The codes of an operation on one domain, and more.
fn of_one_domain(more: &[Code]) -> Vec<Code> {
    [Code::InvalidTenant, Code::DuplicateParameter, Code::TenantMissing, Code::DomainNotFound]
        .iter()
        .chain(Code::HOSTNAMES)
        .chain(more)
        .copied()
        .collect()
}

impl Operation {
    /// Every operation, in the order of the document.
    pub(crate) const ALL: &[Self] = &[
        Self::DescribeApi,
        Self::RegisterDomain,
        Self::ListDomains,
        Self::ShowDomain,
        Self::RemoveDomain,
        Self::CheckDomain,
        Self::SuspendDomain,
        Self::ResumeDomain,
        Self::SetOrigin,
        Self::ListLooks,
        Self::ListHistory,
        Self::ListEvents,
        Self::CreateImport,
        Self::ListImports,
        Self::ShowImport,
        Self::CreateWebhook,
        Self::ListWebhooks,
        Self::ShowWebhook,
        Self::RemoveWebhook,
        Self::RotateWebhook,
        Self::TestWebhook,
        Self::RedeliverWebhook,
        Self::ShowLimits,
        Self::ShowAsk,
        Self::RotateAsk,
        Self::Ask,
    ];

    /// The operation's description.
    #[allow(clippy::too_many_lines, reason = "a table, one row an operation")]
    pub(crate) fn description(self) -> Description {
        let domain: Shape = shape::<DomainView>;
        match self {
            Self::DescribeApi => Description {
                method: Method::GET,
                path: "/v1/openapi.json",
                id: "describeApi",
                tag: "api",
                summary: "This document",
                more: "",
                access: Access::Public,
                parameters: &[],
                body: None,
                successes: ok("The document, OpenAPI 3.1.", |_| schemars::json_schema!({ "type": "object", "required": ["openapi"] })),
                codes: vec![],
                links: &[],
            },
            Self::RegisterDomain => Description {
                method: Method::POST,
                path: "/v1/domains",
                id: "registerDomain",
                tag: "domains",
                summary: "Registers a hostname for a tenant",
                more: "Answers with the DNS records to create. Repeating the request changes nothing and answers with the domain as it is.",
                access: Access::Key,
                parameters: &[],
                body: Some((shape::<NewDomain>, || serde_json::json!({ "hostname": "shop.customer-brand.com", "tenant": "brand" }))),
                successes: vec![
                    Success { status: 200, meaning: "It was registered already.", body: Some(domain) },
                    Success { status: 201, meaning: "Registered; `Location` says where it is.", body: Some(domain) },
                ],
                codes: [
                    Code::InvalidBody,
                    Code::InvalidTenant,
                    Code::TenantNeeded,
                    Code::TooLarge,
                    Code::Incomplete,
                    Code::DomainBeingRemoved,
                    Code::TooManyClaims,
                ]
                .iter()
                .chain(Code::HOSTNAMES)
                .copied()
                .collect(),
                links: DOMAIN_LINKS,
            },
            Self::ListDomains => Description {
                method: Method::GET,
                path: "/v1/domains",
                id: "listDomains",
                tag: "domains",
                summary: "Lists domains in hostname order",
                more: "",
                access: Access::Key,
                parameters: &[Tenant, State, Cursor, Limit],
                body: None,
                successes: ok("A page. A cursor that is not of this list leads to an empty one.", shape::<DomainPage>),
                codes: vec![Code::InvalidTenant, Code::InvalidState, Code::InvalidNumber, Code::DuplicateParameter],
                links: &[
                    Link { name: "next", to: Self::ListDomains, parameters: &[(Cursor, "$response.body#/cursor")] },
                    Link { name: "showFirst", to: Self::ShowDomain, parameters: OF_THE_FIRST },
                ],
            },
            Self::ShowDomain => Description {
                method: Method::GET,
                path: "/v1/domains/{hostname}",
                id: "showDomain",
                tag: "domains",
                summary: "Shows a domain: state, records with what we see of each, problem, certificate",
                more: "A removed domain is shown as removed, with its history, until it is registered again.",
                access: Access::Key,
                parameters: &[Hostname, Tenant],
                body: None,
                successes: ok("The domain.", domain),
                codes: of_one_domain(&[]),
                links: DOMAIN_LINKS,
            },
            Self::RemoveDomain => Description {
                method: Method::DELETE,
                path: "/v1/domains/{hostname}",
                id: "removeDomain",
                tag: "domains",
                summary: "Removes route, certificate and key",
                more: "Begins at once and is over when the domain shows as `removed`. Repeating it changes nothing.",
                access: Access::Key,
                parameters: &[Hostname, Tenant],
                body: None,
                successes: vec![Success { status: 202, meaning: "The domain as it goes.", body: Some(domain) }],
                codes: of_one_domain(&[]),
                links: &[],
            },
            Self::CheckDomain => Description {
                method: Method::POST,
                path: "/v1/domains/{hostname}/check",
                id: "checkDomain",
                tag: "domains",
                summary: "Looks at the domain's DNS now",
                more: "The look happens within seconds; show the domain to see what it saw. Nobody needs to call this: DNS is looked at by itself.",
                access: Access::Key,
                parameters: &[Hostname, Tenant],
                body: None,
                successes: vec![Success { status: 202, meaning: "The domain, with its next look now.", body: Some(domain) }],
                codes: of_one_domain(&[Code::TooManyChecks]),
                links: &[],
            },
            Self::SuspendDomain => Description {
                method: Method::POST,
                path: "/v1/domains/{hostname}/suspend",
                id: "suspendDomain",
                tag: "domains",
                summary: "Takes a domain out of service, and keeps its proof and its certificate",
                more: "Within seconds the edge refuses the name and closes its connections. Nothing is renewed meanwhile.",
                access: Access::Operator,
                parameters: &[Hostname, Tenant],
                body: Some((shape::<NewSuspension>, || serde_json::json!({ "reason": "the invoice of October is open" }))),
                successes: vec![Success { status: 202, meaning: "The domain, suspended.", body: Some(domain) }],
                codes: of_one_domain(&[Code::InvalidBody, Code::InvalidReason, Code::TooLarge, Code::Incomplete, Code::DomainRemoved]),
                links: &[Link { name: "resume", to: Self::ResumeDomain, parameters: OF_A_DOMAIN }],
            },
            Self::ResumeDomain => Description {
                method: Method::POST,
                path: "/v1/domains/{hostname}/resume",
                id: "resumeDomain",
                tag: "domains",
                summary: "Brings a suspended domain back into service",
                more: "With the certificate it had while that is valid, with a new one otherwise. A domain that is not suspended stays as it is.",
                access: Access::Operator,
                parameters: &[Hostname, Tenant],
                body: None,
                successes: vec![Success { status: 202, meaning: "The domain, on its way back.", body: Some(domain) }],
                codes: of_one_domain(&[Code::DomainRemoved]),
                links: &[],
            },
            Self::SetOrigin => Description {
                method: Method::PUT,
                path: "/v1/domains/{hostname}/origin",
                id: "setOrigin",
                tag: "domains",
                summary: "Sends a domain's requests to one of the operator's origins",
                more: "Within seconds at every edge, with the certificate it has; new requests go there, and those under way end where they \
                       are. The origins are named in the settings, so that no request reaches what the operator did not name.",
                access: Access::Operator,
                parameters: &[Hostname, Tenant],
                body: Some((shape::<NewOrigin>, || serde_json::json!({ "origin": null }))),
                successes: vec![Success { status: 202, meaning: "The domain with its origin.", body: Some(domain) }],
                codes: of_one_domain(&[Code::InvalidBody, Code::UnknownOrigin, Code::TooLarge, Code::Incomplete, Code::DomainRemoved]),
                links: &[],
            },
            Self::ListLooks => Description {
                method: Method::GET,
                path: "/v1/domains/{hostname}/looks",
                id: "listLooks",
                tag: "domains",
                summary: "The last looks at a domain's DNS, and why each means what it means",
                more: "Newest first, at most a handful: every question, every server's answer, and the judgement, made again from them. A look \
                       that found nothing new has renewed the date of the one before.",
                access: Access::Key,
                parameters: &[Hostname, Tenant],
                body: None,
                successes: ok(
                    "The looks; none before the first.",
                    |_| schemars::json_schema!({ "type": "object", "required": ["items"], "properties": { "items": { "type": "array" } } }),
                ),
                codes: of_one_domain(&[]),
                links: &[],
            },
            Self::ListHistory => Description {
                method: Method::GET,
                path: "/v1/domains/{hostname}/history",
                id: "listHistory",
                tag: "events",
                summary: "What happened to a domain, oldest first",
                more: "",
                access: Access::Key,
                parameters: &[Hostname, Tenant, AfterNumber, Limit],
                body: None,
                successes: ok("A page; `after` is the number to go on after, or null at the end.", shape::<HistoryPage>),
                codes: of_one_domain(&[Code::InvalidNumber]),
                links: &[],
            },
            Self::ListEvents => Description {
                method: Method::GET,
                path: "/v1/events",
                id: "listEvents",
                tag: "events",
                summary: "What happened to all domains, as one feed",
                more: "Keep the cursor of the last page and ask again with it, for ever: nothing committed later comes before it. The order never \
                       changes; one domain's events come by their number. An event may show half a minute late, and a reader that keeps its \
                       cursor only after its work may meet one twice: hostname, tenant and sequence tell.",
                access: Access::Key,
                parameters: &[Tenant, AfterEvent, Limit],
                body: None,
                successes: ok("A page, maybe empty, always with a cursor.", shape::<EventPageView>),
                codes: vec![Code::InvalidTenant, Code::InvalidNumber, Code::InvalidCursor, Code::DuplicateParameter],
                links: &[Link { name: "next", to: Self::ListEvents, parameters: &[(AfterEvent, "$response.body#/cursor")] }],
            },
            Self::CreateImport => Description {
                method: Method::POST,
                path: "/v1/imports",
                id: "createImport",
                tag: "imports",
                summary: "Registers many hostnames, one after the other",
                more: "Answers before the first is registered; `GET /v1/imports/{id}` says how far it is. Every entry is registered as `POST \
                       /v1/domains` does, at the pace that its tenant may. Repeating the request changes nothing; where it is finished and had \
                       refusals, all entries are tried again. An import lives longer than this process.",
                access: Access::Key,
                parameters: &[],
                body: Some((
                    shape::<NewImport>,
                    || serde_json::json!({ "domains": [{ "hostname": "shop.customer-brand.com", "tenant": "brand" }] }),
                )),
                successes: vec![Success { status: 202, meaning: "The import, begun or found.", body: Some(shape::<ImportSummary>) }],
                codes: vec![
                    Code::InvalidBody,
                    Code::InvalidImport,
                    Code::ImportKeyUsed,
                    Code::TooManyImports,
                    Code::TooLarge,
                    Code::Incomplete,
                ],
                links: &[Link { name: "show", to: Self::ShowImport, parameters: &[(Id, "$response.body#/id")] }],
            },
            Self::ListImports => Description {
                method: Method::GET,
                path: "/v1/imports",
                id: "listImports",
                tag: "imports",
                summary: "Lists imports",
                more: "An operator sees those made with an operator's API key, or with `tenant` those made with that tenant's.",
                access: Access::Key,
                parameters: &[Tenant, Cursor, Limit],
                body: None,
                successes: ok("A page. A cursor that is none leads to the first.", shape::<ImportPage>),
                codes: vec![Code::InvalidTenant, Code::InvalidNumber, Code::DuplicateParameter],
                links: &[
                    Link { name: "next", to: Self::ListImports, parameters: &[(Cursor, "$response.body#/cursor")] },
                    Link { name: "showFirst", to: Self::ShowImport, parameters: &[(Id, "$response.body#/items/0/id")] },
                ],
            },
            Self::ShowImport => Description {
                method: Method::GET,
                path: "/v1/imports/{id}",
                id: "showImport",
                tag: "imports",
                summary: "Shows how far an import is, its refused lines, and what became of its domains",
                more: "",
                access: Access::Key,
                parameters: &[Id, Tenant],
                body: None,
                successes: ok("The import.", shape::<ImportView>),
                codes: vec![Code::InvalidTenant, Code::DuplicateParameter, Code::ImportNotFound],
                links: &[],
            },
            Self::CreateWebhook => Description {
                method: Method::POST,
                path: "/v1/webhooks",
                id: "createWebhook",
                tag: "webhooks",
                summary: "Registers an endpoint to be told what happens",
                more: "Every event of the feed from now on is sent to it at least once, in order, signed as Standard Webhooks has it; `sequence` counts without gaps. What it does not take with 2xx is tried again for three days, then kept as a dead letter. The secret is shown this once.",
                access: Access::Operator,
                parameters: &[],
                body: Some((shape::<NewWebhook>, || serde_json::json!({ "url": "https://hooks.saas.example/nameplate" }))),
                successes: vec![Success { status: 201, meaning: "The endpoint with its secret.", body: Some(shape::<WebhookSecretView>) }],
                codes: vec![
                    Code::InvalidBody,
                    Code::InvalidWebhook,
                    Code::InvalidTenant,
                    Code::TooManyWebhooks,
                    Code::TooLarge,
                    Code::Incomplete,
                ],
                links: WEBHOOK_LINKS,
            },
            Self::ListWebhooks => Description {
                method: Method::GET,
                path: "/v1/webhooks",
                id: "listWebhooks",
                tag: "webhooks",
                summary: "Lists the endpoints",
                more: "",
                access: Access::Operator,
                parameters: &[],
                body: None,
                successes: ok("The endpoints.", shape::<WebhookPage>),
                codes: vec![],
                links: &[Link { name: "showFirst", to: Self::ShowWebhook, parameters: &[(Id, "$response.body#/items/0/id")] }],
            },
            Self::ShowWebhook => Description {
                method: Method::GET,
                path: "/v1/webhooks/{id}",
                id: "showWebhook",
                tag: "webhooks",
                summary: "Shows an endpoint: last success, backlog, dead letters",
                more: "",
                access: Access::Operator,
                parameters: &[Id],
                body: None,
                successes: ok("The endpoint.", shape::<WebhookStatus>),
                codes: vec![Code::WebhookNotFound],
                links: WEBHOOK_LINKS,
            },
            Self::RemoveWebhook => Description {
                method: Method::DELETE,
                path: "/v1/webhooks/{id}",
                id: "removeWebhook",
                tag: "webhooks",
                summary: "Removes an endpoint and its dead letters",
                more: "",
                access: Access::Operator,
                parameters: &[Id],
                body: None,
                successes: vec![Success { status: 204, meaning: "It is gone.", body: None }],
                codes: vec![Code::WebhookNotFound],
                links: &[],
            },
            Self::RotateWebhook => Description {
                method: Method::POST,
                path: "/v1/webhooks/{id}/rotate",
                id: "rotateWebhook",
                tag: "webhooks",
                summary: "Makes a new secret",
                more: "For a day deliveries carry a signature of each, the new one's first.",
                access: Access::Operator,
                parameters: &[Id],
                body: None,
                successes: ok("The endpoint with its new secret, which is shown this once.", shape::<WebhookSecretView>),
                codes: vec![Code::WebhookNotFound],
                links: &[],
            },
            Self::TestWebhook => Description {
                method: Method::POST,
                path: "/v1/webhooks/{id}/test",
                id: "testWebhook",
                tag: "webhooks",
                summary: "Sends a test message",
                more: "Of type `webhook.test` and without a sequence, within seconds; `last_test` says what came of it.",
                access: Access::Operator,
                parameters: &[Id],
                body: None,
                successes: vec![Success { status: 202, meaning: "The endpoint, before the test.", body: Some(shape::<WebhookStatus>) }],
                codes: vec![Code::WebhookNotFound],
                links: &[],
            },
            Self::RedeliverWebhook => Description {
                method: Method::POST,
                path: "/v1/webhooks/{id}/redeliver",
                id: "redeliverWebhook",
                tag: "webhooks",
                summary: "Sends dead letters again, and what waits at once",
                more: "Also enables an endpoint that was disabled. Dead letters keep their id and number, and come before what waits.",
                access: Access::Operator,
                parameters: &[Id],
                body: None,
                successes: vec![Success {
                    status: 202,
                    meaning: "The endpoint, before the redelivery.",
                    body: Some(shape::<WebhookStatus>),
                }],
                codes: vec![Code::WebhookNotFound],
                links: &[],
            },
            Self::ShowLimits => Description {
                method: Method::GET,
                path: "/v1/limits",
                id: "showLimits",
                tag: "limits",
                summary: "What is left of the CAs' limits, who waits for its turn and when it comes",
                more: "An operator sees every limit; a tenant those of its own registered domains, and its own names that wait.",
                access: Access::Key,
                parameters: &[Tenant, Hostnames],
                body: None,
                successes: ok("The limits as we count them.", shape::<LimitsView>),
                codes: [Code::InvalidTenant, Code::DuplicateParameter].iter().chain(Code::HOSTNAMES).copied().collect(),
                links: &[],
            },
            Self::ShowAsk => Description {
                method: Method::GET,
                path: "/v1/ask",
                id: "showAsk",
                tag: "ask",
                summary: "Shows the secret path for a Caddy's `on_demand_tls { ask … }`",
                more: "",
                access: Access::Operator,
                parameters: &[],
                body: None,
                successes: ok("The path.", shape::<AskView>),
                codes: vec![],
                links: &[Link { name: "ask", to: Self::Ask, parameters: &[(Secret, "$response.body#/secret")] }],
            },
            Self::RotateAsk => Description {
                method: Method::POST,
                path: "/v1/ask/rotate",
                id: "rotateAsk",
                tag: "ask",
                summary: "Makes a new secret path; the old one answers for a few seconds more",
                more: "",
                access: Access::Operator,
                parameters: &[],
                body: None,
                successes: ok("The new path.", shape::<AskView>),
                codes: vec![],
                links: &[Link { name: "ask", to: Self::Ask, parameters: &[(Secret, "$response.body#/secret")] }],
            },
            Self::Ask => Description {
                method: Method::GET,
                path: "/ask/{secret}",
                id: "ask",
                tag: "ask",
                summary: "Whether a name is owned here: what Caddy asks before it gets a certificate",
                more: "200 for a hostname that a tenant has proved and that is neither removed nor suspended; 404 for everything else, a wrong \
                       secret and no hostname at all included. Answers may be a few seconds old.",
                access: Access::Public,
                parameters: &[Secret, AskDomain],
                body: None,
                successes: vec![Success { status: 200, meaning: "The name is owned; the body is empty.", body: None }],
                codes: vec![Code::AskNo, Code::Unavailable],
                links: &[],
            },
        }
    }
}

/// What a request asks for.
pub(crate) enum Found<'a> {
    /// This operation, with the path's variable part.
    Operation(Operation, &'a str),
    /// The path knows other methods only; whether anybody may know so.
    OtherMethod(String, Access),
    /// Nothing is there.
    Nothing,
}

/// The variable part of a path, `""` without one; `None` when it is another path.
fn matched<'a>(template: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, rest)) = template.split_once('{') else { return (template == path).then_some("") };
    let after = rest.split_once('}').map_or("", |(_, after)| after);
    let variable = path.strip_prefix(before)?.strip_suffix(after)?;
    (!variable.is_empty() && !variable.contains('/')).then_some(variable)
}

/// Finds what a request asks for.
pub(crate) fn find<'a>(method: &Method, path: &'a str) -> Found<'a> {
    let mut others: Vec<Method> = Vec::new();
    let mut access = Access::Key;
    for operation in Operation::ALL {
        let description = operation.description();
        let Some(variable) = matched(description.path, path) else { continue };
        if description.method == *method {
            return Found::Operation(*operation, variable);
        }
        access = description.access;
        others.push(description.method);
    }
    match others.is_empty() {
        true => Found::Nothing,
        false => Found::OtherMethod(others.iter().map(Method::as_str).collect::<Vec<_>>().join(", "), access),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_found_by_its_own_path_and_by_no_other() {
        for operation in Operation::ALL {
            let description = operation.description();
            let path = description.path.replace("{hostname}", "shop.brand.com").replace("{secret}", "s3cret").replace("{id}", "one");
            let Found::Operation(found, _) = find(&description.method, &path) else { panic!("{path} is not found") };
            assert_eq!(found, *operation, "{path}");
            for off in [format!("{path}/more"), format!("/x{path}"), format!("{path}x/")] {
                let other = find(&description.method, &off);
                assert!(!matches!(other, Found::Operation(found, _) if found == *operation), "{off}");
            }
        }
    }

    #[test]
    fn a_method_that_a_path_does_not_know_is_told_apart_from_no_path() {
        let Found::OtherMethod(allow, _) = find(&Method::PUT, "/v1/domains") else { panic!("found") };
        assert_eq!(allow, "POST, GET");
        assert!(matches!(find(&Method::GET, "/v1/domains/a/b/c"), Found::Nothing));
        assert!(matches!(find(&Method::GET, "/v1/domains//check"), Found::Nothing));
    }
}
