package notify_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/notify"
	"github.com/keyturn/keyturn/internal/secret"
)

const canary = "Xk7canary9"

// TestSend delivers a notice, and says nothing of the URL when that fails.
func TestSend(t *testing.T) {
	var got string
	status, wait := http.StatusOK, time.Duration(0)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = string(b)
		time.Sleep(wait)
		w.WriteHeader(status)
	}))
	defer s.Close()
	url := secret.FromString("generic+" + s.URL + "/hook?token=" + canary + "\n")
	n := notify.Notice{Event: notify.Failure, Title: "cutover of orders-db failed", Text: "version 2 is dead", Link: "https://run.example"}
	if err := notify.Send(t.Context(), url, n); err != nil {
		t.Fatalf("Send = %v", err)
	}
	for _, want := range []string{"[error] cutover of orders-db failed", "version 2 is dead", "https://run.example"} {
		if !strings.Contains(got, want) {
			t.Errorf("sent was %q, want %q in it", got, want)
		}
	}
	status = http.StatusInternalServerError
	if err := notify.Send(t.Context(), url, n); !errors.Is(err, notify.ErrSent) || strings.Contains(err.Error(), canary) {
		t.Errorf("Send to a server that fails = %v", err)
	}
	wait = 2 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := notify.Send(ctx, url, n); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > time.Second {
		t.Errorf("Send to a server that hangs = %v after %s", err, time.Since(begun))
	}
	for _, bad := range []string{canary + "://x", "://" + canary, "", "slack://" + canary} {
		if err := notify.Send(t.Context(), secret.FromString(bad), n); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("Send to %q = %v", bad, err)
		}
	}
}
