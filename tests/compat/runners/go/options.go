package main

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

type unsupported string

func (what unsupported) Error() string { return string(what) }

// Arguments that the driver has under another name.
var renamed = map[string]string{
	"max":        "MaxDocuments",
	"size":       "SizeInBytes",
	"timeseries": "TimeSeriesOptions",
}

// with is the driver's options T, filled from arguments by name.
type with[T any] bson.D

func (args with[T]) List() []func(*T) error {
	return []func(*T) error{func(into *T) error {
		return fill(reflect.ValueOf(into).Elem(), bson.D(args))
	}}
}

// fill sets the fields of a struct.
func fill(into reflect.Value, args bson.D) error {
	for _, arg := range args {
		named := func(name string) reflect.Value {
			return into.FieldByNameFunc(func(field string) bool { return strings.EqualFold(field, name) })
		}
		field := named(strings.TrimSuffix(arg.Key, "MS"))
		if !field.IsValid() {
			field = named(renamed[arg.Key])
		}
		if !field.IsValid() {
			return unsupported(fmt.Sprintf("%s has no %s", into.Type(), arg.Key))
		}
		if err := assign(field, arg.Value); err != nil {
			return fmt.Errorf("%s: %w", arg.Key, err)
		}
	}
	return nil
}

func assign(field reflect.Value, value any) error {
	if field.Kind() == reflect.Interface {
		field.Set(reflect.ValueOf(value))
		return nil
	}
	if field.Kind() == reflect.Pointer {
		field.Set(reflect.New(field.Type().Elem()))
		field = field.Elem()
	}
	switch into := field.Addr().Interface().(type) {
	case *time.Duration:
		*into = time.Duration(reflect.ValueOf(value).Int()) * time.Millisecond
		return nil
	case *options.CursorType:
		*into = map[any]options.CursorType{
			"tailable":      options.Tailable,
			"tailableAwait": options.TailableAwait,
		}[value]
		return nil
	case *options.ReturnDocument:
		*into = map[any]options.ReturnDocument{
			"before": options.Before,
			"after":  options.After,
		}[value]
		return nil
	case *options.TimeSeriesOptionsBuilder:
		into.Opts = with[options.TimeSeriesOptions](value.(bson.D)).List()
		return nil
	}
	if document, ok := value.(bson.D); ok {
		return fill(field, document)
	}
	given := reflect.ValueOf(value)
	if !given.IsValid() || !given.CanConvert(field.Type()) {
		return fmt.Errorf("%T is no %s", value, field.Type())
	}
	field.Set(given.Convert(field.Type()))
	return nil
}
