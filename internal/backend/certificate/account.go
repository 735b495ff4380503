package certificate

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"

	"github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// An acmeIssuer has certificates issued by an ACME server.
type acmeIssuer struct{ *Backend }

// An acmeServer is the ACME server, asked as the account.
type acmeServer struct {
	client  *acme.Client
	account acme.Account // without a location until it was looked up
	beside  keyFolder    // where other keys of the account may stand; "": nowhere
}

// open reads the account's key. It does no I/O on the network, but for what [Options.Ready] does.
func (b acmeIssuer) open(ctx context.Context) (*acmeServer, error) {
	value, err := b.settings.ACME.Account.Read(b.options.Getenv)
	if err != nil {
		return nil, rotation.Classify(rotation.Invalid, "", fmt.Errorf("certificate: the key of the account: %w", err))
	}
	key, err := parseKey(value.Reveal())
	if err != nil {
		return nil, rotation.Classify(rotation.Invalid, "make one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
			fmt.Errorf("certificate: the key of the account (%s): %w", b.settings.ACME.Account, err))
	}
	a, err := b.server(ctx)
	if err != nil {
		return nil, err
	}
	a.account.PrivateKey, a.beside = key, keysBesideLink(b.settings.ACME.Account)
	return a, nil
}

// server is the ACME server, as nobody yet.
func (b acmeIssuer) server(ctx context.Context) (*acmeServer, error) {
	web, err := b.web(ctx)
	if err != nil {
		return nil, err
	}
	return &acmeServer{client: &acme.Client{Directory: b.settings.ACME.Directory, UserAgent: "keyturn", HTTPClient: web}}, nil
}

// parseKey reads a private key in PEM form. Its error holds nothing of it.
func parseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it is no key in PEM form")
	}
	var key any
	var err error
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, errors.New("it is no private key for signatures, or it is encrypted")
	}
	return signer, nil
}

// errInactive is wrapped by the error of an account that its authority has ended.
var errInactive = errors.New("the account is not active")

// whose looks up the account that has a key. That there is none is no error: it has no
// location then.
func (a *acmeServer) whose(ctx context.Context, key crypto.Signer) (acme.Account, error) {
	found, err := a.client.GetAccount(ctx, acme.Account{PrivateKey: key})
	p, told := problemOf(err)
	switch {
	case told && p.Status >= http.StatusInternalServerError:
		return acme.Account{}, wrap("looking for the account", err)
	case is(err, accountIsMissing):
		return acme.Account{}, nil
	case is(err, unauthorized):
		return acme.Account{}, rotation.Classify(rotation.Refused, "use the key of another account", fmt.Errorf("certificate: %w: %w", errInactive, err))
	case err != nil:
		return acme.Account{}, wrap("looking for the account", err)
	case found.Location == "":
		return acme.Account{}, wrap("looking for the account", errors.New("the answer says nowhere which one it is"))
	case found.Status != "" && found.Status != acme.StatusValid:
		return acme.Account{}, rotation.Classify(rotation.Refused, "use the key of another account", fmt.Errorf("certificate: %w: it is %s", errInactive, found.Status))
	}
	found.PrivateKey = key
	return found, nil
}

// known looks the account up. One that is not there is no error. While the account's key is
// changed the one in service is refused until the link is moved: another one of its folder
// is taken then.
func (a *acmeServer) known(ctx context.Context) (bool, error) {
	if a.account.Location != "" {
		return true, nil
	}
	found, err := a.whose(ctx, a.account.PrivateKey)
	if err != nil || found.Location != "" || a.beside == "" {
		return a.take(found), err
	}
	keys, err := a.beside.all(false)
	if err != nil {
		return false, err
	}
	found, _, err = a.among(ctx, keys, a.account.PrivateKey, func(acme.Account) bool { return true })
	if err != nil || found.Location != "" || len(keys) < 2 {
		return a.take(found), err
	}
	found, err = a.whose(ctx, a.account.PrivateKey) // the way back may have been gone while the others were asked
	return a.take(found), err
}

