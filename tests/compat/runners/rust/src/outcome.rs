//! What a step gives: a value, or the driver's error in the contract's words.

use bson::{doc, Bson, Document};
use mongodb::error::{Error, ErrorKind, InsertManyError, WriteFailure};
use serde_json::{json, Value};

pub type Result<T> = std::result::Result<T, Error>;

struct Unsupported(&'static str);

/// The scenario or the request is wrong: an error of kind `client`.
pub fn failure(message: impl Into<String>) -> Error {
    Error::custom(message.into())
}

pub fn unsupported(why: &'static str) -> Error {
    Error::custom(Unsupported(why))
}

/// I/O traits of the driver wrap its own errors.
pub fn unwrapped(error: std::io::Error) -> Error {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
    {
        Some(inner) => inner.clone(),
        None => error.into(),
    }
}

pub fn outcome(result: Result<Value>) -> Value {
    match result {
        Ok(value) => json!({ "ok": value }),
        Err(error) => match error.get_custom::<Unsupported>() {
            Some(Unsupported(why)) => json!({ "unsupported": why }),
            None => json!({ "error": Bson::from(describe(&error)).into_relaxed_extjson() }),
        },
    }
}

fn describe(error: &Error) -> Document {
    let mut said = match error.kind.as_ref() {
        ErrorKind::Command(refused) => doc! {"kind": "command", "code": refused.code},
        ErrorKind::Write(WriteFailure::WriteError(refused)) => {
            doc! {"kind": "write", "code": refused.code}
        }
        ErrorKind::Write(WriteFailure::WriteConcernError(refused)) => {
            doc! {"kind": "write", "writeConcernError": {"code": refused.code}}
        }
        ErrorKind::InsertMany(refused) => bulk(refused),
        ErrorKind::Io(_)
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::ServerSelection { .. } => doc! {"kind": "network"},
        _ => doc! {"kind": "client"},
    };
    let mut labels: Vec<String> = error.labels().iter().cloned().collect();
    if !labels.is_empty() {
        labels.sort();
        said.insert("labels", labels);
    }
    eprintln!("{}", error.kind);
    said
}

fn bulk(refused: &InsertManyError) -> Document {
    let mut said = doc! {"kind": "bulk"};
    if let Some(errors) = &refused.write_errors {
        let errors = errors
            .iter()
            .map(|e| doc! {"index": e.index as i64, "code": e.code});
        said.insert("writeErrors", errors.collect::<Vec<_>>());
    }
    if let Some(error) = &refused.write_concern_error {
        said.insert("writeConcernError", doc! {"code": error.code});
    }
    said
}
