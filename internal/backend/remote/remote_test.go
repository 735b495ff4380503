package remote_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
)

func TestProblem(t *testing.T) {
	const example = "https://h:1"
	for text, c := range map[string]struct {
		weaker []string
		want   string
	}{
		"https://h:8200":               {nil, ""},
		"http://h:8200":                {nil, "has no TLS"},
		"http://h":                     {[]string{remote.Plaintext}, ""},
		"canary":                       {nil, "no URL that begins with https://"},
		"ftp://canary":                 {nil, "no URL that begins with https://"},
		"https://":                     {nil, "no URL that begins with https://"},
		"https://h/%zz":                {nil, "no URL that begins with https://"},
		"https://u:canary@h":           {nil, "a user, a query or a fragment"},
		"https://h/?token=canary":      {nil, "a user, a query or a fragment"},
		"https://h/#canary":            {nil, "a user, a query or a fragment"},
		"https://consul.example.com/x": {nil, ""},
	} {
		tip, problem := remote.Problem(text, example, c.weaker)
		if (problem == "") != (c.want == "") || !strings.Contains(problem, c.want) || problem != "" && tip == "" || strings.Contains(tip+problem, "canary") {
			t.Errorf("Problem(%q) = %q, %q, want %q with a tip", text, tip, problem, c.want)
		}
	}
}

// TestNobodyElsewhere follows no redirection: what is sent may be a secret.
func TestNobodyElsewhere(t *testing.T) {
	asked := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer elsewhere.Close()
	here := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer here.Close()
	config, err := remote.TLS(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := remote.Client(config, nil, time.Second)
	defer client.CloseIdleConnections()
	resp, err := client.Get(here.URL)
	if err == nil {
		resp.Body.Close()
	}
	if err == nil || asked || remote.Cause(err) != "the server answers with a redirection" {
		t.Errorf("Get = %v, asked elsewhere %v, want an error and nobody asked", err, asked)
	}
}

func TestTLS(t *testing.T) {
	if _, err := remote.TLS([]byte("nothing"), nil); err == nil {
		t.Error("an authority without a certificate is taken")
	}
	strict, err1 := remote.TLS(nil, nil)
	weaker, err2 := remote.TLS(nil, []string{remote.WeakerTLS})
	if err1 != nil || err2 != nil || strict.MinVersion <= weaker.MinVersion || weaker.MinVersion == 0 {
		t.Errorf("TLS from %x and, weakened, from %x, want 1.3 and 1.2", strict.MinVersion, weaker.MinVersion)
	}
}

func TestCause(t *testing.T) {
	for want, err := range map[string]error{
		"no answer in time": fmt.Errorf("x: %w", context.DeadlineExceeded),
		"stopped":           &url.Error{Op: "Get", URL: "https://h/canary", Err: context.Canceled},
		"broken":            &url.Error{Op: "Get", URL: "https://h/canary", Err: errors.New("broken")},
	} {
		if got := remote.Cause(err); got != want {
			t.Errorf("Cause(%v) = %q, want %q", err, got, want)
		}
	}
}
