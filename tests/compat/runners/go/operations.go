package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

type operation = func(*call) (any, error)

var operations map[string]operation

func init() { // not where it is declared: withTransaction comes back to it
	operations = map[string]operation{
		"insertOne":              onCollection(insertOne),
		"insertMany":             onCollection(insertMany),
		"find":                   onCollection(find),
		"findOne":                onCollection(findOne),
		"countDocuments":         onCollection(countDocuments),
		"estimatedDocumentCount": onCollection(estimatedDocumentCount),
		"distinct":               onCollection(distinct),
		"updateOne":              onCollection(updateOne),
		"updateMany":             onCollection(updateMany),
		"replaceOne":             onCollection(replaceOne),
		"deleteOne":              onCollection(deleteOne),
		"deleteMany":             onCollection(deleteMany),
		"findOneAndUpdate":       onCollection(findOneAndUpdate),
		"findOneAndReplace":      onCollection(findOneAndReplace),
		"findOneAndDelete":       onCollection(findOneAndDelete),
		"aggregate":              onCollection(aggregate),
		"bulkWrite":              onCollection(bulkWrite),
		"createIndex":            onCollection(createIndex),
		"listIndexes":            onCollection(listIndexes),
		"dropIndex":              onCollection(dropIndex),
		"drop":                   onCollection(drop),
		"rename":                 onCollection(rename),
		"openFind":               onCollection(openFind),
		"openAggregate":          onCollection(openAggregate),

		"runCommand":        onDatabase(runCommand),
		"adminCommand":      adminCommand,
		"aggregateDatabase": onDatabase(aggregateDatabase),
		"listCollections":   onDatabase(listCollections),
		"createCollection":  onDatabase(createCollection),
		"gridfsUpload":      onDatabase(gridfsUpload),
		"gridfsDownload":    onDatabase(gridfsDownload),
		"gridfsDelete":      onDatabase(gridfsDelete),

		"watch":        watch,
		"next":         next,
		"closeCursor":  closeCursor,
		"ping":         ping,
		"close":        func(c *call) (any, error) { return nil, c.scenario.clients.close(c.scenario.uri) },
		"sleep":        sleep,
		"concurrently": concurrently,

		"startSession":      startSession,
		"startTransaction":  startTransaction,
		"commitTransaction": inTransaction((*mongo.Session).CommitTransaction),
		"abortTransaction":  inTransaction((*mongo.Session).AbortTransaction),
		"endSession":        endSession,
		"withTransaction":   withTransaction,
	}
}

func onCollection(do func(*call, *mongo.Collection) (any, error)) operation {
	return func(c *call) (any, error) {
		collection, err := c.collection()
		if err != nil {
			return nil, err
		}
		return do(c, collection)
	}
}

func onDatabase(do func(*call, *mongo.Database) (any, error)) operation {
	return func(c *call) (any, error) {
		database, err := c.database()
		if err != nil {
			return nil, err
		}
		return do(c, database)
	}
}

var unacknowledged = bson.D{{Key: "acknowledged", Value: false}}

// ---- reads ---------------------------------------------------------------------------------

func all(ctx context.Context, cursor *mongo.Cursor, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	found := []bson.D{}
	err = cursor.All(ctx, &found)
	return found, err
}

func one(result *mongo.SingleResult) (any, error) {
	var document bson.D
	err := result.Decode(&document)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil
	}
	return document, err
}

func find(c *call, on *mongo.Collection) (any, error) {
	cursor, err := on.Find(c.ctx, c.document("filter"), with[options.FindOptions](c.args))
	return all(c.ctx, cursor, err)
}

func findOne(c *call, on *mongo.Collection) (any, error) {
	return one(on.FindOne(c.ctx, c.document("filter"), with[options.FindOneOptions](c.args)))
}

func countDocuments(c *call, on *mongo.Collection) (any, error) {
	return on.CountDocuments(c.ctx, c.document("filter"), with[options.CountOptions](c.args))
}

func estimatedDocumentCount(c *call, on *mongo.Collection) (any, error) {
	return on.EstimatedDocumentCount(c.ctx, with[options.EstimatedDocumentCountOptions](c.args))
}

func distinct(c *call, on *mongo.Collection) (any, error) {
	field, filter := c.text("fieldName"), c.document("filter")
	var found bson.A
	err := on.Distinct(c.ctx, field, filter, with[options.DistinctOptions](c.args)).Decode(&found)
	return found, err
}

func aggregate(c *call, on *mongo.Collection) (any, error) {
	pipeline := c.list("pipeline")
	cursor, err := on.Aggregate(c.ctx, pipeline, with[options.AggregateOptions](c.args))
	return all(c.ctx, cursor, err)
}

