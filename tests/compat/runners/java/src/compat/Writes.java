package compat;

import com.mongodb.bulk.BulkWriteResult;
import com.mongodb.bulk.BulkWriteUpsert;
import com.mongodb.client.ClientSession;
import com.mongodb.client.MongoCollection;
import com.mongodb.client.model.BulkWriteOptions;
import com.mongodb.client.model.DeleteManyModel;
import com.mongodb.client.model.DeleteOneModel;
import com.mongodb.client.model.DeleteOptions;
import com.mongodb.client.model.FindOneAndDeleteOptions;
import com.mongodb.client.model.FindOneAndReplaceOptions;
import com.mongodb.client.model.FindOneAndUpdateOptions;
import com.mongodb.client.model.InsertManyOptions;
import com.mongodb.client.model.InsertOneModel;
import com.mongodb.client.model.ReplaceOneModel;
import com.mongodb.client.model.ReplaceOptions;
import com.mongodb.client.model.ReturnDocument;
import com.mongodb.client.model.UpdateManyModel;
import com.mongodb.client.model.UpdateOneModel;
import com.mongodb.client.model.UpdateOptions;
import com.mongodb.client.model.WriteModel;
import com.mongodb.client.result.DeleteResult;
import com.mongodb.client.result.InsertManyResult;
import com.mongodb.client.result.InsertOneResult;
import com.mongodb.client.result.UpdateResult;
import java.util.List;
import org.bson.BsonBoolean;
import org.bson.BsonDocument;
import org.bson.BsonInt32;
import org.bson.BsonValue;

/** Writing operations of a collection, for one step. session may be null. */
record Writes(MongoCollection<BsonDocument> on, Args args, ClientSession session) {
    private static BsonDocument unacknowledged() {
        return new BsonDocument("acknowledged", BsonBoolean.FALSE);
    }

    /** An int, as in the other drivers' results. */
    private static BsonInt32 count(long n) {
        return new BsonInt32(Math.toIntExact(n));
    }

    BsonValue insertOne() {
        BsonDocument document = args.document("document");
        InsertOneResult result =
                session == null ? on.insertOne(document) : on.insertOne(session, document);
        return result.wasAcknowledged()
                ? new BsonDocument("insertedId", result.getInsertedId())
                : unacknowledged();
    }

    BsonValue insertMany() {
        List<BsonDocument> documents = args.documents("documents");
        InsertManyOptions options = new InsertManyOptions();
        args.flag("ordered", options::ordered);
        InsertManyResult result = session == null
                ? on.insertMany(documents, options)
                : on.insertMany(session, documents, options);
        return result.wasAcknowledged()
                ? new BsonDocument("insertedCount", new BsonInt32(result.getInsertedIds().size()))
                : unacknowledged();
    }

    private UpdateOptions updateOptions() {
        UpdateOptions options = new UpdateOptions();
        args.flag("upsert", options::upsert);
        args.documents("arrayFilters", options::arrayFilters);
        args.collation(options::collation);
        args.hint(options::hint, options::hintString);
        args.document("let", options::let);
        return options;
    }

    private ReplaceOptions replaceOptions() {
        ReplaceOptions options = new ReplaceOptions();
        args.flag("upsert", options::upsert);
        args.collation(options::collation);
        args.hint(options::hint, options::hintString);
        return options;
    }

    private DeleteOptions deleteOptions() {
        DeleteOptions options = new DeleteOptions();
        args.collation(options::collation);
        args.hint(options::hint, options::hintString);
        return options;
    }

    private static BsonValue said(UpdateResult result) {
        if (!result.wasAcknowledged()) {
            return unacknowledged();
        }
        BsonDocument said = new BsonDocument()
                .append("matchedCount", count(result.getMatchedCount()))
                .append("modifiedCount", count(result.getModifiedCount()));
        if (result.getUpsertedId() != null) {
            said.append("upsertedId", result.getUpsertedId());
        }
        return said;
    }

    BsonValue updateOne() {
        BsonDocument filter = args.filter();
        UpdateOptions options = updateOptions();
        if (args.isPipeline()) {
            List<BsonDocument> update = args.documents("update");
            return said(session == null
                    ? on.updateOne(filter, update, options)
                    : on.updateOne(session, filter, update, options));
        }
        BsonDocument update = args.document("update");
        return said(session == null
                ? on.updateOne(filter, update, options)
                : on.updateOne(session, filter, update, options));
    }

    BsonValue updateMany() {
        BsonDocument filter = args.filter();
        UpdateOptions options = updateOptions();
        if (args.isPipeline()) {
            List<BsonDocument> update = args.documents("update");
            return said(session == null
                    ? on.updateMany(filter, update, options)
                    : on.updateMany(session, filter, update, options));
        }
        BsonDocument update = args.document("update");
        return said(session == null
                ? on.updateMany(filter, update, options)
                : on.updateMany(session, filter, update, options));
    }

    BsonValue replaceOne() {
        BsonDocument replacement = args.document("replacement");
        return said(session == null
                ? on.replaceOne(args.filter(), replacement, replaceOptions())
                : on.replaceOne(session, args.filter(), replacement, replaceOptions()));
    }

