package rotation

import (
	"context"
	"encoding/json"
	"sync"
	"time"
)

// Answer is what a probe says of a version.
type Answer string

// The answers. Dead needs the exact refusal of the backend; a timeout, a
// refused connection, a TLS error, an overload are Inconclusive, never Dead. An
// Unfit version fails validation as a dead one does, and proves no death.
const (
	Alive        Answer = "alive"
	Dead         Answer = "dead"
	Unfit        Answer = "unfit" // accepted, but not as the right one or without the rights
	Inconclusive Answer = "unknown"
)

// A ProbeSpec says how to try a version as a service would: everything but the
// value. It travels as JSON to where the probe runs.
type ProbeSpec struct {
	Backend   string          `json:"backend"`            // which [Login]
	Identity  string          `json:"identity"`           // who must be logged in
	Endpoints []string        `json:"endpoints"`          // URLs without a password, each is tried
	CA        []byte          `json:"ca,omitempty"`       // PEM
	Settings  json.RawMessage `json:"settings,omitempty"` // the backend's own

	// Sparing says that the backend counts refusals, and locks out all who log in alike
	// after a few: what one place was refused is not tried from another, and not again.
	Sparing bool `json:"sparing,omitempty"`
}

// An EndpointResult is the answer of one endpoint (one host).
type EndpointResult struct {
	Endpoint string `json:"endpoint"`
	Answer   Answer `json:"answer"`
	Code     string `json:"code,omitempty"`   // the backend's own, e.g. a SQLSTATE
	Reason   string `json:"reason,omitempty"` // for people, without a value
	Millis   int64  `json:"ms"`
}

// A ProbeResult is the answer of a probe: Alive if every endpoint accepted,
// Dead if every one refused; otherwise Inconclusive, with the endpoints saying why.
type ProbeResult struct {
	Answer    Answer           `json:"answer"`
	Reason    string           `json:"reason,omitempty"`
	Endpoints []EndpointResult `json:"endpoints,omitempty"`
	From      string           `json:"from,omitempty"` // where it ran

	ran bool // some endpoint was tried; else the probe itself did not run
	cut bool // from some place no endpoint accepted: the way from there may be at fault
}

// Summarize sets Answer and Reason from the endpoints.
func (r ProbeResult) Summarize() ProbeResult {
	count := map[Answer]int{}
	for _, e := range r.Endpoints {
		count[e.Answer]++
		if e.Reason != "" && (r.Reason == "" || e.Answer != Alive) {
			r.Reason = e.Reason
		}
	}
	r.Answer = Inconclusive
	switch n := len(r.Endpoints); {
	case n == 0:
		r.Reason = "no endpoint was tried"
	case count[Alive] == n:
		r.Answer, r.Reason = Alive, ""
	case count[Dead] == n:
		r.Answer = Dead
	case count[Unfit] > 0:
		r.Answer = Unfit
	}
	return r
}

// ProbeEach tries every endpoint at once. What one is called, and how long it took, is
// filled in.
func ProbeEach(endpoints []string, try func(endpoint string) EndpointResult) ProbeResult {
	result := ProbeResult{Endpoints: make([]EndpointResult, len(endpoints))}
	var wg sync.WaitGroup
	for i, endpoint := range endpoints {
		wg.Go(func() {
			begun := time.Now()
			r := try(endpoint)
			r.Endpoint, r.Millis = endpoint, time.Since(begun).Milliseconds()
			result.Endpoints[i] = r
		})
	}
	wg.Wait()
	return result.Summarize()
}

// A Login tries the material at every endpoint of the spec. It needs no
// administrator's right and no configuration. It returns in the context's time.
type Login func(context.Context, ProbeSpec, Material) ProbeResult

// A Prober runs a [Login] where services are, with the version's objects as
// they mount them, and cleans up after itself. What keeps the probe itself from
// running is Inconclusive.
type Prober interface {
	Probe(ctx context.Context, v Version, spec ProbeSpec, from Placement) ProbeResult
}
