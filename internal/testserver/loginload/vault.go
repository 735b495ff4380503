package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"github.com/keyturn/keyturn/internal/testserver/outcome"
)

// kept is the token of the first login, which the task uses as long as it lives, as
// applications do. Nobody gives it back.
var kept struct {
	sync.Mutex
	token string
}

// useVault logs in with the secret-id as it is mounted now, reads a value with the token
// and with the one that is kept, and gives the new one back.
func (c config) useVault(ctx context.Context, o *outcome.Login) error {
	secretID, err := readLine(c.secretIDFile)
	if err != nil {
		return fmt.Errorf("%w: %w", errCredential, err)
	}
	client, err := c.httpClient()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	ask := func(method, path, token string, body []byte) ([]byte, error) {
		return ask(ctx, client, method, c.vault+"/v1/"+path, http.Header{"X-Vault-Token": {token}}, body)
	}
	credential, err := json.Marshal(map[string]string{"role_id": c.roleID, "secret_id": secretID})
	if err != nil {
		return err
	}
	answer, err := ask(http.MethodPost, "auth/approle/login", "", credential)
	if err != nil {
		return err
	}
	var made struct {
		Auth struct {
			Token    string            `json:"client_token"`
			Metadata map[string]string `json:"metadata"`
		} `json:"auth"`
	}
	if err := json.Unmarshal(answer, &made); err != nil {
		return err
	}
	o.Current = made.Auth.Metadata["role_name"]
	o.Session = cmp.Or(made.Auth.Metadata["keyturn"], o.Current) // one that was made by hand has no title
	kept.Lock()
	defer kept.Unlock()
	if kept.token == "" {
		kept.token = made.Auth.Token
	}
	for _, token := range []string{made.Auth.Token, kept.token} {
		if _, err := ask(http.MethodGet, c.vaultKey, token, nil); err != nil {
			return err
		}
	}
	if made.Auth.Token == kept.token {
		return nil
	}
	_, err = ask(http.MethodPost, "auth/token/revoke-self", made.Auth.Token, nil)
	return err
}
