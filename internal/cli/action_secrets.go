package cli

import (
	"reflect"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/secret"
)

// mask lets the runner hide every secret that the configuration names, before
// any of them is used. One that cannot be read is told by who needs it.
func (a *app) mask(cfg *config.Config) {
	for _, s := range sources(reflect.ValueOf(cfg), nil) {
		if v, err := s.Read(a.Getenv); err == nil {
			a.step.Mask(v)
		}
	}
}

// sources returns every place of a secret in a value, however deep.
func sources(v reflect.Value, found []secret.Source) []secret.Source {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			found = sources(v.Elem(), found)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[secret.Source]() {
			if s := (secret.Source{Env: v.Field(0).String(), File: v.Field(1).String()}); !s.IsZero() {
				found = append(found, s)
			}
			return found
		}
		for i := range v.NumField() {
			found = sources(v.Field(i), found)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			found = sources(v.Index(i), found)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			found = sources(v.MapIndex(key), found)
		}
	}
	return found
}
