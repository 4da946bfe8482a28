'use strict';
// Mongoose: models with a schema that takes every field. What mongoose has no methods of its own for
// (commands, indexes, GridFS) goes to its copy of the driver, as its users would do it.

const mongoose = require('mongoose');
const { serve, Cursor } = require('../node/protocol.js');
const native = require('../node/runner.js');

const { Schema } = mongoose;
const { EJSON } = mongoose.mongo.BSON;
const { counted, updated, bulkCounted } = native;

const anything = () =>
  new Schema(
    { _id: Schema.Types.Mixed },
    { strict: false, strictQuery: false, versionKey: false, minimize: false, id: false }
  );

function model({ client, db, coll }) {
  const database = client.useDb(db, { useCache: true });
  return database.models[coll] ?? database.model(coll, anything(), coll);
}

// Mongoose reads directions itself and wants them as numbers of JavaScript.
const directions = ({ sort }) => sort && { sort: EJSON.deserialize(EJSON.serialize(sort)) };

const on = (call) => (scope, args) =>
  call(model(scope), { ...scope.concerns, ...args, ...directions(args) }, scope);

const update = (method) =>
  on(async (of, { filter, update, replacement, ...options }, scope) => {
    const all = { ...options, updatePipeline: true };
    return updated(await of[method](filter, update ?? replacement, all), scope);
  });

const remove = (method) =>
  on(async (of, { filter, ...options }, scope) =>
    counted(await of[method](filter, options), scope, 'deletedCount')
  );

const query = (of, { filter, projection, ...options }) => of.find(filter, projection, options).lean();

const openFind = on((of, { as, ...args }, { scenario }) => {
  scenario.cursors.set(as, new Cursor(query(of, args).cursor()));
});

const throughDriver = (operation) => (scope, args) =>
  operation({ ...scope, client: scope.client.getClient() }, args);

const operations = {
  insertOne: on(async (of, { document, ...options }, scope) => {
    const _id = document._id === undefined ? new mongoose.mongo.ObjectId() : document._id;
    const created = await of.insertOne({ _id, ...document }, options);
    return counted({ insertedId: created._id }, scope, 'insertedId');
  }),
  insertMany: on(async (of, { documents, ...options }, scope) => {
    const result = await of.insertMany(documents, { ...options, rawResult: true });
    return counted(result, scope, 'insertedCount');
  }),
  find: on((of, args) => query(of, args)),
  findOne: on((of, { filter, projection, ...options }) =>
    of.findOne(filter, projection, options).lean()
  ),
  countDocuments: on((of, { filter, ...options }) => of.countDocuments(filter, options)),
  estimatedDocumentCount: on((of, options) => of.estimatedDocumentCount(options)),
  distinct: on((of, { fieldName, filter, ...options }) => of.distinct(fieldName, filter, options)),
  updateOne: update('updateOne'),
  updateMany: update('updateMany'),
  replaceOne: update('replaceOne'),
  deleteOne: remove('deleteOne'),
  deleteMany: remove('deleteMany'),
  findOneAndUpdate: on((of, { filter, update, ...options }) =>
    of.findOneAndUpdate(filter, update, { ...options, updatePipeline: true }).lean()
  ),
  findOneAndReplace: on((of, { filter, replacement, ...options }) =>
    of.findOneAndReplace(filter, replacement, options).lean()
  ),
  findOneAndDelete: on((of, { filter, ...options }) => of.findOneAndDelete(filter, options).lean()),
  aggregate: on((of, { pipeline, ...options }) => of.aggregate(pipeline, options)),
  bulkWrite: on(async (of, { requests, ...options }, scope) =>
    bulkCounted(await of.bulkWrite(requests, options), scope)
  ),
  // Its cursors have no tryNext.
  openFind: (scope, args) =>
    (args.cursorType ? throughDriver(native.operations.openFind) : openFind)(scope, args),
  openAggregate: on((of, { as, pipeline, batchSize, ...options }, { scenario }) => {
    const cursor = of.aggregate(pipeline, options).cursor({ batchSize });
    scenario.cursors.set(as, new Cursor(cursor));
  })
};

// What mongoose answers or changes before anyone is asked goes to the driver as it is: empty lists,
// and updates that are none.
const isEmpty = (list) => Array.isArray(list) && list.length === 0;
const isNoUpdate = (update) =>
  update && !Array.isArray(update) && !/^\$/.test(Object.keys(update)[0] ?? '');
const asksNobody = ({ documents, pipeline, requests, update }) =>
  [documents, pipeline, requests].some(isEmpty) || isNoUpdate(update);

for (const [name, operation] of Object.entries(native.operations)) {
  const own = operations[name];
  const driver = throughDriver(operation);
  operations[name] = own
    ? (scope, args) => (asksNobody(args) ? driver : own)(scope, args)
    : driver;
}

serve({
  describe: native.describe('mongoose', mongoose.version),
  open: (uri) =>
    mongoose
      .createConnection(uri, { ...native.KEEP_TYPES, autoIndex: false, autoCreate: false })
      .asPromise(),
  operations,
  EJSON
});
