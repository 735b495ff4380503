package testserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// A StepCA is a real step-ca on loopback, with an ACME provisioner and a JWK provisioner that is called
// keyturn. Beside it stand the DNS
// and web servers that stand beside a [Pebble].
type StepCA struct {
	dir             string
	beside          *Pebble // which is not started
	https, insecure int
	program         string
	process         *process
	silent          bool
}

// NewStepCA starts one as long as the test runs.
func NewStepCA(t testing.TB) *StepCA { return newStepCA(t, false) }

// NewSilentStepCA starts one that tells nobody what it revoked.
func NewSilentStepCA(t testing.TB) *StepCA { return newStepCA(t, true) }

func newStepCA(t testing.TB, silent bool) *StepCA {
	t.Helper()
	s := &StepCA{dir: t.TempDir(), silent: silent}
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
	if s.silent {
		cmd.Args = append(cmd.Args, "-no-list")
	}
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
		_ = s.Continue() // it fails only if it has ended
		s.process.kill()
	}
	s.beside.stop()
}

// Directory is the URL of the ACME directory.
func (s *StepCA) Directory() string {
	return fmt.Sprintf("https://127.0.0.1:%d/acme/acme/directory", s.https)
}

// URL is where its own API is.
func (s *StepCA) URL() string { return fmt.Sprintf("https://127.0.0.1:%d", s.https) }

// ProvisionerKey is the private key of its JWK provisioner, in PEM form.
func (s *StepCA) ProvisionerKey() ([]byte, error) {
	return os.ReadFile(filepath.Join(s.dir, "provisioner.key"))
}

// Kill ends it at once.
func (s *StepCA) Kill() { s.process.kill() }

// Pause stops it in its tracks, until Continue.
func (s *StepCA) Pause() error { return s.process.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue lets it go on.
func (s *StepCA) Continue() error { return s.process.cmd.Process.Signal(syscall.SIGCONT) }

// CRL is the URL of the list of what was revoked.
func (s *StepCA) CRL() string { return fmt.Sprintf("http://127.0.0.1:%d/crl", s.insecure) }

// signedBy is what its log says of a certificate that its own API signed.
var signedBy = regexp.MustCompile(`"path":"/1.0/sign".*"serial":"([0-9]+)"`)

// Serials are those of every certificate that its own API signed, in hexadecimal digits, the oldest
// first.
func (s *StepCA) Serials() (out []string, err error) {
	log, err := os.ReadFile(s.LogFile())
	for _, m := range signedBy.FindAllSubmatch(log, -1) {
		n, _ := new(big.Int).SetString(string(m[1]), 10)
		out = append(out, n.Text(16))
	}
	return out, err
}

// Status is "Valid", or "Revoked" with a reason of RFC 5280, by the list of what was revoked.
func (s *StepCA) Status(ctx context.Context, serial string) (status string, reason int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.CRL(), nil)
	if err != nil {
		return "", 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", 0, err
	}
	list, err := x509.ParseRevocationList(body)
	if err != nil {
		return "", 0, err
	}
	for _, e := range list.RevokedCertificateEntries {
		if e.SerialNumber.Text(16) == serial {
			return "Revoked", e.ReasonCode, nil
		}
	}
	return "Valid", 0, nil
}

// Roots is the certificate of its root.
func (s *StepCA) Roots() []byte {
	roots, _ := os.ReadFile(s.RootsFile()) // it was read when it started
	return roots
}

// RootsFile is the path of its root, which signs its own certificate, too.
func (s *StepCA) RootsFile() string { return filepath.Join(s.dir, "root.pem") }

// Challenges is the folder that is served for HTTP-01, on every name.
func (s *StepCA) Challenges() string { return s.beside.Challenges() }

// LogFile is the path of its log.
func (s *StepCA) LogFile() string { return filepath.Join(s.dir, "log") }
