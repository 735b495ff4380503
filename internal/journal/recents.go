package journal

// keptRecents is how many of the last entries a File knows the places of.
const keptRecents = 1000

// recents holds the last entries of a chain by their heads, and where they begin.
type recents []struct {
	head  Head
	start mark
}

// add adds the entry that follows the last one; one that is there already is passed over.
func (r *recents) add(head Head, start mark) {
	if head.Seq <= r.head().Seq {
		return
	}
	if len(*r) == 2*keptRecents {
		*r = append(recents{}, (*r)[keptRecents:]...)
	}
	*r = append(*r, struct {
		head  Head
		start mark
	}{head, start})
}

// head returns the last one; the zero Head if there is none.
func (r recents) head() Head {
	if len(r) == 0 {
		return Head{}
	}
	return r[len(r)-1].head
}

// find returns where an entry begins, if it is one of them.
func (r recents) find(head Head) (mark, bool) {
	if len(r) == 0 || head.Seq < r[0].head.Seq || head.Seq > r.head().Seq {
		return mark{}, false
	}
	e := r[head.Seq-r[0].head.Seq]
	return e.start, e.head == head
}
