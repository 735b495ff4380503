package rotation

// A Proceeder is a backend whose rotations go another way than the usual one, in part or as a
// whole.
type Proceeder interface {
	Backend

	// Procedure returns the way. The standard one, of this backend and its target, serves
	// for whatever is as usual.
	Procedure(*Standard) Procedure
}

// A Placed backend keeps its versions in a place of its own: where a system issues a
// credential and puts it where services read it, there is nothing for us to store, and
// nothing for a target to move.
type Placed interface {
	Proceeder

	// Place returns where versions are: it is looked at and tried, and never moved.
	Place() Target

	// Ways says for people, by phase, what is done and what that means for others.
	Ways() map[Phase][]Way
}

// A Way is what one phase does, in words for people.
type Way struct {
	Does   string `json:"does"`
	Effect string `json:"effect"`
}

// ProcedureOf returns the way of a credential: the usual one, unless its backend brings another.
func ProcedureOf(s *Standard) Procedure {
	if own, ok := s.Backend.(Proceeder); ok {
		return own.Procedure(s)
	}
	return s
}
