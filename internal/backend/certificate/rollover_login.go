package certificate

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
)

// ProbeSpec says how to try an account's key: the authority is asked whose it is.
func (k *AccountKey) ProbeSpec(v rotation.Version) rotation.ProbeSpec {
	account := v.Public[publicAccount]
	settings, _ := json.Marshal(loginSettings{State: v.State, Account: &account}) // of texts: it always has JSON
	return rotation.ProbeSpec{Backend: "certificate", Identity: v.Identity, Endpoints: []string{k.acme.settings.ACME.Directory}, CA: k.acme.options.CA, Settings: settings}
}

// holds tries a key as who orders with it would: the authority must say that it is the account's.
// It is Dead if the authority knows no account with it, and Unfit if that is another one, or
// was ended: of the version before that is as good, for the next one is the control, and an
// account has one key.
func (s loginSettings) holds(ctx context.Context, spec rotation.ProbeSpec, m rotation.Material) rotation.ProbeResult {
	key, err := parseKey(m[fieldKey].Reveal())
	if err != nil {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "the key that is mounted: " + err.Error() + ": mount key"}
	}
	roots, err := remote.Pool(spec.CA)
	if err != nil {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "the roots cannot be read: " + err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, remote.CallTimeout)
	defer cancel()
	web := httpClient(roots, nil, remote.CallTimeout)
	return rotation.ProbeEach(spec.Endpoints, func(directory string) rotation.EndpointResult {
		a := &acmeServer{client: &acme.Client{Directory: directory, UserAgent: "keyturn", HTTPClient: web}}
		found, err := a.whose(ctx, key)
		another := err == nil && *s.Account != "" && found.Location != "" && found.Location != *s.Account
		switch {
		case s.State == rotation.Previous && (another || errors.Is(err, errInactive)):
			return rotation.EndpointResult{Answer: rotation.Dead, Reason: "it is the key of another account, or of one that was ended: the account on the record has one key", Code: "otherAccount"}
		case errors.Is(err, errInactive):
			return rotation.EndpointResult{Answer: rotation.Unfit, Reason: err.Error(), Code: "unauthorized"}
		case err != nil:
			return rotation.EndpointResult{Answer: rotation.Inconclusive, Reason: err.Error()}
		case found.Location == "":
			return rotation.EndpointResult{Answer: rotation.Dead, Reason: "the authority knows no account with this key", Code: "accountDoesNotExist"}
		case another:
			return rotation.EndpointResult{Answer: rotation.Unfit, Reason: "it is the key of another account: " + found.Location}
		}
		return rotation.EndpointResult{Answer: rotation.Alive}
	})
}