    private static BsonValue said(DeleteResult result) {
        return result.wasAcknowledged()
                ? new BsonDocument("deletedCount", count(result.getDeletedCount()))
                : unacknowledged();
    }

    BsonValue deleteOne() {
        return said(session == null
                ? on.deleteOne(args.filter(), deleteOptions())
                : on.deleteOne(session, args.filter(), deleteOptions()));
    }

    BsonValue deleteMany() {
        return said(session == null
                ? on.deleteMany(args.filter(), deleteOptions())
                : on.deleteMany(session, args.filter(), deleteOptions()));
    }

    private ReturnDocument returned() {
        boolean after = args.textOr("returnDocument", "before").equals("after");
        return after ? ReturnDocument.AFTER : ReturnDocument.BEFORE;
    }

    BsonValue findOneAndUpdate() {
        BsonDocument filter = args.filter();
        FindOneAndUpdateOptions options = new FindOneAndUpdateOptions().returnDocument(returned());
        args.document("projection", options::projection);
        args.document("sort", options::sort);
        args.flag("upsert", options::upsert);
        args.documents("arrayFilters", options::arrayFilters);
        args.collation(options::collation);
        args.hint(options::hint, options::hintString);
        args.document("let", options::let);
        if (args.isPipeline()) {
            List<BsonDocument> update = args.documents("update");
            return session == null
                    ? on.findOneAndUpdate(filter, update, options)
                    : on.findOneAndUpdate(session, filter, update, options);
        }
        BsonDocument update = args.document("update");
        return session == null
                ? on.findOneAndUpdate(filter, update, options)
                : on.findOneAndUpdate(session, filter, update, options);
    }

    BsonValue findOneAndReplace() {
        BsonDocument replacement = args.document("replacement");
        FindOneAndReplaceOptions options =
                new FindOneAndReplaceOptions().returnDocument(returned());
        args.document("projection", options::projection);
        args.document("sort", options::sort);
        args.flag("upsert", options::upsert);
        args.collation(options::collation);
        args.hint(options::hint, options::hintString);
        return session == null
                ? on.findOneAndReplace(args.filter(), replacement, options)
                : on.findOneAndReplace(session, args.filter(), replacement, options);
    }

    BsonValue findOneAndDelete() {
        FindOneAndDeleteOptions options = new FindOneAndDeleteOptions();
        args.document("projection", options::projection);
        args.document("sort", options::sort);
        args.collation(options::collation);
        args.hint(options::hint, options::hintString);
        return session == null
                ? on.findOneAndDelete(args.filter(), options)
                : on.findOneAndDelete(session, args.filter(), options);
    }

    private static WriteModel<BsonDocument> model(BsonDocument request) {
        String kind = request.getFirstKey();
        Args args = new Args(request.getDocument(kind));
        Writes with = new Writes(null, args, null);
        return switch (kind) {
            case "insertOne" -> new InsertOneModel<>(args.document("document"));
            case "updateOne" -> args.isPipeline()
                    ? new UpdateOneModel<>(
                            args.filter(), args.documents("update"), with.updateOptions())
                    : new UpdateOneModel<>(
                            args.filter(), args.document("update"), with.updateOptions());
            case "updateMany" -> args.isPipeline()
                    ? new UpdateManyModel<>(
                            args.filter(), args.documents("update"), with.updateOptions())
                    : new UpdateManyModel<>(
                            args.filter(), args.document("update"), with.updateOptions());
            case "replaceOne" -> new ReplaceOneModel<>(
                    args.filter(), args.document("replacement"), with.replaceOptions());
            case "deleteOne" -> new DeleteOneModel<>(args.filter(), with.deleteOptions());
            case "deleteMany" -> new DeleteManyModel<>(args.filter(), with.deleteOptions());
            default -> throw new IllegalArgumentException("no request " + kind);
        };
    }

    BsonValue bulkWrite() {
        BulkWriteOptions options = new BulkWriteOptions();
        args.flag("ordered", options::ordered);
        List<WriteModel<BsonDocument>> models =
                args.documents("requests").stream().map(Writes::model).toList();
        BulkWriteResult result = session == null
                ? on.bulkWrite(models, options)
                : on.bulkWrite(session, models, options);
        if (!result.wasAcknowledged()) {
            return unacknowledged();
        }
        BsonDocument ids = new BsonDocument();
        for (BulkWriteUpsert upsert : result.getUpserts()) {
            ids.append(Integer.toString(upsert.getIndex()), upsert.getId());
        }
        return new BsonDocument("insertedCount", new BsonInt32(result.getInsertedCount()))
                .append("matchedCount", new BsonInt32(result.getMatchedCount()))
                .append("modifiedCount", new BsonInt32(result.getModifiedCount()))
                .append("deletedCount", new BsonInt32(result.getDeletedCount()))
                .append("upsertedCount", new BsonInt32(result.getUpserts().size()))
                .append("upsertedIds", ids);
    }
}
