package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/swarm/stackfile"
)

// A sheet says what one stack file has to say so that a deploy of it changes
// nothing.
type sheet struct {
	File   string  `json:"file"`
	Stale  []place `json:"stale,omitempty"`   // that are to be written anew
	Faults []place `json:"by_hand,omitempty"` // that only a person can judge
	Notes  []place `json:"notes,omitempty"`   // that are right until the next rotation
	Diff   string  `json:"diff,omitempty"`    // of the stale places, for patch -p1
}

// A place is something of a stack file, with where it stands.
type place struct {
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

// right reports whether there is nothing to do now.
func (s sheet) right() bool { return len(s.Stale)+len(s.Faults) == 0 }

// A deployed credential is one with what services shall read of it.
type deployed struct {
	config.Credential
	version rotation.Version
	known   []rotation.Version // on record: their public values may be replaced
}

// sheets compares the stack files of credentials, each file once.
func sheets(all []deployed) []sheet {
	var out []sheet
	done := map[config.Stack]bool{}
	for _, d := range all {
		if d.Stack == nil || d.Stack.File == "" || done[*d.Stack] {
			continue
		}
		done[*d.Stack] = true
		var wants []stackfile.Want
		for _, other := range all {
			if other.Stack != nil && *other.Stack == *d.Stack {
				wants = append(wants, other.wants()...)
			}
		}
		out = append(out, compare(*d.Stack, wants))
	}
	return out
}

// compare makes the sheet of one file.
func compare(stack config.Stack, wants []stackfile.Want) sheet {
	s := sheet{File: filepath.Clean(stack.File)}
	f, err := readStackFile(stack.File)
	if err != nil {
		s.Faults = []place{{err.Error(), hintOf(err)}}
		return s
	}
	c := f.Compare(stack.Name, wants...)
	s.Stale, s.Faults, s.Notes = f.words(c.Stale), f.words(c.Faults), f.words(c.Notes)
	edited, err := f.Edit(stack.Name, wants...)
	if err != nil {
		s.Faults = append(s.Faults, place{Text: err.Error()})
	}
	s.Diff = edited.Diff
	return s
}

// A stackText is a stack file that was read.
type stackText struct{ *stackfile.File }

func readStackFile(path string) (stackText, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return stackText{}, usagef("its path is relative to the working directory, as a checkout has it", "there is no stack file %s", path)
	}
	if err != nil {
		return stackText{}, usagef("name a file that can be read", "reading the stack file: %w", err)
	}
	f, err := stackfile.Parse(filepath.Clean(path), b)
	if err != nil {
		return stackText{}, &usageError{err: fmt.Errorf("reading the stack file: %w", err), hint: hintOf(err)}
	}
	return stackText{f}, nil
}

// words are findings, each with its place.
func (f stackText) words(found []stackfile.Finding) []place {
	var out []place
	for _, x := range found {
		out = append(out, place{fmt.Sprintf("%s:%d:%d: %s", f.Name, x.Line, x.Column, x.Text), x.Tip})
	}
	return out
}

// wants says what the services of a credential are to read, as a stack file
// names them. A service that is not the stack's does not stand in its file.
func (d deployed) wants() []stackfile.Want {
	var out []stackfile.Want
	for _, s := range d.Services {
		name, ok := strings.CutPrefix(s.Name, d.Stack.Name+"_")
		if !ok {
			continue
		}
		w := stackfile.Want{Service: name, Files: d.objects(s.File), Paths: d.objects(s.Path), Env: map[string]stackfile.Value{}}
		for variable, field := range s.Env {
			value, ok := d.version.Public[field]
			if !ok {
				continue
			}
			v := stackfile.Value{New: value}
			for _, k := range d.known {
				v.Known = append(v.Known, k.Public[field])
			}
			w.Env[variable] = v
		}
		out = append(out, w)
	}
	return out
}

// objects returns the names of the Swarm secrets behind places that hold fields:
// those on record, or those that a version which is not stored yet will have.
func (d deployed) objects(places map[string]string) map[string]string {
	out := map[string]string{}
	for place, field := range places {
		switch o, ok := d.version.Objects[field]; {
		case ok:
			out[place] = o.Name
		case len(d.version.Objects) == 0:
			out[place] = fmt.Sprintf("%s_v%d", d.Secrets[field], d.version.Number)
		}
	}
	return out
}

// blueprint is what the stack file of a credential says against a version, for
// the cleanup of the one before.
func (w *wiring) blueprint(c config.Credential) func(rotation.Version) []string {
	if c.Stack == nil || c.Stack.File == "" {
		return nil
	}
	return func(v rotation.Version) (against []string) {
		s := compare(*c.Stack, deployed{Credential: c, version: v}.wants())
		for _, p := range append(s.Stale, s.Faults...) {
			against = append(against, p.Text)
		}
		return against
	}
}

// printSheets prints what is to be written, one file after the other.
func printSheets(w io.Writer, lead string, all []sheet) {
	for _, s := range all {
		printPlaces(w, "note: ", s.Notes)
		if s.right() {
			continue
		}
		fmt.Fprintf(w, "stack file %s: %s\n", s.File, lead)
		printPlaces(w, "  by hand: ", s.Faults)
		if s.Diff == "" {
			printPlaces(w, "  ", s.Stale)
		}
		fmt.Fprint(w, s.Diff)
	}
}

func printPlaces(w io.Writer, lead string, places []place) {
	for _, p := range places {
		fmt.Fprintf(w, "%s%s\n", lead, p.Text)
		if p.Hint != "" {
			fmt.Fprintf(w, "%shint: %s\n", strings.Repeat(" ", len(lead)), p.Hint)
		}
	}
}
