package connect

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"

	"github.com/keyturn/keyturn/internal/rotation"
)

// signer returns what proves to the server who we are.
func signer(s Settings) (ssh.Signer, error) {
	const hint = "it is the private key as ssh-keygen makes it, with its first and its last line"
	key, err := s.SSH.Key.Read(s.Getenv)
	if err != nil {
		return nil, rotation.Classify(rotation.Invalid, hint, fmt.Errorf("swarm.ssh.key: %w", err))
	}
	signer, err := ssh.ParsePrivateKey(key.Reveal())
	if _, encrypted := errors.AsType[*ssh.PassphraseMissingError](err); encrypted {
		return decrypt(s, key.Reveal())
	}
	if err != nil { // its text may be about the key
		return nil, rotation.Errorf(rotation.Invalid, hint, "swarm.ssh.key: %s holds no private key that can be read", s.SSH.Key)
	}
	return signer, nil
}

func decrypt(s Settings, key []byte) (ssh.Signer, error) {
	if s.SSH.Passphrase.IsZero() {
		return nil, rotation.Errorf(rotation.Invalid, "name its passphrase: ssh: {passphrase: {from-env: NAME}}; or take it off: ssh-keygen -p",
			"swarm.ssh.key: the key in %s is encrypted", s.SSH.Key)
	}
	phrase, err := s.SSH.Passphrase.Read(s.Getenv)
	if err != nil {
		return nil, rotation.Classify(rotation.Invalid, "", fmt.Errorf("swarm.ssh.passphrase: %w", err))
	}
	signer, err := ssh.ParsePrivateKeyWithPassphrase(key, phrase.Reveal())
	switch {
	case errors.Is(err, x509.IncorrectPasswordError):
		return nil, rotation.Errorf(rotation.Invalid, "try it: ssh-keygen -y -f KEY", "swarm.ssh.passphrase: what %s holds does not open the key", s.SSH.Passphrase)
	case err != nil:
		return nil, rotation.Errorf(rotation.Invalid, "make one with: ssh-keygen -t ed25519", "swarm.ssh.key: the encrypted key in %s cannot be read", s.SSH.Key)
	}
	return signer, nil
}

// knownHosts is a file of known hosts, and what it has for one of them.
type knownHosts struct {
	path       string
	addr       string
	callback   ssh.HostKeyCallback
	known      bool     // there is a key for the host
	algorithms []string // that the host is asked for
}

// readKnownHosts reads the file and looks the host up. A server shows the key
// of the kind that it is asked for, so it is asked only for those that the file has:
// another of its keys would look like a changed one.
func readKnownHosts(path, addr string) (*knownHosts, error) {
	db, err := knownhosts.NewDB(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, rotation.Errorf(rotation.Invalid, scan(addr, path), "swarm.ssh.known-hosts: there is no file %s", path)
	case err != nil:
		return nil, rotation.Classify(rotation.Invalid, "lines are as in ~/.ssh/known_hosts: HOST TYPE KEY", fmt.Errorf("swarm.ssh.known-hosts: %w", err))
	}
	h := &knownHosts{path: path, addr: addr, callback: db.HostKeyCallback()}
	for _, key := range db.HostKeys(addr) {
		h.known = true
		switch {
		case key.Cert: // its authority signs keys of any kind
			h.algorithms = append(h.algorithms, certificates...)
		case key.Type() == ssh.KeyAlgoRSA:
			h.algorithms = append(h.algorithms, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		default:
			h.algorithms = append(h.algorithms, key.Type())
		}
	}
	if !h.known { // its key is shown in the error
		h.algorithms = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return h, nil
}

// certificates are the kinds of host keys that an authority vouches for.
var certificates = []string{ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
	ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01}

// check is asked whether a key is the host's.
func (h *knownHosts) check(addr string, remote net.Addr, key ssh.PublicKey) error {
	err := h.callback(addr, remote, key)
	if err == nil {
		return nil
	}
	shown := kindOf(key) + " " + ssh.FingerprintSHA256(plain(key))
	const beware = "somebody may stand between: do not go on before its administrator has told you the fingerprint; then replace the line"
	if r, ok := errors.AsType[*xknownhosts.RevokedError](err); ok {
		return &hostError{fmt.Sprintf("its host key (%s) is revoked in line %d of %s", shown, r.Revoked.Line, h.path), beware}
	}
	k, ok := errors.AsType[*xknownhosts.KeyError](err)
	switch {
	case ok && len(k.Want) > 0:
		return &hostError{fmt.Sprintf("its host key has changed: it shows %s, and %s has another in line %d", shown, h.path, k.Want[0].Line), beware}
	case ok:
		return &hostError{fmt.Sprintf("its host key is not known: it shows %s, and %s has none for it", shown, h.path), scan(h.addr, h.path)}
	case isCertificate(key):
		return &hostError{fmt.Sprintf("its host certificate (%s) is not valid: %s", shown, strings.TrimPrefix(err.Error(), "ssh: ")),
			"it must name this host, be valid now, and be signed by the @cert-authority of " + h.path}
	}
	return &hostError{"its host key cannot be checked: " + err.Error(), ""}
}

// otherKinds is the error of a host that has no key of the kinds that are known.
func (h *knownHosts) otherKinds() error {
	kinds := slices.Clone(h.algorithms)
	slices.Sort(kinds)
	return &hostError{fmt.Sprintf("its host key has changed: %s has one of the kind %s, and it has none", h.path, strings.Join(slices.Compact(kinds), " or ")),
		"if the host was set up anew, replace the line: " + scanned(h.addr, h.path)}
}

// A hostError says that a host is not known to be the right one.
type hostError struct{ text, hint string }

// Error implements [error].
func (e *hostError) Error() string { return e.text }

// scan is the hint that makes a line of known hosts, and has it checked.
func scan(addr, path string) string {
	return scanned(addr, path) + ", then compare it with what the host itself says: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"
}

func scanned(addr, path string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		host, port = addr, sshPort
	}
	return fmt.Sprintf("ssh-keyscan -p %s %s >> %s", port, host, path)
}

// kindOf, plain and isCertificate look through a host's certificate.
func kindOf(key ssh.PublicKey) string { return plain(key).Type() }

func plain(key ssh.PublicKey) ssh.PublicKey {
	if cert, ok := key.(*ssh.Certificate); ok {
		return cert.Key
	}
	return key
}

func isCertificate(key ssh.PublicKey) bool { _, ok := key.(*ssh.Certificate); return ok }
