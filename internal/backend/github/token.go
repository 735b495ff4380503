package github

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

const (
	fieldToken   = "token"
	fieldExpires = "expires" // RFC 3339

	// tokenLife is how long GitHub lets a token of an App live. Nothing can make that longer.
	tokenLife = time.Hour

	// slack is how far GitHub's clock may be behind ours: a token is believed dead so
	// much after its time.
	slack = time.Minute
)

// A TokenBackend gives services tokens of an App, narrowed to repositories and
// permissions. GitHub makes the value, knows no list of them, and lets nobody but
// who has a token revoke it. So what is put somewhere ends by its time; only what this
// process itself made and gives up is revoked.
type TokenBackend struct {
	of      InstallationToken
	options Options
	names   []string // of the repositories, without the owner

	mu      sync.Mutex
	made    map[string]secret.Value // identity → token, by this process
	revoked map[string]bool         // identity
}

// The interfaces that a TokenBackend fulfils.
var (
	_ rotation.Backend     = (*TokenBackend)(nil)
	_ rotation.Minter      = (*TokenBackend)(nil)
	_ rotation.Fading      = (*TokenBackend)(nil)
	_ rotation.Preflighter = (*TokenBackend)(nil)
	_ rotation.Warner      = (*TokenBackend)(nil)
	_ rotation.Nouner      = (*TokenBackend)(nil)
)

func newTokens(s Settings, o Options) (*TokenBackend, error) {
	b := &TokenBackend{of: *s.InstallationToken, options: o, made: map[string]secret.Value{}, revoked: map[string]bool{}}
	if o.App.Plain() {
		return nil, rotation.Errorf(rotation.Invalid, "name an App: app: {id: 123456, key: {from-env: KEYTURN_APP_KEY}}",
			"github: a token cannot make tokens: that takes an App")
	}
	for _, r := range b.of.Repositories {
		_, name, _ := strings.Cut(r, "/")
		b.names = append(b.names, name)
	}
	return b, nil
}

// Noun implements [rotation.Nouner].
func (b *TokenBackend) Noun() string { return "installation token" }

// Life implements [rotation.Fading].
func (b *TokenBackend) Life() time.Duration { return tokenLife }

// installation reads the App's installation as it is now.
func (b *TokenBackend) installation(ctx context.Context) (suspended bool, granted map[string]string, err error) {
	found, err := b.options.App.Installation(ctx)
	return found.SuspendedAt != "", found.Permissions, wrap("looking at the App's installation", err)
}

// Preflight checks that the App may do all that the token shall.
func (b *TokenBackend) Preflight(ctx context.Context, _ rotation.Credential) error {
	suspended, granted, err := b.installation(ctx)
	if err != nil {
		return err
	}
	if suspended {
		return refused("let it work again: settings of the organisation, GitHub Apps", "the App's installation is suspended: its tokens are refused")
	}
	levels := []string{"", toRead, toWrite, "admin"}
	for _, name := range slices.Sorted(maps.Keys(b.of.Permissions)) {
		if slices.Index(levels, granted[name]) < slices.Index(levels, b.of.Permissions[name]) {
			return refused("grant it: the App's page of settings, Permissions & events; then have the organisation accept it",
				"the App lacks %s: %s, which the token shall have", strings.ReplaceAll(name, "_", " "), b.of.Permissions[name])
		}
	}
	return nil
}

// Identify names the token, for the record: GitHub has no name for one.
func (b *TokenBackend) Identify(ctx context.Context, next rotation.Version, _ []rotation.Version) (rotation.Version, error) {
	if _, _, err := b.installation(ctx); err != nil {
		return next, err
	}
	next = next.Clone()
	next.Identity = rotation.Title("keyturn "+b.options.Credential, next.Number)
	return next, nil
}

// Mint has GitHub make the token. One that was made and whose answer was lost is in
// nobody's hand, and ends by itself.
func (b *TokenBackend) Mint(ctx context.Context, v rotation.Version) (rotation.Version, rotation.Material, error) {
	if v.Identity == "" {
		return v, nil, errors.New("github: making a token for a version that was not identified")
	}
	doing := fmt.Sprintf("making a token for %s", strings.Join(b.of.Repositories, ", "))
	issued, err := b.options.App.Issue(ctx, b.names, b.of.Permissions)
	if err != nil {
		return v, nil, wrap(doing, err)
	}
	if more := beyond(issued.Permissions, b.of.Permissions); more != "" {
		err := refused("", "%s: it may do more than was asked for: %s", doing, more)
		return v, nil, errors.Join(err, b.options.App.Revoke(ctx, issued.Token))
	}
	b.mu.Lock()
	b.made[v.Identity] = issued.Token
	b.mu.Unlock()
	v = v.Clone()
	v.Public = map[string]string{fieldExpires: issued.Ends.Format(time.RFC3339)}
	return v, rotation.Material{fieldToken: secret.FromString(string(issued.Token.Reveal())), fieldExpires: secret.FromString(v.Public[fieldExpires])}, nil
}

// beyond says what was given and not asked for. GitHub gives metadata: read with everything.
func beyond(given, asked map[string]string) string {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if given[name] != asked[name] && !(name == "metadata" && given[name] == toRead) {
			return strings.ReplaceAll(name, "_", " ") + ": " + given[name]
		}
	}
	return ""
}

