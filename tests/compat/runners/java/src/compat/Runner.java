package compat;

import com.mongodb.ConnectionString;
import com.mongodb.MongoClientSettings;
import com.mongodb.client.MongoClient;
import com.mongodb.client.MongoClients;
import com.mongodb.internal.build.MongoDriverVersion;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.logging.Level;
import java.util.logging.Logger;
import java.util.stream.Stream;
import org.bson.BsonArray;
import org.bson.BsonBoolean;
import org.bson.BsonDocument;
import org.bson.BsonString;
import org.bson.json.JsonMode;
import org.bson.json.JsonWriterSettings;

/**
 * The runner for the synchronous Java driver: one JSON request per line in, one JSON answer per
 * line out. tests/compat/README.md is the contract.
 */
public final class Runner {
    private static final JsonWriterSettings CANONICAL =
            JsonWriterSettings.builder().outputMode(JsonMode.EXTENDED).build();

    /** One client for each uri, with its pool, over the requests. */
    private final Map<String, MongoClient> clients = new ConcurrentHashMap<>();

    private Runner() {}

    public static void main(String[] arguments) throws IOException {
        Logger.getLogger("org.mongodb.driver").setLevel(Level.WARNING);
        Runner runner = new Runner();
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        BufferedReader in =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            out.println(runner.answer(line).toJson(CANONICAL));
        }
        runner.clients.values().forEach(MongoClient::close);
    }

    private BsonDocument answer(String line) {
        try {
            BsonDocument request = BsonDocument.parse(line);
            return request.containsKey("describe") ? describe() : run(request);
        } catch (RuntimeException failure) {
            failure.printStackTrace();
            return new BsonDocument("results", new BsonArray())
                    .append("invalid", BsonBoolean.TRUE);
        }
    }

    private static BsonDocument describe() {
        List<BsonString> compressors =
                Stream.of("snappy", "zlib", "zstd").map(BsonString::new).toList();
        return new BsonDocument("driver", new BsonString("mongodb-driver-sync (Java)"))
                .append("version", new BsonString(MongoDriverVersion.VERSION))
                .append("compressors", new BsonArray(compressors));
    }

    private BsonDocument run(BsonDocument request) {
        BsonArray results = new BsonArray();
        try (Scenario scenario = new Scenario(this, new Args(request))) {
            for (BsonDocument step : new Args(request).documents("steps")) {
                results.add(scenario.step(step));
            }
        }
        return new BsonDocument("id", request.get("id")).append("results", results);
    }

    MongoClient client(String uri) {
        return clients.computeIfAbsent(uri, Runner::connect);
    }

    void close(String uri) {
        MongoClient client = clients.remove(uri);
        if (client != null) {
            client.close();
        }
    }

    private static MongoClient connect(String uri) {
        MongoClientSettings.Builder settings =
                MongoClientSettings.builder().applyConnectionString(new ConnectionString(uri));
        Tls.contextOf(uri).ifPresent(context ->
                settings.applyToSslSettings(tls -> tls.enabled(true).context(context)));
        return MongoClients.create(settings.build());
    }
}
