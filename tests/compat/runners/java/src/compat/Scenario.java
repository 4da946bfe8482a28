package compat;

import com.mongodb.ClientSessionOptions;
import com.mongodb.TransactionOptions;
import com.mongodb.client.ClientSession;
import com.mongodb.client.MongoClient;
import com.mongodb.client.MongoCollection;
import com.mongodb.client.MongoDatabase;
import com.mongodb.client.gridfs.GridFSBuckets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.bson.BsonArray;
import org.bson.BsonDocument;
import org.bson.BsonInt32;
import org.bson.BsonInt64;
import org.bson.BsonValue;

/** One scenario: its steps, and the cursors and sessions that live as long as it. */
final class Scenario implements AutoCloseable {
    private static final Args NO_ARGS = new Args(new BsonDocument());

    private final Runner runner;
    private final String uri;
    private final String db;
    private final Cursors cursors = new Cursors();
    private final Map<String, ClientSession> sessions = new ConcurrentHashMap<>();

    Scenario(Runner runner, Args request) {
        this.runner = runner;
        this.uri = request.text("uri");
        this.db = request.text("db");
    }

    BsonDocument step(BsonDocument step) {
        try {
            return Outcome.ok(execute(new Args(step), null));
        } catch (RuntimeException failure) {
            return Outcome.error(failure);
        } catch (Exception failure) {
            return Outcome.error(new IllegalStateException(failure));
        }
    }

    @Override
    public void close() {
        cursors.close();
        sessions.values().forEach(ClientSession::close); // aborts a transaction
        sessions.clear();
    }

    /** Inside withTransaction the session is inherited, and a step need not name it. */
    private BsonValue execute(Args step, ClientSession inherited) throws Exception {
        Args args = step.has("args") ? new Args(step.document("args")) : NO_ARGS;
        ClientSession session = inherited;
        String name = step.textOr("session", args.textOr("session", null));
        if (inherited == null && name != null) {
            session = sessions.get(name);
            if (session == null) {
                throw new IllegalArgumentException("no session " + name);
            }
        }
        return switch (step.text("op")) {
            case "ping" -> {
                BsonDocument ping = new BsonDocument("ping", new BsonInt32(1));
                client().getDatabase("admin").runCommand(ping);
                yield null;
            }
            case "close" -> {
                close();
                runner.close(uri);
                yield null;
            }
            case "sleep" -> {
                Thread.sleep(args.number("ms"));
                yield null;
            }
            case "concurrently" -> concurrently(args.documents("steps"));
            case "startSession" -> startSession(args);
            case "startTransaction", "commitTransaction", "abortTransaction", "endSession",
                    "withTransaction" -> transact(step.text("op"), args, session);
            default -> operate(step, args, session);
        };
    }

    private BsonValue operate(Args step, Args args, ClientSession session) throws Exception {
        MongoDatabase database = database(step);
        MongoCollection<BsonDocument> on =
                database.getCollection(step.textOr("coll", "people"), BsonDocument.class);
        Writes writes = new Writes(on, args, session);
        Administration administration = new Administration(database, on, args, session);
        return switch (step.text("op")) {
            case "find" -> Reads.all(Reads.find(on, args, session));
            case "findOne" -> Reads.find(on, args, session).first();
            case "countDocuments" -> Reads.countDocuments(on, args, session);
            case "estimatedDocumentCount" -> new BsonInt64(on.estimatedDocumentCount());
            case "distinct" -> Reads.distinct(on, args, session);
            case "aggregate" -> Reads.all(Reads.aggregate(on, args, session));
            case "aggregateDatabase" -> Reads.all(Reads.aggregate(database, args, session));
            case "insertOne" -> writes.insertOne();
            case "insertMany" -> writes.insertMany();
            case "updateOne" -> writes.updateOne();
            case "updateMany" -> writes.updateMany();
            case "replaceOne" -> writes.replaceOne();
            case "deleteOne" -> writes.deleteOne();
            case "deleteMany" -> writes.deleteMany();
            case "findOneAndUpdate" -> writes.findOneAndUpdate();
            case "findOneAndReplace" -> writes.findOneAndReplace();
            case "findOneAndDelete" -> writes.findOneAndDelete();
            case "bulkWrite" -> writes.bulkWrite();
            case "createIndex" -> administration.createIndex();
            case "listIndexes" -> administration.listIndexes();
            case "dropIndex" -> administration.dropIndex();
            case "drop" -> administration.drop();
            case "rename" -> administration.rename();
            case "listCollections" -> administration.listCollections();
            case "createCollection" -> administration.createCollection();
            case "runCommand" -> administration.runCommand(step);
            case "adminCommand" -> new Administration(
                    client().getDatabase("admin"), on, args, session).runCommand(step);
            case "openFind" -> cursors.openFind(on, args, session);
            case "openAggregate" -> cursors.openAggregate(on, args, session);
            case "watch" -> cursors.watch(client(), database, on, args, session);
            case "next" -> cursors.next(args);
            case "closeCursor" -> cursors.close(args);
            case "gridfsUpload" -> files(database, args, session).upload();
            case "gridfsDownload" -> files(database, args, session).download();
            case "gridfsDelete" -> files(database, args, session).delete();
            default -> throw new IllegalArgumentException("no operation " + step.text("op"));
        };
    }

