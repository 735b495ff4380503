package rotation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/keyturn/keyturn/internal/secret"
)

// Check looks whether what the record promises is true now: the current version works
// from where services are, the previous one works for as long as there is a way back and
// no longer, both may do the same, and no version that was ended is accepted again. It
// changes nothing. Proven are the numbers of versions whose proof of death is on the
// record.
func (s *Standard) Check(ctx context.Context, c Credential, proven []int) []Remark {
	current, ok := c.In(Current)
	if !ok {
		return []Remark{{Level: Problem, Text: "no version of it is in service, by the record", Hint: "keyturn status " + c.Name}}
	}
	if b, ok := s.Backend.(Ceremony); ok {
		return s.checkCeremony(ctx, b, current)
	}
	var out []Remark
	out = append(out, s.checkCurrent(ctx, c, current)...)
	if previous, ok := c.In(Previous); ok {
		out = append(out, s.checkPrevious(ctx, c, previous, current)...)
		out = append(out, s.checkWho(ctx, previous)...)
	}
	out = append(out, s.checkWho(ctx, current)...)
	return append(out, s.checkDead(ctx, c, proven)...)
}

func (s *Standard) tryable() bool {
	return !s.Target.Traits().Unprobeable && !s.Target.Traits().OneVersion
}

func (s *Standard) checkCurrent(ctx context.Context, c Credential, v Version) []Remark {
	if !s.tryable() {
		return []Remark{{Level: Fine, Text: fmt.Sprintf("version %d cannot be tried: the target is write-only", v.Number)}}
	}
	r := s.probeUntil(ctx, v)
	switch r.Answer {
	case Alive:
		var ways []string
		for _, e := range r.Endpoints {
			ways = append(ways, e.Endpoint)
		}
		return []Remark{{Level: Fine, Text: fmt.Sprintf("version %d works: %s", v.Number, strings.Join(ways, ", "))}}
	case Inconclusive:
		return []Remark{{Level: Problem, Text: fmt.Sprintf("whether version %d works cannot be told: %s", v.Number, r.Reason), Hint: "keyturn doctor " + c.Name}}
	}
	return []Remark{{Level: Problem, Text: fmt.Sprintf("version %d, which is in service, is %s: %s", v.Number, r.Answer, r.Reason),
		Hint: "keyturn rollback, while there is a version before; or bring a new one: keyturn revoke --reason … " + c.Name}}
}

func (s *Standard) checkPrevious(ctx context.Context, c Credential, v, current Version) []Remark {
	standing, err := s.Backend.Observe(ctx, v)
	if err != nil {
		return []Remark{{Level: Problem, Text: fmt.Sprintf("how version %d stands cannot be told: %v", v.Number, err), Hint: HintOf(err)}}
	}
	accepted := standing.Status == Armed || standing.Status == Expiring || standing.Status == Staged
	over := s.now().After(c.OverlapUntil.Add(s.Policy.Grace))
	switch {
	case accepted && over:
		return []Remark{{Level: Problem, Hint: "keyturn cleanup " + c.Name,
			Text: fmt.Sprintf("version %d is still valid, %s after its overlap and grace", v.Number, s.now().Sub(c.OverlapUntil.Add(s.Policy.Grace)).Round(time.Minute))}}
	case !accepted && !revoked(c, v) && !over:
		return []Remark{{Level: Warning, Text: fmt.Sprintf("version %d is %s within its overlap: there is no way back", v.Number, standing.Status)}}
	}
	out := []Remark{{Level: Fine, Text: fmt.Sprintf("version %d is %s, its overlap ends %s", v.Number, standing.Status, c.OverlapUntil.UTC().Format(time.RFC3339))}}
	if comparer, ok := s.Backend.(Comparer); ok && accepted && s.tryable() {
		if err := comparer.Compare(ctx, current, v); err != nil {
			out = append(out, Remark{Level: Problem, Text: fmt.Sprintf("versions %d and %d may not do the same: %v", v.Number, current.Number, err), Hint: HintOf(err)})
		}
	}
	return out
}

