package rotationtest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// A Setup is a real backend with the hooks that its contract test needs.
type Setup struct {
	Backend    rotation.Backend
	Credential string

	// Claims has what it says of itself held against docs/backends/README.md. Nil: it is
	// a variant of another, and has no line there.
	Claims *Claims

	// Login tries a version's material as a service would, at every endpoint.
	Login rotation.Login

	// Session opens a session that lives by the material, and returns whether it
	// still does. Nil: the backend has no sessions.
	Session func(t *testing.T, v rotation.Version, m rotation.Material) (alive func() bool)

	// Break makes the system unable to answer and returns what repairs it, by
	// name: "stopped", "paused". Every call must then be Unknown.
	Break map[string]func(t *testing.T) (repair func())

	// Changes returns something that changes whenever the system was written to.
	// Nil: it is not looked at.
	Changes func(t *testing.T) string

	// Patience is how long a call to a broken system may take; 0 means 20 s.
	Patience time.Duration
}

// Contract is the test that every backend must pass. Open makes an empty
// backend, and cleans up after the test by itself.
func Contract(t *testing.T, open func(t *testing.T) Setup) {
	for name, part := range map[string]func(*testing.T, *contract){
		"the whole life, twice": wholeLife, "identify reads only": identifies, "arming again": armsAgain,
		"ending what is not there": endsNothing, "expiry": expires, "sessions": sessions, "no answer is unknown": broken, "what it claims": claims,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			if s.Patience == 0 {
				s.Patience = 20 * time.Second
			}
			part(t, &contract{Setup: s, t: t})
		})
	}
}

type contract struct {
	Setup
	t    *testing.T
	live []rotation.Version
	seen []secret.Value // of every value made here
}

// made is a version with its material.
type made struct {
	rotation.Version
	m rotation.Material
}

func (c *contract) ok(doing string, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("%s = %v, want success", doing, err)
	}
}

// silent fails if an error holds a value.
func (c *contract) silent(doing string, err error) {
	c.t.Helper()
	for _, v := range c.seen {
		if err != nil && strings.Contains(err.Error(), string(v.Reveal())) {
			c.t.Errorf("%s: the error holds a value", doing)
		}
	}
}

// identify picks the identity of a version of that number.
func (c *contract) identify(number int) rotation.Version {
	c.t.Helper()
	v, err := c.Backend.Identify(c.t.Context(), rotation.Version{Credential: c.Credential, Number: number, State: rotation.Pending}, c.live)
	c.ok("Identify", err)
	if v.Identity == "" || v.Number != number || v.Credential != c.Credential {
		c.t.Fatalf("Identify(%d) = %+v, want the same version with an identity", number, v)
	}
	for _, o := range c.live {
		if o.Identity == v.Identity && !c.gapped() {
			c.t.Fatalf("Identify(%d) = %q, which version %d has", number, v.Identity, o.Number)
		}
	}
	return v
}

func (c *contract) draft(number int) made {
	c.t.Helper()
	v := c.identify(number)
	d, ok := c.Backend.(rotation.Drafter)
	if !ok {
		return made{Version: v}
	}
	m, err := d.Draft(v)
	c.ok("Draft", err)
	if r, ok := c.Backend.(rotation.Recognizer); ok {
		known, err := r.Recognize(v, m)
		if c.ok("Recognize", err); known.Identity != v.Identity {
			c.t.Fatalf("Recognize changed the identity %q to %q", v.Identity, known.Identity)
		}
		v = known
	}
	return made{v, c.note(m, v)}
}

func (c *contract) note(m rotation.Material, v rotation.Version) rotation.Material {
	for field, value := range m {
		if _, public := v.Public[field]; !public {
			c.seen = append(c.seen, secret.New([]byte(string(value.Reveal())))) // the original may be wiped
		}
	}
	return m
}

// gapped reports whether the backend accepts one version at a time.
func (c *contract) gapped() bool {
	_, ok := c.Backend.(rotation.Gapped)
	return ok
}

