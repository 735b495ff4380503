package vault

import (
	"context"

	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
)

// words are what the page knows more of.
var words = vaultapi.Words{Name: "vault", Page: "vault.md", Missing: "is approle.mount right? see: vault auth list"}

func (s Settings) access() vaultapi.Access {
	return vaultapi.Access{Servers: s.Servers, Token: s.Token, InsecureTLS: s.InsecureTLS, Words: words}
}

func (b *Backend) open(ctx context.Context) (*vaultapi.Client, error) {
	return vaultapi.Open(ctx, b.settings.access(), b.options.Options)
}
