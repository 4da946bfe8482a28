//! The operations of a collection. Each takes the step's session, if it has one.

use bson::{doc, serialize_to_document, Bson, Document};
use futures_util::TryStreamExt;
use mongodb::options::{AggregateOptions, CursorType, FindOneOptions, FindOptions, IndexOptions};
use mongodb::results::UpdateResult;
use mongodb::{ClientSession, Collection, IndexModel};

use crate::args;
use crate::outcome::{failure, unsupported, Result};

/// Runs an action of the driver, in the session if there is one.
macro_rules! run {
    ($session:expr, $action:expr) => {
        match $session {
            Some(session) => $action.session(session).await?,
            None => $action.await?,
        }
    };
}

/// All documents of the cursor that an action of the driver gives.
macro_rules! collect {
    ($session:expr, $action:expr) => {
        match $session {
            Some(session) => {
                let mut cursor = $action.session(&mut *session).await?;
                cursor.stream(session).try_collect::<Vec<_>>().await?
            }
            None => $action.await?.try_collect::<Vec<_>>().await?,
        }
    };
}

pub(crate) use {collect, run};

pub fn find_options(args: &Document) -> Result<FindOptions> {
    let mut timeless = args.clone(); // a Duration does not read itself from milliseconds
    timeless.remove("maxTimeMS");
    let mut options: FindOptions = args::options(&timeless)?;
    options.max_time = args::millis(args, "maxTimeMS");
    options.max_await_time = args::millis(args, "maxAwaitTimeMS");
    options.cursor_type = match args.get_str("cursorType").ok() {
        Some("tailable") => Some(CursorType::Tailable),
        Some("tailableAwait") => Some(CursorType::TailableAwait),
        _ => None,
    };
    Ok(options)
}

fn find_one_options(args: &Document) -> Result<FindOneOptions> {
    let mut options: FindOneOptions = args::options(args)?;
    options.max_time = args::millis(args, "maxTimeMS");
    Ok(options)
}

/// An int, as in the other drivers' results.
fn count(number: u64) -> Bson {
    Bson::Int32(number as i32)
}

fn updated(result: UpdateResult) -> Bson {
    let mut said = doc! {
        "matchedCount": count(result.matched_count),
        "modifiedCount": count(result.modified_count),
    };
    if let Some(id) = result.upserted_id {
        said.insert("upsertedId", id);
    }
    said.into()
}

pub async fn read(
    on: &Collection<Document>,
    op: &str,
    args: &Document,
    session: Option<&mut ClientSession>,
) -> Result<Bson> {
    let filter = args::filter(args);
    Ok(match op {
        "find" => {
            let options = find_options(args)?;
            collect!(session, on.find(filter).with_options(options)).into()
        }
        "findOne" => {
            let options = find_one_options(args)?;
            run!(session, on.find_one(filter).with_options(options)).into()
        }
        "countDocuments" => {
            let options = args::options(args)?;
            count(run!(
                session,
                on.count_documents(filter).with_options(Some(options))
            ))
        }
        "estimatedDocumentCount" => count(on.estimated_document_count().await?),
        "distinct" => {
            let name = args::text(args, "fieldName")?;
            let options = args::options(args)?;
            run!(
                session,
                on.distinct(name, filter).with_options(Some(options))
            )
            .into()
        }
        "aggregate" => {
            let pipeline = args::documents(args, "pipeline")?;
            let options: AggregateOptions = args::options(args)?;
            collect!(session, on.aggregate(pipeline).with_options(options)).into()
        }
        "listIndexes" => {
            let indexes = collect!(session, on.list_indexes());
            let indexes = indexes.iter().map(serialize_to_document);
            let documents = indexes.collect::<bson::error::Result<Vec<_>>>();
            documents.map_err(|e| failure(e.to_string()))?.into()
        }
        _ => return Err(failure(format!("no operation {op}"))),
    })
}

