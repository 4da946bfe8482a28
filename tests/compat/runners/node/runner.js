'use strict';
// The official Node driver.

const { Readable } = require('node:stream');
const { buffer } = require('node:stream/consumers');
const { pipeline } = require('node:stream/promises');
const { BSON, GridFSBucket, MongoClient } = require('mongodb');
const { serve, Cursor, Stream } = require('./protocol.js');

// A long stays one. Not promoteValues: with it the driver does not know the errors that it retries,
// since their codes are objects, too.
const KEEP_TYPES = { promoteLongs: false, bsonRegExp: true };

const database = ({ client, db, concerns }) => client.db(db, concerns);
const collection = (scope) => database(scope).collection(scope.coll, scope.concerns);
const on = (part, call) => (scope, args) => call(part(scope), args, scope);

function counted(result, { acknowledged }, ...names) {
  if (!acknowledged) {
    return { acknowledged: false };
  }
  return Object.fromEntries(names.map((name) => [name, result[name]]));
}

function updated(result, scope) {
  const names = ['matchedCount', 'modifiedCount'];
  return counted(result, scope, ...names, ...(result.upsertedCount > 0 ? ['upsertedId'] : []));
}

function bulkCounted(result, scope) {
  const kinds = ['inserted', 'matched', 'modified', 'deleted', 'upserted'];
  return counted(result, scope, ...kinds.map((kind) => `${kind}Count`), 'upsertedIds');
}

const update = (method) =>
  on(collection, async (coll, { filter, update, replacement, ...options }, scope) =>
    updated(await coll[method](filter, update ?? replacement, options), scope)
  );

const remove = (method) =>
  on(collection, async (coll, { filter, ...options }, scope) =>
    counted(await coll[method](filter, options), scope, 'deletedCount')
  );

const find = (coll, { filter, ...options }) => coll.find(filter, options);
const aggregate = (part, { pipeline, ...options }) => part.aggregate(pipeline, options);

const CURSOR_TYPES = {
  tailable: { tailable: true },
  tailableAwait: { tailable: true, awaitData: true }
};

const WATCHED = {
  collection,
  database,
  cluster: ({ client }) => client
};

const commands = (name) => ({ client, concerns, db }, { command, ...options }) =>
  client.db(name ?? db, concerns).command(command, { ...concerns, ...options });

const bucket = (scope, options) => new GridFSBucket(database(scope), options);

const operations = {
  insertOne: on(collection, async (coll, { document, ...options }, scope) =>
    counted(await coll.insertOne(document, options), scope, 'insertedId')
  ),
  insertMany: on(collection, async (coll, { documents, ...options }, scope) =>
    counted(await coll.insertMany(documents, options), scope, 'insertedCount')
  ),
  find: on(collection, (coll, args) => find(coll, args).toArray()),
  findOne: on(collection, (coll, { filter, ...options }) => coll.findOne(filter, options)),
  countDocuments: on(collection, (coll, { filter, ...options }) =>
    coll.countDocuments(filter, options)
  ),
  estimatedDocumentCount: on(collection, (coll, options) => coll.estimatedDocumentCount(options)),
  distinct: on(collection, (coll, { fieldName, filter = {}, ...options }) =>
    coll.distinct(fieldName, filter, options)
  ),
  updateOne: update('updateOne'),
  updateMany: update('updateMany'),
  replaceOne: update('replaceOne'),
  deleteOne: remove('deleteOne'),
  deleteMany: remove('deleteMany'),
  findOneAndUpdate: on(collection, (coll, { filter, update, ...options }) =>
    coll.findOneAndUpdate(filter, update, options)
  ),
  findOneAndReplace: on(collection, (coll, { filter, replacement, ...options }) =>
    coll.findOneAndReplace(filter, replacement, options)
  ),
  findOneAndDelete: on(collection, (coll, { filter, ...options }) =>
    coll.findOneAndDelete(filter, options)
  ),
  aggregate: on(collection, (coll, args) => aggregate(coll, args).toArray()),
  bulkWrite: on(collection, async (coll, { requests, ...options }, scope) =>
    bulkCounted(await coll.bulkWrite(requests, options), scope)
  ),
  createIndex: on(collection, (coll, { keys, ...options }) => coll.createIndex(keys, options)),
  listIndexes: on(collection, (coll, options) => coll.listIndexes(options).toArray()),
  dropIndex: on(collection, async (coll, { name, ...options }) => {
    await coll.dropIndex(name, options);
  }),
  drop: on(collection, async (coll, options) => {
    await coll.drop(options);
  }),
  rename: on(collection, async (coll, { to, ...options }) => {
    await coll.rename(to, options);
  }),

  runCommand: commands(),
  adminCommand: commands('admin'),
  ping: async ({ client }) => {
    await client.db('admin').command({ ping: 1 });
  },
  aggregateDatabase: on(database, (db, args) => aggregate(db, args).toArray()),
  listCollections: on(database, async (db, { filter, ...options }) => {
    const found = await db.listCollections(filter, { nameOnly: true, ...options }).toArray();
    return found.map(({ name }) => name).sort();
  }),
  createCollection: on(database, async (db, { name, ...options }) => {
    await db.createCollection(name, options);
  }),

  openFind: on(collection, (coll, { as, cursorType, ...args }, { scenario }) => {
    const type = CURSOR_TYPES[cursorType];
    scenario.cursors.set(as, new Cursor(find(coll, { ...type, ...args }), type));
  }),
  openAggregate: on(collection, (coll, { as, ...args }, { scenario }) => {
    scenario.cursors.set(as, new Cursor(aggregate(coll, args)));
  }),
  watch: async (scope, { as, pipeline, on = 'collection', resumeFrom, ...options }) => {
    const { cursors } = scope.scenario;
    const resume = resumeFrom && { resumeAfter: cursors.get(resumeFrom).token };
    const driverStream = WATCHED[on](scope).watch(pipeline, { ...resume, ...options });
    const stream = new Stream(driverStream);
    cursors.set(as, stream);
    await stream.open(driverStream.cursor);
  },

  gridfsUpload: async (scope, { id, filename, dataBase64, chunkSizeBytes }) => {
    const upload = bucket(scope).openUploadStreamWithId(id, filename, { chunkSizeBytes });
    await pipeline(Readable.from([Buffer.from(dataBase64, 'base64')]), upload);
  },
  gridfsDownload: async (scope, { id }) =>
    (await buffer(bucket(scope).openDownloadStream(id))).toString('base64'),
  gridfsDelete: (scope, { id }) => bucket(scope).delete(id)
};

const describe = (driver, version) => ({
  driver,
  version,
  compressors: ['snappy', 'zlib', 'zstd']
});

if (require.main === module) {
  serve({
    describe: describe('Node', require('mongodb/package.json').version),
    open: async (uri) => new MongoClient(uri, KEEP_TYPES),
    operations,
    EJSON: BSON.EJSON
  });
}

module.exports = { operations, counted, updated, bulkCounted, describe, KEEP_TYPES };
