package rotationtest

import "slices"

// How says in which way a call goes wrong.
type How string

// The ways.
const (
	FailBefore  How = "fails"                       // without an effect
	FailAfter   How = "fails after its effect"      // and says that it failed
	LoseBefore  How = "is lost"                     // without an effect, and nobody can tell
	LoseAfter   How = "is applied, its answer lost" // a timeout
	CrashBefore How = "the process dies before it"
	CrashAfter  How = "the process dies after it"
	Reject      How = "is refused for its value"
	Only        How = "" // nothing goes wrong: Do is called
)

// A Plan says what goes wrong at a call.
type Plan struct {
	Call  string            // e.g. "arm", "end", "put", "move", "remove", "probe", "observe"
	Skip  int               // how many such calls go well before
	Times int               // how many go wrong then; 0 means one
	How   How               //
	Do    func(call string) // called first, with the world locked; may be nil
}

// Expect plans that calls go wrong.
func (w *World) Expect(p Plan) *Plan {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.Times == 0 {
		p.Times = 1
	}
	w.planned = append(w.planned, &p)
	return &p
}

// Forget drops every plan.
func (w *World) Forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.planned = nil
}

func (w *World) plannedFor(call string) *Plan {
	i := slices.IndexFunc(w.planned, func(p *Plan) bool { return p.Call == call && p.Times > 0 })
	if i < 0 {
		return nil
	}
	p := w.planned[i]
	if p.Skip > 0 {
		p.Skip--
		return nil
	}
	p.Times--
	return p
}
