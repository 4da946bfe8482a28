//! One scenario: its steps, and the cursors, streams and sessions that live as long as it.
//!
//! Steps can run at once (`concurrently`), so nothing stays borrowed over an await: a session or
//! cursor is taken out of its map, used and put back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use base64::prelude::{Engine, BASE64_STANDARD};
use bson::{doc, Bson, Document};
use futures_util::future::{join_all, LocalBoxFuture};
use futures_util::io::{AsyncReadExt, AsyncWriteExt};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use mongodb::change_stream::event::ResumeToken;
use mongodb::change_stream::session::SessionChangeStream;
use mongodb::change_stream::ChangeStream;
use mongodb::options::{AggregateOptions, ChangeStreamOptions, SessionOptions};
use mongodb::{Client, ClientSession, Cursor, Database, SessionCursor};
use serde_json::Value;
use tokio::time::{timeout, Instant};

use crate::args;
use crate::collection::{self, collect, run};
use crate::outcome::{failure, outcome, unsupported, unwrapped, Result};

const TAILABLE_WAIT: Duration = Duration::from_secs(1);
const STREAM_WAIT: Duration = Duration::from_secs(10);

/// The next event, or nothing when the stream gives none for a while. Each turn is one request.
macro_rules! until_event {
    ($stream:expr, $next:expr) => {{
        let deadline = Instant::now() + STREAM_WAIT;
        loop {
            match $next.await {
                Ok(None) if $stream.is_alive() && Instant::now() < deadline => continue,
                result => break result,
            }
        }
    }};
}

enum Open {
    Plain(Cursor<Document>),
    Tailable(Cursor<Document>),
    InSession(SessionCursor<Document>, String),
    Stream(Box<ChangeStream<Document>>),
    StreamInSession(Box<SessionChangeStream<Document>>, String),
}

pub struct Scenario<'a> {
    uri: &'a str,
    db: &'a str,
    client: RefCell<Option<Client>>,
    sessions: RefCell<HashMap<String, ClientSession>>,
    cursors: RefCell<HashMap<String, Open>>,
    tokens: RefCell<HashMap<String, ResumeToken>>,
}

impl<'a> Scenario<'a> {
    pub fn new(uri: &'a str, db: &'a str, client: Option<Client>) -> Self {
        Scenario {
            uri,
            db,
            client: RefCell::new(client),
            sessions: RefCell::default(),
            cursors: RefCell::default(),
            tokens: RefCell::default(),
        }
    }

    /// Closes what the steps left open and gives the client back.
    pub async fn end(self) -> Option<Client> {
        self.release().await;
        self.client.into_inner()
    }

    async fn release(&self) {
        drop(self.cursors.take());
        for session in self.sessions.take().into_values() {
            end_session(session).await;
        }
    }

    async fn client(&self) -> Result<Client> {
        if let Some(client) = self.client.borrow().as_ref() {
            return Ok(client.clone());
        }
        let client = Client::with_uri_str(self.uri).await?;
        *self.client.borrow_mut() = Some(client.clone());
        Ok(client)
    }

    async fn database(&self, step: &Document) -> Result<Database> {
        let options = args::database_options(step)?;
        Ok(self.client().await?.database_with_options(self.db, options))
    }

