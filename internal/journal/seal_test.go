package journal_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gowebpki/jcs"

	"github.com/keyturn/keyturn/internal/journal"
)

// textOf writes entries as a journal holds them.
func textOf(tb testingT, entries []journal.Entry) []byte {
	tb.Helper()
	var out bytes.Buffer
	for _, e := range entries {
		b, err := json.Marshal(e)
		if err != nil {
			tb.Fatal(err)
		}
		if b, err = jcs.Transform(b); err != nil {
			tb.Fatal(err)
		}
		out.Write(append(b, '\n'))
	}
	return out.Bytes()
}

var update = flag.Bool("update", false, "write testdata/chain.jsonl again")

// The golden chain: what is written today is read for ever.
func TestGoldenChain(t *testing.T) {
	const path = "testdata/chain.jsonl"
	first := journal.Genesis(day, journal.NewKey())
	first.Evidence["fingerprint-key"] = json.RawMessage(`"` + strings.Repeat("5a", 32) + `"`)
	first.Nonce = strings.Repeat("0", 32)
	chain, err := journal.SealAll(journal.Head{}, first)
	if err != nil {
		t.Fatal(err)
	}
	group := []journal.Entry{sample(1), sample(2), {Time: day, Step: "bare"}}
	group[0].Nonce = strings.Repeat("1", 32)
	rest, err := journal.SealAll(chain[0].Head(), group...)
	if err != nil {
		t.Fatal(err)
	}
	chain = append(chain, rest...)
	if *update {
		put(t, path, textOf(t, chain))
	}
	golden := bytesOf(t, path)
	if diff := cmp.Diff(string(golden), string(textOf(t, chain))); diff != "" {
		t.Errorf("the chain is not what it was (-golden +now):\n%s", diff)
	}
	got, err := journal.Decode(bytes.NewReader(golden))
	if err != nil {
		t.Fatalf("Decode: %v", err)
	}
	if diff := cmp.Diff(chain, got); diff != "" {
		t.Errorf("Decode returns other entries than Seal (-Seal +Decode):\n%s", diff)
	}
	if err := journal.Verify(got); err != nil {
		t.Errorf("Verify = %v", err)
	}
	if key, ok := journal.FingerprintKey(got); !ok || string(key.Reveal()) != strings.Repeat("Z", 32) {
		t.Errorf("FingerprintKey = %v, %v, want the key of the first entry", key, ok)
	}
}

