package vault_test

import (
	"context"
	"net/http"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestEndingTokens kills Vault while it ends tokens: some are listed afterwards, are refused, and
// nobody can end them. A version with such is ended all the same.
func TestEndingTokens(t *testing.T) {
	t.Parallel()
	server := testserver.NewVault(t, 1)
	f := newFixture(t, server)
	for try := 1; ; try++ {
		b := f.backend()
		v, m := f.armed(b, try)
		var tokens []string
		for range 30 {
			token, _ := f.login(m)
			tokens = append(tokens, token)
		}
		var all sync.WaitGroup
		ended := make(chan struct{}, len(tokens))
		for _, token := range tokens {
			all.Go(func() {
				_ = server.CallAs(context.Background(), token, http.MethodPost, "/v1/auth/token/revoke-self", nil, nil)
				ended <- struct{}{}
			})
		}
		<-ended // and Vault is at the others
		server.Kill(0)
		all.Wait()
		f.must(server.Start(0))
		f.must(server.Unseal(context.Background(), 0))
		ending := 0
		var list struct{ Data struct{ Keys []string } }
		f.call(http.MethodGet, "/v1/auth/token/accessors?list=true", nil, &list)
		for _, accessor := range list.Data.Keys {
			var is struct {
				Data struct {
					Uses int `json:"num_uses"`
				}
			}
			if err := server.Call(context.Background(), http.MethodPost, "/v1/auth/token/lookup-accessor", map[string]string{"accessor": accessor}, &is); err == nil && is.Data.Uses < 0 {
				ending++
			}
		}
		f.must(b.End(t.Context(), v, rotation.ToRetire))
		if st, err := b.Observe(t.Context(), v); err != nil || len(st.Uses) > 0 {
			t.Errorf("an ended version is %+v, %v, want it without a use", st, err)
		}
		if ending > 0 {
			t.Logf("%d of %d tokens were ending at try %d", ending, len(tokens), try)
			return
		}
		if try == 8 {
			t.Fatal("no token was caught while it ended")
		}
	}
}
