package main

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const (
	tailableWait = time.Second
	streamWait   = 10 * time.Second
	poll         = 20 * time.Millisecond
)

// source is what cursors and change streams have in common.
type source interface {
	TryNext(context.Context) bool
	Decode(any) error
	Err() error
	Close(context.Context) error
	ID() int64
}

// failure is a cursor that the server refused. The driver opens cursors at once; others do it when
// they are first read, and there the protocol has the error.
type failure struct{ error }

func (failure) TryNext(context.Context) bool { return false }
func (f failure) Decode(any) error           { return f.error }
func (f failure) Err() error                 { return f.error }
func (failure) Close(context.Context) error  { return nil }
func (failure) ID() int64                    { return 0 }

// A cursor that waits is asked again for so long when it has nothing.
type cursor struct {
	source
	wait  time.Duration
	token *any
}

func (c cursor) next(ctx context.Context) (any, error) {
	for end := time.Now().Add(c.wait); ; time.Sleep(poll) {
		if c.TryNext(ctx) {
			var document bson.D
			err := c.Decode(&document)
			if err == nil && c.token != nil {
				*c.token = document[0].Value
			}
			return document, err
		}
		if c.Err() != nil {
			return nil, c.Err()
		}
		// Without a wait TryNext may have met an empty batch.
		done := c.ID() == 0 || (c.wait > 0 && time.Now().After(end))
		if done {
			return nil, nil
		}
	}
}

func (c *call) open(as string, opened cursor) (any, error) {
	c.scenario.Lock()
	defer c.scenario.Unlock()
	c.scenario.cursors[as] = opened
	return nil, nil
}

func (c *call) cursor(name string) (cursor, error) {
	c.scenario.Lock()
	defer c.scenario.Unlock()
	found, ok := c.scenario.cursors[name]
	if !ok {
		return found, fmt.Errorf("no cursor %q", name)
	}
	return found, nil
}

func openFind(c *call, on *mongo.Collection) (any, error) {
	as, wait := c.text("as"), time.Duration(0)
	for _, arg := range c.args {
		if arg.Key == "cursorType" && arg.Value != "exhaust" {
			wait = tailableWait
		}
	}
	if wait == 0 {
		c.take("cursorType")
	}
	found, err := on.Find(c.ctx, c.document("filter"), with[options.FindOptions](c.args))
	if err != nil {
		return c.open(as, cursor{source: failure{err}})
	}
	return c.open(as, cursor{source: found, wait: wait})
}

func openAggregate(c *call, on *mongo.Collection) (any, error) {
	as, pipeline := c.text("as"), c.list("pipeline")
	found, err := on.Aggregate(c.ctx, pipeline, with[options.AggregateOptions](c.args))
	if err != nil {
		return c.open(as, cursor{source: failure{err}})
	}
	return c.open(as, cursor{source: found})
}

func watch(c *call) (any, error) {
	as, pipeline, place := c.text("as"), c.list("pipeline"), c.text("on")
	if from := c.text("resumeFrom"); from != "" {
		resumed, err := c.cursor(from)
		if err != nil {
			return nil, err
		}
		c.args = append(c.args, bson.E{Key: "resumeAfter", Value: *resumed.token})
	}
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	database := client.Database(c.scenario.db)
	set := with[options.ChangeStreamOptions](c.args)
	var stream *mongo.ChangeStream
	switch place {
	case "cluster":
		stream, err = client.Watch(c.ctx, pipeline, set)
	case "database":
		stream, err = database.Watch(c.ctx, pipeline, set)
	default:
		var collection *mongo.Collection
		if collection, err = c.collection(); err == nil {
			stream, err = collection.Watch(c.ctx, pipeline, set)
		}
	}
	if err != nil {
		return nil, err
	}
	return c.open(as, cursor{source: stream, wait: streamWait, token: new(any)})
}

func next(c *call) (any, error) {
	found, err := c.cursor(c.text("cursor"))
	if err != nil {
		return nil, err
	}
	return found.next(c.ctx)
}

func closeCursor(c *call) (any, error) {
	found, err := c.cursor(c.text("cursor"))
	if err != nil {
		return nil, err
	}
	return nil, found.Close(c.ctx)
}
