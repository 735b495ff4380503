package github

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/rotation"
)

const (
	// probeTimeout bounds the trial of one endpoint.
	probeTimeout = 8 * time.Second

	// codeRefused and the others say in a word what an endpoint answered.
	codeRefused  = "publickey"
	codeNotFound = "not-found"
	codeHost     = "host-key"
)

// probeSettings travel in [rotation.ProbeSpec.Settings].
type probeSettings struct {
	Kind        string `json:"kind"`
	KnownHosts  string `json:"known_hosts"`
	Fingerprint string `json:"fingerprint"` // of the key that must be mounted
}

// ProbeSpec says how to try a version. It does no I/O.
func (b *KeyBackend) ProbeSpec(v rotation.Version) rotation.ProbeSpec {
	return rotation.ProbeSpec{Backend: "github", Identity: v.Identity, Endpoints: b.endpoints,
		Settings: settingsOf(probeSettings{Kind: kindKey, KnownHosts: b.knownHosts, Fingerprint: v.Public[fieldFingerprint]})}
}

// loginByKey does at every endpoint at once what `git ls-remote` does: it logs in by ssh
// with the key and no other, to a host whose key is known, and reads what references
// the repository has. See gitprotocol-pack(5), "Reference Discovery".
//
// Only a server that refuses the key itself says Dead. A key that is taken, for a
// repository that it may not read, is Unfit. Anything else that is not success is
// Inconclusive.
func loginByKey(ctx context.Context, spec rotation.ProbeSpec, m rotation.Material) rotation.ProbeResult {
	var settings probeSettings
	if err := json.Unmarshal(spec.Settings, &settings); err != nil {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "the probe's settings are malformed"}
	}
	signer, problem := signerOf(settings.Fingerprint, m)
	return rotation.ProbeEach(spec.Endpoints, func(endpoint string) rotation.EndpointResult {
		if problem != "" {
			return rotation.EndpointResult{Answer: rotation.Inconclusive, Reason: problem}
		}
		return try(ctx, settings, endpoint, signer)
	})
}

// try lists the references of one endpoint.
func try(ctx context.Context, settings probeSettings, endpoint string, signer ssh.Signer) rotation.EndpointResult {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	r := rotation.EndpointResult{Endpoint: endpoint, Answer: rotation.Inconclusive}
	keys, err := keysOf(settings.KnownHosts, endpoint)
	if err != nil {
		r.Code, r.Reason = codeHost, err.Error()
		return r
	}
	u, _ := parseEndpoint(endpoint) // keysOf read it
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address(u))
	if err != nil {
		r.Reason = transportText(ctx, err, "the ssh handshake failed")
		return r
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // whatever waits for the host ends
	defer stop()
	defer conn.Close()
	client, err := login(conn, u, keys, signer)
	if err != nil {
		return refusal(ctx, r, u.Hostname(), err)
	}
	defer client.Close()
	return listing(ctx, r, client, u)
}

// errRefused says that the server will not have the key.
var errRefused = errors.New("the key is refused")

// login makes an ssh connection with one key. The error is [errRefused] only if the
// server was asked with the key and answered that it does not let it in.
func login(conn net.Conn, u *url.URL, keys []ssh.PublicKey, signer ssh.Signer) (*ssh.Client, error) {
	offered := false
	config := &ssh.ClientConfig{
		User: u.User.Username(), HostKeyCallback: only(keys), HostKeyAlgorithms: algorithms(keys), ClientVersion: "SSH-2.0-Keyturn",
		Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
			offered = true
			return []ssh.Signer{signer}, nil
		})},
	}
	c, channels, requests, err := ssh.NewClientConn(conn, address(u), config)
	if err == nil {
		return ssh.NewClient(c, channels, requests), nil
	}
	// The library has no type for it. A connection that breaks has another text.
	if offered && strings.Contains(err.Error(), "unable to authenticate, attempted methods [none publickey]") {
		return nil, errRefused
	}
	return nil, err
}

// refusal judges an attempt that did not get in.
func refusal(ctx context.Context, r rotation.EndpointResult, host string, err error) rotation.EndpointResult {
	if errors.Is(err, errRefused) {
		r.Answer, r.Code, r.Reason = rotation.Dead, codeRefused, host+" refuses the key"
		return r
	}
	if unknown, ok := errors.AsType[*hostError](err); ok {
		r.Code, r.Reason = codeHost, unknown.text
		return r
	}
	r.Reason = transportText(ctx, err, "the ssh handshake failed")
	return r
}

// transportText says in words of ours what broke: a library's may hold anything.
func transportText(ctx context.Context, err error, otherwise string) string {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "no answer in time"
	case ctx.Err() != nil:
		return "the probe was stopped"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection was refused"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, net.ErrClosed):
		return "the connection broke"
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return "the name of the host is not known: " + dns.Name
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return "the host cannot be reached"
	}
	return otherwise
}
