package rotationtest

import (
	"cmp"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Claims is what a backend says of itself that its methods do not show. With them it
// makes a line of docs/backends/README.md.
type Claims struct {
	Kind string // what it rotates, in a few words; the line begins with it
	Page string // of docs/backends, such as consul.md
	Dead string // what proves that a version is dead

	Value string // whose choice the value of a minted version is; default: theirs
}

// tableOfBackends is the page with the table, from the folder of a backend's tests.
const tableOfBackends = "../../../docs/backends/README.md"

// updateClaims is the variable that has the lines written, where else they are compared.
const updateClaims = "KEYTURN_UPDATE_CLAIMS"

// ofTheTest are names in quotes, which are others in each run.
var ofTheTest = regexp.MustCompile(`"[^"]*"`)

// Line returns the line of the table.
func (s Setup) Line() string {
	is := func(holds bool, yes, no string) string {
		if holds {
			return yes
		}
		return no
	}
	_, minted := s.Backend.(rotation.Minter)
	_, ownWay := s.Backend.(rotation.Placed) // its system makes the value, and is told to
	atOnce := "yes"
	if g, ok := s.Backend.(interface{ Gap() string }); ok {
		atOnce = "no: " + ofTheTest.ReplaceAllString(g.Gap(), "a login")
	}
	back := "until cleanup"
	if o, ok := s.Backend.(rotation.OneWay); ok {
		back = "until cutover: " + o.NoWayBack()
	}
	_, own := s.Backend.(rotation.Activator)
	expiry := "none"
	if _, ok := s.Backend.(rotation.Expirer); ok {
		expiry = "set and lifted at any time"
	}
	if f, ok := s.Backend.(rotation.Fading); ok {
		expiry = "given at birth, " + strings.TrimSuffix(f.Life().String(), "0m0s")
	}
	if m, ok := s.Backend.(rotation.Revocable); ok {
		expiry = m.Mortal()
	}
	_, compared := s.Backend.(rotation.Comparer)
	_, adopts := s.Backend.(rotation.Adopter)
	cells := []string{
		"[" + s.Claims.Kind + "](" + s.Claims.Page + ")", atOnce, is(minted || ownWay, cmp.Or(s.Claims.Value, "theirs"), "ours"), expiry, is(own || ownWay, "yes", "no"), back,
		is(s.Session != nil, "counted and ended", "none are counted"), is(compared, "compared", "as they are"), is(adopts, "yes", "no"), s.Claims.Dead,
	}
	return "| " + strings.Join(cells, " | ") + " |"
}

func claims(t *testing.T, c *contract) {
	if c.Claims == nil {
		t.Skip("a variant, which has no line of its own")
	}
	Claim(t, c.Setup)
}

// Claim holds the line of a backend against the page.
func Claim(t *testing.T, s Setup) {
	t.Helper()
	line := s.Line()
	text, err := os.ReadFile(tableOfBackends)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "\n"+line+"\n") {
		return
	}
	if os.Getenv(updateClaims) == "" {
		t.Fatalf("docs/backends/README.md lacks the line\n%s\n(%s=1 has the contract tests write it)", line, updateClaims)
	}
	if err := writeLine(tableOfBackends, line); err != nil {
		t.Fatal(err)
	}
}

// writeLine puts a line into the table, in the order of their beginnings, in place of
// the one that begins with the same cell. Other packages may be at it too.
func writeLine(page, line string) error {
	f, err := os.OpenFile(page, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	lines := strings.Split(string(text), "\n")
	cell, _, _ := strings.Cut(line, "](")
	at, placed := -1, false
	for i, l := range lines {
		of, _, _ := strings.Cut(l, "](")
		switch {
		case !strings.HasPrefix(l, "|"):
		case of == cell:
			lines[i], placed = line, true
		case !strings.HasPrefix(l, "| [") || of < cell:
			at = i + 1
		}
	}
	if !placed {
		lines = append(lines[:at], append([]string{line}, lines[at:]...)...)
	}
	return os.WriteFile(page, []byte(strings.Join(lines, "\n")), 0o644)
}
