//! Reading the arguments of a step. The driver's option structs read themselves from a document.

use std::time::Duration;

use bson::{deserialize_from_document, Bson, Document};
use mongodb::options::{
    DatabaseOptions, ReadConcern, ReadPreference, SelectionCriteria, TransactionOptions,
    UpdateModifications, WriteConcern,
};
use serde::de::DeserializeOwned;

use crate::outcome::{failure, Result};

pub fn text<'a>(from: &'a Document, name: &str) -> Result<&'a str> {
    from.get_str(name)
        .map_err(|_| failure(format!("no string {name}")))
}

pub fn document(from: &Document, name: &str) -> Result<Document> {
    from.get_document(name)
        .cloned()
        .map_err(|_| failure(format!("no document {name}")))
}

pub fn value(from: &Document, name: &str) -> Result<Bson> {
    from.get(name)
        .cloned()
        .ok_or_else(|| failure(format!("no {name}")))
}

/// A filter may be left out.
pub fn filter(from: &Document) -> Document {
    from.get_document("filter").cloned().unwrap_or_default()
}

pub fn documents(from: &Document, name: &str) -> Result<Vec<Document>> {
    let list = from
        .get_array(name)
        .map_err(|_| failure(format!("no list {name}")))?;
    list.iter().map(|item| element(item, name)).collect()
}

fn element(item: &Bson, name: &str) -> Result<Document> {
    item.as_document()
        .cloned()
        .ok_or_else(|| failure(format!("{name} has a non-document")))
}

pub fn update(from: &Document) -> Result<UpdateModifications> {
    Ok(match value(from, "update")? {
        Bson::Array(_) => UpdateModifications::Pipeline(documents(from, "update")?),
        _ => UpdateModifications::Document(document(from, "update")?),
    })
}

pub fn options<T: DeserializeOwned>(from: &Document) -> Result<T> {
    deserialize_from_document(from.clone()).map_err(|e| failure(format!("options: {e}")))
}

pub fn number(from: &Document, name: &str) -> Option<i64> {
    match from.get(name)? {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        _ => None,
    }
}

pub fn millis(from: &Document, name: &str) -> Option<Duration> {
    number(from, name)
        .and_then(|ms| u64::try_from(ms).ok())
        .map(Duration::from_millis)
}

fn read_preference(from: &Document) -> Result<Option<SelectionCriteria>> {
    let Ok(mode) = from.get_str("readPreference") else {
        return Ok(None);
    };
    let options = None;
    let preference = match mode {
        "primary" => ReadPreference::Primary,
        "primaryPreferred" => ReadPreference::PrimaryPreferred { options },
        "secondary" => ReadPreference::Secondary { options },
        "secondaryPreferred" => ReadPreference::SecondaryPreferred { options },
        "nearest" => ReadPreference::Nearest { options },
        _ => return Err(failure(format!("no read preference {mode}"))),
    };
    Ok(Some(SelectionCriteria::ReadPreference(preference)))
}

fn read_concern(from: &Document) -> Option<ReadConcern> {
    from.get_str("readConcern").ok().map(ReadConcern::custom)
}

fn write_concern(from: &Document) -> Result<Option<WriteConcern>> {
    from.get_document("writeConcern")
        .ok()
        .map(options)
        .transpose()
}

pub fn unacknowledged(step: &Document) -> bool {
    let concern = step.get_document("writeConcern");
    concern.is_ok_and(|concern| number(concern, "w") == Some(0))
}

pub fn database_options(step: &Document) -> Result<DatabaseOptions> {
    let mut options = DatabaseOptions::default();
    options.selection_criteria = read_preference(step)?;
    options.read_concern = read_concern(step);
    options.write_concern = write_concern(step)?;
    Ok(options)
}

pub fn transaction_options(args: &Document) -> Result<TransactionOptions> {
    let mut options = TransactionOptions::default();
    options.selection_criteria = read_preference(args)?;
    options.read_concern = read_concern(args);
    options.write_concern = write_concern(args)?;
    Ok(options)
}