    private static Files files(MongoDatabase database, Args args, ClientSession session) {
        return new Files(GridFSBuckets.create(database), args, session);
    }

    private MongoClient client() {
        return runner.client(uri);
    }

    private MongoDatabase database(Args step) {
        MongoDatabase[] database = {client().getDatabase(db)};
        step.readPreference(it -> database[0] = database[0].withReadPreference(it));
        step.readConcern(it -> database[0] = database[0].withReadConcern(it));
        step.writeConcern(it -> database[0] = database[0].withWriteConcern(it));
        return database[0];
    }

    private BsonValue concurrently(List<BsonDocument> steps) throws InterruptedException {
        ExecutorService threads = Executors.newFixedThreadPool(Math.max(steps.size(), 1));
        try {
            List<Callable<BsonDocument>> tasks = new ArrayList<>();
            steps.forEach(step -> tasks.add(() -> step(step)));
            BsonArray results = new BsonArray();
            for (Future<BsonDocument> result : threads.invokeAll(tasks)) {
                results.add(result.get());
            }
            return results;
        } catch (ExecutionException failure) {
            throw new IllegalStateException(failure);
        } finally {
            threads.shutdown();
        }
    }

    private BsonValue startSession(Args args) {
        ClientSessionOptions.Builder options = ClientSessionOptions.builder();
        args.flag("causalConsistency", options::causallyConsistent);
        args.flag("snapshot", options::snapshot);
        sessions.put(args.text("as"), client().startSession(options.build()));
        return null;
    }

    private BsonValue transact(String op, Args args, ClientSession session) {
        if (session == null) {
            throw new IllegalArgumentException(op + " needs a session");
        }
        switch (op) {
            case "startTransaction" -> session.startTransaction(transactionOptions(args));
            case "commitTransaction" -> session.commitTransaction();
            case "abortTransaction" -> session.abortTransaction();
            case "withTransaction" -> {
                return withTransaction(session, args.documents("steps"));
            }
            default -> {
                sessions.values().remove(session);
                session.close();
            }
        }
        return null;
    }

    private static TransactionOptions transactionOptions(Args args) {
        TransactionOptions.Builder options = TransactionOptions.builder();
        args.readPreference(options::readPreference);
        args.readConcern(options::readConcern);
        args.writeConcern(options::writeConcern);
        return options.build();
    }

    private BsonValue withTransaction(ClientSession session, List<BsonDocument> steps) {
        return session.withTransaction(() -> {
            BsonArray results = new BsonArray();
            for (BsonDocument step : steps) {
                results.add(Outcome.ok(inTransaction(step, session)));
            }
            return results;
        });
    }

    /** The driver's own exceptions must reach it: by them it aborts or retries. */
    private BsonValue inTransaction(BsonDocument step, ClientSession session) {
        try {
            return execute(new Args(step), session);
        } catch (RuntimeException failure) {
            throw failure;
        } catch (Exception failure) {
            throw new IllegalStateException(failure);
        }
    }
}
