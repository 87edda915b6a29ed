//! The edge faces strangers all day; it cannot issue a certificate nor write what it serves, because what does so is not in it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{env, path::Path, process::Command};

/// Every package in the edge's program, by name.
fn packages_of(package: &str) -> Vec<String> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut tree = Command::new(cargo);
    tree.args(["tree", "--offline", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p}", "-p", package]);
    let tree = tree.current_dir(workspace).output().unwrap();
    assert!(tree.status.success(), "cargo tree: {}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn the_edge_holds_nothing_that_could_issue_store_or_publish() {
    let edge = packages_of("edge");
    for present in ["edge", "bundles", "rustls"] {
        assert!(edge.iter().any(|name| name == present), "{present} is missing: this does not look at the edge; {edge:?}");
    }
    // Of AWS it knows S3 alone, which it may read.
    let others = ["aws-sdk-dynamodb", "aws-sdk-dynamodbstreams", "aws-sdk-sqs", "aws-sdk-route53", "aws-sdk-secretsmanager"];
    let ours =
        ["instant-acme", "issuers", "storage", "rusqlite", "issue-certificate", "publish-site", "register-domain", "dev-ca", "rcgen"];
    for absent in ours.into_iter().chain(others) {
        assert!(!edge.iter().any(|name| name == absent), "the edge depends on {absent}");
    }
    let product = packages_of("nameplate");
    assert!(product.iter().any(|name| name == "instant-acme"), "the search does not find what is there: {product:?}");
}

#[test]
fn the_command_for_one_machine_builds_no_sdk() {
    let command = packages_of("nameplate");
    let sdks: Vec<_> = command.iter().filter(|name| name.starts_with("aws-sdk-") || *name == "aws-config").collect();
    assert!(sdks.is_empty(), "`nameplate` without its feature `aws` builds {sdks:?}");
}
