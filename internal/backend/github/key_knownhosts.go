package github

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1" // the form of OpenSSH's hashed names
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// builtIn are the keys of github.com, as GitHub publishes them on its page
// "GitHub's SSH key fingerprints" and in GET /meta.
const builtIn = `github.com,[ssh.github.com]:443 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl
github.com,[ssh.github.com]:443 ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg=
`

// ofGitHub reports whether the keys of a host are built in.
func ofGitHub(host string) bool { return host == "github.com" || host == "ssh.github.com" }

const sshPort = "22"

// address is the host and the port of an endpoint.
func address(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = sshPort
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// keysOf returns the keys that a text of known hosts has for an endpoint. A host is
// named by itself or hashed; patterns and authorities are passed over.
func keysOf(text, endpoint string) ([]ssh.PublicKey, error) {
	u, problem := parseEndpoint(endpoint)
	if problem != "" {
		return nil, errors.New(problem)
	}
	name := u.Hostname()
	if port := u.Port(); port != "" && port != sshPort {
		name = "[" + name + "]:" + port
	}
	var keys, revoked []ssh.PublicKey
	for rest := []byte(text); len(rest) > 0; {
		var marker string
		var hosts []string
		var key ssh.PublicKey
		var err error
		marker, hosts, key, _, rest, err = ssh.ParseKnownHosts(rest)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errors.New("a line cannot be read")
		}
		if marker == "revoked" {
			revoked = append(revoked, key)
		} else if marker == "" && slices.ContainsFunc(hosts, func(h string) bool { return names(h, name) }) {
			keys = append(keys, key)
		}
	}
	keys = slices.DeleteFunc(keys, func(k ssh.PublicKey) bool {
		return slices.ContainsFunc(revoked, func(r ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), r.Marshal()) })
	})
	if len(keys) == 0 {
		return nil, fmt.Errorf("there is no key of %s", name)
	}
	return keys, nil
}

// names reports whether a name of known hosts is the host: "|1|salt|hash" is the
// hash of one.
func names(written, host string) bool {
	parts := strings.Split(written, "|")
	if len(parts) != 4 || parts[0] != "" || parts[1] != "1" {
		return strings.EqualFold(written, host)
	}
	salt, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		return false
	}
	want, err := base64.StdEncoding.DecodeString(parts[3])
	if err != nil {
		return false
	}
	h := hmac.New(sha1.New, salt)
	h.Write([]byte(host))
	return subtle.ConstantTimeCompare(h.Sum(nil), want) == 1
}

// algorithms are those that a host is asked for: it shows one key, and another one
// than we know would look like a changed one.
func algorithms(keys []ssh.PublicKey) []string {
	var out []string
	for _, k := range keys {
		if k.Type() == ssh.KeyAlgoRSA {
			out = append(out, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		} else {
			out = append(out, k.Type())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// A hostError says that a host is not known to be the right one.
type hostError struct{ text string }

// Error implements [error].
func (e *hostError) Error() string { return e.text }

// only accepts a host that has one of the keys.
func only(keys []ssh.PublicKey) ssh.HostKeyCallback {
	return func(_ string, _ net.Addr, shown ssh.PublicKey) error {
		for _, k := range keys {
			if bytes.Equal(k.Marshal(), shown.Marshal()) {
				return nil
			}
		}
		return &hostError{"the host shows a key that is not known: " + shown.Type() + " " + ssh.FingerprintSHA256(shown) + ": somebody may stand between"}
	}
}