pub async fn write(
    on: &Collection<Document>,
    op: &str,
    args: &Document,
    session: Option<&mut ClientSession>,
) -> Result<Bson> {
    let filter = args::filter(args);
    Ok(match op {
        "insertOne" => {
            let document = args::document(args, "document")?;
            let result = run!(session, on.insert_one(&document));
            doc! {"insertedId": result.inserted_id}.into()
        }
        "insertMany" => {
            let documents = args::documents(args, "documents")?;
            let options = args::options(args)?;
            let result = run!(
                session,
                on.insert_many(&documents).with_options(Some(options))
            );
            doc! {"insertedCount": count(result.inserted_ids.len() as u64)}.into()
        }
        "updateOne" => {
            let (update, options) = (args::update(args)?, args::options(args)?);
            updated(run!(
                session,
                on.update_one(filter, update).with_options(Some(options))
            ))
        }
        "updateMany" => {
            let (update, options) = (args::update(args)?, args::options(args)?);
            updated(run!(
                session,
                on.update_many(filter, update).with_options(Some(options))
            ))
        }
        "replaceOne" => {
            let replacement = args::document(args, "replacement")?;
            let options = args::options(args)?;
            let action = on
                .replace_one(filter, &replacement)
                .with_options(Some(options));
            updated(run!(session, action))
        }
        "deleteOne" => {
            let options = args::options(args)?;
            let result = run!(session, on.delete_one(filter).with_options(Some(options)));
            doc! {"deletedCount": count(result.deleted_count)}.into()
        }
        "deleteMany" => {
            let options = args::options(args)?;
            let result = run!(session, on.delete_many(filter).with_options(Some(options)));
            doc! {"deletedCount": count(result.deleted_count)}.into()
        }
        "bulkWrite" => return Err(unsupported("only the bulkWrite command of MongoDB 8.0")),
        _ => find_and_modify(on, op, args, session).await?.into(),
    })
}

async fn find_and_modify(
    on: &Collection<Document>,
    op: &str,
    args: &Document,
    session: Option<&mut ClientSession>,
) -> Result<Option<Document>> {
    let filter = args::filter(args);
    Ok(match op {
        "findOneAndUpdate" => {
            let (update, options) = (args::update(args)?, args::options(args)?);
            run!(
                session,
                on.find_one_and_update(filter, update)
                    .with_options(Some(options))
            )
        }
        "findOneAndReplace" => {
            let replacement = args::document(args, "replacement")?;
            let options = args::options(args)?;
            let action = on.find_one_and_replace(filter, &replacement);
            run!(session, action.with_options(Some(options)))
        }
        "findOneAndDelete" => {
            let options = args::options(args)?;
            run!(
                session,
                on.find_one_and_delete(filter).with_options(Some(options))
            )
        }
        _ => return Err(failure(format!("no operation {op}"))),
    })
}

pub async fn administer(
    on: &Collection<Document>,
    op: &str,
    args: &Document,
    session: Option<&mut ClientSession>,
) -> Result<Bson> {
    Ok(match op {
        "createIndex" => {
            let options: IndexOptions = args::options(args)?;
            let keys = args::document(args, "keys")?;
            let model = IndexModel::builder().keys(keys).options(options).build();
            run!(session, on.create_index(model)).index_name.into()
        }
        "dropIndex" => {
            run!(session, on.drop_index(args::text(args, "name")?));
            Bson::Null
        }
        "drop" => {
            run!(session, on.drop());
            Bson::Null
        }
        "rename" => {
            // The driver has no helper; its users run the command.
            let from = on.namespace();
            let to = format!("{}.{}", from.db, args::text(args, "to")?);
            let command = doc! {"renameCollection": from.to_string(), "to": to};
            let admin = on.client().database("admin");
            run!(session, admin.run_command(command));
            Bson::Null
        }
        _ => return Err(failure(format!("no operation {op}"))),
    })
}
