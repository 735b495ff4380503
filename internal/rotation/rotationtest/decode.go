package rotationtest

import (
	"bytes"
	"reflect"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/secret"
)

// Decoder decodes a backend's section strictly, and the places of secrets as the
// configuration does.
func Decoder(text string) func(any) error {
	return func(into any) error {
		all := map[string]any{}
		if err := yaml.Unmarshal([]byte(text), &all); err != nil {
			return err
		}
		place := places(reflect.TypeOf(into).Elem(), all)
		rest, err := yaml.Marshal(all)
		if err != nil {
			return err
		}
		d := yaml.NewDecoder(bytes.NewReader(rest))
		d.KnownFields(true)
		if err := d.Decode(into); err != nil {
			return err
		}
		place(reflect.ValueOf(into).Elem())
		return nil
	}
}

// places takes the places of secrets out of what is to be decoded as a struct, and returns
// what puts them into one.
func places(t reflect.Type, all map[string]any) func(reflect.Value) {
	var put []func(reflect.Value)
	for i := range t.NumField() {
		name, of := t.Field(i).Tag.Get("yaml"), t.Field(i).Type
		inner, _ := all[name].(map[string]any)
		switch {
		case of == reflect.TypeFor[secret.Source]():
			delete(all, name)
			env, _ := inner["from-env"].(string)
			file, _ := inner["from-file"].(string)
			put = append(put, func(v reflect.Value) { v.Field(i).Set(reflect.ValueOf(secret.Source{Env: env, File: file})) })
		case of.Kind() == reflect.Pointer && of.Elem().Kind() == reflect.Struct && inner != nil:
			below := places(of.Elem(), inner)
			put = append(put, func(v reflect.Value) {
				if !v.Field(i).IsNil() {
					below(v.Field(i).Elem())
				}
			})
		}
	}
	return func(v reflect.Value) {
		for _, p := range put {
			p(v)
		}
	}
}
