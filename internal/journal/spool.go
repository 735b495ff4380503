package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A Spool keeps what was not sent to a [Home] yet where every run can read it:
// numbered pieces of text, in the order of their numbers. It is safe for
// concurrent use, also by several processes.
type Spool interface {
	// Pieces returns every piece, by number.
	Pieces(context.Context) (map[int64][]byte, error)

	// Put keeps a piece under a number. If there is one with that number, the
	// error is [ErrConflict]. After any other error it is not known whether the
	// piece is kept.
	Put(ctx context.Context, number int64, piece []byte) error

	// Drop removes pieces. Those that are not there are no error.
	Drop(ctx context.Context, numbers ...int64) error
}

// lateAfter is how old an entry may be when it reaches the home without a word
// about its delay.
const lateAfter = 10 * time.Minute

// stepLate is the note that entries were sent late.
const stepLate = "sent-late"

// A piece is what one number of a spool holds: entries that are not sealed, or,
// when all before it were sent, the head of the home then, which anchors it.
type piece struct {
	Entries []Entry `json:"entries,omitempty"`
	Sent    *anchor `json:"sent,omitempty"`
}

type anchor struct {
	Seq  int64  `json:"seq"`
	Hash string `json:"hash"`
}

// A Spooled is a journal whose home is far away and slow, such as a branch on
// GitHub: entries are kept in a spool, durably and in order, and sent to the home
// together. What one run could not send, the next one sends.
//
// Its entries have places instead of numbers, from 1: a place is where this
// Spooled saw the entry first, and never changes. It is for one goroutine at a time.
type Spooled struct {
	home  Home
	spool Spool
	now   func() time.Time

	mu    sync.Mutex
	head  Head            // of the home, as far as it was read
	known map[string]bool // nonces in order
	sent  map[string]bool // nonces that the home has
	order []Entry
	last  int64   // the highest number of the spool
	queue []waits // what the spool holds and the home has not
}

// waits is a piece that was not sent yet.
type waits struct {
	number  int64
	entries []Entry
}

// NewSpooled returns a journal that sends to home what spool keeps. The clock's
// default is [time.Now].
func NewSpooled(home Home, spool Spool, now func() time.Time) *Spooled {
	if now == nil {
		now = time.Now
	}
	return &Spooled{home: home, spool: spool, now: now, known: map[string]bool{}, sent: map[string]bool{}}
}

// Entries returns every entry, sent or not, by place. Those that were not sent
// have no number and no hash yet.
func (s *Spooled) Entries(ctx context.Context) ([]Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(ctx); err != nil {
		return nil, err
	}
	return slices.Clone(s.order), nil
}

// An Urgency says when entries have to reach the home.
type Urgency int

// The urgencies of entries.
const (
	Later  Urgency = iota // with the next [Spooled.Send]
	AtOnce                // now if that is possible, and later if not
	First                 // now, or they do not count
)

// Seen returns the entries that were read or appended so far, without asking.
func (s *Spooled) Seen() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.order)
}

// Append calls build with the entries behind a place, and keeps what it returns
// in the spool, all or none. If somebody else appended meanwhile, build is called
// again, with what they wrote. Entries that have to reach the home [First] are
// taken back if they cannot be sent. The place of the last entry is returned.
func (s *Spooled) Append(ctx context.Context, after int64, urgent func([]Entry) Urgency, build func(since []Entry) ([]Entry, error)) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for try := range maxConflicts {
		if err := s.refresh(ctx); err != nil {
			return 0, err
		}
		fresh, err := build(slices.Clone(s.order[min(after, int64(len(s.order))):]))
		if err != nil || len(fresh) == 0 {
			return int64(len(s.order)), err
		}
		number, err := s.keep(ctx, stamped(fresh))
		if errors.Is(err, ErrConflict) {
			if err := pause(ctx, try); err != nil {
				return 0, err
			}
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("keeping entries until they are sent: %w", err)
		}
		switch urgent(fresh) {
		case AtOnce:
			_ = s.send(ctx) // it is sent with the rest
		case First:
			if err := s.sendOrTakeBack(ctx, number); err != nil {
				return 0, err
			}
		}
		return int64(len(s.order)), nil
	}
	return 0, fmt.Errorf("appending to the journal: %w, %d times in a row", ErrConflict, maxConflicts)
}

// stamped gives entries that are appended together their nonces, and the time as
// a journal keeps it.
func stamped(entries []Entry) []Entry {
	out := together(NewNonce(), entries)
	for i := range out {
		out[i].Time = out[i].Time.UTC().Truncate(time.Millisecond)
	}
	return out
}

