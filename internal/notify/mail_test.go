package notify_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	netmail "net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/notify"
	"github.com/keyturn/keyturn/internal/secret"
)

// A mailbox is a server that takes mail for everybody but nobody@.
type mailbox struct {
	address string
	secured *tls.Config // nil: it has no STARTTLS
	hangs   bool

	mu    sync.Mutex
	auth  string
	mails []string
}

func newMailbox(t *testing.T, m *mailbox) *mailbox {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.address = listener.Addr().String()
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			served.Go(func() { m.serve(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); served.Wait() })
	return m
}

func (m *mailbox) serve(conn net.Conn) {
	defer func() { conn.Close() }()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if m.hangs {
		io.Copy(io.Discard, conn)
		return
	}
	in := bufio.NewReader(conn)
	say := func(format string, args ...any) { fmt.Fprintf(conn, format+"\r\n", args...) }
	say("220 here")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		switch verb, rest, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
		case "EHLO":
			if _, inside := conn.(*tls.Conn); m.secured != nil && !inside {
				say("250-here\r\n250 STARTTLS")
			} else {
				say("250-here\r\n250 AUTH PLAIN")
			}
		case "STARTTLS":
			say("220 go on")
			conn = tls.Server(conn, m.secured)
			in.Reset(conn)
		case "AUTH":
			m.mu.Lock()
			m.auth = rest
			m.mu.Unlock()
			say("235 well")
		case "RCPT":
			if strings.Contains(rest, "nobody@") {
				say("550 nobody of that name")
			} else {
				say("250 well")
			}
		case "DATA":
			say("354 go on")
			var mail strings.Builder
			for {
				line, err := in.ReadString('\n')
				if err != nil || line == ".\r\n" {
					break
				}
				mail.WriteString(strings.TrimPrefix(line, ".")) // it was doubled
			}
			m.mu.Lock()
			m.mails = append(m.mails, mail.String())
			m.mu.Unlock()
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default: // MAIL, RSET
			say("250 well")
		}
	}
}

func (m *mailbox) got() (auth string, mails []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.auth, m.mails
}

// TestMail sends a notice as mail, over TLS where the server has it.
func TestMail(t *testing.T) {
	self := httptest.NewUnstartedServer(nil) // for its certificate
	self.StartTLS()
	defer self.Close()
	n := notify.Notice{Event: notify.Failure, Title: "cutover of orders-db failed\r\nBcc: eve@x.example", Text: "version 2 is dead – höre\n.\nand the end"}
	for _, test := range []struct {
		name    string
		box     *mailbox
		query   string
		want    error
		mails   int
		secured bool
	}{
		{"plain", &mailbox{}, "&to=a@x.example,b@x.example", nil, 2, false},
		{"one is refused", &mailbox{}, "&to=nobody@x.example,b@x.example", notify.ErrSent, 1, false},
		{"TLS", &mailbox{secured: &tls.Config{Certificates: self.TLS.Certificates}}, "&to=a@x.example&skiptlsverify=yes", nil, 1, true},
		{"TLS of somebody else", &mailbox{secured: &tls.Config{Certificates: self.TLS.Certificates}}, "&to=a@x.example", notify.ErrSent, 0, true},
		{"no TLS where it must be", &mailbox{}, "&to=a@x.example&requirestarttls=yes", notify.ErrSent, 0, false},
		{"TLS from the start", &mailbox{}, "&to=a@x.example&encryption=ImplicitTLS", notify.ErrSent, 0, false},
		{"nobody to send to", &mailbox{}, "", notify.ErrURL, 0, false},
		{"an address that is none", &mailbox{}, "&to=x", notify.ErrURL, 0, false},
		{"a server that hangs", &mailbox{hangs: true}, "&to=a@x.example", context.DeadlineExceeded, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			box := newMailbox(t, test.box)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			err := notify.Send(ctx, secret.FromString("smtp://me:"+canary+"@"+box.address+"/?from=keyturn@x.example&fromname=Keyturn"+test.query), n)
			if !errors.Is(err, test.want) {
				t.Fatalf("Send = %v, want %v", err, test.want)
			}
			auth, mails := box.got()
			if len(mails) != test.mails {
				t.Fatalf("%d mails came, want %d: %q", len(mails), test.mails, mails)
			}
			if test.mails == 0 {
				return
			}
			if want := "PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00me\x00"+canary)); auth != want {
				t.Errorf("logged in with %q, want %q", auth, want)
			}
			mail, err := netmail.ReadMessage(strings.NewReader(mails[0]))
			if err != nil {
				t.Fatalf("%v in %q", err, mails[0])
			}
			subject, err := new(mime.WordDecoder).DecodeHeader(mail.Header.Get("Subject"))
			if err != nil || subject != n.Title || mail.Header.Get("Bcc") != "" || mail.Header.Get("From") != `"Keyturn" <keyturn@x.example>` {
				t.Errorf("the headers are %v (%v)", mail.Header, err)
			}
			body, err := io.ReadAll(quotedprintable.NewReader(mail.Body))
			if want := strings.ReplaceAll(n.String(), "\r\n", "\n"); err != nil || strings.TrimSpace(strings.ReplaceAll(string(body), "\r\n", "\n")) != strings.TrimSpace(want) {
				t.Errorf("the text is %q (%v), want %q", body, err, want)
			}
		})
	}
}

// TestWebhook sends a notice as JSON, with the headers and fields that the URL names.
func TestWebhook(t *testing.T) {
	var got string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = strings.Join([]string{r.Method, r.URL.String(), r.Header.Get("Content-Type"), r.Header.Get("Api-Key"), string(b)}, " ")
	}))
	defer s.Close()
	n := notify.Notice{Event: notify.Done, Title: "done"}
	for query, want := range map[string]string{
		"?a=b&template=json&messagekey=text&method=PUT&@apiKey=k&$team=sre": `PUT /x?a=b application/json k {"team":"sre","text":"[info] done\n","title":"done"}`,
		"?@contentType=text/markdown":                                       "POST /x text/markdown  [info] done\n",
	} {
		for _, url := range []string{"generic+" + s.URL + "/x" + query, strings.Replace(s.URL, "http:", "generic:", 1) + "/x" + query + "&disabletls=yes"} {
			if err := notify.Send(t.Context(), secret.FromString(url), n); err != nil || got != want {
				t.Errorf("Send by %s = %v, and the server got %q, want %q", url, err, got, want)
			}
		}
	}
	if err := notify.Send(t.Context(), secret.FromString("generic+"+s.URL+"/x?template=mine"), n); !errors.Is(err, notify.ErrURL) {
		t.Errorf("Send with a template = %v", err)
	}
}
