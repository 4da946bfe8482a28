//! The runner for the Rust driver: one JSON request per line in, one JSON answer per line out.
//! tests/compat/README.md is the contract.

mod args;
mod collection;
mod outcome;
mod scenario;

use std::collections::HashMap;

use bson::{Bson, Document};
use mongodb::Client;
use serde_json::{json, Value};
use tokio::io::{stdin, AsyncBufReadExt, BufReader};

use crate::outcome::{failure, Result};
use crate::scenario::Scenario;

/// One client for each uri, with its pool, over the requests.
type Clients = HashMap<String, Client>;

fn describe() -> Value {
    json!({
        "driver": "mongodb (Rust)",
        "version": env!("COMPAT_DRIVER_VERSION"),
        "compressors": ["snappy", "zlib", "zstd"],
    })
}

async fn answer(clients: &mut Clients, line: &str) -> Result<Value> {
    let request: Value = serde_json::from_str(line).map_err(|e| failure(e.to_string()))?;
    if request.get("describe").is_some() {
        return Ok(describe());
    }
    let id = request["id"].clone();
    let request = match Bson::try_from(request).map_err(|e| failure(e.to_string()))? {
        Bson::Document(document) => document,
        _ => return Err(failure("a request is a document")),
    };
    let results = run(clients, &request).await?;
    Ok(json!({"id": id, "results": results}))
}

async fn run(clients: &mut Clients, request: &Document) -> Result<Vec<Value>> {
    let uri = args::text(request, "uri")?;
    let scenario = Scenario::new(uri, args::text(request, "db")?, clients.remove(uri));
    let mut results = Vec::new();
    for step in args::documents(request, "steps")? {
        results.push(scenario.step(&step, None).await);
    }
    if let Some(client) = scenario.end().await {
        clients.insert(uri.to_owned(), client);
    }
    Ok(results)
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut clients = Clients::new();
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = answer(&mut clients, &line).await.unwrap_or_else(|error| {
            eprintln!("{error}");
            json!({"results": [], "invalid": "request"})
        });
        println!("{answer}");
    }
    Ok(())
}