// activate makes a version the one in use, twice, if the backend has that.
func (c *contract) activate(x made) {
	c.t.Helper()
	if a, ok := c.Backend.(rotation.Activator); ok {
		c.ok("Activate", a.Activate(c.t.Context(), x.Version))
		c.ok("Activate again", a.Activate(c.t.Context(), x.Version))
	}
}

// arm brings a version of that number to be accepted. Where one at a time is,
// that needs its activation.
func (c *contract) arm(number int, until time.Time) made {
	c.t.Helper()
	x := c.stage(number, until)
	if c.gapped() {
		c.standing(x, rotation.Staged)
		c.login(x, rotation.Dead)
		c.activate(x)
	}
	return x
}

// stage arms a version of that number, and no more.
func (c *contract) stage(number int, until time.Time) made {
	c.t.Helper()
	x := c.draft(number)
	if minter, ok := c.Backend.(rotation.Minter); ok {
		var v rotation.Version
		var m rotation.Material
		var err error
		if o, ordered := c.Backend.(rotation.Orderer); ordered {
			x.Version, err = o.Order(c.t.Context(), x.Version)
			c.ok("Order", err)
			c.standing(x, rotation.Absent)
		}
		v, m, err = minter.Mint(c.t.Context(), x.Version)
		c.ok("Mint", err)
		x = made{v, c.note(m, v)}
	} else {
		c.ok("Arm", c.Backend.Arm(c.t.Context(), x.Version, x.m, until))
	}
	c.live = append(c.live, x.Version)
	return x
}

func (c *contract) standing(x made, want rotation.Status) rotation.Standing {
	c.t.Helper()
	st, err := c.Backend.Observe(c.t.Context(), x.Version)
	c.ok("Observe", err)
	_, fading := c.Backend.(rotation.Fading)
	_, revocable := c.Backend.(rotation.Revocable)
	switch {
	case st.Status == want, want == rotation.Ended && st.Status == rotation.Absent:
	case want == rotation.Armed && (fading || revocable) && st.Status == rotation.Expiring && st.Until.After(time.Now()):
	default:
		c.t.Fatalf("Observe(version %d) = %s (%s), want %s", x.Number, st.Status, st.Detail, want)
	}
	return st
}

