package telemetry

import (
	"crypto/sha256"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Trace returns the runs of one process as spans. All of a rotation are in one trace,
// whatever runner they were on and however many days lie between: its identity comes from
// that of the rotation, and that of a span from what it is of, so that what is sent twice
// is the same. A run without a rotation has a trace of its own.
func Trace(records []rotation.Record, run string) []Span {
	var out []Span
	for _, r := range rotation.History(records) {
		if r.Run != run || r.Ended.IsZero() || r.Status == rotation.RunIdle {
			continue
		}
		id := r.Rotation
		if id == "" {
			id = r.Run + "/" + r.Credential
		}
		begun := strconv.FormatInt(r.Begun.UnixNano(), 10)
		top := Span{Trace: [16]byte(digest("trace", id)), ID: [8]byte(digest("phase", id, r.Credential, string(r.Phase), begun)),
			Name: string(r.Phase) + " " + r.Credential, Begun: r.Begun, Ended: r.Ended,
			Failed:     r.Status == rotation.RunFailed || r.Status == rotation.RunRolledBack || r.Status == rotation.RunInterrupted,
			Attributes: []Label{{"keyturn.credential", r.Credential}, {"keyturn.phase", string(r.Phase)}, {"keyturn.rotation", r.Rotation}, {"keyturn.status", string(r.Status)}}}
		out = append(out, top)
		for i, s := range r.Steps {
			if s.Ended.IsZero() {
				s.Ended = r.Ended
			}
			out = append(out, Span{Trace: top.Trace, ID: [8]byte(digest("step", id, r.Credential, begun, strconv.Itoa(i))), Parent: top.ID,
				Name: s.Name, Begun: s.Begun, Ended: s.Ended, Failed: s.Status == rotation.RecordFailed,
				Attributes: []Label{{"keyturn.credential", r.Credential}, {"keyturn.step", s.Name}, {"keyturn.version", strconv.Itoa(s.Version)}, {"keyturn.status", string(s.Status)}}})
		}
	}
	return out
}

func digest(parts ...string) []byte {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return sum[:16]
}
