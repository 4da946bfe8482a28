package compat;

import com.mongodb.ReadConcern;
import com.mongodb.ReadConcernLevel;
import com.mongodb.ReadPreference;
import com.mongodb.WriteConcern;
import com.mongodb.client.model.Collation;
import com.mongodb.client.model.CollationAlternate;
import com.mongodb.client.model.CollationCaseFirst;
import com.mongodb.client.model.CollationMaxVariable;
import com.mongodb.client.model.CollationStrength;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.IntConsumer;
import java.util.function.LongConsumer;
import org.bson.BsonArray;
import org.bson.BsonDocument;
import org.bson.BsonNumber;
import org.bson.BsonValue;
import org.bson.conversions.Bson;

/** Arguments of a step. The methods with a consumer do nothing when there is no such argument. */
record Args(BsonDocument from) {
    boolean has(String name) {
        return from.containsKey(name);
    }

    BsonValue value(String name) {
        if (!has(name)) {
            throw new IllegalArgumentException("no " + name);
        }
        return from.get(name);
    }

    String text(String name) {
        return value(name).asString().getValue();
    }

    String textOr(String name, String otherwise) {
        return has(name) ? text(name) : otherwise;
    }

    BsonDocument document(String name) {
        return value(name).asDocument();
    }

    /** A filter may be left out. */
    BsonDocument filter() {
        return has("filter") ? document("filter") : new BsonDocument();
    }

    List<BsonDocument> documents(String name) {
        return documents(value(name).asArray());
    }

    private static List<BsonDocument> documents(BsonArray array) {
        List<BsonDocument> found = new ArrayList<>();
        array.forEach(item -> found.add(item.asDocument()));
        return found;
    }

    boolean isPipeline() {
        return value("update").isArray();
    }

    int number(String name) {
        return value(name).asNumber().intValue();
    }

    private BsonNumber numeric(String name) {
        return from.get(name).asNumber();
    }

    void document(String name, Consumer<? super BsonDocument> use) {
        if (has(name)) {
            use.accept(document(name));
        }
    }

    void documents(String name, Consumer<? super List<BsonDocument>> use) {
        if (has(name)) {
            use.accept(documents(name));
        }
    }

    void value(String name, Consumer<? super BsonValue> use) {
        if (has(name)) {
            use.accept(value(name));
        }
    }

    void text(String name, Consumer<String> use) {
        if (has(name)) {
            use.accept(text(name));
        }
    }

    void flag(String name, Consumer<Boolean> use) {
        if (has(name)) {
            use.accept(value(name).asBoolean().getValue());
        }
    }

    void number(String name, IntConsumer use) {
        if (has(name)) {
            use.accept(numeric(name).intValue());
        }
    }

    void longNumber(String name, LongConsumer use) {
        if (has(name)) {
            use.accept(numeric(name).longValue());
        }
    }

    void hint(Consumer<Bson> keys, Consumer<String> indexName) {
        if (has("hint") && value("hint").isString()) {
            indexName.accept(text("hint"));
        } else {
            document("hint", keys);
        }
    }

    void collation(Consumer<Collation> use) {
        if (!has("collation")) {
            return;
        }
        Args said = new Args(document("collation"));
        Collation.Builder built = Collation.builder();
        said.text("locale", built::locale);
        said.number("strength", n -> built.collationStrength(CollationStrength.fromInt(n)));
        said.flag("caseLevel", built::caseLevel);
        said.text("caseFirst", s -> built.collationCaseFirst(CollationCaseFirst.fromString(s)));
        said.flag("numericOrdering", built::numericOrdering);
        said.text("alternate", s -> built.collationAlternate(CollationAlternate.fromString(s)));
        said.text(
                "maxVariable", s -> built.collationMaxVariable(CollationMaxVariable.fromString(s)));
        said.flag("normalization", built::normalization);
        said.flag("backwards", built::backwards);
        use.accept(built.build());
    }

    void readPreference(Consumer<ReadPreference> use) {
        text("readPreference", mode -> use.accept(ReadPreference.valueOf(mode)));
    }

    void readConcern(Consumer<ReadConcern> use) {
        text("readConcern",
                level -> use.accept(new ReadConcern(ReadConcernLevel.fromString(level))));
    }

    void writeConcern(Consumer<WriteConcern> use) {
        if (!has("writeConcern")) {
            return;
        }
        Args said = new Args(document("writeConcern"));
        WriteConcern concern = WriteConcern.ACKNOWLEDGED;
        if (said.has("w")) {
            concern = said.value("w").isString()
                    ? new WriteConcern(said.text("w"))
                    : new WriteConcern(said.number("w"));
        }
        if (said.has("j")) {
            concern = concern.withJournal(said.value("j").asBoolean().getValue());
        }
        if (said.has("wtimeoutMS")) {
            concern = concern.withWTimeout(said.number("wtimeoutMS"), TimeUnit.MILLISECONDS);
        }
        use.accept(concern);
    }
}
