// The runner of the Go driver: see tests/compat/README.md..
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"runtime/debug"
	"strings"
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const module = "go.mongodb.org/mongo-driver/v2"

type step struct {
	Op             string                     `json:"op"`
	Args           map[string]json.RawMessage `json:"args"`
	Coll           string                     `json:"coll"`
	Session        string                     `json:"session"`
	ReadPreference string                     `json:"readPreference"`
	ReadConcern    string                     `json:"readConcern"`
	WriteConcern   json.RawMessage            `json:"writeConcern"`
}

type request struct {
	Describe bool   `json:"describe"`
	ID       string `json:"id"`
	URI      string `json:"uri"`
	DB       string `json:"db"`
	Steps    []step `json:"steps"`
}

// results are those of steps inside of a step: JSON already.
type results []any

// clients lives as long as the process: one for each uri.
type clients struct {
	sync.Mutex
	of map[string]*mongo.Client
}

func (c *clients) get(uri string) (*mongo.Client, error) {
	c.Lock()
	defer c.Unlock()
	if client, ok := c.of[uri]; ok {
		return client, nil
	}
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err == nil {
		c.of[uri] = client
	}
	return client, err
}

func (c *clients) close(uri string) error {
	c.Lock()
	defer c.Unlock()
	client, ok := c.of[uri]
	delete(c.of, uri)
	if !ok {
		return nil
	}
	return client.Disconnect(context.Background())
}

type scenario struct {
	clients *clients
	uri, db string

	sync.Mutex // guards the maps: steps may run at once
	cursors    map[string]cursor
	sessions   map[string]*mongo.Session
}

func (s *scenario) session(name string) (*mongo.Session, error) {
	s.Lock()
	defer s.Unlock()
	session, ok := s.sessions[name]
	if !ok {
		return nil, fmt.Errorf("no session %q", name)
	}
	return session, nil
}

// result never fails: an error is a step's result, too.
func (s *scenario) result(ctx context.Context, step step) any {
	value, err := s.run(ctx, step)
	var missing unsupported
	if errors.As(err, &missing) {
		return bson.M{"unsupported": missing.Error()}
	}
	if err != nil {
		log.Printf("%s: %T: %v", step.Op, err, err)
		return describe(err)
	}
	return map[string]any{"ok": value}
}

func (s *scenario) run(ctx context.Context, step step) (any, error) {
	operation, ok := operations[step.Op]
	if !ok {
		return nil, unsupported("no operation " + step.Op)
	}
	call, err := newCall(ctx, s, step)
	if err != nil {
		return nil, err
	}
	defer call.cancel()
	value, err := operation(call)
	if err != nil {
		return nil, err
	}
	if nested, ok := value.(results); ok {
		return nested, nil
	}
	return canonical(value)
}

func (s *scenario) finish() {
	ctx := context.Background()
	for _, cursor := range s.cursors {
		if err := cursor.Close(ctx); err != nil {
			log.Print(err)
		}
	}
	for _, session := range s.sessions {
		session.EndSession(ctx)
	}
}

// canonical is a value as canonical Extended JSON.
func canonical(value any) (json.RawMessage, error) {
	text, err := bson.MarshalExtJSON(bson.D{{Key: "v", Value: value}}, true, false)
	if err != nil {
		return nil, err
	}
	var document struct{ V json.RawMessage }
	err = json.Unmarshal(text, &document)
	return document.V, err
}

// parsed is a value out of Extended JSON.
func parsed(text json.RawMessage) (any, error) {
	var document bson.D
	whole := append(append([]byte(`{"v":`), text...), '}')
	if err := bson.UnmarshalExtJSON(whole, false, &document); err != nil {
		return nil, err
	}
	return document[0].Value, nil
}

func answer(clients *clients, line []byte) any {
	var asked request
	if err := json.Unmarshal(line, &asked); err != nil {
		log.Fatal(err)
	}
	if asked.Describe {
		return map[string]any{
			"driver":      "Go",
			"version":     version(),
			"compressors": []string{"snappy", "zlib", "zstd"},
		}
	}
	s := &scenario{
		clients:  clients,
		uri:      asked.URI,
		db:       asked.DB,
		cursors:  map[string]cursor{},
		sessions: map[string]*mongo.Session{},
	}
	defer s.finish()
	found := results{}
	for _, step := range asked.Steps {
		found = append(found, s.result(context.Background(), step))
	}
	return map[string]any{"id": asked.ID, "results": found}
}

func version() string {
	build, _ := debug.ReadBuildInfo()
	for _, dependency := range build.Deps {
		if dependency.Path == module {
			return strings.TrimPrefix(dependency.Version, "v")
		}
	}
	return "unknown"
}

func main() {
	clients := &clients{of: map[string]*mongo.Client{}}
	lines := bufio.NewReader(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		if err := out.Encode(answer(clients, line)); err != nil {
			log.Fatal(err)
		}
	}
	for uri := range clients.of {
		if err := clients.close(uri); err != nil {
			log.Print(err)
		}
	}
}
