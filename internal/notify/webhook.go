package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/nicholas-fedor/shoutrrr/pkg/services/specialized/generic"
)

// webhook is an HTTP server that takes the text as it is, or as JSON:
// generic://host/path, or generic+https://host/path, with Shoutrrr's settings
// (template=json, messagekey, titlekey, method, contenttype, @Header, $extra).
func webhook(u *url.URL, scheme string) (way, error) {
	var config *generic.Config
	var err error
	if scheme != "" {
		plain := *u
		plain.Scheme = scheme
		config, _, err = generic.ConfigFromWebhookURL(plain)
	} else {
		config, _ = generic.DefaultConfig()
		err = config.SetURL(u)
	}
	if err != nil {
		return nil, err
	}
	asJSON := strings.EqualFold(config.Template, generic.JSONTemplate)
	if config.Template != "" && !asJSON {
		return nil, fmt.Errorf("no template %q: json is the only one", config.Template)
	}
	headers, extra := http.Header{}, map[string]string{}
	for key, values := range u.Query() {
		if name, ok := strings.CutPrefix(key, "@"); ok && name != "" {
			headers.Set(headerOf(name), values[0])
		} else if name, ok := strings.CutPrefix(key, "$"); ok && name != "" {
			extra[name] = values[0]
		}
	}
	return func(ctx context.Context, title, text string) error {
		body, kind := text, "text/plain"
		if asJSON {
			said := map[string]string{config.TitleKey: title, config.MessageKey: text}
			for key, value := range extra {
				said[key] = value
			}
			encoded, err := json.Marshal(said)
			if err != nil {
				return err
			}
			body, kind = string(encoded), config.ContentType
		}
		r, err := http.NewRequestWithContext(ctx, config.RequestMethod, config.WebhookURL().String(), strings.NewReader(body))
		if err != nil {
			return err
		}
		r.Header = headers.Clone()
		for _, name := range []string{"Content-Type", "Accept"} {
			if r.Header.Get(name) == "" {
				r.Header.Set(name, kind)
			}
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode >= http.StatusBadRequest {
			return fmt.Errorf("answered %s", answer.Status)
		}
		return nil
	}, nil
}

// headerOf is a header as Shoutrrr lets it be written: apiKey is Api-Key.
func headerOf(name string) string {
	var b strings.Builder
	for i, c := range name {
		if i > 0 && 'A' <= c && c <= 'Z' && name[i-1] != '-' {
			b.WriteByte('-')
		}
		b.WriteRune(c)
	}
	return b.String()
}
