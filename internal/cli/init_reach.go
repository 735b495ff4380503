package cli

import (
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/secret"
)

const (
	sshKeyVariable   = "SWARM_SSH_KEY"
	usualKnownHosts  = ".github/known_hosts"
	certPathVariable = "DOCKER_CERT_PATH" // as docker has it
)

// reachFlags say how init reaches the engine, beside its host.
type reachFlags struct {
	sshKey     string // path; "" means that the variable holds the key
	knownHosts string
	tls        string // folder with ca.pem, cert.pem and key.pem
}

func (r *reachFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&r.sshKey, "ssh-key", "", "of an ssh:// host: `file` of the private key; default: the key itself is in $"+sshKeyVariable)
	flags.StringVar(&r.knownHosts, "known-hosts", usualKnownHosts, "of an ssh:// host: `file` of known hosts")
	flags.StringVar(&r.tls, "tls", "", "of a tcp:// host: `folder` with ca.pem, cert.pem and key.pem; default: $"+certPathVariable)
}

// swarm returns the section that reaches a host.
func (r *reachFlags) swarm(host string, getenv func(string) string) (*config.Swarm, error) {
	s := &config.Swarm{Host: host}
	switch scheme, _, _ := strings.Cut(host, "://"); scheme {
	case "ssh":
		s.SSH = &config.SSH{Key: secret.Source{File: r.sshKey}, KnownHosts: r.knownHosts}
		if r.sshKey == "" {
			s.SSH.Key = secret.Source{Env: sshKeyVariable}
		}
	case "tcp":
		folder := or(r.tls, getenv(certPathVariable))
		if folder == "" {
			return nil, usagef("name the folder with ca.pem, cert.pem and key.pem: --tls FOLDER", "--host %s needs certificates", host)
		}
		s.TLS = &config.TLS{CA: filepath.Join(folder, "ca.pem"), Cert: filepath.Join(folder, "cert.pem"), Key: secret.Source{File: filepath.Join(folder, "key.pem")}}
	}
	return s, nil
}

// section returns the lines of a configuration that reach the engine so.
func section(s *config.Swarm) []string {
	key := func(s secret.Source) string {
		if s.Env != "" {
			return "{from-env: " + s.Env + "}"
		}
		return "{from-file: " + s.File + "}"
	}
	lines := []string{"host: " + s.Host}
	if s.SSH != nil {
		from := "  key: " + key(s.SSH.Key)
		if s.SSH.Key.File != "" {
			from += "  # in a workflow, of a repository's secret: {from-env: " + sshKeyVariable + "}"
		}
		lines = append(lines, "ssh:", from, "  known-hosts: "+s.SSH.KnownHosts)
	}
	if s.TLS != nil {
		lines = append(lines, "tls:", "  ca: "+s.TLS.CA, "  cert: "+s.TLS.Cert, "  key: "+key(s.TLS.Key))
	}
	return lines
}
