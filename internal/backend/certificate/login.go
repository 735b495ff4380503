package certificate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
)

// itself is the endpoint of a certificate that is looked for nowhere.
const itself = "the certificate itself"

// loginSettings travel in [rotation.ProbeSpec.Settings].
type loginSettings struct {
	Names       []string       `json:"names"`
	State       rotation.State `json:"state"`
	Fingerprint string         `json:"fingerprint"` // "": it is not known
	CRL         string         `json:"crl,omitempty"`
	At          *places        `json:"at,omitempty"`
	Trust       []string       `json:"trust,omitempty"`   // of what services trust: its authorities
	Account     *string        `json:"account,omitempty"` // of an account's key: the URL of the account; "": it is not known
}

// ProbeSpec says how to try a version. It does no I/O.
func (b *Backend) ProbeSpec(v rotation.Version) rotation.ProbeSpec {
	names := b.settings.Names
	if found, err := issuedOf(v); err == nil && found != nil {
		names = namesOf(found.leaf) // the declared ones may have changed since
	}
	of := loginSettings{Names: names, State: v.State, Fingerprint: v.Public[publicFingerprint], CRL: b.settings.CRL}
	if at := b.places(); len(at.Lists) > 0 {
		of.At = &at
	}
	settings, _ := json.Marshal(of) // of texts: it always has JSON
	spec := rotation.ProbeSpec{Backend: "certificate", Identity: v.Identity, Endpoints: b.settings.Probe, CA: b.options.Roots, Settings: settings}
	if len(spec.Endpoints) == 0 {
		spec.Endpoints = []string{itself}
	}
	return spec
}

// Login tries a certificate and its key as a server and its clients would. What is mounted
// must fit together, and a client must take it: its chain, each name, its time; and its
// authority must not call it revoked.
//
// Of the version in service, every task must serve it: every address of every endpoint is
// asked, by each name, with TLS 1.3. A version is Dead if it was revoked or its time is over, and
// no address serves it: one that does is still believed by clients that do not ask.
func Login(ctx context.Context, spec rotation.ProbeSpec, m rotation.Material) rotation.ProbeResult {
	var s loginSettings
	if err := json.Unmarshal(spec.Settings, &s); err != nil {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "the probe's settings are malformed"}
	}
	switch {
	case s.Account != nil:
		return s.holds(ctx, spec, m)
	case len(s.Trust) > 0:
		return s.trusts(ctx, spec, m)
	}
	roots, err := remote.Pool(spec.CA)
	if err != nil {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "the roots cannot be read: " + err.Error()}
	}
	t := trial{settings: s, roots: roots}
	t.own, t.found = t.mounted(ctx, m)
	return rotation.ProbeEach(spec.Endpoints, func(endpoint string) rotation.EndpointResult { return t.at(ctx, endpoint) })
}

// A trial is a version that is tried.
type trial struct {
	settings loginSettings
	roots    *x509.CertPool
	own      rotation.EndpointResult // what is to be said of what is mounted, wherever it is served
	found    *issuance
}

// mounted judges what is mounted.
func (t trial) mounted(ctx context.Context, m rotation.Material) (rotation.EndpointResult, *issuance) {
	say := func(answer rotation.Answer, format string, args ...any) (rotation.EndpointResult, *issuance) {
		return rotation.EndpointResult{Answer: answer, Reason: fmt.Sprintf(format, args...)}, nil
	}
	chain, key := partsOf(m)
	if len(chain) == 0 || len(key) == 0 {
		return say(rotation.Inconclusive, "nothing that is mounted holds the certificate and its key: mount certificate and key")
	}
	defer clear(key)
	found, err := parseChain(chain)
	if err != nil {
		return say(rotation.Unfit, "the certificate that is mounted: %v", err)
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		return say(rotation.Unfit, "the certificate and the key that are mounted do not belong together")
	}
	if want := t.settings.Fingerprint; want != "" && fingerprint(found.leaf) != want {
		return say(rotation.Unfit, "what is mounted is another certificate (%x)", found.leaf.SerialNumber)
	}
	now := time.Now()
	if now.After(found.leaf.NotAfter) {
		return rotation.EndpointResult{Answer: rotation.Dead, Reason: "it is out of date since " + found.leaf.NotAfter.UTC().Format(time.RFC3339), Code: "expired"}, found
	}
	if err := found.trusted(t.roots, t.settings.Names, now); err != nil {
		return say(rotation.Unfit, "%v", err)
	}
	look := lookup{http: httpClient(nil, nil, remote.CallTimeout), crl: t.settings.CRL, now: time.Now}
	if t.settings.At != nil {
		look.at = *t.settings.At
	}
	told, err := look.status(ctx, found.leaf, found.issuer)
	switch {
	case err != nil:
		return rotation.EndpointResult{Answer: rotation.Inconclusive, Reason: err.Error()}, found
	case told.revoked:
		return rotation.EndpointResult{Answer: rotation.Dead, Reason: "its authority says that it is revoked: " + told.reason(), Code: "revoked"}, found
	}
	return rotation.EndpointResult{Answer: rotation.Alive}, found
}

