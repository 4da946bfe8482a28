'use strict';
// What the runners in JavaScript share: the lines of JSON, the state of a scenario, the operations
// on cursors and sessions (the Node driver, mongoose and mongosh name them alike), and errors.
//
// A driver is {describe, open, operations, EJSON}: open(uri) resolves to a client; operations are
// functions (scope, args) by name; a scope is what Scenario.scope makes of a step, and args have the
// session in which it runs, as the options of the driver's methods want it.

const { once } = require('node:events');
const { createInterface } = require('node:readline');
const { setTimeout: sleep } = require('node:timers/promises');

const TAILABLE_WAIT_MS = 1000;
const STREAM_WAIT_MS = 10_000;
const POLL_MS = 20;

class Unsupported extends Error {}

// ---- errors --------------------------------------------------------------------------------

// By name: mongosh has a copy of the driver that is not the one loaded here.
function isA(error, name) {
  for (let type = error?.constructor; type; type = Object.getPrototypeOf(type)) {
    if (type.name === name) {
      return true;
    }
  }
  return false;
}

function kindOf(error) {
  if (isA(error, 'MongoBulkWriteError')) {
    return 'bulk';
  }
  if (isA(error, 'MongoWriteConcernError') || error?.errorResponse?.index !== undefined) {
    return 'write';
  }
  if (isA(error, 'MongoServerError')) {
    return 'command';
  }
  const network = ['MongoNetworkError', 'MongoServerSelectionError', 'MongoOperationTimeoutError'];
  return network.some((name) => isA(error, name)) ? 'network' : 'client';
}

function describeError(error) {
  const described = { kind: kindOf(error) };
  console.error(error);
  if (error?.code != null && Number.isInteger(Number(error.code))) {
    described.code = Number(error.code);
  }
  const labels = error?.errorLabels ?? [];
  if (labels.length > 0) {
    described.labels = [...labels].sort();
  }
  if (described.kind === 'bulk') {
    const writeErrors = [error.writeErrors ?? []].flat();
    if (writeErrors.length > 0) {
      described.writeErrors = writeErrors.map(({ index, code }) => ({
        index: Number(index),
        code: Number(code)
      }));
    }
  }
  const concern =
    error?.result?.getWriteConcernError?.() ?? error?.errorResponse?.writeConcernError;
  if (concern) {
    described.writeConcernError = { code: Number(concern.code) };
  }
  return { error: described };
}

// ---- cursors and streams -------------------------------------------------------------------

async function poll(cursor, wait_ms) {
  const end = Date.now() + wait_ms;
  for (;;) {
    const document = await cursor.tryNext();
    if (document !== null || cursor.closed || Date.now() >= end) {
      return document;
    }
    await sleep(POLL_MS);
  }
}

class Cursor {
  constructor(cursor, { tailable = false } = {}) {
    this.cursor = cursor;
    this.tailable = tailable;
  }

  next() {
    return this.tailable ? poll(this.cursor, TAILABLE_WAIT_MS) : this.cursor.next();
  }

  close() {
    return this.cursor.close();
  }
}

// The driver opens a stream when it is first read, and reads on until something comes: so that
// read is started here, and its document is the first that next() gives.
class Stream {
  constructor(stream) {
    this.stream = stream;
    this.first = null;
    this.token = null;
  }

  async open(emitter) {
    this.first = this.stream.tryNext();
    this.first.catch(() => {});
    await Promise.race([once(emitter, 'init'), this.first]);
  }

  async next() {
    const first = this.first;
    this.first = null;
    const event = (await first) ?? (await poll(this.stream, STREAM_WAIT_MS));
    this.token = event?._id ?? this.token;
    return event;
  }

  close() {
    return this.stream.close();
  }
}

// ---- operations that all have in common ------------------------------------------------------

