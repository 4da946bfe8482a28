package compat;

import com.mongodb.CursorType;
import com.mongodb.client.AggregateIterable;
import com.mongodb.client.ClientSession;
import com.mongodb.client.DistinctIterable;
import com.mongodb.client.FindIterable;
import com.mongodb.client.MongoCollection;
import com.mongodb.client.MongoDatabase;
import com.mongodb.client.model.CountOptions;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.bson.BsonArray;
import org.bson.BsonDocument;
import org.bson.BsonInt64;
import org.bson.BsonValue;

/** Reading operations. session may be null; the driver's methods then have one argument less. */
final class Reads {
    private Reads() {}

    static FindIterable<BsonDocument> find(
            MongoCollection<BsonDocument> on, Args args, ClientSession session) {
        FindIterable<BsonDocument> find =
                session == null ? on.find(args.filter()) : on.find(session, args.filter());
        args.document("projection", find::projection);
        args.document("sort", find::sort);
        args.number("skip", find::skip);
        args.number("limit", find::limit);
        args.number("batchSize", find::batchSize);
        args.collation(find::collation);
        args.hint(find::hint, find::hintString);
        args.document("let", find::let);
        args.value("comment", find::comment);
        args.flag("allowDiskUse", find::allowDiskUse);
        args.document("min", find::min);
        args.document("max", find::max);
        args.flag("returnKey", find::returnKey);
        args.flag("showRecordId", find::showRecordId);
        args.flag("noCursorTimeout", find::noCursorTimeout);
        args.flag("allowPartialResults", find::partial);
        args.longNumber("maxTimeMS", ms -> find.maxTime(ms, TimeUnit.MILLISECONDS));
        args.longNumber("maxAwaitTimeMS", ms -> find.maxAwaitTime(ms, TimeUnit.MILLISECONDS));
        args.text("cursorType", type -> find.cursorType(cursorType(type)));
        return find;
    }

    private static CursorType cursorType(String name) {
        return switch (name) {
            case "tailable" -> CursorType.Tailable;
            case "tailableAwait" -> CursorType.TailableAwait;
            default -> CursorType.NonTailable;
        };
    }

    static AggregateIterable<BsonDocument> aggregate(
            MongoCollection<BsonDocument> on, Args args, ClientSession session) {
        List<BsonDocument> pipeline = args.documents("pipeline");
        return with(args,
                session == null ? on.aggregate(pipeline) : on.aggregate(session, pipeline));
    }

    static AggregateIterable<BsonDocument> aggregate(
            MongoDatabase on, Args args, ClientSession session) {
        List<BsonDocument> pipeline = args.documents("pipeline");
        return with(args, session == null
                ? on.aggregate(pipeline, BsonDocument.class)
                : on.aggregate(session, pipeline, BsonDocument.class));
    }

    private static AggregateIterable<BsonDocument> with(
            Args args, AggregateIterable<BsonDocument> aggregate) {
        args.number("batchSize", aggregate::batchSize);
        args.flag("allowDiskUse", aggregate::allowDiskUse);
        args.document("let", aggregate::let);
        args.collation(aggregate::collation);
        args.hint(aggregate::hint, aggregate::hintString);
        args.value("comment", aggregate::comment);
        args.longNumber("maxTimeMS", ms -> aggregate.maxTime(ms, TimeUnit.MILLISECONDS));
        return aggregate;
    }

    static BsonValue all(Iterable<? extends BsonValue> found) {
        List<BsonValue> list = new ArrayList<>();
        found.forEach(list::add);
        return new BsonArray(list);
    }

    static BsonValue countDocuments(
            MongoCollection<BsonDocument> on, Args args, ClientSession session) {
        CountOptions options = new CountOptions();
        args.number("skip", options::skip);
        args.number("limit", options::limit);
        args.hint(options::hint, options::hintString);
        args.collation(options::collation);
        return new BsonInt64(session == null
                ? on.countDocuments(args.filter(), options)
                : on.countDocuments(session, args.filter(), options));
    }

    static BsonValue distinct(MongoCollection<BsonDocument> on, Args args, ClientSession session) {
        String name = args.text("fieldName");
        DistinctIterable<BsonValue> distinct = session == null
                ? on.distinct(name, args.filter(), BsonValue.class)
                : on.distinct(session, name, args.filter(), BsonValue.class);
        args.collation(distinct::collation);
        return all(distinct);
    }
}
