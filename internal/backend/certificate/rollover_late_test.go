package certificate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/testserver"
)

// A bare target has nothing of a version, and nobody reads it.
type bare struct{ rotation.Target }

func (bare) Observe(context.Context, rotation.Version) (rotation.Holding, error) {
	return rotation.Holding{}, nil
}

// Probe tries nothing.
func (bare) Probe(context.Context, rotation.Version, rotation.ProbeSpec, rotation.Placement) rotation.ProbeResult {
	return rotation.ProbeResult{Answer: rotation.Dead, Reason: "it is not to be tried"}
}

func (bare) Traits() rotation.Traits { return rotation.Traits{} }

// stepOf is a step of a key's rotation.
func (s stored) stepOf(phase rotation.Phase, name string) rotation.Step {
	s.k.t.Helper()
	before, _ := s.Procedure(&rotation.Standard{Name: s.k.name, Backend: s.AccountKey, Target: bare{}}).Steps(phase)
	for _, step := range before {
		if step.Name == name {
			return step
		}
	}
	s.k.t.Fatalf("%s has no step %q", phase, name)
	return rotation.Step{}
}

// amid is a credential between two versions, of which a step of the cutover was begun.
func amid(from, to rotation.Version, begun time.Time) rotation.Credential {
	return rotation.Credential{Name: to.Credential, Versions: []rotation.Version{from, to}, Open: &rotation.Rotation{From: from.Number, To: to.Number,
		Steps: []rotation.StepState{{Phase: rotation.Cutover, Name: "activate", Effect: rotation.Activate, Version: to.Number, Status: rotation.RecordUndone, At: begun}}}}
}