// Observe says of a token what its time, the App's installation and this process know.
func (b *TokenBackend) Observe(ctx context.Context, v rotation.Version) (rotation.Standing, error) {
	ends, err := time.Parse(time.RFC3339, v.Public[fieldExpires])
	if err != nil {
		return rotation.Standing{Status: rotation.Absent, Detail: "no token is on the record; one whose making was cut off is in nobody's hand, and ends within the hour"}, nil
	}
	suspended, _, err := b.installation(ctx)
	if err != nil {
		return rotation.Standing{}, err
	}
	b.mu.Lock()
	gone := b.revoked[v.Identity]
	b.mu.Unlock()
	until := ends.Add(slack).UTC()
	switch {
	case gone:
		return rotation.Standing{Status: rotation.Ended, Detail: "it was revoked"}, nil
	case suspended:
		return rotation.Standing{Status: rotation.Ended, Detail: "the App's installation is suspended"}, nil
	case !b.options.Now().Before(until):
		return rotation.Standing{Status: rotation.Ended, Detail: "it ended by itself " + ends.UTC().Format("2006-01-02 15:04:05 UTC")}, nil
	}
	return rotation.Standing{Status: rotation.Expiring, Until: until, Detail: "it ends by itself " + ends.UTC().Format("2006-01-02 15:04:05 UTC")}, nil
}

// Arm implements [rotation.Backend]: GitHub makes the value, accepted from birth.
func (b *TokenBackend) Arm(context.Context, rotation.Version, rotation.Material, time.Time) error {
	return errors.New("github: a token is made by GitHub, not armed")
}

// End revokes a token that this process made. Another one ends by its time.
func (b *TokenBackend) End(ctx context.Context, v rotation.Version, _ rotation.Why) error {
	standing, err := b.Observe(ctx, v)
	if err != nil || standing.Status != rotation.Expiring {
		return err
	}
	b.mu.Lock()
	token, mine := b.made[v.Identity]
	b.mu.Unlock()
	if !mine {
		return rotation.Errorf(rotation.Refused, "nobody but who has the token can revoke it; at once all of the App's end if its installation is suspended: settings of the organisation, GitHub Apps",
			"github: the token of version %d: %w: %s", v.Number, rotation.ErrLives, standing.Until.Format(time.RFC3339))
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	if err := b.options.App.Revoke(ctx, token); err != nil {
		return wrap(fmt.Sprintf("revoking the token of version %d", v.Number), err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.revoked[v.Identity] = true
	delete(b.made, v.Identity)
	return nil
}

// Warnings implements [rotation.Warner].
func (b *TokenBackend) Warnings(context.Context, string) ([]string, error) {
	return []string{"a token ends an hour after it was made, whatever happens: let the schedule run every 10 minutes"}, nil
}

// tokenSettings travel in [rotation.ProbeSpec.Settings].
type tokenSettings struct {
	Kind         string   `json:"kind"`
	Repositories []string `json:"repositories"` // all that it may see
}

// ProbeSpec says how to try a version. It does no I/O.
func (b *TokenBackend) ProbeSpec(v rotation.Version) rotation.ProbeSpec {
	return rotation.ProbeSpec{Backend: "github", Identity: v.Identity, Endpoints: []string{b.options.App.Server()},
		Settings: settingsOf(tokenSettings{kindToken, b.of.Repositories})}
}

// loginByToken asks with the token and nothing else which repositories it is for. One
// that is for others than it should be is Unfit. Only 401, which GitHub answers to what
// it does not know, says Dead.
func loginByToken(ctx context.Context, spec rotation.ProbeSpec, m rotation.Material) rotation.ProbeResult {
	var settings tokenSettings
	if err := json.Unmarshal(spec.Settings, &settings); err != nil {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "the probe's settings are malformed"}
	}
	token, ok := fieldOf(m, fieldToken)
	if !ok {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "no field holds the token: mount token"}
	}
	return rotation.ProbeEach(spec.Endpoints, func(endpoint string) rotation.EndpointResult {
		r := rotation.EndpointResult{Answer: rotation.Inconclusive}
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(endpoint, "/")+fmt.Sprintf("/installation/repositories?per_page=%d", maxRepositories), nil)
		if err != nil {
			r.Reason = "the address of GitHub's API is none"
			return r
		}
		req.Header.Set("Authorization", "Bearer "+string(token.Reveal()))
		req.Header.Set("Accept", "application/vnd.github+json")
		status, body, problem := ask(ctx, req)
		r.Code = statusCode(status)
		switch {
		case problem != "":
			r.Code, r.Reason = "", problem
		case status == http.StatusUnauthorized:
			r.Answer, r.Reason = rotation.Dead, "GitHub refuses the token"
		case status != http.StatusOK:
			r.Reason = fmt.Sprintf("GitHub answered %d", status)
		default:
			r.Answer, r.Reason = sees(body, settings.Repositories)
		}
		return r
	})
}

// sees compares the repositories that an answer names with those that it should.
func sees(body []byte, want []string) (rotation.Answer, string) {
	var answer struct {
		Repositories []struct {
			FullName string `json:"full_name"`
		} `json:"repositories"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return rotation.Inconclusive, "GitHub's answer cannot be read"
	}
	lower := func(names []string) []string {
		out := []string{}
		for _, n := range names {
			out = append(out, strings.ToLower(n))
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	var got []string
	for _, r := range answer.Repositories {
		got = append(got, r.FullName)
	}
	if !slices.Equal(lower(got), lower(want)) {
		return rotation.Unfit, fmt.Sprintf("the token is taken, and is for %s, not for %s", cmp.Or(strings.Join(lower(got), ", "), "no repository"), strings.Join(lower(want), ", "))
	}
	return rotation.Alive, ""
}
