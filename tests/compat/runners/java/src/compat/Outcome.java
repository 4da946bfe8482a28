package compat;

import com.mongodb.MongoBulkWriteException;
import com.mongodb.MongoException;
import com.mongodb.MongoExecutionTimeoutException;
import com.mongodb.MongoServerException;
import com.mongodb.MongoSocketException;
import com.mongodb.MongoTimeoutException;
import com.mongodb.MongoWriteConcernException;
import com.mongodb.MongoWriteException;
import com.mongodb.bulk.BulkWriteError;
import com.mongodb.bulk.WriteConcernError;
import org.bson.BsonArray;
import org.bson.BsonDocument;
import org.bson.BsonInt32;
import org.bson.BsonNull;
import org.bson.BsonString;
import org.bson.BsonValue;

/** A step's result: a value, or the driver's exception in the contract's words. */
final class Outcome {
    private Outcome() {}

    static BsonDocument ok(BsonValue value) {
        return new BsonDocument("ok", value == null ? BsonNull.VALUE : value);
    }

    static BsonDocument error(RuntimeException failure) {
        System.err.println(failure);
        BsonDocument said = describe(failure);
        if (failure instanceof MongoException known && !known.getErrorLabels().isEmpty()) {
            BsonArray labels = new BsonArray();
            known.getErrorLabels().stream().sorted().map(BsonString::new).forEach(labels::add);
            said.append("labels", labels);
        }
        return new BsonDocument("error", said);
    }

    private static BsonDocument describe(RuntimeException failure) {
        if (failure instanceof MongoBulkWriteException bulk) {
            return describe(bulk);
        }
        if (failure instanceof MongoWriteException write) {
            return kind("write").append("code", new BsonInt32(write.getError().getCode()));
        }
        if (failure instanceof MongoWriteConcernException write) {
            return kind("write").append("writeConcernError", code(write.getWriteConcernError()));
        }
        if (failure instanceof MongoSocketException || failure instanceof MongoTimeoutException) {
            return kind("network");
        }
        if (failure instanceof MongoServerException refused) {
            return kind("command").append("code", new BsonInt32(refused.getCode()));
        }
        if (failure instanceof MongoExecutionTimeoutException refused) {
            return kind("command").append("code", new BsonInt32(refused.getCode()));
        }
        return kind("client");
    }

    private static BsonDocument describe(MongoBulkWriteException bulk) {
        BsonDocument said = kind("bulk");
        BsonArray errors = new BsonArray();
        for (BulkWriteError error : bulk.getWriteErrors()) {
            errors.add(new BsonDocument("index", new BsonInt32(error.getIndex()))
                    .append("code", new BsonInt32(error.getCode())));
        }
        if (!errors.isEmpty()) {
            said.append("writeErrors", errors);
        }
        if (bulk.getWriteConcernError() != null) {
            said.append("writeConcernError", code(bulk.getWriteConcernError()));
        }
        return said;
    }

    private static BsonDocument kind(String kind) {
        return new BsonDocument("kind", new BsonString(kind));
    }

    private static BsonDocument code(WriteConcernError error) {
        return new BsonDocument("code", new BsonInt32(error.getCode()));
    }
}
