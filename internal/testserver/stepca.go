package testserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// A StepCA is a real step-ca on loopback, with an ACME provisioner. Beside it stand the DNS
// and web servers that stand beside a [Pebble].
type StepCA struct {
	dir             string
	beside          *Pebble // which is not started
	https, insecure int
	program         string
	process         *process
}

// NewStepCA starts one as long as the test runs.
func NewStepCA(t testing.TB) *StepCA {
	t.Helper()
	s := &StepCA{dir: t.TempDir()}
	s.beside = &Pebble{dir: s.dir}
	t.Cleanup(s.stop)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute) // it may be built first
	defer cancel()
	Require(t, s.start(ctx))
	return s
}

func (s *StepCA) start(ctx context.Context) (err error) {
	if s.program, err = BuildTool(ctx, "tools/stepca", "github.com/keyturn/keyturn/tools/stepca"); err != nil {
		return err
	}
	if err := os.MkdirAll(s.Challenges(), 0o755); err != nil {
		return err
	}
	for _, port := range []*int{&s.https, &s.insecure, &s.beside.web} {
		if *port, err = freePort("tcp", "127.0.0.1"); err != nil {
			return err
		}
	}
	if err := s.beside.serve("127.0.0.1"); err != nil {
		return err
	}
	cmd := exec.Command(s.program, "-dir", s.dir, "-listen", fmt.Sprintf("127.0.0.1:%d", s.https), "-insecure", fmt.Sprintf("127.0.0.1:%d", s.insecure),
		"-http01", fmt.Sprint(s.beside.web), "-resolver", s.beside.dns.LocalAddr().String())
	cmd.Dir = s.dir
	if s.process, err = startProcess(cmd, s.LogFile()); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := s.answers(ctx)
		if err == nil {
			return nil
		}
		if !s.process.running() || time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("step-ca does not answer: %w: %s", err, tailOf(s.LogFile()))
		}
	}
}

// answers asks for the directory.
func (s *StepCA) answers(ctx context.Context) error {
	roots, err := os.ReadFile(s.RootsFile())
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Directory(), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answered %s", resp.Status)
	}
	return nil
}

func (s *StepCA) stop() {
	if s.process != nil {
		s.process.kill()
	}
	s.beside.stop()
}

// Directory is the URL of the ACME directory.
func (s *StepCA) Directory() string {
	return fmt.Sprintf("https://127.0.0.1:%d/acme/acme/directory", s.https)
}

// CRL is the URL of the list of what was revoked.
func (s *StepCA) CRL() string { return fmt.Sprintf("http://127.0.0.1:%d/crl", s.insecure) }

// RootsFile is the path of its root, which signs its own certificate, too.
func (s *StepCA) RootsFile() string { return filepath.Join(s.dir, "root.pem") }

// Challenges is the folder that is served for HTTP-01, on every name.
func (s *StepCA) Challenges() string { return s.beside.Challenges() }

// LogFile is the path of its log.
func (s *StepCA) LogFile() string { return filepath.Join(s.dir, "log") }
