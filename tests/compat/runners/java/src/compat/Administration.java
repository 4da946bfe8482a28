package compat;

import com.mongodb.MongoNamespace;
import com.mongodb.client.ClientSession;
import com.mongodb.client.ListCollectionNamesIterable;
import com.mongodb.client.MongoCollection;
import com.mongodb.client.MongoDatabase;
import com.mongodb.client.model.ChangeStreamPreAndPostImagesOptions;
import com.mongodb.client.model.ClusteredIndexOptions;
import com.mongodb.client.model.CreateCollectionOptions;
import com.mongodb.client.model.CreateViewOptions;
import com.mongodb.client.model.IndexOptions;
import com.mongodb.client.model.TimeSeriesGranularity;
import com.mongodb.client.model.TimeSeriesOptions;
import com.mongodb.client.model.ValidationAction;
import com.mongodb.client.model.ValidationLevel;
import com.mongodb.client.model.ValidationOptions;
import java.util.List;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;
import org.bson.BsonArray;
import org.bson.BsonDocument;
import org.bson.BsonString;
import org.bson.BsonValue;

/** Collections, indexes and commands, for one step. session may be null. */
record Administration(MongoDatabase database, MongoCollection<BsonDocument> on, Args args,
        ClientSession session) {

    BsonValue createIndex() {
        IndexOptions options = new IndexOptions();
        args.text("name", options::name);
        args.flag("unique", options::unique);
        args.flag("sparse", options::sparse);
        args.flag("hidden", options::hidden);
        args.document("partialFilterExpression", options::partialFilterExpression);
        args.document("wildcardProjection", options::wildcardProjection);
        args.longNumber("expireAfterSeconds", s -> options.expireAfter(s, TimeUnit.SECONDS));
        args.collation(options::collation);
        BsonDocument keys = args.document("keys");
        return new BsonString(session == null
                ? on.createIndex(keys, options)
                : on.createIndex(session, keys, options));
    }

    BsonValue listIndexes() {
        return Reads.all(session == null
                ? on.listIndexes(BsonDocument.class)
                : on.listIndexes(session, BsonDocument.class));
    }

    BsonValue dropIndex() {
        if (session == null) {
            on.dropIndex(args.text("name"));
        } else {
            on.dropIndex(session, args.text("name"));
        }
        return null;
    }

    BsonValue drop() {
        if (session == null) {
            on.drop();
        } else {
            on.drop(session);
        }
        return null;
    }

    BsonValue rename() {
        MongoNamespace to = new MongoNamespace(database.getName(), args.text("to"));
        if (session == null) {
            on.renameCollection(to);
        } else {
            on.renameCollection(session, to);
        }
        return null;
    }

    BsonValue listCollections() {
        ListCollectionNamesIterable names = session == null
                ? database.listCollectionNames()
                : database.listCollectionNames(session);
        args.document("filter", names::filter);
        List<BsonString> sorted =
                names.into(new TreeSet<>()).stream().map(BsonString::new).toList();
        return new BsonArray(sorted);
    }

    /** The preference is an argument of the driver's method, not one of the database. */
    BsonValue runCommand(Args step) {
        BsonDocument command = args.document("command");
        if (!step.has("readPreference")) {
            return session == null
                    ? database.runCommand(command, BsonDocument.class)
                    : database.runCommand(session, command, BsonDocument.class);
        }
        BsonValue[] reply = new BsonValue[1];
        step.readPreference(preference -> reply[0] = session == null
                ? database.runCommand(command, preference, BsonDocument.class)
                : database.runCommand(session, command, preference, BsonDocument.class));
        return reply[0];
    }

    BsonValue createCollection() {
        if (args.has("viewOn")) {
            return createView();
        }
        CreateCollectionOptions options = new CreateCollectionOptions();
        args.flag("capped", options::capped);
        args.longNumber("size", options::sizeInBytes);
        args.longNumber("max", options::maxDocuments);
        args.document("storageEngine", options::storageEngineOptions);
        args.collation(options::collation);
        args.longNumber("expireAfterSeconds", s -> options.expireAfter(s, TimeUnit.SECONDS));
        args.document("timeseries", said -> options.timeSeriesOptions(timeSeries(new Args(said))));
        args.document("clusteredIndex",
                said -> options.clusteredIndexOptions(clustered(new Args(said))));
        args.document("changeStreamPreAndPostImages",
                said -> options.changeStreamPreAndPostImagesOptions(
                        new ChangeStreamPreAndPostImagesOptions(
                                said.getBoolean("enabled").getValue())));
        ValidationOptions validation = new ValidationOptions();
        args.document("validator", validation::validator);
        args.text("validationLevel",
                level -> validation.validationLevel(ValidationLevel.fromString(level)));
        args.text("validationAction",
                action -> validation.validationAction(ValidationAction.fromString(action)));
        options.validationOptions(validation);
        if (session == null) {
            database.createCollection(args.text("name"), options);
        } else {
            database.createCollection(session, args.text("name"), options);
        }
        return null;
    }

    private static TimeSeriesOptions timeSeries(Args said) {
        TimeSeriesOptions options = new TimeSeriesOptions(said.text("timeField"));
        said.text("metaField", options::metaField);
        said.text("granularity", name ->
                options.granularity(TimeSeriesGranularity.valueOf(name.toUpperCase())));
        return options;
    }

    private static ClusteredIndexOptions clustered(Args said) {
        boolean unique = said.value("unique").asBoolean().getValue();
        ClusteredIndexOptions options = new ClusteredIndexOptions(said.document("key"), unique);
        said.text("name", options::name);
        return options;
    }

    private BsonValue createView() {
        CreateViewOptions options = new CreateViewOptions();
        args.collation(options::collation);
        String name = args.text("name");
        String source = args.text("viewOn");
        List<BsonDocument> pipeline =
                args.has("pipeline") ? args.documents("pipeline") : List.of();
        if (session == null) {
            database.createView(name, source, pipeline, options);
        } else {
            database.createView(session, name, source, pipeline, options);
        }
        return null;
    }
}