// ---- writes --------------------------------------------------------------------------------

func insertOne(c *call, on *mongo.Collection) (any, error) {
	document := c.take("document")
	result, err := on.InsertOne(c.ctx, document, with[options.InsertOneOptions](c.args))
	if err != nil {
		return nil, err
	}
	if !result.Acknowledged {
		return unacknowledged, nil
	}
	return bson.D{{Key: "insertedId", Value: result.InsertedID}}, nil
}

func insertMany(c *call, on *mongo.Collection) (any, error) {
	documents := c.list("documents")
	result, err := on.InsertMany(c.ctx, documents, with[options.InsertManyOptions](c.args))
	if err != nil {
		return nil, err
	}
	if !result.Acknowledged {
		return unacknowledged, nil
	}
	return bson.D{{Key: "insertedCount", Value: len(result.InsertedIDs)}}, nil
}

func updated(result *mongo.UpdateResult, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	if !result.Acknowledged {
		return unacknowledged, nil
	}
	counts := bson.D{
		{Key: "matchedCount", Value: result.MatchedCount},
		{Key: "modifiedCount", Value: result.ModifiedCount},
	}
	if result.UpsertedCount > 0 {
		counts = append(counts, bson.E{Key: "upsertedId", Value: result.UpsertedID})
	}
	return counts, nil
}

func updateOne(c *call, on *mongo.Collection) (any, error) {
	filter, update := c.document("filter"), c.take("update")
	return updated(on.UpdateOne(c.ctx, filter, update, with[options.UpdateOneOptions](c.args)))
}

func updateMany(c *call, on *mongo.Collection) (any, error) {
	filter, update := c.document("filter"), c.take("update")
	return updated(on.UpdateMany(c.ctx, filter, update, with[options.UpdateManyOptions](c.args)))
}

func replaceOne(c *call, on *mongo.Collection) (any, error) {
	filter, document := c.document("filter"), c.take("replacement")
	return updated(on.ReplaceOne(c.ctx, filter, document, with[options.ReplaceOptions](c.args)))
}

func deleted(result *mongo.DeleteResult, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	if !result.Acknowledged {
		return unacknowledged, nil
	}
	return bson.D{{Key: "deletedCount", Value: result.DeletedCount}}, nil
}

func deleteOne(c *call, on *mongo.Collection) (any, error) {
	filter := c.document("filter")
	return deleted(on.DeleteOne(c.ctx, filter, with[options.DeleteOneOptions](c.args)))
}

func deleteMany(c *call, on *mongo.Collection) (any, error) {
	filter := c.document("filter")
	return deleted(on.DeleteMany(c.ctx, filter, with[options.DeleteManyOptions](c.args)))
}

func findOneAndUpdate(c *call, on *mongo.Collection) (any, error) {
	filter, update := c.document("filter"), c.take("update")
	return one(on.FindOneAndUpdate(c.ctx, filter, update, with[options.FindOneAndUpdateOptions](c.args)))
}

func findOneAndReplace(c *call, on *mongo.Collection) (any, error) {
	filter, document := c.document("filter"), c.take("replacement")
	return one(on.FindOneAndReplace(c.ctx, filter, document, with[options.FindOneAndReplaceOptions](c.args)))
}

func findOneAndDelete(c *call, on *mongo.Collection) (any, error) {
	filter := c.document("filter")
	return one(on.FindOneAndDelete(c.ctx, filter, with[options.FindOneAndDeleteOptions](c.args)))
}

func writeModel(request any) (mongo.WriteModel, error) {
	document, ok := request.(bson.D)
	if !ok || len(document) != 1 {
		return nil, fmt.Errorf("a request of bulkWrite has one name")
	}
	var model mongo.WriteModel
	switch name := document[0].Key; name {
	case "insertOne":
		model = mongo.NewInsertOneModel()
	case "updateOne":
		model = mongo.NewUpdateOneModel()
	case "updateMany":
		model = mongo.NewUpdateManyModel()
	case "replaceOne":
		model = mongo.NewReplaceOneModel()
	case "deleteOne":
		model = mongo.NewDeleteOneModel()
	case "deleteMany":
		model = mongo.NewDeleteManyModel()
	default:
		return nil, unsupported("bulkWrite of " + name)
	}
	args, _ := document[0].Value.(bson.D)
	return model, fill(reflect.ValueOf(model).Elem(), args)
}

