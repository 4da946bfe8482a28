package main

import (
	"errors"
	"slices"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/topology"
)

type object = map[string]any

// describe is an error as the protocol has it.
func describe(err error) object {
	var (
		command mongo.CommandError
		write   mongo.WriteException
		bulk    mongo.BulkWriteException
	)
	described := object{}
	var labels []string
	var concern *mongo.WriteConcernError
	switch {
	case errors.As(err, &bulk):
		described["kind"] = "bulk"
		labels, concern = bulk.Labels, bulk.WriteConcernError
		entries := []object{}
		for _, entry := range bulk.WriteErrors {
			entries = append(entries, object{"index": entry.Index, "code": entry.Code})
		}
		if len(entries) > 0 {
			described["writeErrors"] = entries
		}
	case errors.As(err, &write):
		described["kind"] = "write"
		labels, concern = write.Labels, write.WriteConcernError
		if len(write.WriteErrors) > 0 {
			described["code"] = write.WriteErrors[0].Code
		}
	case errors.As(err, &command):
		described["kind"] = "command"
		labels = command.Labels
		if isNetwork(err) {
			described["kind"] = "network"
		}
		if command.Code != 0 {
			described["code"] = command.Code
		}
	case isNetwork(err):
		described["kind"] = "network"
	default:
		described["kind"] = "client"
	}
	if len(labels) > 0 {
		described["labels"] = slices.Sorted(slices.Values(labels))
	}
	if concern != nil {
		described["writeConcernError"] = object{"code": concern.Code}
	}
	return object{"error": described}
}

func isNetwork(err error) bool {
	var selection topology.ServerSelectionError
	var connection topology.ConnectionError
	return mongo.IsNetworkError(err) || errors.As(err, &selection) || errors.As(err, &connection)
}
