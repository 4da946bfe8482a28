package main

import (
	"context"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

func startSession(c *call) (any, error) {
	as := c.text("as")
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	session, err := client.StartSession(with[options.SessionOptions](c.args))
	if err != nil {
		return nil, err
	}
	c.scenario.Lock()
	defer c.scenario.Unlock()
	c.scenario.sessions[as] = session
	return nil, nil
}

func startTransaction(c *call) (any, error) {
	session, err := c.session()
	if err != nil {
		return nil, err
	}
	found, err := newConcerns(c.text("readPreference"), c.text("readConcern"), c.step.Args["writeConcern"])
	if err != nil {
		return nil, err
	}
	set := options.Transaction()
	if found.preference != nil {
		set.SetReadPreference(found.preference)
	}
	if found.read != nil {
		set.SetReadConcern(found.read)
	}
	if found.write != nil {
		set.SetWriteConcern(found.write)
	}
	return nil, session.StartTransaction(set)
}

func inTransaction(end func(*mongo.Session, context.Context) error) operation {
	return func(c *call) (any, error) {
		session, err := c.session()
		if err != nil {
			return nil, err
		}
		return nil, end(session, c.ctx)
	}
}

func endSession(c *call) (any, error) {
	name := c.text("session")
	session, err := c.scenario.session(name)
	if err != nil {
		return nil, err
	}
	session.EndSession(c.ctx)
	c.scenario.Lock()
	defer c.scenario.Unlock()
	delete(c.scenario.sessions, name)
	return nil, nil
}

func withTransaction(c *call) (any, error) {
	session, err := c.session()
	if err != nil {
		return nil, err
	}
	steps, err := c.steps()
	if err != nil {
		return nil, err
	}
	return session.WithTransaction(c.ctx, func(ctx context.Context) (any, error) {
		found := results{}
		for _, step := range steps {
			step.Session = "" // it is in the context
			value, err := c.scenario.run(ctx, step)
			if err != nil {
				return nil, err
			}
			found = append(found, map[string]any{"ok": value})
		}
		return found, nil
	})
}

func sleep(c *call) (any, error) {
	ms, _ := c.take("ms").(int32)
	time.Sleep(time.Duration(ms) * time.Millisecond)
	return nil, nil
}

func concurrently(c *call) (any, error) {
	steps, err := c.steps()
	if err != nil {
		return nil, err
	}
	found := make(results, len(steps))
	var running sync.WaitGroup
	for i, step := range steps {
		running.Go(func() { found[i] = c.scenario.result(c.ctx, step) })
	}
	running.Wait()
	return found, nil
}
