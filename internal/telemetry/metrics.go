// Package telemetry measures rotations by what the record says of them, and hands that to
// a Prometheus Pushgateway or, as OpenTelemetry metrics and traces, to an OTLP endpoint.
//
// A run of Keyturn lives for minutes, on a machine that is gone afterwards: it cannot
// count. The record can: counters and histograms are made from all of it, each time, so
// they only ever grow, whoever sends them.
package telemetry

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Kind says what a family's samples mean.
type Kind int

// The kinds.
const (
	Gauge     Kind = iota
	Counter        // grows as long as the record does
	Histogram      // the same; bounds are those of [Bounds]
)

// Bounds are the upper bounds of the histograms' buckets, in seconds. The objectives (30 s
// and 5 minutes) are among them.
var Bounds = []float64{1, 2.5, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600}

// A Family is all samples of one name.
type Family struct {
	Name    string // of Prometheus: its unit and, of a counter, _total are at the end
	Help    string
	Kind    Kind
	Samples []Sample
}

// A Sample is one value, or one distribution.
type Sample struct {
	Labels  []Label // sorted by name
	Value   float64
	Buckets []uint64 // of a histogram: how many fell between two bounds; one more than there are bounds
	Count   uint64
	Sum     float64
}

// A Label is a name and a value.
type Label struct{ Name, Value string }

// A Set collects samples by name and labels. The zero value is empty.
type Set struct {
	families []*Family
}

// Families returns what was collected, in the order in which the names came.
func (s *Set) Families() []Family {
	var out []Family
	for _, f := range s.families {
		slices.SortStableFunc(f.Samples, func(a, b Sample) int { return cmp.Compare(key(a.Labels), key(b.Labels)) })
		out = append(out, *f)
	}
	return out
}

// Set sets a gauge. Labels are names and values in turn.
func (s *Set) Set(name, help string, value float64, labels ...string) {
	s.sample(Gauge, name, help, labels).Value = value
}

// SetTime sets a gauge to a moment, in seconds of Unix time; a zero moment sets nothing.
func (s *Set) SetTime(name, help string, at time.Time, labels ...string) {
	if !at.IsZero() {
		s.Set(name, help, float64(at.UnixMilli())/1000, labels...)
	}
}

// Add adds to a counter; adding nothing makes it begin at 0.
func (s *Set) Add(name, help string, value float64, labels ...string) {
	s.sample(Counter, name, help, labels).Value += value
}

// Observe adds a duration to a histogram.
func (s *Set) Observe(name, help string, d time.Duration, labels ...string) {
	h := s.sample(Histogram, name, help, labels)
	if h.Buckets == nil {
		h.Buckets = make([]uint64, len(Bounds)+1)
	}
	i, _ := slices.BinarySearch(Bounds, d.Seconds())
	h.Buckets[i]++
	h.Count++
	h.Sum += d.Seconds()
}

// sample returns the sample of a name and labels, which may be new.
func (s *Set) sample(kind Kind, name, help string, pairs []string) *Sample {
	i := slices.IndexFunc(s.families, func(f *Family) bool { return f.Name == name })
	if i < 0 {
		i = len(s.families)
		s.families = append(s.families, &Family{Name: name, Help: help, Kind: kind})
	}
	f := s.families[i]
	var labels []Label
	for p := 0; p+1 < len(pairs); p += 2 {
		labels = append(labels, Label{pairs[p], pairs[p+1]})
	}
	slices.SortFunc(labels, func(a, b Label) int { return cmp.Compare(a.Name, b.Name) })
	if i := slices.IndexFunc(f.Samples, func(o Sample) bool { return slices.Equal(o.Labels, labels) }); i >= 0 {
		return &f.Samples[i]
	}
	f.Samples = append(f.Samples, Sample{Labels: labels})
	return &f.Samples[len(f.Samples)-1]
}

func key(labels []Label) string {
	var b strings.Builder
	for _, l := range labels {
		b.WriteString(l.Name + "\x00" + l.Value + "\x00")
	}
	return b.String()
}

// With returns families whose samples have one more label.
func With(families []Family, name, value string) []Family {
	out := slices.Clone(families)
	for i := range out {
		out[i].Samples = slices.Clone(out[i].Samples)
		for j, s := range out[i].Samples {
			s.Labels = append(slices.Clone(s.Labels), Label{name, value})
			slices.SortFunc(s.Labels, func(a, b Label) int { return cmp.Compare(a.Name, b.Name) })
			out[i].Samples[j] = s
		}
	}
	return out
}