// among returns the first account that fits and has one of the keys, but for a certain one, and that
// key. If there is none it has no location; the error is then that of one that was ended.
func (a *acmeServer) among(ctx context.Context, keys []keptKey, but crypto.Signer, fits func(acme.Account) bool) (acme.Account, keptKey, error) {
	var ended error
	for _, key := range keys {
		if key.is(but) {
			continue
		}
		found, err := a.whose(ctx, key.Signer)
		switch {
		case errors.Is(err, errInactive):
			ended = err // that of a later one may be active
		case err != nil:
			return acme.Account{}, keptKey{}, err
		case found.Location != "" && fits(found):
			return found, key, nil
		}
	}
	return acme.Account{}, keptKey{}, ended
}

// take asks as an account from now on, if it was found.
func (a *acmeServer) take(found acme.Account) bool {
	if found.Location == "" {
		return false
	}
	a.account = found
	return true
}

// login looks up the account, which must be there.
func (a *acmeServer) login(ctx context.Context) error {
	there, err := a.known(ctx)
	if err == nil && !there {
		return refused("use the key of the account that ordered it", "the authority knows no account with this key")
	}
	return err
}

// mayOrder checks that there is an account, or that one may be made.
func (b acmeIssuer) mayOrder(ctx context.Context, a *acmeServer) error {
	there, err := a.known(ctx)
	if err == nil && !there {
		err = b.agreed()
	}
	return err
}

// agreed refuses to make an account for somebody who did not agree to what that means.
func (b acmeIssuer) agreed() error {
	if b.settings.ACME.AgreeTerms {
		return nil
	}
	return refused("read its terms of service, then write acme: {agree-terms: true}: an account is made with the first order",
		"the authority knows no account with this key")
}

// register makes the account.
func (b acmeIssuer) register(ctx context.Context, a *acmeServer) error {
	account := a.account
	account.TermsOfServiceAgreed = true
	for _, c := range b.settings.ACME.Contact {
		account.Contact = append(account.Contact, "mailto:"+c)
	}
	if e := b.settings.ACME.ExternalAccount; e != nil {
		key, err := e.key(b.options.Getenv)
		if err != nil {
			return err
		}
		defer key.Wipe()
		if err := account.SetExternalAccountBinding(ctx, a.client, acme.EAB{KeyID: e.ID, MACKey: string(key.Reveal())}); err != nil {
			return wrap("making the account", err)
		}
	}
	made, err := a.client.NewAccount(ctx, account)
	if p, told := problemOf(err); told && p.Status < http.StatusInternalServerError && (p.Type == unauthorized || p.Type == acme.ProblemTypeExternalAccountRequired) {
		return rotation.Classify(rotation.Refused, "are id and key under acme.external-account what the authority gave for one account? Some take a pair once alone", fmt.Errorf("certificate: making the account: %w", err))
	}
	if err != nil {
		return wrap("making the account", err)
	}
	made.PrivateKey = account.PrivateKey
	a.account = made
	return nil
}

// key reads the key, which authorities give with or without padding.
func (e ExternalAccount) key(getenv func(string) string) (secret.Value, error) {
	value, err := e.Key.Read(getenv)
	if err != nil {
		return secret.Value{}, rotation.Classify(rotation.Invalid, "", fmt.Errorf("certificate: the key of the external account: %w", err))
	}
	text := bytes.TrimRight(bytes.TrimSpace(value.Reveal()), "=")
	decoded, err := base64.RawURLEncoding.DecodeString(string(text))
	clear(decoded)
	if err != nil || len(decoded) < 16 {
		return secret.Value{}, rotation.Errorf(rotation.Invalid, "write the authority's HMAC key as it gives it: letters, digits, - and _", "certificate: the key of the external account (%s) is no key in base64url", e.Key)
	}
	return secret.New(text), nil
}
