package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

// call is what one step is run with. Operations take the arguments that they name; those that are
// left become options.
type call struct {
	ctx      context.Context
	cancel   context.CancelFunc
	scenario *scenario
	step     step
	args     bson.D
}

func newCall(ctx context.Context, s *scenario, step step) (*call, error) {
	c := &call{ctx: ctx, cancel: func() {}, scenario: s, step: step}
	for name, text := range step.Args {
		if name == "steps" {
			continue
		}
		value, err := parsed(text)
		if err != nil {
			return nil, err
		}
		c.args = append(c.args, bson.E{Key: name, Value: value})
	}
	if step.Session != "" {
		session, err := s.session(step.Session)
		if err != nil {
			return nil, err
		}
		c.ctx = mongo.NewSessionContext(ctx, session)
	}
	// The driver has no such option: a deadline is how it is said.
	if limit_ms, ok := c.take("maxTimeMS").(int32); ok {
		c.ctx, c.cancel = context.WithTimeout(c.ctx, time.Duration(limit_ms)*time.Millisecond)
	}
	return c, nil
}

// take is nil where there is no such argument.
func (c *call) take(name string) any {
	for i, arg := range c.args {
		if arg.Key == name {
			c.args = append(c.args[:i:i], c.args[i+1:]...)
			return arg.Value
		}
	}
	return nil
}

func (c *call) text(name string) string {
	value, _ := c.take(name).(string)
	return value
}

func (c *call) document(name string) any {
	if value := c.take(name); value != nil {
		return value
	}
	return bson.D{}
}

func (c *call) list(name string) bson.A {
	value, _ := c.take(name).(bson.A)
	if value == nil {
		value = bson.A{}
	}
	return value
}

func (c *call) steps() ([]step, error) {
	var steps []step
	err := json.Unmarshal(c.step.Args["steps"], &steps)
	return steps, err
}

func (c *call) session() (*mongo.Session, error) {
	return c.scenario.session(c.text("session"))
}

func (c *call) client() (*mongo.Client, error) {
	return c.scenario.clients.get(c.scenario.uri)
}

// concerns is the part that the options of databases, collections and transactions share.
type concerns struct {
	read       *readconcern.ReadConcern
	write      *writeconcern.WriteConcern
	preference *readpref.ReadPref
}

func newConcerns(preference, read string, write json.RawMessage) (concerns, error) {
	var found concerns
	if preference != "" {
		mode, err := readpref.ModeFromString(preference)
		if err != nil {
			return found, err
		}
		if found.preference, err = readpref.New(mode); err != nil {
			return found, err
		}
	}
	if read != "" {
		found.read = &readconcern.ReadConcern{Level: read}
	}
	if len(write) > 0 {
		value, err := parsed(write)
		if err != nil {
			return found, err
		}
		document, ok := value.(bson.D)
		if !ok {
			return found, errors.New("writeConcern is no document")
		}
		found.write = &writeconcern.WriteConcern{}
		for _, field := range document {
			switch field.Key {
			case "w":
				if n, ok := field.Value.(int32); ok {
					found.write.W = int(n)
				} else {
					found.write.W = field.Value
				}
			case "j":
				journal, _ := field.Value.(bool)
				found.write.Journal = &journal
			} // wtimeout has gone from the driver
		}
	}
	return found, nil
}

func (c *call) database() (*mongo.Database, error) {
	return c.databaseNamed(c.scenario.db)
}

func (c *call) databaseNamed(name string) (*mongo.Database, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	found, err := newConcerns(c.step.ReadPreference, c.step.ReadConcern, c.step.WriteConcern)
	if err != nil {
		return nil, err
	}
	set := options.Database()
	if found.preference != nil {
		set.SetReadPreference(found.preference)
	}
	if found.read != nil {
		set.SetReadConcern(found.read)
	}
	if found.write != nil {
		set.SetWriteConcern(found.write)
	}
	return client.Database(name, set), nil
}

// collection has the concerns of its database.
func (c *call) collection() (*mongo.Collection, error) {
	name := c.step.Coll
	if name == "" {
		name = "people"
	}
	database, err := c.database()
	if err != nil {
		return nil, err
	}
	return database.Collection(name), nil
}
