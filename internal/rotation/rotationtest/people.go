package rotationtest

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/keyturn/keyturn/internal/rotation"
)

// People is a procedure of its own, as a ceremony of key holders has it: its
// cutover waits for them, and the switch happens in the backend when the last
// of them acted. Cancelled before that, the old version stays valid; after it
// there is no way back.
type People struct {
	w          *World
	credential string
	holders    int
}

var _ rotation.Procedure = (*People)(nil)

// ceremony is what the backend knows of it.
type ceremony struct {
	number int // that is being brought; 0: none is running
	shares int
}

// People returns the procedure of a credential that waits for holders.
func (w *World) People(credential string, holders int) *People {
	w.core(credential)
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.systems[credential]
	if s.ceremony == nil {
		s.ceremony = &ceremony{}
	}
	return &People{w: w, credential: credential, holders: holders}
}

// Share is a holder who acts. The last one of them makes the switch.
func (p *People) Share() {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	s := p.w.systems[p.credential]
	c := s.ceremony
	if c.number == 0 {
		_ = p.w.faultf("a holder of %q acts where nothing waits", p.credential)
		return
	}
	if c.shares++; c.shares < p.holders {
		_ = p.w.effect("share %s %d", p.credential, c.number)
		return
	}
	for _, a := range s.accounts {
		a.ended = true
	}
	s.accounts[key(c.number)] = &account{number: c.number}
	c.number, c.shares = 0, 0
	_ = p.w.effect("switch %s", p.credential)
}

func key(number int) string { return fmt.Sprintf("key-%d", number) }

// Credential implements [rotation.Procedure].
func (p *People) Credential() string { return p.credential }

// Steps implements [rotation.Procedure].
func (p *People) Steps(phase rotation.Phase) (before, after []rotation.Step) {
	switch phase {
	case rotation.Prepare:
		return []rotation.Step{{Name: "identify", Do: p.identify}}, nil
	case rotation.Cutover:
		return []rotation.Step{
			{Name: "start", Effect: rotation.Arm, Do: p.start, Undo: p.cancel},
			{Name: "shares", Effect: rotation.Activate, Do: p.wait, Undo: p.cancel},
		}, nil
	case rotation.Cleanup:
		return []rotation.Step{
			{Name: "end", Effect: rotation.End, On: rotation.LastVersion, Do: p.ended},
			{Name: "proof", Effect: rotation.Prove, On: rotation.LastVersion, Do: p.ended},
		}, nil
	case rotation.Rollback:
		return []rotation.Step{{Name: "way back", On: rotation.LastVersion, Do: p.noWay}}, nil
	}
	return nil, nil
}

// Shifts implements [rotation.Procedure]: no service reads a key.
func (p *People) Shifts(rotation.Phase, rotation.Credential) (rotation.Target, []rotation.Shift) {
	return nil, nil
}

// Tend implements [rotation.Procedure].
func (p *People) Tend(context.Context, rotation.Credential) (rotation.Result, error) {
	return rotation.Result{}, nil
}

// Settle implements [rotation.Procedure].
func (p *People) Settle(context.Context, rotation.Credential) (rotation.Verdict, error) {
	return rotation.Keep, nil
}

func (p *People) identify(_ context.Context, c rotation.Credential) (rotation.Result, error) {
	next := c.Next()
	next.Identity = key(next.Number)
	return rotation.Result{Version: &next}, nil
}

func (p *People) do(ctx context.Context, name string, do func(*system, *ceremony) error) error {
	return p.w.call(ctx, name, func() error {
		s := p.w.systems[p.credential]
		if s.down {
			return rotation.Errorf(rotation.Unknown, "", "%s: no answer", name)
		}
		return do(s, s.ceremony)
	})
}

func switched(s *system, number int) bool { _, ok := s.accounts[key(number)]; return ok }

func (p *People) start(ctx context.Context, c rotation.Credential) (r rotation.Result, err error) {
	number := c.Next().Number
	err = p.do(ctx, "start", func(s *system, now *ceremony) error {
		switch {
		case switched(s, number) || now.number == number:
			r.Observed = true
			return nil
		case now.number != 0:
			return fmt.Errorf("a ceremony for version %d is running", now.number)
		}
		now.number, now.shares = number, 0
		return p.w.effect("start %s %d", p.credential, number)
	})
	return r, err
}

func (p *People) wait(ctx context.Context, c rotation.Credential) (r rotation.Result, err error) {
	err = p.do(ctx, "shares", func(s *system, now *ceremony) error {
		if switched(s, c.Next().Number) {
			return nil
		}
		if now.number != c.Next().Number {
			return fmt.Errorf("no ceremony for version %d is running", c.Next().Number)
		}
		r = rotation.Result{Outcome: rotation.Waiting, For: fmt.Sprintf("%d of %d holders", p.holders-now.shares, p.holders)}
		return nil
	})
	return r, err
}

func (p *People) cancel(ctx context.Context, c rotation.Credential, _ json.RawMessage) error {
	return p.do(ctx, "cancel", func(s *system, now *ceremony) error {
		if switched(s, c.Next().Number) {
			return rotation.Errorf(rotation.Refused, "the way is forward", "the holders have switched to version %d", c.Next().Number)
		}
		if now.number != c.Next().Number {
			return nil
		}
		now.number, now.shares = 0, 0
		return p.w.effect("cancel %s %d", p.credential, c.Next().Number)
	})
}

func (p *People) ended(ctx context.Context, c rotation.Credential) (rotation.Result, error) {
	return rotation.Result{Observed: true}, p.do(ctx, "ended", func(s *system, _ *ceremony) error {
		if a, ok := s.accounts[key(c.Last().Number)]; ok && !a.ended {
			return fmt.Errorf("version %d is accepted", c.Last().Number)
		}
		return nil
	})
}

func (p *People) noWay(context.Context, rotation.Credential) (rotation.Result, error) {
	return rotation.Result{}, rotation.Errorf(rotation.Refused, "rotate again", "the holders have switched")
}
