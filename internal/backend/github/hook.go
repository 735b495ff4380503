package github

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

const (
	fieldSecret = "secret"

	// versionParameter tells the webhook of a version from the others of its URL: GitHub
	// wants each to have a configuration of its own. Receivers get it and may ignore it.
	versionParameter = "keyturn"

	// pingTime is how long a ping's delivery is waited for.
	pingTime = 20 * time.Second
)

// A HookBackend rotates the secret that a webhook's deliveries are signed with. A
// webhook has one secret, so each version is a webhook of its own, equal to the one of
// today and not active. The cutover switches: the new one on, then the old one off. In
// the second between them an event may be delivered twice, with the same
// X-GitHub-Delivery, and never not at all.
type HookBackend struct {
	of      Webhook
	options Options
	home    string // of the webhooks in the API
}

// The interfaces that a HookBackend fulfils.
var (
	_ rotation.Backend     = (*HookBackend)(nil)
	_ rotation.Drafter     = (*HookBackend)(nil)
	_ rotation.Activator   = (*HookBackend)(nil)
	_ rotation.OneWay      = (*HookBackend)(nil)
	_ rotation.Adopter     = (*HookBackend)(nil)
	_ rotation.Preflighter = (*HookBackend)(nil)
	_ rotation.Comparer    = (*HookBackend)(nil)
	_ rotation.Warner      = (*HookBackend)(nil)
	_ rotation.Examiner    = (*HookBackend)(nil)
	_ rotation.Nouner      = (*HookBackend)(nil)
)

func newHooks(s Settings, o Options) (*HookBackend, error) {
	b := &HookBackend{of: *s.Webhook, options: o, home: "orgs/" + url.PathEscape(s.Webhook.Organization) + "/hooks"}
	if b.of.Organization == "" {
		b.home = "repos/" + b.of.Repository + "/hooks"
	}
	return b, nil
}

// Noun implements [rotation.Nouner].
func (b *HookBackend) Noun() string { return "webhook" }

// NoWayBack implements [rotation.OneWay].
func (b *HookBackend) NoWayBack() string {
	return "the receivers know the new secret alone, and would refuse what is signed with the one before"
}

// whose names the webhooks for people.
func (b *HookBackend) whose() string {
	if b.of.Organization != "" {
		return "the organisation " + b.of.Organization
	}
	return b.of.Repository
}

// A hook is a webhook as GitHub's API has it.
type hook struct {
	ID     int64      `json:"id"`
	Active bool       `json:"active"`
	Events []string   `json:"events"`
	Config hookConfig `json:"config"`
}

type hookConfig struct {
	URL         string `json:"url"`
	ContentType string `json:"content_type"`
	InsecureSSL any    `json:"insecure_ssl,omitempty"` // "0" or 0, "1" or 1
	Secret      string `json:"secret,omitempty"`       // GitHub shows none
}

// checked reports whether GitHub checks the receiver's certificate.
func (c hookConfig) checked() bool { return c.InsecureSSL == nil || fmt.Sprint(c.InsecureSSL) == "0" }

func (h hook) describe() string {
	state := "not active"
	if h.Active {
		state = "active"
	}
	return fmt.Sprintf("webhook %d, %s, %s", h.ID, numberWords(h.number()), state)
}

func numberWords(n int) string {
	if n == 0 {
		return "of no version"
	}
	return fmt.Sprintf("of version %d", n)
}

// number is the version that a webhook is of; 0 of the one that people made.
func (h hook) number() int {
	_, n := parted(h.Config.URL)
	return n
}

// parted returns an URL without our parameter, and the number in that.
func parted(text string) (base string, number int) {
	before, rest, found := strings.Cut(text, versionParameter+"=v")
	n, err := strconv.Atoi(rest)
	if !found || err != nil || n < 1 || !strings.HasSuffix(before, "?") && !strings.HasSuffix(before, "&") {
		return text, 0
	}
	return before[:len(before)-1], n
}

// urlOf is the URL of a version's webhook.
func (b *HookBackend) urlOf(number int) string {
	sign := "?"
	if strings.Contains(b.of.URL, "?") {
		sign = "&"
	}
	return fmt.Sprintf("%s%s%s=v%d", b.of.URL, sign, versionParameter, number)
}

// hooks are those of this credential: with its URL.
type hooks []hook

// of returns the webhook of a version. Its identity is the URL, which names the
// version; that of today, which people made, is version 1 alone.
func (all hooks) of(v rotation.Version) (hook, bool) {
	_, n := parted(v.Identity)
	if v.Identity == "" || n != v.Number && !(n == 0 && v.Number == 1) {
		return hook{}, false
	}
	i := slices.IndexFunc(all, func(h hook) bool { return h.Config.URL == v.Identity })
	if i < 0 {
		return hook{}, false
	}
	return all[i], true
}