// keep puts entries into the spool, and looks for them if the answer was lost.
func (s *Spooled) keep(ctx context.Context, entries []Entry) (int64, error) {
	if _, err := SealAll(Head{}, entries...); err != nil {
		return 0, err // else it would be found out when nothing can be done about it
	}
	text, err := json.Marshal(piece{Entries: entries})
	if err != nil {
		return 0, err
	}
	number := s.last + 1
	err = s.spool.Put(ctx, number, text)
	if errors.Is(err, ErrConflict) {
		return 0, err
	}
	if err != nil {
		if looked := s.refresh(ctx); looked != nil || !s.known[entries[0].Nonce] {
			return 0, errors.Join(err, looked)
		}
		return number, nil
	}
	s.last = number
	s.queue = append(s.queue, waits{number, entries})
	s.learn(entries)
	return number, nil
}

// learn gives entries that were not seen before their places.
func (s *Spooled) learn(entries []Entry) {
	for _, e := range entries {
		if !s.known[e.Nonce] {
			s.known[e.Nonce] = true
			s.order = append(s.order, e)
		}
	}
}

// refresh reads the spool, and the home if somebody has sent something to it
// since it was read.
func (s *Spooled) refresh(ctx context.Context) error {
	pieces, last, err := s.read(ctx)
	if err != nil {
		return err
	}
	if len(s.order) == 0 || last.Seq > s.head.Seq {
		if err := s.readHome(ctx, last); err != nil {
			return err
		}
	}
	s.queue = nil
	for _, w := range pieces {
		s.learn(w.entries)
		if !s.sent[w.entries[0].Nonce] {
			s.queue = append(s.queue, w)
		}
	}
	return nil
}

// read returns the pieces of the spool with entries, and the last head that was noted.
func (s *Spooled) read(ctx context.Context) (all []waits, noted Head, err error) {
	pieces, err := s.spool.Pieces(ctx)
	if err != nil {
		return nil, Head{}, fmt.Errorf("reading the entries that wait to be sent: %w", err)
	}
	for _, number := range sorted(pieces) {
		var p piece
		if err := json.Unmarshal(pieces[number], &p); err != nil {
			return nil, Head{}, fmt.Errorf("reading the entries that wait to be sent, piece %d: %w", number, err)
		}
		s.last = max(s.last, number)
		if p.Sent != nil && p.Sent.Seq >= noted.Seq {
			noted = Head(*p.Sent)
		}
		if len(p.Entries) > 0 {
			all = append(all, waits{number, p.Entries})
		}
	}
	return all, noted, nil
}

func sorted(pieces map[int64][]byte) []int64 {
	var out []int64
	for n := range pieces {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// readHome reads what is new in the home, which must hold what was noted.
func (s *Spooled) readHome(ctx context.Context, noted Head) error {
	fresh, err := s.home.Since(ctx, s.head)
	if err != nil {
		return err
	}
	if noted.Seq > s.head.Seq {
		end := s.head.Seq + int64(len(fresh))
		if noted.Seq > end {
			return &Fault{Seq: end + 1, Line: int(end) + 1, Kind: Truncated,
				Detail: fmt.Sprintf("the journal ends before it, and those that waited to be sent know that it had reached %v", noted)}
		}
		if found := fresh[noted.Seq-s.head.Seq-1]; found.Hash != noted.Hash {
			return &Fault{Seq: noted.Seq, Line: int(noted.Seq), Kind: Fork,
				Detail: fmt.Sprintf("it was sent as %.12s, and %.12s stands here", noted.Hash, found.Hash)}
		}
	}
	s.arrived(fresh)
	return nil
}

// arrived takes entries that the home holds.
func (s *Spooled) arrived(entries []Entry) {
	for _, e := range entries {
		s.sent[e.Nonce] = true
		s.head = e.Head()
	}
	s.learn(entries)
}

// sendOrTakeBack sends everything that waits. If that fails, the entries of one
// piece are taken back: nobody has acted on them yet.
func (s *Spooled) sendOrTakeBack(ctx context.Context, number int64) error {
	err := s.send(ctx)
	if err == nil {
		return nil
	}
	i := slices.IndexFunc(s.queue, func(w waits) bool { return w.number == number })
	if i < 0 {
		return err
	}
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if dropped := s.spool.Drop(back, number); dropped != nil {
		return errors.Join(err, fmt.Errorf("taking the entry back: %w", dropped))
	}
	for _, e := range s.queue[i].entries {
		delete(s.known, e.Nonce)
		s.order = slices.DeleteFunc(s.order, func(o Entry) bool { return o.Nonce == e.Nonce })
	}
	s.queue = slices.Delete(s.queue, i, i+1)
	return err
}

// Send sends everything that waits in the spool to the home, of whichever run.
func (s *Spooled) Send(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(ctx); err != nil {
		return err
	}
	return s.send(ctx)
}

// Waiting returns how many entries wait to be sent, as far as is known.
func (s *Spooled) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.unsent())
}

