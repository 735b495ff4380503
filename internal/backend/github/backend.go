package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/rotation"
)

// Options are what a backend needs beside its settings.
type Options struct {
	Credential string           // its name, for the title
	App        *githubapp.App   // GitHub, for the repository of the settings
	KnownHosts []byte           // the content of the file that the settings name as known-hosts
	Now        func() time.Time // nil is [time.Now]
	Logger     *slog.Logger     // what people should know and no result says; default: nowhere
}

// New returns the backend of what settings that passed [Section] say. It does no I/O.
func New(s Settings, o Options) (rotation.Backend, error) {
	s = s.withDefaults()
	if err := s.check(); err != nil {
		return nil, rotation.Classify(rotation.Invalid, "", fmt.Errorf("github: %w", err))
	}
	if o.App == nil {
		return nil, errors.New("github: nothing says as whom GitHub is asked")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	switch {
	case s.InstallationToken != nil:
		return newTokens(s, o)
	case s.Webhook != nil:
		return newHooks(s, o)
	}
	return newKeys(s, o)
}

const (
	toRead  = "read"
	toWrite = "write"
)

// The kinds of what is tried.
const (
	kindKey   = "deploy-key"
	kindToken = "installation-token"
	kindHook  = "webhook"
)

// Login tries a version as a service would. It is the one entrance of all kinds.
func Login(ctx context.Context, spec rotation.ProbeSpec, m rotation.Material) rotation.ProbeResult {
	var of struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(spec.Settings, &of); err != nil {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "the probe's settings are malformed"}
	}
	switch of.Kind {
	case kindKey:
		return loginByKey(ctx, spec, m)
	case kindToken:
		return loginByToken(ctx, spec, m)
	case kindHook:
		return deliverTo(ctx, spec, m)
	}
	return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "the probe is of a kind that this release does not know"}
}

var _ rotation.Login = Login

// settingsOf is what a probe needs of a kind, for [rotation.ProbeSpec.Settings].
func settingsOf(settings any) json.RawMessage {
	b, err := json.Marshal(settings)
	if err != nil {
		panic("github: " + err.Error()) // texts have a JSON form
	}
	return b
}
