package config

import (
	"net/url"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/secret"
)

// SSH says how a host whose address begins with ssh:// is spoken to.
type SSH struct {
	Key        secret.Source `yaml:"key"`
	Passphrase secret.Source `yaml:"passphrase"` // of the key; zero: it has none
	KnownHosts string        `yaml:"known-hosts"`
}

// TLS says how a host whose address begins with tcp:// is spoken to.
type TLS struct {
	CA   string        `yaml:"ca"`
	Cert string        `yaml:"cert"`
	Key  secret.Source `yaml:"key"`
}

const (
	unixHint = "write: unix:///var/run/docker.sock"
	sshHint  = "write: ssh://deploy@swarm.acme.io, and :PORT or the /path of the engine's socket if they are others than usual"
	tcpHint  = "write: tcp://swarm.acme.io:2376"
	sshKeys  = "write: ssh: {key: {from-env: SWARM_SSH_KEY}, known-hosts: .github/known_hosts}"
	tlsKeys  = "write: tls: {ca: deploy/ca.pem, cert: deploy/cert.pem, key: {from-env: SWARM_TLS_KEY}}"
)

// reach checks how the Swarm is reached.
func (p *parser) reach(s *Swarm) {
	n := at(p.doc, "swarm", "host")
	kind, rest, _ := strings.Cut(s.Host, "://")
	switch {
	case s.Host == "" && p.faults.touch("swarm.host"):
		return
	case s.Host == "":
		s.Host, kind = "unix:///var/run/docker.sock", "unix"
	case kind == "unix" && !absolute(rest):
		p.fault(n, "swarm.host", unixHint, "want the absolute path of a socket after unix://")
	case kind == "unix":
	case kind == "ssh":
		p.sshHost(n, s.Host)
	case kind == "tcp":
		p.tcpHost(n, s.Host)
	default:
		p.fault(n, "swarm.host", unixHint, "unknown kind of host")
		return // and so nothing is known of what it needs
	}
	p.ssh(s, kind)
	p.tls(s, kind)
}

// address checks what ssh:// and tcp:// have in common.
func (p *parser) address(n *yaml.Node, host, hint string) *url.URL {
	u, err := url.Parse(host)
	if err != nil {
		p.fault(n, "swarm.host", hint, "this is no address")
		return nil
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	switch _, hasPassword := u.User.Password(); {
	case hasPassword:
		p.fault(n, "swarm.host", hint, "a password never stands in an address")
	case u.Hostname() == "" || strings.ContainsAny(u.Hostname(), " /%@"):
		p.fault(n, "swarm.host", hint, "the address names no host")
	case u.Port() != "" && (err != nil || port == 0), strings.HasSuffix(u.Host, ":"):
		p.fault(n, "swarm.host", hint, "want a port from 1 to 65535 after the colon")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		p.fault(n, "swarm.host", hint, "the address has a part behind ? or #, which means nothing here")
	default:
		return u
	}
	return nil
}

func (p *parser) sshHost(n *yaml.Node, host string) {
	u := p.address(n, host, sshHint)
	switch {
	case u == nil:
	case u.User.Username() == "":
		p.fault(n, "swarm.host", sshHint, "the address does not say as whom to log in")
	case u.Path != "" && !absolute(u.Path):
		p.fault(n, "swarm.host", sshHint, "want the absolute path of the engine's socket, or nothing, behind the host")
	}
}

func (p *parser) tcpHost(n *yaml.Node, host string) {
	u := p.address(n, host, tcpHint)
	switch {
	case u == nil:
	case u.User != nil:
		p.fault(n, "swarm.host", tcpHint, "a certificate says who we are, and no name in the address")
	case u.Path != "":
		p.fault(n, "swarm.host", tcpHint, "nothing stands behind the host and its port")
	}
}

// ssh checks the section ssh against the kind of host.
func (p *parser) ssh(s *Swarm, kind string) {
	n := at(p.doc, "swarm", "ssh")
	switch {
	case s.SSH == nil && kind == "ssh" && !p.faults.touch("swarm.ssh"):
		p.fault(at(p.doc, "swarm"), "swarm", sshKeys, "ssh:// needs a key to log in with, and the known keys of the host")
	case s.SSH == nil:
	case kind != "ssh":
		p.fault(n, "swarm.ssh", "leave it out, or write host: ssh://…", "this host is not reached by ssh")
	default:
		p.needed(n, "swarm.ssh", "key", sshKeys, s.SSH.Key.IsZero(), "there is no key to log in with")
		p.needed(n, "swarm.ssh", "known-hosts", sshKeys, s.SSH.KnownHosts == "", "there is no file of known hosts")
	}
}

// tls checks the section tls against the kind of host.
func (p *parser) tls(s *Swarm, kind string) {
	n := at(p.doc, "swarm", "tls")
	switch {
	case s.TLS == nil && kind == "tcp" && !p.faults.touch("swarm.tls"):
		p.fault(at(p.doc, "swarm"), "swarm", tlsKeys, "tcp:// needs tls: whoever reaches an engine without it owns the machine")
	case s.TLS == nil:
	case kind != "tcp":
		p.fault(n, "swarm.tls", "leave it out, or write host: tcp://…", "this host is not reached by TLS")
	default:
		p.needed(n, "swarm.tls", "ca", tlsKeys, s.TLS.CA == "", "there is no authority to know the engine by")
		p.needed(n, "swarm.tls", "cert", tlsKeys, s.TLS.Cert == "", "there is no certificate to show to the engine")
		p.needed(n, "swarm.tls", "key", tlsKeys, s.TLS.Key.IsZero(), "the certificate has no key")
	}
}

// needed reports that a key of a section is missing, unless a fault says so.
func (p *parser) needed(n *yaml.Node, section, key, hint string, missing bool, text string) {
	if here := section + "." + key; missing && !p.faults.touch(here) && !p.meant[here] {
		p.fault(at(n, key), here, hint, "%s", text)
	}
}