func (all hooks) active() hooks {
	return slices.DeleteFunc(slices.Clone(all), func(h hook) bool { return !h.Active })
}

func (b *HookBackend) client(level string) *githubapp.Client {
	if b.of.Organization != "" {
		return b.options.App.Wide(github.InstallationPermissions{OrganizationHooks: &level})
	}
	return b.options.App.Client(github.InstallationPermissions{RepositoryHooks: &level})
}

// call sends one request below the webhooks' place in the API.
func (b *HookBackend) call(ctx context.Context, c *githubapp.Client, method, path string, body, into any) (*github.Response, error) {
	req, err := c.NewRequest(method, b.home+path, body)
	if err != nil {
		return nil, err
	}
	return c.Do(ctx, req, into)
}

// list reads the webhooks of this credential.
func (b *HookBackend) list(ctx context.Context, c *githubapp.Client) (hooks, error) {
	all, err := githubapp.All(func(o github.ListOptions) ([]hook, *github.Response, error) {
		var page []hook
		resp, err := b.call(ctx, c, http.MethodGet, fmt.Sprintf("?per_page=%d&page=%d", o.PerPage, max(o.Page, 1)), nil, &page)
		return page, resp, err
	})
	all = slices.DeleteFunc(all, func(h hook) bool {
		base, _ := parted(h.Config.URL)
		return base != b.of.URL
	})
	return all, wrap("listing the webhooks of "+b.whose(), err)
}

func (b *HookBackend) look(ctx context.Context) (hooks, error) {
	return b.list(ctx, b.client(toRead))
}

// today is the webhook that works now.
func (b *HookBackend) today(all hooks) (hook, error) {
	switch active := all.active(); len(active) {
	case 1:
		return active[0], nil
	case 0:
		return hook{}, refused("make it once by hand, or switch it on: settings, Webhooks", "%s has no active webhook with the URL %s", b.whose(), b.of.URL)
	}
	return hook{}, refused("switch off all but the one that the receivers know: settings, Webhooks", "%s has several active webhooks with the URL %s", b.whose(), b.of.URL)
}

// Preflight checks that the webhook of today can be followed by another one.
func (b *HookBackend) Preflight(ctx context.Context, of rotation.Credential) error {
	if of.Open != nil && of.Open.From == 0 {
		return refused("run it once: keyturn adopt "+of.Name, "the receivers' secret of today is not on the record: nothing could stand beside it")
	}
	right := "repository_hooks"
	if b.of.Organization != "" {
		right = "organization_hooks"
	}
	granted, err := b.options.App.Granted(ctx)
	if err != nil {
		return wrap("looking at what the App may do", err)
	}
	if granted != nil && granted[right] != toWrite {
		return refused("grant it: the App's page of settings, Permissions & events, Webhooks; then have the organisation accept it",
			"the App may not change the webhooks of %s: it lacks %s: write", b.whose(), strings.ReplaceAll(right, "_", " "))
	}
	all, err := b.look(ctx)
	if err != nil {
		return err
	}
	now, err := b.today(all)
	if err != nil {
		return err
	}
	if now.Config.ContentType != "json" {
		return refused("choose application/json: settings, Webhooks", "%s sends forms: what a receiver makes of them is not tried here", now.describe())
	}
	return nil
}

// Identify chooses the URL of the version's webhook. One with this number, or a later
// one, was made by somebody else: another record rotates the same webhook.
func (b *HookBackend) Identify(ctx context.Context, next rotation.Version, _ []rotation.Version) (rotation.Version, error) {
	all, err := b.look(ctx)
	if err != nil {
		return next, err
	}
	for _, h := range all {
		if h.number() >= next.Number {
			return next, refused("find out who made it; if nobody else rotates it, delete it by hand",
				"%s of %s is not on this record, whose next version is %d: somebody else rotates, or did", h.describe(), b.whose(), next.Number)
		}
	}
	if _, err := b.today(all); err != nil {
		return next, err
	}
	next = next.Clone()
	next.Identity = b.urlOf(next.Number)
	return next, nil
}

// Draft makes a secret of 256 bits.
func (b *HookBackend) Draft(rotation.Version) (rotation.Material, error) {
	return rotation.Material{fieldSecret: secret.Generate()}, nil
}

// Observe looks for the version's webhook.
func (b *HookBackend) Observe(ctx context.Context, v rotation.Version) (rotation.Standing, error) {
	all, err := b.look(ctx)
	if err != nil {
		return rotation.Standing{}, err
	}
	h, ok := all.of(v)
	if !ok {
		return rotation.Standing{Status: rotation.Absent, Detail: b.whose() + " has no such webhook"}, nil
	}
	return rotation.Standing{Status: rotation.Armed, Detail: h.describe()}, nil
}

