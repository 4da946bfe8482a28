package compat;

import com.mongodb.client.ChangeStreamIterable;
import com.mongodb.client.ClientSession;
import com.mongodb.client.MongoClient;
import com.mongodb.client.MongoCollection;
import com.mongodb.client.MongoCursor;
import com.mongodb.client.MongoDatabase;
import com.mongodb.client.model.changestream.FullDocument;
import com.mongodb.client.model.changestream.FullDocumentBeforeChange;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import org.bson.BsonDocument;
import org.bson.BsonValue;

/** The cursors and change streams of a scenario, by name. */
final class Cursors implements AutoCloseable {
    private static final long TAILABLE_WAIT_NS = TimeUnit.SECONDS.toNanos(1);
    private static final long STREAM_WAIT_NS = TimeUnit.SECONDS.toNanos(10);
    private static final long PAUSE_MS = 20;

    /** waitNs: how long next() waits for a document where the cursor may get more later. */
    private record Open(MongoCursor<BsonDocument> cursor, long waitNs, boolean stream) {}

    private final Map<String, Open> open = new ConcurrentHashMap<>();
    private final Map<String, BsonDocument> tokens = new ConcurrentHashMap<>();

    BsonValue openFind(MongoCollection<BsonDocument> on, Args args, ClientSession session) {
        boolean tailable = args.textOr("cursorType", "").startsWith("tailable");
        MongoCursor<BsonDocument> cursor = Reads.find(on, args, session).cursor();
        open.put(args.text("as"), new Open(cursor, tailable ? TAILABLE_WAIT_NS : 0, false));
        return null;
    }

    BsonValue openAggregate(MongoCollection<BsonDocument> on, Args args, ClientSession session) {
        MongoCursor<BsonDocument> cursor = Reads.aggregate(on, args, session).cursor();
        open.put(args.text("as"), new Open(cursor, 0, false));
        return null;
    }

    BsonValue watch(MongoClient client, MongoDatabase database,
            MongoCollection<BsonDocument> collection, Args args, ClientSession session) {
        List<BsonDocument> pipeline =
                args.has("pipeline") ? args.documents("pipeline") : List.of();
        ChangeStreamIterable<?> watch = switch (args.textOr("on", "collection")) {
            case "cluster" ->
                session == null ? client.watch(pipeline) : client.watch(session, pipeline);
            case "database" ->
                session == null ? database.watch(pipeline) : database.watch(session, pipeline);
            default ->
                session == null ? collection.watch(pipeline) : collection.watch(session, pipeline);
        };
        args.text("fullDocument", name -> watch.fullDocument(FullDocument.fromString(name)));
        args.text("fullDocumentBeforeChange", name ->
                watch.fullDocumentBeforeChange(FullDocumentBeforeChange.fromString(name)));
        args.number("batchSize", watch::batchSize);
        args.longNumber("maxAwaitTimeMS", ms -> watch.maxAwaitTime(ms, TimeUnit.MILLISECONDS));
        args.text("resumeFrom", name -> watch.resumeAfter(tokens.get(name)));
        MongoCursor<BsonDocument> cursor = watch.withDocumentClass(BsonDocument.class).cursor();
        open.put(args.text("as"), new Open(cursor, STREAM_WAIT_NS, true));
        return null;
    }

    BsonValue next(Args args) throws InterruptedException {
        String name = args.text("cursor");
        Open opened = open.get(name);
        if (opened == null) {
            throw new IllegalArgumentException("no cursor " + name);
        }
        MongoCursor<BsonDocument> cursor = opened.cursor();
        if (opened.waitNs() == 0) {
            return cursor.hasNext() ? cursor.next() : null;
        }
        long deadline = System.nanoTime() + opened.waitNs();
        BsonDocument found = cursor.tryNext();
        while (found == null && System.nanoTime() < deadline
                && (opened.stream() || cursor.getServerCursor() != null)) {
            Thread.sleep(PAUSE_MS);
            found = cursor.tryNext();
        }
        if (found != null && opened.stream()) {
            tokens.put(name, found.getDocument("_id"));
        }
        return found;
    }

    BsonValue close(Args args) {
        Open opened = open.remove(args.text("cursor"));
        if (opened != null) {
            opened.cursor().close();
        }
        return null;
    }

    @Override
    public void close() {
        open.values().forEach(opened -> closeQuietly(opened.cursor()));
        open.clear();
    }

    /** A cursor whose session has ended cannot be closed any more. */
    private static void closeQuietly(MongoCursor<BsonDocument> cursor) {
        try {
            cursor.close();
        } catch (RuntimeException failure) {
            System.err.println(failure);
        }
    }
}