// partsOf returns the certificates and the key that are mounted, in whatever fields.
func partsOf(m rotation.Material) (chain, key []byte) {
	fields := m.Fields()
	if _, ok := m[fieldCertificate]; ok {
		if _, ok := m[fieldKey]; ok {
			fields = []string{fieldCertificate, fieldKey}
		}
	}
	for _, f := range fields {
		for rest := m[f].Reveal(); ; {
			var block *pem.Block
			if block, rest = pem.Decode([]byte(rest)); block == nil {
				break
			}
			switch {
			case block.Type == "CERTIFICATE":
				chain = append(chain, pem.EncodeToMemory(block)...)
			case strings.HasSuffix(block.Type, "PRIVATE KEY") && len(key) == 0:
				key = pem.EncodeToMemory(block)
			}
		}
	}
	return chain, key
}

// at judges the version by one endpoint.
func (t trial) at(ctx context.Context, endpoint string) rotation.EndpointResult {
	pending := t.settings.State == rotation.Pending // it is served nowhere yet
	valid := t.own.Answer == rotation.Alive
	if endpoint == itself || t.found == nil || pending || t.settings.State != rotation.Current && valid {
		return t.own
	}
	seen, err := t.seen(ctx, endpoint)
	if err != nil {
		return rotation.EndpointResult{Answer: rotation.Inconclusive, Reason: err.Error()}
	}
	for _, s := range seen {
		switch {
		case s.err != nil:
			return rotation.EndpointResult{Answer: rotation.Inconclusive, Reason: fmt.Sprintf("%s: %v", s.address, s.err)}
		case s.ours && !valid && t.settings.State != rotation.Current:
			return rotation.EndpointResult{Answer: rotation.Alive, Reason: fmt.Sprintf("%s still serves it, though: %s", s.address, t.own.Reason)}
		case !s.ours && valid:
			return rotation.EndpointResult{Answer: rotation.Unfit, Reason: fmt.Sprintf("%s serves another certificate (%s)", s.address, s.serial)}
		}
	}
	r := t.own
	r.Reason = strings.TrimPrefix(fmt.Sprintf("%s; %d addresses were asked", r.Reason, len(seen)), "; ")
	if valid {
		r.Reason = ""
	}
	return r
}

// A sight is what one address serves.
type sight struct {
	address  string // without the port
	ours     bool
	serial   string
	by       string // who signed it
	distrust error  // of what services trust: why it is not verified
	err      error
}

// seen asks every address of an endpoint at once.
func (t trial) seen(ctx context.Context, endpoint string) ([]sight, error) {
	host, port, err := splitProbe(endpoint)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, remote.CallTimeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil || len(addresses) == 0 {
		return nil, unknown("", "the name %s has no address here", host)
	}
	out := make([]sight, len(addresses))
	var wg sync.WaitGroup
	for i, a := range addresses {
		wg.Go(func() {
			out[i] = t.look(ctx, net.JoinHostPort(a, port))
			out[i].address = a
		})
	}
	wg.Wait()
	return out, nil
}

// look asks one address by each name.
func (t trial) look(ctx context.Context, address string) sight {
	var out sight
	for i, name := range t.settings.Names {
		name = strings.Replace(name, "*.", "keyturn.", 1)
		// What is served is compared with what is mounted, which was verified; and who
		// serves it must send a chain that a client takes.
		dialer := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, ServerName: name, InsecureSkipVerify: true, SessionTicketsDisabled: true}}
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return sight{err: fmt.Errorf("no TLS 1.3: %w", err)}
		}
		state := conn.(*tls.Conn).ConnectionState()
		_ = conn.Close() // nothing was sent
		leaf := state.PeerCertificates[0]
		if t.found == nil { // what services trust is tried
			if out = (sight{serial: fmt.Sprintf("%x", leaf.SerialNumber), by: leaf.Issuer.String(), distrust: t.distrusts(state.PeerCertificates)}); out.distrust != nil {
				return out
			}
			continue
		}
		ours := fingerprint(leaf) == fingerprint(t.found.leaf)
		if ours && t.own.Answer == rotation.Alive {
			sent := &issuance{leaf: leaf, chain: state.PeerCertificates}
			if err := sent.trusted(t.roots, t.settings.Names, time.Now()); err != nil {
				return sight{err: fmt.Errorf("the chain that it serves: %w", err)}
			}
		}
		if i > 0 && ours != out.ours {
			return sight{err: errors.New("it serves one certificate for some names, and another one for others")}
		}
		out = sight{ours: ours, serial: fmt.Sprintf("%x", leaf.SerialNumber)}
	}
	return out
}