func bulkWrite(c *call, on *mongo.Collection) (any, error) {
	models := []mongo.WriteModel{}
	for _, request := range c.list("requests") {
		model, err := writeModel(request)
		if err != nil {
			return nil, err
		}
		models = append(models, model)
	}
	result, err := on.BulkWrite(c.ctx, models, with[options.BulkWriteOptions](c.args))
	if err != nil {
		return nil, err
	}
	if !result.Acknowledged {
		return unacknowledged, nil
	}
	ids := bson.D{}
	for _, i := range slices.Sorted(maps.Keys(result.UpsertedIDs)) {
		ids = append(ids, bson.E{Key: strconv.FormatInt(i, 10), Value: result.UpsertedIDs[i]})
	}
	return bson.D{
		{Key: "insertedCount", Value: result.InsertedCount},
		{Key: "matchedCount", Value: result.MatchedCount},
		{Key: "modifiedCount", Value: result.ModifiedCount},
		{Key: "deletedCount", Value: result.DeletedCount},
		{Key: "upsertedCount", Value: result.UpsertedCount},
		{Key: "upsertedIds", Value: ids},
	}, nil
}

// ---- collections, databases, the client ----------------------------------------------------

func createIndex(c *call, on *mongo.Collection) (any, error) {
	keys, set := c.take("keys"), options.Index()
	set.Opts = with[options.IndexOptions](c.args).List()
	return on.Indexes().CreateOne(c.ctx, mongo.IndexModel{Keys: keys, Options: set})
}

func listIndexes(c *call, on *mongo.Collection) (any, error) {
	cursor, err := on.Indexes().List(c.ctx)
	return all(c.ctx, cursor, err)
}

func dropIndex(c *call, on *mongo.Collection) (any, error) {
	return nil, on.Indexes().DropOne(c.ctx, c.text("name"))
}

func drop(c *call, on *mongo.Collection) (any, error) {
	return nil, on.Drop(c.ctx)
}

// The driver has no method for it; this is how its users do it.
func rename(c *call, on *mongo.Collection) (any, error) {
	prefix := on.Database().Name() + "."
	return nil, on.Database().Client().Database("admin").RunCommand(c.ctx, bson.D{
		{Key: "renameCollection", Value: prefix + on.Name()},
		{Key: "to", Value: prefix + c.text("to")},
	}).Err()
}

func runCommand(c *call, on *mongo.Database) (any, error) {
	set := options.RunCmd()
	found, err := newConcerns(c.step.ReadPreference, "", nil)
	if err != nil {
		return nil, err
	}
	if found.preference != nil {
		set.SetReadPreference(found.preference)
	}
	return one(on.RunCommand(c.ctx, c.take("command"), set))
}

func adminCommand(c *call) (any, error) {
	admin, err := c.databaseNamed("admin")
	if err != nil {
		return nil, err
	}
	return runCommand(c, admin)
}

func aggregateDatabase(c *call, on *mongo.Database) (any, error) {
	pipeline := c.list("pipeline")
	cursor, err := on.Aggregate(c.ctx, pipeline, with[options.AggregateOptions](c.args))
	return all(c.ctx, cursor, err)
}

func listCollections(c *call, on *mongo.Database) (any, error) {
	names, err := on.ListCollectionNames(c.ctx, c.document("filter"))
	slices.Sort(names)
	return names, err
}

func createCollection(c *call, on *mongo.Database) (any, error) {
	name := c.text("name")
	if source := c.text("viewOn"); source != "" {
		pipeline := c.list("pipeline")
		return nil, on.CreateView(c.ctx, name, source, pipeline, with[options.CreateViewOptions](c.args))
	}
	return nil, on.CreateCollection(c.ctx, name, with[options.CreateCollectionOptions](c.args))
}

func ping(c *call) (any, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	return nil, client.Ping(c.ctx, nil)
}

// ---- GridFS --------------------------------------------------------------------------------

func gridfsUpload(c *call, on *mongo.Database) (any, error) {
	data, err := base64.StdEncoding.DecodeString(c.text("dataBase64"))
	if err != nil {
		return nil, err
	}
	id, name, set := c.take("id"), c.text("filename"), with[options.GridFSUploadOptions](c.args)
	return nil, on.GridFSBucket().UploadFromStreamWithID(c.ctx, id, name, bytes.NewReader(data), set)
}

func gridfsDownload(c *call, on *mongo.Database) (any, error) {
	stream, err := on.GridFSBucket().OpenDownloadStream(c.ctx, c.take("id"))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	data, err := io.ReadAll(stream)
	return base64.StdEncoding.EncodeToString(data), err
}

func gridfsDelete(c *call, on *mongo.Database) (any, error) {
	return nil, on.GridFSBucket().Delete(c.ctx, c.take("id"))
}