func (c *contract) login(x made, want rotation.Answer) {
	c.t.Helper()
	if c.Login == nil {
		return
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	if got := c.Login(ctx, c.Backend.ProbeSpec(x.Version), x.m); got.Answer != want {
		c.t.Fatalf("logging in with version %d = %s (%s), want %s", x.Number, got.Answer, got.Reason, want)
	}
}

func (c *contract) end(x made, why rotation.Why) {
	c.t.Helper()
	c.ok("End", c.Backend.End(c.t.Context(), x.Version, why))
	for i, v := range c.live {
		if v.Number == x.Number {
			c.live = append(c.live[:i:i], c.live[i+1:]...)
			break
		}
	}
}

func wholeLife(t *testing.T, c *contract) {
	last := c.arm(1, time.Time{})
	c.standing(last, rotation.Armed)
	c.login(last, rotation.Alive)
	for number := 2; number <= 3; number++ {
		next := c.stage(number, time.Time{})
		if !c.gapped() {
			c.login(next, rotation.Alive)
		}
		c.login(last, rotation.Alive) // beside the other
		if cmp, ok := c.Backend.(rotation.Comparer); ok {
			c.ok("Compare", cmp.Compare(t.Context(), next.Version, last.Version))
		}
		c.activate(next)
		if c.gapped() {
			c.wayBack(next, last)
		}
		c.end(last, rotation.ToRetire)
		c.standing(last, rotation.Ended)
		c.login(last, rotation.Dead)
		c.standing(next, rotation.Armed)
		c.login(next, rotation.Alive)
		last = next
	}
}

// wayBack activates the version before, and then the next one for good: of two,
// one is accepted, and no value is lost.
func (c *contract) wayBack(next, last made) {
	c.t.Helper()
	for _, turn := range [][2]made{{next, last}, {last, next}, {next, last}} {
		in, out := turn[0], turn[1]
		c.activate(in)
		c.standing(in, rotation.Armed)
		c.login(in, rotation.Alive)
		c.standing(out, rotation.Staged)
		c.login(out, rotation.Dead)
	}
}

func identifies(t *testing.T, c *contract) {
	c.arm(1, time.Time{})
	before := ""
	if c.Changes != nil {
		before = c.Changes(t)
	}
	if one, two := c.identify(2), c.identify(2); one.Identity != two.Identity {
		t.Errorf("Identify twice = %q and %q: the first took something", one.Identity, two.Identity)
	}
	one := c.draft(2)
	c.standing(one, rotation.Absent)
	if c.Changes != nil && c.Changes(t) != before {
		t.Errorf("Identify, Draft and Observe changed the system")
	}
}

func armsAgain(t *testing.T, c *contract) {
	x := c.arm(1, time.Time{})
	if _, ok := c.Backend.(rotation.Minter); ok {
		return // minted once, by contract
	}
	c.ok("Arm again", c.Backend.Arm(t.Context(), x.Version, x.m, time.Time{}))
	c.standing(x, rotation.Armed)
	c.login(x, rotation.Alive)

	if c.gapped() {
		armsBeside(t, c, x)
		return
	}
	thief := x
	thief.Version = x.Clone()
	thief.Number = 2
	m, err := c.Backend.(rotation.Drafter).Draft(thief.Version)
	c.ok("Draft", err)
	thief.m = c.note(m, thief.Version)
	err = c.Backend.Arm(t.Context(), thief.Version, thief.m, time.Time{})
	c.silent("Arm", err)
	if err == nil {
		t.Fatalf("Arm(version 2) took the identity %q, which version 1 has", x.Identity)
	}
	c.standing(x, rotation.Armed)
	c.login(x, rotation.Alive)
	c.standing(thief, rotation.Absent)
	c.ok("End of one that has nothing", c.Backend.End(t.Context(), thief.Version, rotation.ToDiscard))
	c.login(x, rotation.Alive)
}

// armsBeside stages a second version of the same identity, and refuses a third.
func armsBeside(t *testing.T, c *contract, x made) {
	second := c.stage(2, time.Time{})
	c.ok("Arm again", c.Backend.Arm(t.Context(), second.Version, second.m, time.Time{}))
	third := second
	third.Version = second.Clone()
	third.Number = 3
	m, err := c.Backend.(rotation.Drafter).Draft(third.Version)
	c.ok("Draft", err)
	err = c.Backend.Arm(t.Context(), third.Version, c.note(m, third.Version), time.Time{})
	c.silent("Arm", err)
	if err == nil {
		t.Fatalf("Arm(version 3) went well while version 2 is staged")
	}
	c.standing(x, rotation.Armed)
	c.login(x, rotation.Alive)
	c.standing(second, rotation.Staged)
	c.standing(third, rotation.Absent)
	c.ok("End of one that has nothing", c.Backend.End(t.Context(), third.Version, rotation.ToDiscard))
	c.end(second, rotation.ToDiscard)
	c.login(x, rotation.Alive)
}

func endsNothing(t *testing.T, c *contract) {
	live := c.arm(1, time.Time{})
	never := c.draft(2)
	c.standing(never, rotation.Absent)
	c.ok("End of one that is absent", c.Backend.End(t.Context(), never.Version, rotation.ToDiscard))
	x := c.stage(3, time.Time{}) // a number that was ended is burnt
	c.end(x, rotation.ToDiscard)
	c.ok("End again", c.Backend.End(t.Context(), x.Version, rotation.ToDiscard))
	c.standing(x, rotation.Ended)
	c.login(x, rotation.Dead)
	c.login(live, rotation.Alive)
}

func expires(t *testing.T, c *contract) {
	e, ok := c.Backend.(rotation.Expirer)
	if !ok {
		t.Skip("the backend has no expiry")
	}
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	x := c.arm(1, until)
	reads := func(want time.Time) {
		t.Helper()
		if st := c.standing(x, rotation.Expiring); !st.Until.Equal(want) {
			t.Fatalf("Observe: until %s, want %s", st.Until, want)
		}
	}
	reads(until)
	c.login(x, rotation.Alive)
	for range 2 {
		c.ok("Expire later", e.Expire(t.Context(), x.Version, until.Add(time.Hour)))
		reads(until.Add(time.Hour))
	}
	for range 2 {
		c.ok("Expire lifted", e.Expire(t.Context(), x.Version, time.Time{}))
		c.standing(x, rotation.Armed)
	}
	c.ok("Expire in the past", e.Expire(t.Context(), x.Version, time.Now().Add(-time.Minute)))
	c.login(x, rotation.Dead)
	c.ok("Expire lifted", e.Expire(t.Context(), x.Version, time.Time{}))
	c.login(x, rotation.Alive)
}

func sessions(t *testing.T, c *contract) {
	if c.Session == nil {
		t.Skip("the backend has no sessions")
	}
	x := c.arm(1, time.Time{})
	mine := c.Session(t, x.Version, x.m)
	other := c.arm(2, time.Time{})
	others := c.Session(t, other.Version, other.m)
	is := rotation.Armed
	if c.gapped() {
		is = rotation.Staged
	}
	if uses := c.standing(x, is).Uses; len(uses) == 0 {
		t.Fatalf("Observe sees no use of version 1, which has a session")
	}
	c.end(x, rotation.ToRetire)
	if uses := c.standing(x, rotation.Ended).Uses; len(uses) != 0 {
		t.Errorf("Observe after End sees %v", uses)
	}
	if mine() {
		t.Errorf("the session of the ended version lives on")
	}
	if !others() {
		t.Errorf("the session of the other version was ended too")
	}
}

func broken(t *testing.T, c *contract) {
	if len(c.Break) == 0 {
		t.Skip("nothing breaks the system")
	}
	x := c.arm(1, time.Time{})
	next := c.draft(2)
	for name, breaks := range c.Break {
		repair := breaks(t)
		calls := map[string]func(context.Context) error{
			"Identify": func(ctx context.Context) error { _, err := c.Backend.Identify(ctx, next.Version, c.live); return err },
			"Observe":  func(ctx context.Context) error { _, err := c.Backend.Observe(ctx, x.Version); return err },
			"End":      func(ctx context.Context) error { return c.Backend.End(ctx, x.Version, rotation.ToRetire) },
		}
		if _, minted := c.Backend.(rotation.Minter); !minted {
			calls["Arm"] = func(ctx context.Context) error { return c.Backend.Arm(ctx, next.Version, next.m, time.Time{}) }
		}
		if e, ok := c.Backend.(rotation.Expirer); ok {
			calls["Expire"] = func(ctx context.Context) error { return e.Expire(ctx, x.Version, time.Now().Add(time.Hour)) }
		}
		for call, do := range calls {
			ctx, cancel := context.WithTimeout(t.Context(), c.Patience)
			err := do(ctx)
			cancel()
			c.silent(call, err)
			if rotation.ClassOf(err) != rotation.Unknown || err == nil {
				t.Errorf("%s, %s: the error is %v of class %d, want class Unknown (%d)", name, call, err, rotation.ClassOf(err), rotation.Unknown)
			}
		}
		c.login(x, rotation.Inconclusive)
		repair()
	}
	c.ok("End after the repair", c.Backend.End(t.Context(), x.Version, rotation.ToDiscard))
	c.standing(x, rotation.Ended)
}
