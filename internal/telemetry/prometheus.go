package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/secret"
)

// Text returns families in Prometheus' text format, version 0.0.4.
func Text(families []Family) []byte {
	var b bytes.Buffer
	for _, f := range families {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", f.Name, helpEscape.Replace(f.Help), f.Name, [...]string{"gauge", "counter", "histogram"}[f.Kind])
		for _, s := range f.Samples {
			if f.Kind != Histogram {
				line(&b, f.Name, s.Labels, s.Value)
				continue
			}
			var below uint64
			for i, n := range s.Buckets {
				below += n
				bound := "+Inf"
				if i < len(Bounds) {
					bound = number(Bounds[i])
				}
				line(&b, f.Name+"_bucket", append(slices.Clone(s.Labels), Label{"le", bound}), float64(below))
			}
			line(&b, f.Name+"_sum", s.Labels, s.Sum)
			line(&b, f.Name+"_count", s.Labels, float64(s.Count))
		}
	}
	return b.Bytes()
}

var (
	helpEscape  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	valueEscape = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

func line(b *bytes.Buffer, name string, labels []Label, value float64) {
	b.WriteString(name)
	for i, l := range labels {
		b.WriteByte("{,"[min(i, 1)])
		b.WriteString(l.Name + `="` + valueEscape.Replace(strings.ToValidUTF8(l.Value, "\uFFFD")) + `"`)
	}
	if len(labels) > 0 {
		b.WriteByte('}')
	}
	b.WriteString(" " + number(value) + "\n")
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// A Pushgateway is where Prometheus finds what short runs measured.
type Pushgateway struct {
	URL      string // of the gateway; it holds no secret
	User     string // "" for none
	Password secret.Value
	HTTP     *http.Client
}

// Push replaces a group: what the gateway had under these labels is gone. Names and values
// of the group come in turn, the job first. The error repeats neither URL nor password.
func (p Pushgateway) Push(ctx context.Context, families []Family, group ...string) error {
	at, err := url.JoinPath(p.URL, groupPath(group))
	if err != nil {
		return errors.New("pushing metrics: the address of the Pushgateway is no URL")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, at, bytes.NewReader(Text(families)))
	if err != nil {
		return errors.New("pushing metrics: the address of the Pushgateway is no URL")
	}
	req.Header.Set("Content-Type", "text/plain; version=0.0.4")
	if p.User != "" {
		req.SetBasicAuth(p.User, string(p.Password.Reveal()))
	}
	if err := send(p.HTTP, req); err != nil {
		return fmt.Errorf("pushing metrics: %w", err)
	}
	return nil
}

// groupPath is a group as the gateway's paths have it: values that a path cannot hold are
// in base64.
func groupPath(group []string) string {
	var b strings.Builder
	b.WriteString("metrics")
	for i := 0; i+1 < len(group); i += 2 {
		name, value := group[i], group[i+1]
		if value == "" || strings.ContainsAny(value, "/%?#") || value == "." || value == ".." {
			name, value = name+"@base64", base64Value(value)
		}
		b.WriteString("/" + name + "/" + url.PathEscape(value))
	}
	return b.String()
}

// send sends a request and reads why it was not taken. No error has the URL in it, nor
// where a redirection would lead: it is not followed.
func send(client *http.Client, req *http.Request) error {
	resp, err := client.Do(req)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return failed.Err
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // so that the connection is used again
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
	return &statusError{resp.StatusCode, resp.Header.Get("Retry-After"), strings.TrimSpace(strings.Map(printable, string(text)))}
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f || r > 0x7e {
		return ' '
	}
	return r
}

// A statusError is an answer that is none of success.
type statusError struct {
	code  int
	after string
	text  string
}

func (e *statusError) Error() string {
	if e.text == "" {
		return fmt.Sprintf("the answer is %d", e.code)
	}
	return fmt.Sprintf("the answer is %d: %s", e.code, e.text)
}
