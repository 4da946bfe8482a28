'use strict';
// Run by mongosh: its own helpers on databases, collections, cursors and sessions, and its EJSON.
// It has no GridFS.

const path = require('path');
const { serve, Cursor, Stream, Unsupported } = require(
  path.join(process.env.COMPAT_RUNNERS, 'node/protocol.js')
);

const database = ({ client, session: { session }, db }, name = db) =>
  session ? session.getDatabase(name) : client.getDB(name);
const collection = (scope) => database(scope).getCollection(scope.coll);

// The session is that of the database; concerns are options of each helper.
const on = (part, call) => (scope, args) => {
  const { session, ...own } = args;
  return call(part(scope), { ...scope.concerns, ...own }, scope);
};

function counted(result, ...names) {
  if (!result.acknowledged) {
    return { acknowledged: false };
  }
  return Object.fromEntries(names.map((name) => [name, result[name]]));
}

const update = (method) =>
  on(collection, async (coll, { filter, update, replacement, ...options }) => {
    const result = await coll[method](filter, update ?? replacement, options);
    const names = ['matchedCount', 'modifiedCount'];
    return counted(result, ...names, ...(result.upsertedCount > 0 ? ['insertedId'] : []));
  });

const remove = (method) =>
  on(collection, async (coll, { filter, ...options }) =>
    counted(await coll[method](filter, options), 'deletedCount')
  );

const find = (coll, { filter, projection, ...options }) => coll.find(filter, projection, options);

const CURSOR_TYPES = {
  tailable: { tailable: true },
  tailableAwait: { tailable: true, awaitData: true }
};

const WATCHED = {
  collection,
  database,
  cluster: ({ client }) => client
};

const command = (name) => async (scope, { command }) =>
  await database(scope, name).runCommand(command, scope.concerns);

const unsupported = () => {
  throw new Unsupported('mongosh has no GridFS');
};

const operations = {
  insertOne: on(collection, async (coll, { document, ...options }) =>
    counted(await coll.insertOne(document, options), 'insertedId')
  ),
  insertMany: on(collection, async (coll, { documents, ...options }) => {
    const { acknowledged, insertedIds } = await coll.insertMany(documents, options);
    const insertedCount = Object.keys(insertedIds).length;
    return counted({ acknowledged, insertedCount }, 'insertedCount');
  }),
  find: on(collection, async (coll, args) => await (await find(coll, args)).toArray()),
  findOne: on(collection, async (coll, { filter, projection, ...options }) =>
    await coll.findOne(filter, projection, options)
  ),
  countDocuments: on(collection, async (coll, { filter, ...options }) =>
    await coll.countDocuments(filter, options)
  ),
  estimatedDocumentCount: on(collection, async (coll, options) =>
    await coll.estimatedDocumentCount(options)
  ),
  distinct: on(collection, async (coll, { fieldName, filter, ...options }) =>
    await coll.distinct(fieldName, filter ?? {}, options)
  ),
  updateOne: update('updateOne'),
  updateMany: update('updateMany'),
  replaceOne: update('replaceOne'),
  deleteOne: remove('deleteOne'),
  deleteMany: remove('deleteMany'),
  findOneAndUpdate: on(collection, async (coll, { filter, update, ...options }) =>
    await coll.findOneAndUpdate(filter, update, options)
  ),
  findOneAndReplace: on(collection, async (coll, { filter, replacement, ...options }) =>
    await coll.findOneAndReplace(filter, replacement, options)
  ),
  findOneAndDelete: on(collection, async (coll, { filter, ...options }) =>
    await coll.findOneAndDelete(filter, options)
  ),
  aggregate: on(collection, async (coll, { pipeline, ...options }) =>
    await (await coll.aggregate(pipeline, options)).toArray()
  ),
  bulkWrite: on(collection, async (coll, { requests, ...options }, { acknowledged }) => {
    const result = await coll.bulkWrite(requests, options);
    const kinds = ['inserted', 'matched', 'modified', 'deleted', 'upserted'];
    const names = [...kinds.map((kind) => `${kind}Count`), 'upsertedIds'];
    return counted({ ...result, acknowledged }, ...names);
  }),
  createIndex: on(collection, async (coll, { keys, ...options }) =>
    await coll.createIndex(keys, options)
  ),
  listIndexes: on(collection, async (coll) => await coll.getIndexes()),
  dropIndex: on(collection, async (coll, { name }) => {
    await coll.dropIndex(name);
  }),
  drop: on(collection, async (coll, options) => {
    await coll.drop(options);
  }),
  rename: on(collection, async (coll, { to }) => {
    await coll.renameCollection(to);
  }),

  runCommand: command(),
  adminCommand: command('admin'),
  ping: async ({ client }) => {
    await client.getDB('admin').runCommand({ ping: 1 });
  },
  aggregateDatabase: on(database, async (db, { pipeline, ...options }) =>
    await (await db.aggregate(pipeline, options)).toArray()
  ),
  listCollections: on(database, async (db, { filter }) => {
    const found = await db.getCollectionInfos(filter, { nameOnly: true });
    return found.map(({ name }) => name).sort();
  }),
  createCollection: on(database, async (db, { name, ...options }) => {
    await db.createCollection(name, options);
  }),

  openFind: on(collection, async (coll, { as, cursorType, ...args }, { scenario }) => {
    const type = CURSOR_TYPES[cursorType];
    scenario.cursors.set(as, new Cursor(await find(coll, { ...type, ...args }), type));
  }),
  openAggregate: on(collection, async (coll, { as, pipeline, ...options }, { scenario }) => {
    scenario.cursors.set(as, new Cursor(await coll.aggregate(pipeline, options)));
  }),
  watch: async (scope, { as, pipeline, on = 'collection', resumeFrom, session, ...options }) => {
    const { cursors } = scope.scenario;
    const resume = resumeFrom && { resumeAfter: cursors.get(resumeFrom).token };
    const stream = await WATCHED[on](scope).watch(pipeline, { ...resume, ...options });
    cursors.set(as, new Stream(stream));
  },

  gridfsUpload: unsupported,
  gridfsDownload: unsupported,
  gridfsDelete: unsupported
};

serve({
  describe: { driver: 'mongosh', version: version(), compressors: ['zlib'] },
  open: async (uri) => await new Mongo(uri),
  operations,
  EJSON
});