// Arm makes the version's webhook, which is not active yet: as that of today, with
// another secret. One that is there was made with this value: a number is used once.
func (b *HookBackend) Arm(ctx context.Context, v rotation.Version, m rotation.Material, _ time.Time) error {
	if _, n := parted(v.Identity); n != v.Number {
		return fmt.Errorf("github: the webhook of version %d cannot have the URL %s", v.Number, v.Identity)
	}
	value, ok := m[fieldSecret]
	if !ok || value.Empty() {
		return fmt.Errorf("github: version %d has no secret", v.Number)
	}
	c := b.client(toWrite)
	all, err := b.list(ctx, c)
	if err != nil {
		return err
	}
	if _, ok := all.of(v); ok {
		return nil
	}
	like, err := b.today(all)
	if err != nil {
		return err
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	config := like.Config
	config.URL, config.Secret = v.Identity, string(value.Reveal())
	_, err = b.call(ctx, c, http.MethodPost, "", map[string]any{"name": "web", "active": false, "events": like.Events, "config": config}, nil)
	if err == nil {
		return nil
	}
	failed := wrap(fmt.Sprintf("making the webhook of version %d", v.Number), err)
	if all, err = b.list(ctx, c); err != nil {
		return rotation.Classify(rotation.Unknown, rotation.HintOf(failed), failed) // it may be there
	}
	if _, ok := all.of(v); ok {
		return nil
	}
	return failed
}

// Activate switches the version's webhook on, has GitHub deliver a ping by it, and then
// switches the others off. A ping that a receiver refuses ends it before: nothing was lost.
func (b *HookBackend) Activate(ctx context.Context, v rotation.Version) error {
	c := b.client(toWrite)
	all, err := b.list(ctx, c)
	if err != nil {
		return err
	}
	h, ok := all.of(v)
	if !ok {
		return fmt.Errorf("github: %s has no webhook of version %d", b.whose(), v.Number)
	}
	if !h.Active {
		if err := b.turn(ctx, c, h, true); err != nil {
			return err
		}
	}
	if err := b.pinged(ctx, c, h); err != nil {
		if !errors.Is(err, errRefusedPing) {
			return err
		}
		if h.Active { // it was before
			return err
		}
		return errors.Join(err, b.turn(ctx, c, h, false))
	}
	for _, other := range all.active() {
		if other.ID != h.ID {
			if err := b.turn(ctx, c, other, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// turn switches a webhook on or off.
func (b *HookBackend) turn(ctx context.Context, c *githubapp.Client, h hook, on bool) error {
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	_, err := b.call(ctx, c, http.MethodPatch, fmt.Sprintf("/%d", h.ID), map[string]any{"active": on}, nil)
	return wrap("switching "+h.describe()+" of "+b.whose(), err)
}

var errRefusedPing = errors.New("the receiver refuses what GitHub signs with the new secret")

type delivery struct {
	ID     int64  `json:"id"`
	Event  string `json:"event"`
	Code   int    `json:"status_code"`
	Status string `json:"status"`
}

// pinged has GitHub deliver a ping, and reads what the receiver answered. One whose
// delivery does not show up in time says nothing.
func (b *HookBackend) pinged(ctx context.Context, c *githubapp.Client, h hook) error {
	before, err := b.pings(ctx, c, h)
	if err != nil {
		return err
	}
	known := map[int64]bool{}
	for _, d := range before {
		known[d.ID] = true
	}
	if _, err := b.call(ctx, c, http.MethodPost, fmt.Sprintf("/%d/pings", h.ID), nil, nil); err != nil {
		return wrap("pinging by "+h.describe()+" of "+b.whose(), err)
	}
	for end := b.options.Now().Add(pingTime); ; {
		found, err := b.pings(ctx, c, h)
		if err != nil {
			return err
		}
		for _, d := range found {
			switch {
			case known[d.ID]:
			case d.Code == http.StatusUnauthorized, d.Code == http.StatusForbidden, d.Code == http.StatusBadRequest:
				return rotation.Errorf(rotation.Failed, "the webhook of before is active, and nothing was lost; do the receivers read the new secret?",
					"github: %w: they answered %d", errRefusedPing, d.Code)
			case d.Code < 200 || d.Code > 299:
				b.options.Logger.WarnContext(ctx, "a ping was not taken", "webhook", h.ID, "answer", d.Code)
				return nil
			default:
				return nil
			}
		}
		if b.options.Now().After(end) {
			b.options.Logger.WarnContext(ctx, "GitHub shows no delivery of its ping yet", "webhook", h.ID)
			return nil
		}
		if err := githubapp.Wait(ctx, time.Second); err != nil {
			return err
		}
	}
}

func (b *HookBackend) pings(ctx context.Context, c *githubapp.Client, h hook) ([]delivery, error) {
	var all []delivery
	_, err := b.call(ctx, c, http.MethodGet, fmt.Sprintf("/%d/deliveries?per_page=100", h.ID), nil, &all)
	return slices.DeleteFunc(all, func(d delivery) bool { return d.Event != "ping" }), wrap("reading the deliveries of "+h.describe(), err)
}

// End deletes the version's webhook, unless it is the only one that is active.
func (b *HookBackend) End(ctx context.Context, v rotation.Version, why rotation.Why) error {
	c := b.client(toWrite)
	all, err := b.list(ctx, c)
	if err != nil {
		return err
	}
	h, ok := all.of(v)
	if !ok {
		return nil
	}
	if active := all.active(); h.Active && len(active) == 1 {
		return rotation.Errorf(rotation.Refused, "activate another one first", "github: %s is the only one of %s that is active", h.describe(), b.whose())
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	b.options.Logger.InfoContext(ctx, "deleting a webhook", "webhook", h.describe(), "of", b.whose(), "reason", string(why))
	_, err = b.call(ctx, c, http.MethodDelete, fmt.Sprintf("/%d", h.ID), nil, nil)
	if err == nil || notFound(err) {
		return nil
	}
	failed := wrap("deleting "+h.describe()+" of "+b.whose(), err)
	if all, err = b.list(ctx, c); err != nil {
		return rotation.Classify(rotation.Unknown, rotation.HintOf(failed), failed)
	}
	if _, ok := all.of(v); !ok {
		return nil
	}
	return failed
}

// Compare checks that both webhooks deliver the same, the same way: somebody may have
// changed one since.
func (b *HookBackend) Compare(ctx context.Context, next, current rotation.Version) error {
	all, err := b.look(ctx)
	if err != nil {
		return err
	}
	var found [2]hook
	for i, v := range []rotation.Version{next, current} {
		var ok bool
		if found[i], ok = all.of(v); !ok {
			return fmt.Errorf("github: comparing the webhooks: %s has none of version %d", b.whose(), v.Number)
		}
	}
	events := func(h hook) map[string]bool {
		set := map[string]bool{}
		for _, e := range h.Events {
			set[e] = true
		}
		return set
	}
	const hint = "start again: the next version is made as the webhook of today is then"
	switch {
	case !maps.Equal(events(found[0]), events(found[1])):
		return rotation.Errorf(rotation.Failed, hint, "github: the webhooks deliver other events: %s, and before %s",
			strings.Join(found[0].Events, ", "), strings.Join(found[1].Events, ", "))
	case found[0].Config.ContentType != found[1].Config.ContentType || found[0].Config.checked() != found[1].Config.checked():
		return rotation.Errorf(rotation.Failed, hint, "github: the webhooks deliver in another way: content type, or the check of the receiver's certificate")
	}
	return nil
}

// Adopt takes over the webhook of today. That its receivers know the secret the probe
// of an adoption proves.
func (b *HookBackend) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	all, err := b.look(ctx)
	if err != nil {
		return v, err
	}
	now, err := b.today(all)
	if err != nil {
		return v, err
	}
	if n := now.number(); n > 1 {
		return v, refused("find out which record it is on: keyturn adopts what people made", "%s of %s was made by a rotation", now.describe(), b.whose())
	}
	v = v.Clone()
	v.Identity = now.Config.URL
	return v, nil
}

// Warnings implements [rotation.Warner].
func (b *HookBackend) Warnings(context.Context, string) ([]string, error) {
	return []string{"at the cutover an event may be delivered twice, with the same X-GitHub-Delivery; after it there is no way back but forward"}, nil
}

// Examine implements [rotation.Examiner]: which webhooks there are, and how they deliver.
func (b *HookBackend) Examine(ctx context.Context) ([]rotation.Remark, error) {
	all, err := b.look(ctx)
	if err != nil {
		return nil, err
	}
	var found []rotation.Remark
	for _, h := range all {
		found = append(found, rotation.Remark{Level: rotation.Fine, Text: h.describe()})
		if !h.Config.checked() {
			found = append(found, rotation.Remark{Level: rotation.Warning, Text: h.describe() + ": GitHub does not check the receiver's certificate",
				Hint: "switch SSL verification on: settings, Webhooks"})
		}
	}
	if len(all) > 2 {
		found = append(found, rotation.Remark{Level: rotation.Warning, Text: fmt.Sprintf("%s has %d webhooks of this credential, and two at most are needed", b.whose(), len(all)),
			Hint: "compare with keyturn status, and delete by hand what it does not name"})
	}
	return found, nil
}
