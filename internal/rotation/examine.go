package rotation

import "context"

// Level says what a [Remark] means for the reader.
type Level string

// The levels.
const (
	Fine    Level = "ok"
	Warning Level = "warning" // worth knowing, in the way of nothing
	Problem Level = "problem" // a rotation would fail, or a promise is not kept
)

// A Remark is one thing that an examination found. No value stands in it.
type Remark struct {
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"` // how to mend it
}

// An Examiner is a target or a backend that can say how it stands: what is well,
// and what is no reason to refuse a rotation today and may be one tomorrow. What
// [Preflighter] and [Warner] say is not said again. It reads only. With an error
// it has said what it could.
type Examiner interface {
	Examine(context.Context) ([]Remark, error)
}