// checkWho says who holds a version: which tasks mount it, by the target, and who is logged
// in with it now, by the backend. Who was logged in before, only the backend's own log knows.
func (s *Standard) checkWho(ctx context.Context, v Version) []Remark {
	holding, err := s.Target.Observe(ctx, v)
	if err != nil {
		return []Remark{{Level: Problem, Text: fmt.Sprintf("who mounts version %d cannot be told: %v", v.Number, err), Hint: HintOf(err)}}
	}
	standing, err := s.Backend.Observe(ctx, v)
	if err != nil {
		return []Remark{{Level: Problem, Text: fmt.Sprintf("who is logged in with version %d cannot be told: %v", v.Number, err), Hint: HintOf(err)}}
	}
	return []Remark{{Level: Fine, Text: fmt.Sprintf("version %d is mounted by %s; logged in with it: %s", v.Number, who(holding.Uses), who(standing.Uses))}}
}

// who lists uses by their names, each with how many there are.
func who(uses []Use) string {
	count := map[string]int{}
	for _, u := range uses {
		if u.Kind != "previous-spec" {
			count[u.Kind+" "+u.Name]++
		}
	}
	var out []string
	for name, n := range count {
		if n > 1 {
			name = fmt.Sprintf("%s (%d)", name, n)
		}
		out = append(out, name)
	}
	if len(out) == 0 {
		return "nobody"
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// checkDead looks at every version that was ended.
func (s *Standard) checkDead(ctx context.Context, c Credential, proven []int) []Remark {
	var out []Remark
	dead, unproven := 0, []string{}
	for _, v := range c.Versions {
		if v.State != Retired && v.State != Discarded || v.Identity == "" {
			continue
		}
		if slices.ContainsFunc(c.Queue, func(p Parked) bool { return p.Version == v.Number }) {
			continue // the queue says why it is not ended yet
		}
		standing, err := s.Backend.Observe(ctx, v)
		if err != nil {
			return append(out, Remark{Level: Problem, Text: fmt.Sprintf("how version %d stands cannot be told: %v", v.Number, err), Hint: HintOf(err)})
		}
		if standing.Status != Ended && standing.Status != Absent {
			out = append(out, Remark{Level: Problem, Hint: "somebody made it valid again: find out who, and end it by hand",
				Text: fmt.Sprintf("version %d was %s, and is %s in the backend", v.Number, v.State, standing.Status)})
			continue
		}
		dead++
		if v.State == Retired && !slices.Contains(proven, v.Number) {
			unproven = append(unproven, fmt.Sprint(v.Number))
		}
	}
	if dead > 0 {
		out = append(out, Remark{Level: Fine, Text: fmt.Sprintf("versions that were ended and are refused: %d", dead)})
	}
	if len(unproven) > 0 {
		out = append(out, Remark{Level: Problem, Text: "no proof of death is on the record of version " + strings.Join(unproven, ", "), Hint: "keyturn audit verify"})
	}
	return out
}

// shortest is the length of the shortest piece of a text that is held against values.
const shortest = 8

// Holds reports whether a value of any version of the credential stands in a text: as a
// whole, or as a word of it. It needs no value: their keyed fingerprints are compared.
func (s *Standard) Holds(c Credential, text string) (version int, field string, found bool) {
	words := append(strings.FieldsFunc(text, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_+/.~", r)
	}), strings.TrimSpace(text))
	numbers := map[string]map[string]int{} // by field and fingerprint: a word has one for each field
	for _, v := range slices.Backward(c.Versions) {
		for f, print := range v.Fingerprints {
			if numbers[f] == nil {
				numbers[f] = map[string]int{}
			}
			numbers[f][print] = v.Number
		}
	}
	for _, w := range words {
		if len(w) < shortest {
			continue
		}
		value := secret.FromString(w)
		for f, prints := range numbers {
			if number, found := prints[s.Prints.Fingerprint(c.Name+"/"+f, value)]; found {
				return number, f, true
			}
		}
	}
	return 0, "", false
}
