package compat;

import com.mongodb.client.ClientSession;
import com.mongodb.client.gridfs.GridFSBucket;
import com.mongodb.client.gridfs.model.GridFSUploadOptions;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.util.Base64;
import org.bson.BsonString;
import org.bson.BsonValue;

/** GridFS operations, for one step. session may be null. */
record Files(GridFSBucket bucket, Args args, ClientSession session) {
    BsonValue upload() {
        InputStream data =
                new ByteArrayInputStream(Base64.getDecoder().decode(args.text("dataBase64")));
        GridFSUploadOptions options = new GridFSUploadOptions();
        args.number("chunkSizeBytes", options::chunkSizeBytes);
        if (session == null) {
            bucket.uploadFromStream(args.value("id"), args.text("filename"), data, options);
        } else {
            bucket.uploadFromStream(
                    session, args.value("id"), args.text("filename"), data, options);
        }
        return null;
    }

    BsonValue download() {
        ByteArrayOutputStream data = new ByteArrayOutputStream();
        if (session == null) {
            bucket.downloadToStream(args.value("id"), data);
        } else {
            bucket.downloadToStream(session, args.value("id"), data);
        }
        return new BsonString(Base64.getEncoder().encodeToString(data.toByteArray()));
    }

    BsonValue delete() {
        if (session == null) {
            bucket.delete(args.value("id"));
        } else {
            bucket.delete(session, args.value("id"));
        }
        return null;
    }
}