// Of the scenario alone: they need no client.
const ofScenario = {
  sleep: (_, { ms }) => sleep(ms),
  close: async (scenario) => {
    const client = scenario.clients.get(scenario.uri);
    scenario.clients.delete(scenario.uri);
    await (await client)?.close();
  },
  concurrently: async (scenario, { steps }) =>
    new Results(await Promise.all(steps.map((step) => scenario.result(step)))),
  withTransaction: async (scenario, { session: name, steps }) => {
    const session = scenario.sessions.get(name);
    let results;
    await session.withTransaction(async () => {
      results = [];
      for (const step of steps) {
        results.push({ ok: await scenario.run(step, session) });
      }
    });
    return new Results(results);
  },
  startTransaction: ({ sessions }, { session, readConcern, ...rest }) =>
    sessions.get(session).startTransaction({
      ...(readConcern && { readConcern: { level: readConcern } }),
      ...rest
    }),
  commitTransaction: ({ sessions }, { session }) => sessions.get(session).commitTransaction(),
  abortTransaction: ({ sessions }, { session }) => sessions.get(session).abortTransaction(),
  endSession: async ({ sessions }, { session }) => {
    await sessions.get(session).endSession();
    sessions.delete(session);
  },
  next: async ({ cursors }, { cursor }) => (await cursors.get(cursor).next()) ?? null,
  closeCursor: ({ cursors }, { cursor }) => cursors.get(cursor).close()
};

const ofClient = {
  startSession: async ({ client, scenario }, { as, ...options }) => {
    scenario.sessions.set(as, await client.startSession(options));
  }
};

// ---- scenarios -----------------------------------------------------------------------------

// Of steps inside of a step: they are Extended JSON already.
class Results {
  constructor(list) {
    this.list = list;
  }
}

class Scenario {
  constructor(driver, clients, { uri, db }) {
    Object.assign(this, { driver, clients, uri, db, cursors: new Map(), sessions: new Map() });
  }

  client() {
    if (!this.clients.has(this.uri)) {
      const client = this.driver.open(this.uri);
      client.catch(() => this.clients.delete(this.uri));
      this.clients.set(this.uri, client);
    }
    return this.clients.get(this.uri);
  }

  // Plain numbers, strings and booleans are options of the API; the rest are values.
  args({ args = {} }) {
    const asTheyAre = ['steps', 'writeConcern'];
    return Object.fromEntries(
      Object.entries(args).map(([name, value]) => [
        name,
        asTheyAre.includes(name) || typeof value !== 'object'
          ? value
          : this.driver.EJSON.deserialize(value, { relaxed: false })
      ])
    );
  }

  async scope(step, session) {
    const { readPreference, readConcern, writeConcern } = step;
    session ??= this.sessions.get(step.session);
    return {
      scenario: this,
      client: await this.client(),
      db: this.db,
      coll: step.coll ?? 'people',
      concerns: {
        ...(readPreference && { readPreference }),
        ...(readConcern && { readConcern: { level: readConcern } }),
        ...(writeConcern && { writeConcern })
      },
      session: session ? { session } : {},
      acknowledged: writeConcern?.w !== 0
    };
  }

  // Throws what the step throws.
  async run(step, session) {
    const { EJSON, operations } = this.driver;
    const args = this.args(step);
    let value;
    if (Object.hasOwn(ofScenario, step.op)) {
      value = await ofScenario[step.op](this, args);
    } else {
      const operation = operations[step.op] ?? ofClient[step.op];
      if (!operation) {
        throw new Unsupported(`no operation ${step.op}`);
      }
      const scope = await this.scope(step, session);
      value = await operation(scope, { ...args, ...scope.session });
    }
    return value instanceof Results
      ? value.list
      : EJSON.serialize(value ?? null, { relaxed: false });
  }

  async result(step) {
    try {
      return { ok: await this.run(step) };
    } catch (error) {
      return error instanceof Unsupported ? { unsupported: error.message } : describeError(error);
    }
  }

  async finish() {
    for (const open of [...this.cursors.values(), ...this.sessions.values()]) {
      try {
        await (open.endSession ?? open.close).call(open);
      } catch (error) {
        console.error(error);
      }
    }
  }
}

async function serve(driver) {
  const clients = new Map();
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    let answer;
    if (request.describe) {
      answer = driver.describe;
    } else {
      const scenario = new Scenario(driver, clients, request);
      const results = [];
      for (const step of request.steps) {
        results.push(await scenario.result(step));
      }
      await scenario.finish();
      answer = { id: request.id, results };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  for (const client of clients.values()) {
    await (await client).close();
  }
}

module.exports = { serve, Cursor, Stream, Unsupported };