// TestRolloverLate has a change of the key come when nobody waits for it any more: it is gone on with, and
// before the next key is removed another run waits for it.
func TestRolloverLate(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	v1, m1 := b.first()
	v1.State = rotation.Current
	v2, m2 := b.stage(2, v1)
	account := k.accountOf(m1)
	held := make(chan func(), 1)
	k.between(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if !testserver.ChangesKey(r) {
			pass.ServeHTTP(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		late := r.Clone(context.WithoutCancel(r.Context()))
		late.Body = io.NopCloser(bytes.NewReader(body))
		select {
		case held <- func() { pass.ServeHTTP(httptest.NewRecorder(), late) }:
		default:
		}
		panic(http.ErrAbortHandler)
	})
	if err := b.Activate(t.Context(), v2); rotation.ClassOf(err) != rotation.Unknown {
		t.Fatalf("a change that is not answered: %v of class %d", err, rotation.ClassOf(err))
	}
	k.between(nil)
	k.must(b.Activate(t.Context(), v1)) // what closes the gap
	comes := <-held

	// It comes while another run gives the version up.
	go func() {
		time.Sleep(300 * time.Millisecond)
		comes()
	}()
	another := k.backend(func(m made) { m.Patience = time.Second })
	begun := time.Now()
	k.must(another.stepOf(rotation.Prepare, "arm").Undo(t.Context(), amid(v1, v2, begun), nil))
	if old, next := k.accountOf(m1), k.accountOf(m2); old != account || next != "" {
		t.Errorf("the key in service is that of %q, the one to be removed of %q, want the first to be that of %s", old, next, account)
	}
	if waited := time.Since(begun); waited < time.Second {
		t.Errorf("a change that was never answered was waited for %s", waited)
	}

	// It came before the cutover is run again, or validated.
	k.must(b.Activate(t.Context(), v2))
	for _, phase := range []rotation.Phase{rotation.Validate, rotation.Cutover} {
		if r, err := k.backend().stepOf(phase, "probe").Do(t.Context(), amid(v1, v2, begun)); err != nil || !r.Observed || !strings.Contains(r.Note, "its gap began when that was changed") {
			t.Errorf("the key in service, after the change came, is tried in %s: %+v, %v", phase, r, err)
		}
	}
}

// TestRolloverHeard waits for no change that was answered, or came.
func TestRolloverHeard(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	v1, m1 := b.first()
	v2, _ := b.stage(2, v1)
	patient := func() stored { return k.backend(func(m made) { m.Patience = time.Hour }) }
	undoes := func(when string, b stored, c rotation.Credential) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := b.stepOf(rotation.Prepare, "arm").Undo(ctx, c, nil); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	undoes("nothing was changed", patient(), rotation.Credential{Versions: []rotation.Version{v1, v2}, Open: &rotation.Rotation{From: 1, To: 2}})
	undoes("it was long ago", patient(), amid(v1, v2, time.Now().Add(-2*time.Hour)))
	refused := patient()
	k.between(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if testserver.ChangesKey(r) {
			problem(http.StatusForbidden, "malformed")(w, r, pass)
			return
		}
		pass.ServeHTTP(w, r)
	})
	if err := refused.Activate(t.Context(), v2); rotation.ClassOf(err) != rotation.Failed {
		t.Errorf("a change that is refused: %v", err)
	}
	k.between(nil)
	undoes("it was refused", refused, amid(v1, v2, time.Now()))
	k.must(k.backend().Activate(t.Context(), v2))
	back := patient()
	k.must(back.Activate(t.Context(), v1)) // which sees that the next key was the account's
	undoes("it was done, and taken back", back, amid(v1, v2, time.Now()))
	k.must(os.RemoveAll(filepath.Join(k.folder, "v2")))
	undoes("its key is gone", patient(), amid(v1, v2, time.Now()))
	moved := amid(v1, v2, time.Now())
	moved.Open.Steps = append(moved.Open.Steps, rotation.StepState{Phase: rotation.Rollback, Name: "activate", Effect: rotation.Activate, Version: 1, Status: rotation.RecordDone})
	v2, m2 := b.stage(2, v1)
	moved.Versions[1] = v2
	undoes("it was in service", patient(), moved)
	if k.accountOf(m1) == "" || k.accountOf(m2) != "" {
		t.Error("the key in service is not the account's")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := patient().stepOf(rotation.Prepare, "arm").Undo(ctx, amid(v1, v2, time.Now()), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled while it waits: %v", err)
	}
}

// TestRolloverTakenOver has another run take over, and remove the next key, while the change to it is under
// way: the account has a key that is stored.
func TestRolloverTakenOver(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	v1, m1 := b.first()
	account := k.accountOf(m1)
	for number, c := range map[int]struct {
		amid  func(w http.ResponseWriter, r *http.Request, pass http.Handler)
		class rotation.Class
	}{
		2: {func(w http.ResponseWriter, r *http.Request, pass http.Handler) { pass.ServeHTTP(w, r) }, rotation.Failed},
		3: {testserver.LoseAnswer, rotation.Failed},
	} {
		v, m := b.stage(number, v1)
		v.Public["account"] = account
		var once atomic.Bool
		k.between(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			if testserver.ChangesKey(r) && once.CompareAndSwap(false, true) {
				k.must(os.RemoveAll(filepath.Join(k.folder, fmt.Sprintf("v%d", number))))
				c.amid(w, r, pass)
				return
			}
			pass.ServeHTTP(w, r)
		})
		err := b.Activate(t.Context(), v)
		k.between(nil)
		saysSo(t, "changing to a key that is removed meanwhile", err, c.class, "the key was removed while it was made the account's")
		if old, next := k.accountOf(m1), k.accountOf(m); old != account || next != "" {
			t.Errorf("the key in service is that of %q, the one that stands nowhere of %q, want the first to be that of %s", old, next, account)
		}
	}

	// And it cannot be taken back.
	v4, _ := b.stage(4, v1)
	k.between(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if testserver.ChangesKey(r) {
			k.must(os.RemoveAll(filepath.Join(k.folder, "v4")))
			k.between(silent)
			testserver.LoseAnswer(w, r, pass)
			return
		}
		pass.ServeHTTP(w, r)
	})
	err := b.Activate(t.Context(), v4)
	k.between(nil)
	saysSo(t, "changing to a key that is removed, and not changing back", err, rotation.Stuck, "and it may be")
}

// TestRolloverConnections changes the key over one connection: the gap is to be short where the way is long.
func TestRolloverConnections(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	v1, _ := k.backend().first()
	var dials atomic.Int32
	b := k.backend(func(m made) {
		m.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
	})
	v2, m2 := b.stage(2, v1)
	dials.Store(0)
	k.must(b.Activate(t.Context(), v2))
	if n := dials.Load(); n != 1 {
		t.Errorf("%d connections were made for one change, want 1", n)
	}
	if k.accountOf(m2) == "" {
		t.Error("the key was not changed")
	}
}
