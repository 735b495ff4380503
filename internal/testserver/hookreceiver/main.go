// Hookreceiver is a service that takes GitHub's deliveries, for the tests that rotate
// the secret of a webhook under it. It reads its secrets afresh for each, from the file
// that HOOK_SECRET_FILE names and, if it is there, the one of HOOK_SECRET_FILE_NEW, and
// answers 204 to what is signed with either, 401 to the rest. For every delivery it
// writes a line to a file of its own in LOG_DIR: the answer, the event and its id.
//
// It listens on LISTEN with SO_REUSEPORT, so that two tasks can share an address while
// one follows the other. On SIGTERM it finishes what it has begun.
package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "hookreceiver:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log, err := os.OpenFile(filepath.Join(os.Getenv("LOG_DIR"), rand.Text()+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	shared := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		if err != nil {
			return err
		}
		return failed
	}}
	l, err := shared.Listen(ctx, "tcp", os.Getenv("LISTEN"))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: &receiver{log: log}, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	return server.Shutdown(ctx)
}

type receiver struct {
	mu  sync.Mutex
	log io.Writer
}

// ServeHTTP implements [http.Handler].
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	if err != nil {
		return
	}
	answer := http.StatusUnauthorized
	for _, variable := range []string{"HOOK_SECRET_FILE", "HOOK_SECRET_FILE_NEW"} {
		if path := os.Getenv(variable); path != "" && signed(path, body, req.Header.Get("X-Hub-Signature-256")) {
			answer = http.StatusNoContent
		}
	}
	r.mu.Lock()
	fmt.Fprintln(r.log, answer, req.Header.Get("X-GitHub-Event"), req.Header.Get("X-GitHub-Delivery"))
	r.mu.Unlock()
	w.WriteHeader(answer)
}

// signed reports whether the signature is made with the secret in the file.
func signed(path string, body []byte, signature string) bool {
	key, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, []byte(strings.TrimRight(string(key), "\n")))
	mac.Write(body)
	return hmac.Equal([]byte("sha256="+hex.EncodeToString(mac.Sum(nil))), []byte(signature))
}