func TestSealRefuses(t *testing.T) {
	with := func(raw string) journal.Entry {
		return journal.Entry{Time: day, Evidence: map[string]json.RawMessage{"n": json.RawMessage(raw)}}
	}
	for name, c := range map[string]struct {
		prev  journal.Head
		entry journal.Entry
		want  string
	}{
		"fraction":         {entry: with(`1.5`), want: "not an integer"},
		"whole fraction":   {entry: with(`[1.0]`), want: "not an integer"},
		"exponent":         {entry: with(`{"a":1e3}`), want: "not an integer"},
		"minus zero":       {entry: with(`-0`), want: "not an integer"},
		"2^53":             {entry: with(`9007199254740992`), want: "outside"},
		"-2^53":            {entry: with(`[{"x":-9007199254740992}]`), want: "outside"},
		"above int64":      {entry: with(`99999999999999999999`), want: "outside"},
		"not JSON":         {entry: with(`{`), want: "not JSON"},
		"half a pair":      {entry: with(`"\ud800\u0041"`), want: "surrogate"},
		"a name twice":     {entry: with(`{"a":1,"a":2}`), want: "uplicate"},
		"name beyond":      {entry: with("{\"\U0001f600\":1}"), want: "U+D7FF"},
		"evidence beyond":  {entry: journal.Entry{Time: day, Evidence: map[string]json.RawMessage{"\uffee": nil}}, want: "U+D7FF"},
		"not UTF-8":        {entry: journal.Entry{Time: day, Identity: "a\xff"}, want: "not UTF-8"},
		"no time":          {entry: journal.Entry{}, want: "time is missing"},
		"year":             {entry: journal.Entry{Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, want: "years"},
		"version":          {entry: journal.Entry{Time: day, Version: -1}, want: "version -1"},
		"large version":    {entry: journal.Entry{Time: day, Version: math.MaxInt64}, want: "version"},
		"too long":         {entry: with(`"` + strings.Repeat("x", 1<<20) + `"`), want: "bytes"},
		"head without end": {prev: journal.Head{Seq: 3, Hash: "ab"}, entry: with(`1`), want: "cannot be followed"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := journal.Seal(c.prev, c.entry)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Seal = %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestSealNormalises(t *testing.T) {
	e := sample(1)
	e.Time = time.Date(2026, 3, 1, 1, 2, 3, 4_999_999, time.FixedZone("", -5*3600))
	e.Evidence = map[string]json.RawMessage{"nil": nil, "spaced": json.RawMessage(` [ 1 , "\u00e9" ] `)}
	got, err := journal.Seal(journal.Head{Hash: strings.Repeat("0", 64)}, e)
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 3, 1, 6, 2, 3, 4_000_000, time.UTC); !got.Time.Equal(want) || got.Time.Location() != time.UTC {
		t.Errorf("Time = %v, want %v", got.Time, want)
	}
	want := map[string]json.RawMessage{"nil": json.RawMessage("null"), "spaced": json.RawMessage(`[1,"é"]`)}
	if diff := cmp.Diff(want, got.Evidence); diff != "" {
		t.Errorf("Evidence (-want +got):\n%s", diff)
	}
	if len(got.Nonce) != 32 || got.Seq != 1 || got.Prev != strings.Repeat("0", 64) {
		t.Errorf("Seal = nonce %q, seq %d, prev %q", got.Nonce, got.Seq, got.Prev)
	}
	if string(e.Evidence["nil"]) != "" {
		t.Error("Seal changed the evidence of its argument")
	}
}

// Vectors of RFC 8785 (section 3.2 and appendix B), as far as they are values
// that evidence may hold: the text must come out as the RFC writes it.
func TestCanonicalForm(t *testing.T) {
	for in, want := range map[string]string{
		`{"string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/"}`:                                   `{"string":"€$\u000f\nA'B\"\\\\\"/"}`,
		`{"literals": [null, true, false]}`:                                                             `{"literals":[null,true,false]}`,
		`{"\u20ac": "Euro Sign", "\r": "CR", "1": "One", "\u0080": "Control", "\u00f6": "O"}`:           "{\"\\r\":\"CR\",\"1\":\"One\",\"\u0080\":\"Control\",\"ö\":\"O\",\"€\":\"Euro Sign\"}",
		`[0, 9007199254740991, -9007199254740991, 333333333]`:                                           `[0,9007199254740991,-9007199254740991,333333333]`,
		`{"a": "\u007f\u2028\u2029\ufeff<>&", "b": "\ud83d\ude02", "": {"B": 1, "A": [ ], "a": { } } }`: "{\"\":{\"A\":[],\"B\":1,\"a\":{}},\"a\":\"\x7f\u2028\u2029\ufeff<>&\",\"b\":\"😂\"}",
	} {
		e, err := journal.Seal(journal.Head{}, journal.Entry{Time: day, Evidence: map[string]json.RawMessage{"v": json.RawMessage(in)}})
		if err != nil {
			t.Errorf("Seal(%s): %v", in, err)
			continue
		}
		if got := string(e.Evidence["v"]); got != want {
			t.Errorf("canonical form of %s = %s, want %s", in, got, want)
		}
	}
}

func TestGenesis(t *testing.T) {
	key := journal.NewKey()
	if n := len(key.Reveal()); n != 32 || bytes.Equal(key.Reveal(), journal.NewKey().Reveal()) {
		t.Errorf("NewKey has %d bytes, or is the same twice", n)
	}
	with := []journal.Entry{journal.Genesis(day, key)}
	got, ok := journal.FingerprintKey(with)
	if !ok || !bytes.Equal(got.Reveal(), key.Reveal()) {
		t.Errorf("FingerprintKey = %v, want the key of Genesis", ok)
	}
	without := journal.Genesis(day, journal.NewKey())
	delete(without.Evidence, "fingerprint-key")
	later := []journal.Entry{sample(1), with[0]}
	short := journal.Genesis(day, key)
	short.Evidence["fingerprint-key"] = json.RawMessage(`"abcd"`)
	for name, entries := range map[string][]journal.Entry{"none": nil, "no key": {without}, "not first": later, "short": {short}} {
		if _, ok := journal.FingerprintKey(entries); ok {
			t.Errorf("FingerprintKey(%s) found one", name)
		}
	}
}