    /// Inside `withTransaction` the session is inherited, and a step need not name it.
    pub fn step<'s>(
        &'s self,
        step: &'s Document,
        inherited: Option<&'s mut ClientSession>,
    ) -> LocalBoxFuture<'s, Value> {
        async move { outcome(self.execute(step, inherited).await) }.boxed_local()
    }

    async fn execute(
        &self,
        step: &Document,
        inherited: Option<&mut ClientSession>,
    ) -> Result<Value> {
        let name = self.session_name(step);
        let (Some(name), None) = (name, &inherited) else {
            return self.dispatch(step, inherited).await;
        };
        let session = self.sessions.borrow_mut().remove(&name);
        let mut session = session.ok_or_else(|| failure(format!("no session {name}")))?;
        if args::text(step, "op")? == "endSession" {
            end_session(session).await;
            return Ok(Value::Null);
        }
        let result = self.dispatch(step, Some(&mut session)).await;
        self.sessions.borrow_mut().insert(name, session);
        result
    }

    /// A cursor goes on in the session that it was opened in.
    fn session_name(&self, step: &Document) -> Option<String> {
        let args = step.get_document("args").ok();
        let named = step.get_str("session").ok();
        let named = named.or_else(|| args?.get_str("session").ok());
        if let Some(name) = named {
            return Some(name.to_owned());
        }
        match self.cursors.borrow().get(args?.get_str("cursor").ok()?)? {
            Open::InSession(_, name) | Open::StreamInSession(_, name) => Some(name.clone()),
            _ => None,
        }
    }

    async fn dispatch(
        &self,
        step: &Document,
        session: Option<&mut ClientSession>,
    ) -> Result<Value> {
        let empty = Document::new();
        let args = step.get_document("args").unwrap_or(&empty);
        let op = args::text(step, "op")?;
        let value = match op {
            "concurrently" => return self.concurrently(args).await,
            "withTransaction" => return self.with_transaction(args, session).await,
            "startSession" | "startTransaction" | "commitTransaction" | "abortTransaction" => {
                self.transact(op, args, session).await
            }
            "openFind" | "openAggregate" => self.open(op, step, args, session).await,
            "watch" => self.watch(step, args, session).await,
            "next" => self.next(args, session).await,
            "closeCursor" => self.close_cursor(args),
            "gridfsUpload" | "gridfsDownload" | "gridfsDelete" => self.gridfs(op, step, args).await,
            "ping" | "close" | "sleep" => self.connection(op, args).await,
            "runCommand" | "adminCommand" | "aggregateDatabase" | "listCollections"
            | "createCollection" => self.on_database(op, step, args, session).await,
            _ => self.on_collection(op, step, args, session).await,
        };
        value.map(Bson::into_canonical_extjson)
    }

    async fn on_collection(
        &self,
        op: &str,
        step: &Document,
        args: &Document,
        session: Option<&mut ClientSession>,
    ) -> Result<Bson> {
        let name = step.get_str("coll").unwrap_or("people");
        let on = self.database(step).await?.collection::<Document>(name);
        match op {
            "find"
            | "findOne"
            | "countDocuments"
            | "estimatedDocumentCount"
            | "distinct"
            | "aggregate"
            | "listIndexes" => collection::read(&on, op, args, session).await,
            "createIndex" | "dropIndex" | "drop" | "rename" => {
                collection::administer(&on, op, args, session).await
            }
            _ if args::unacknowledged(step) => Err(unsupported("the driver refuses w: 0")),
            _ => collection::write(&on, op, args, session).await,
        }
    }

    async fn on_database(
        &self,
        op: &str,
        step: &Document,
        args: &Document,
        session: Option<&mut ClientSession>,
    ) -> Result<Bson> {
        let mut on = self.database(step).await?;
        if op == "adminCommand" {
            on = self.client().await?.database("admin");
        }
        Ok(match op {
            "runCommand" | "adminCommand" => {
                let criteria = args::database_options(step)?.selection_criteria;
                let command = args::document(args, "command")?;
                match criteria {
                    Some(criteria) => {
                        let action = on.run_command(command).selection_criteria(criteria);
                        run!(session, action).into()
                    }
                    None => run!(session, on.run_command(command)).into(),
                }
            }
            "aggregateDatabase" => {
                let pipeline = args::documents(args, "pipeline")?;
                let options: AggregateOptions = args::options(args)?;
                collect!(session, on.aggregate(pipeline).with_options(options)).into()
            }
            "listCollections" => {
                let filter = args::filter(args);
                let mut names = run!(session, on.list_collection_names().filter(filter));
                names.sort();
                names.into()
            }
            _ => {
                let name = args::text(args, "name")?;
                let options = args::options(args)?;
                run!(
                    session,
                    on.create_collection(name).with_options(Some(options))
                );
                Bson::Null
            }
        })
    }

    async fn connection(&self, op: &str, args: &Document) -> Result<Bson> {
        match op {
            "ping" => {
                let admin = self.client().await?.database("admin");
                admin.run_command(doc! {"ping": 1}).await?;
            }
            "close" => {
                self.release().await;
                let client = self.client.take();
                if let Some(client) = client {
                    client.shutdown().immediate(true).await;
                }
            }
            _ => tokio::time::sleep(args::millis(args, "ms").unwrap_or_default()).await,
        }
        Ok(Bson::Null)
    }

    async fn concurrently(&self, args: &Document) -> Result<Value> {
        let steps = args::documents(args, "steps")?;
        self.client().await?;
        let running = steps.iter().map(|step| self.step(step, None));
        Ok(Value::Array(join_all(running).await))
    }

    // Sessions.

    async fn transact(
        &self,
        op: &str,
        args: &Document,
        session: Option<&mut ClientSession>,
    ) -> Result<Bson> {
        if op == "startSession" {
            let options: SessionOptions = args::options(args)?;
            let session = self
                .client()
                .await?
                .start_session()
                .with_options(options)
                .await?;
            let name = args::text(args, "as")?.to_owned();
            self.sessions.borrow_mut().insert(name, session);
            return Ok(Bson::Null);
        }
        let session = session.ok_or_else(|| failure("no session"))?;
        match op {
            "startTransaction" => {
                let options = args::transaction_options(args)?;
                session.start_transaction().with_options(options).await?;
            }
            "commitTransaction" => session.commit_transaction().await?,
            _ => session.abort_transaction().await?,
        }
        Ok(Bson::Null)
    }

    async fn with_transaction(
        &self,
        args: &Document,
        session: Option<&mut ClientSession>,
    ) -> Result<Value> {
        let session = session.ok_or_else(|| failure("no session"))?;
        let steps = args::documents(args, "steps")?;
        let attempt = async |session: &mut ClientSession| -> Result<Value> {
            let mut results = Vec::new();
            for step in &steps {
                // Boxed, since a step may be withTransaction itself.
                let executed = self.execute(step, Some(&mut *session)).boxed_local();
                results.push(outcome(Ok(executed.await?)));
            }
            Ok(Value::Array(results))
        };
        session.start_transaction().and_run2(attempt).await
    }

    // Cursors and change streams.

    async fn open(
        &self,
        op: &str,
        step: &Document,
        args: &Document,
        session: Option<&mut ClientSession>,
    ) -> Result<Bson> {
        let name = step.get_str("coll").unwrap_or("people");
        let on = self.database(step).await?.collection::<Document>(name);
        let session_name = self.session_name(step).unwrap_or_default();
        let opened = if op == "openFind" {
            let options = collection::find_options(args)?;
            let tailable = options.cursor_type.is_some();
            let action = on.find(args::filter(args)).with_options(options);
            match session {
                Some(session) => Open::InSession(action.session(session).await?, session_name),
                None if tailable => Open::Tailable(action.await?),
                None => Open::Plain(action.await?),
            }
        } else {
            let options: AggregateOptions = args::options(args)?;
            let action = on
                .aggregate(args::documents(args, "pipeline")?)
                .with_options(options);
            match session {
                Some(session) => Open::InSession(action.session(session).await?, session_name),
                None => Open::Plain(action.await?),
            }
        };
        self.put_cursor(args::text(args, "as")?, opened)
    }

    fn put_cursor(&self, name: &str, opened: Open) -> Result<Bson> {
        self.cursors.borrow_mut().insert(name.to_owned(), opened);
        Ok(Bson::Null)
    }

    fn close_cursor(&self, args: &Document) -> Result<Bson> {
        self.cursors
            .borrow_mut()
            .remove(args::text(args, "cursor")?);
        Ok(Bson::Null)
    }

    async fn watch(
        &self,
        step: &Document,
        args: &Document,
        session: Option<&mut ClientSession>,
    ) -> Result<Bson> {
        let mut options: ChangeStreamOptions = args::options(args)?;
        options.max_await_time = args::millis(args, "maxAwaitTimeMS");
        if let Ok(name) = args.get_str("resumeFrom") {
            options.resume_after = self.tokens.borrow().get(name).cloned();
        }
        let pipeline = args::documents(args, "pipeline").unwrap_or_default();
        let client = self.client().await?;
        let database = self.database(step).await?;
        let collection = database.collection(step.get_str("coll").unwrap_or("people"));
        let action = match args.get_str("on").unwrap_or("collection") {
            "cluster" => client.watch(),
            "database" => database.watch(),
            _ => collection.watch(),
        };
        let action = action.pipeline(pipeline).with_options(options);
        let opened = match session {
            Some(session) => {
                let stream = action.session(session).await?.with_type();
                Open::StreamInSession(
                    Box::new(stream),
                    self.session_name(step).unwrap_or_default(),
                )
            }
            None => Open::Stream(Box::new(action.await?.with_type())),
        };
        self.put_cursor(args::text(args, "as")?, opened)
    }

    async fn next(&self, args: &Document, session: Option<&mut ClientSession>) -> Result<Bson> {
        let name = args::text(args, "cursor")?;
        let opened = self.cursors.borrow_mut().remove(name);
        let mut opened = opened.ok_or_else(|| failure(format!("no cursor {name}")))?;
        let result = match &mut opened {
            Open::Plain(cursor) => cursor.try_next().await,
            Open::Tailable(cursor) => {
                // Nothing is lost when the wait ends: the cursor itself keeps its state.
                timeout(TAILABLE_WAIT, cursor.next())
                    .await
                    .ok()
                    .flatten()
                    .transpose()
            }
            Open::InSession(cursor, _) => match session {
                Some(session) => cursor.next(session).await.transpose(),
                None => Err(failure("the cursor's session has ended")),
            },
            Open::Stream(stream) => until_event!(stream, stream.next_if_any()),
            Open::StreamInSession(stream, _) => match session {
                Some(session) => until_event!(stream, stream.next_if_any(session)),
                None => Err(failure("the stream's session has ended")),
            },
        };
        let token = match &opened {
            Open::Stream(stream) => stream.resume_token(),
            Open::StreamInSession(stream, _) => stream.resume_token(),
            _ => None,
        };
        if let Some(token) = token {
            self.tokens.borrow_mut().insert(name.to_owned(), token);
        }
        self.put_cursor(name, opened)?;
        Ok(result?.into())
    }

    // GridFS.

    async fn gridfs(&self, op: &str, step: &Document, args: &Document) -> Result<Bson> {
        let bucket = self.database(step).await?.gridfs_bucket(None);
        let id = args::value(args, "id")?;
        match op {
            "gridfsUpload" => {
                let data = BASE64_STANDARD.decode(args::text(args, "dataBase64")?);
                let data = data.map_err(|e| failure(e.to_string()))?;
                let mut action = bucket
                    .open_upload_stream(args::text(args, "filename")?)
                    .id(id);
                if let Some(size) = args::number(args, "chunkSizeBytes") {
                    action = action.chunk_size_bytes(size as u32);
                }
                let mut stream = action.await?;
                stream.write_all(&data).await.map_err(unwrapped)?;
                stream.close().await.map_err(unwrapped)?;
                Ok(Bson::Null)
            }
            "gridfsDownload" => {
                let mut data = Vec::new();
                let mut stream = bucket.open_download_stream(id).await?;
                stream.read_to_end(&mut data).await.map_err(unwrapped)?;
                Ok(BASE64_STANDARD.encode(data).into())
            }
            _ => {
                bucket.delete(id).await?;
                Ok(Bson::Null)
            }
        }
    }
}

/// Ending a session that still has a transaction aborts it; elsewhere the abort is refused unsent.
async fn end_session(mut session: ClientSession) {
    let _ = session.abort_transaction().await;
}
