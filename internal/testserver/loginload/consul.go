package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/testserver/outcome"
)

// A refusal is Consul's answer that is not 200.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

// useConsul writes a key, reads it back, and asks who it is, on a connection of its own with
// the token as it is mounted now.
func (c config) useConsul(ctx context.Context, o *outcome.Login) error {
	token, err := readLine(c.consulTokenFile)
	if err != nil {
		return fmt.Errorf("%w: %w", errCredential, err)
	}
	ca, err := os.ReadFile(c.caFile)
	if err != nil {
		return fmt.Errorf("reading CONSUL_CACERT: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}}}
	defer client.CloseIdleConnections()
	ask := func(method, path string, body []byte) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, method, c.consul+path, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("X-Consul-Token", token)
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = &refusal{resp.StatusCode, strings.TrimSpace(string(text))}
		}
		return text, err
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

// classifyRefusal gives an answer of Consul its code.
func classifyRefusal(err error) (code, message string, ok bool) {
	r, ok := errors.AsType[*refusal](err)
	if !ok {
		return "", "", false
	}
	return strconv.Itoa(r.status), r.text, true
}