// maxIdle is how many notes may wait for something that is worth a commit.
const maxIdle = 40

// Idle reports whether nothing waits to be sent but a few entries that are dull,
// such as that a lease was taken and given back.
func (s *Spooled) Idle(dull func(Entry) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := s.unsent()
	return len(fresh) < maxIdle && !slices.ContainsFunc(fresh, func(e Entry) bool { return !dull(e) })
}

func (s *Spooled) unsent() []Entry {
	var out []Entry
	for _, w := range s.queue {
		for _, e := range w.entries {
			if !s.sent[e.Nonce] {
				out = append(out, e)
			}
		}
	}
	return out
}

func (s *Spooled) send(ctx context.Context) error {
	fresh := s.unsent()
	if len(fresh) == 0 {
		return s.clear(ctx)
	}
	// Most often nobody else was there, and nothing need be asked.
	sealed, err := s.home.Append(ctx, s.head, append(fresh, s.late(fresh)...)...)
	if errors.Is(err, ErrConflict) {
		sealed, err = s.sendAfter(ctx)
	}
	if err != nil {
		return err
	}
	s.arrived(sealed)
	return s.clear(ctx)
}

// sendAfter sends what waits behind what others have sent.
func (s *Spooled) sendAfter(ctx context.Context) ([]Entry, error) {
	return FollowFrom(s.home, s.head).Append(ctx, func(since []Entry, _ Head) ([]Entry, error) {
		s.arrived(since)
		fresh := s.unsent()
		if len(fresh) == 0 {
			return nil, nil
		}
		return append(fresh, s.late(fresh)...), nil
	})
}

// late says that entries come late, and by how much.
func (s *Spooled) late(entries []Entry) []Entry {
	now := s.now().UTC()
	oldest := now
	for _, e := range entries {
		if e.Time.Before(oldest) && !e.Quiet() {
			oldest = e.Time
		}
	}
	if now.Sub(oldest) < lateAfter {
		return nil
	}
	return []Entry{{Time: now, Step: stepLate, Status: statusNote, Nonce: NewNonce(), Run: entries[len(entries)-1].Run,
		Evidence: map[string]json.RawMessage{
			"entries": json.RawMessage(fmt.Sprint(len(entries))),
			"oldest":  json.RawMessage(`"` + oldest.UTC().Format(timeLayout) + `"`),
		}}}
}

// Late returns how many entries a note says that were sent late, and when the
// oldest of them was made; ok is whether it is such a note.
func Late(e Entry) (count int, oldest time.Time, ok bool) {
	if e.Step != stepLate {
		return 0, time.Time{}, false
	}
	var at string
	err := errors.Join(json.Unmarshal(e.Evidence["entries"], &count), json.Unmarshal(e.Evidence["oldest"], &at))
	if err != nil {
		return 0, time.Time{}, false
	}
	oldest, err = time.Parse(timeLayout, at)
	return count, oldest, err == nil
}

// clear notes in the spool how far the home is, and removes what was sent. What
// cannot be removed now is passed over by the next run, and removed then.
func (s *Spooled) clear(ctx context.Context) error {
	if len(s.queue) == 0 {
		return nil
	}
	text, err := json.Marshal(piece{Sent: &anchor{s.head.Seq, s.head.Hash}})
	if err != nil {
		return err
	}
	pieces, err := s.spool.Pieces(ctx)
	if err != nil {
		return nil
	}
	number := s.last + 1
	if err := s.spool.Put(ctx, number, text); err != nil {
		return nil // somebody else is at it, or the next run will be
	}
	s.last = number
	var gone []int64
	for n, text := range pieces {
		var p piece
		if json.Unmarshal(text, &p) == nil && n < number && s.allSent(p) {
			gone = append(gone, n)
		}
	}
	_ = s.spool.Drop(ctx, gone...)
	s.queue = slices.DeleteFunc(s.queue, func(w waits) bool { return s.allSent(piece{Entries: w.entries}) })
	return nil
}

func (s *Spooled) allSent(p piece) bool {
	return !slices.ContainsFunc(p.Entries, func(e Entry) bool { return !s.sent[e.Nonce] })
}
