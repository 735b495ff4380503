package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/testserver/outcome"
)

// useConsul writes a key, reads it back, and asks who it is, on a connection of its own with
// the token as it is mounted now.
func (c config) useConsul(ctx context.Context, o *outcome.Login) error {
	token, err := readLine(c.consulTokenFile)
	if err != nil {
		return fmt.Errorf("%w: %w", errCredential, err)
	}
	client, err := c.httpClient()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	ask := func(method, path string, body []byte) ([]byte, error) {
		return ask(ctx, client, method, c.consul+path, http.Header{"X-Consul-Token": {token}}, body)
	}
	key, value := "/v1/kv/"+c.consulPrefix+strings.ReplaceAll(c.task, "/", "_"), []byte(time.Now().Format(time.RFC3339Nano))
	if _, err := ask(http.MethodPut, key, value); err != nil {
		return err
	}
	got, err := ask(http.MethodGet, key+"?raw", nil)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, value) {
		return errors.New("the key holds something else than was written")
	}
	self, err := ask(http.MethodGet, "/v1/acl/token/self", nil)
	if err != nil {
		return err
	}
	var who struct{ AccessorID string }
	if err := json.Unmarshal(self, &who); err != nil {
		return err
	}
	o.Session, o.Current = who.AccessorID, who.AccessorID
	return nil
}
