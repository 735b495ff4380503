package telemetry

import (
	"encoding/base64"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// What follows writes the messages of OTLP 1.x (opentelemetry-proto) that metrics and
// traces need. OpenTelemetry's own exporters bring gRPC and four megabytes with them,
// which the image has no room for (docs/design/decisions.md).

// A Resource says who measured: names and values.
type Resource []Label

// A Span is a stretch of time in a trace.
type Span struct {
	Trace      [16]byte
	ID         [8]byte
	Parent     [8]byte // zero: none
	Name       string
	Begun      time.Time
	Ended      time.Time
	Failed     bool
	Attributes []Label
}

// scope is the name under which everything is measured.
const scope = "github.com/keyturn/keyturn"

// message is a protobuf message that is being written.
type message []byte

func (m *message) text(field protowire.Number, s string) {
	if s != "" {
		*m = protowire.AppendString(protowire.AppendTag(*m, field, protowire.BytesType), s)
	}
}

func (m *message) bytes(field protowire.Number, b []byte) {
	*m = protowire.AppendBytes(protowire.AppendTag(*m, field, protowire.BytesType), b)
}

func (m *message) number(field protowire.Number, n uint64) {
	*m = protowire.AppendVarint(protowire.AppendTag(*m, field, protowire.VarintType), n)
}

func (m *message) fixed(field protowire.Number, n uint64) {
	*m = protowire.AppendFixed64(protowire.AppendTag(*m, field, protowire.Fixed64Type), n)
}

func (m *message) at(field protowire.Number, t time.Time) { m.fixed(field, uint64(t.UnixNano())) }

// packed writes numbers of eight bytes as one field.
func (m *message) packed(field protowire.Number, numbers []uint64) {
	var in []byte
	for _, n := range numbers {
		in = protowire.AppendFixed64(in, n)
	}
	m.bytes(field, in)
}

// in writes a message inside of another.
func (m *message) in(field protowire.Number, write func(*message)) {
	var inner message
	write(&inner)
	m.bytes(field, inner)
}

func (m *message) attributes(field protowire.Number, labels []Label) {
	for _, l := range labels {
		m.in(field, func(kv *message) {
			kv.text(1, l.Name)
			kv.in(2, func(v *message) { v.bytes(1, []byte(l.Value)) })
		})
	}
}

// scoped writes a request: one resource, one scope, and what was measured in field 2.
func scoped(r Resource, version string, write func(*message)) []byte {
	var req message
	req.in(1, func(m *message) {
		m.in(1, func(m *message) { m.attributes(1, r) })
		m.in(2, func(m *message) {
			m.in(1, func(m *message) { m.text(1, scope); m.text(2, version) })
			write(m)
		})
	})
	return req
}

// Metrics returns families as the body of an OTLP request. Counters and histograms are
// cumulative since a moment.
func Metrics(families []Family, r Resource, version string, since, now time.Time) []byte {
	return scoped(r, version, func(m *message) {
		for _, f := range families {
			m.in(2, func(m *message) { metric(m, f, since, now) })
		}
	})
}

const cumulative = 2 // AGGREGATION_TEMPORALITY_CUMULATIVE

func metric(m *message, f Family, since, now time.Time) {
	m.text(1, f.Name)
	m.text(2, f.Help)
	m.text(3, unitOf(f.Name))
	switch f.Kind {
	case Gauge:
		m.in(5, func(m *message) { points(m, f.Samples, time.Time{}, now) })
	case Counter:
		m.in(7, func(m *message) {
			points(m, f.Samples, since, now)
			m.number(2, cumulative)
			m.number(3, 1) // monotonic
		})
	case Histogram:
		m.in(9, func(m *message) {
			for _, s := range f.Samples {
				m.in(1, func(m *message) { distribution(m, s, since, now) })
			}
			m.number(2, cumulative)
		})
	}
}

func points(m *message, samples []Sample, since, now time.Time) {
	for _, s := range samples {
		m.in(1, func(m *message) {
			m.attributes(7, s.Labels)
			if !since.IsZero() {
				m.at(2, since)
			}
			m.at(3, now)
			m.fixed(4, math.Float64bits(s.Value))
		})
	}
}

func distribution(m *message, s Sample, since, now time.Time) {
	m.attributes(9, s.Labels)
	m.at(2, since)
	m.at(3, now)
	m.fixed(4, s.Count)
	m.fixed(5, math.Float64bits(s.Sum))
	m.packed(6, s.Buckets)
	bounds := make([]uint64, len(Bounds))
	for i, b := range Bounds {
		bounds[i] = math.Float64bits(b)
	}
	m.packed(7, bounds)
}

// Spans returns spans as the body of an OTLP request.
func Spans(spans []Span, r Resource, version string) []byte {
	return scoped(r, version, func(m *message) {
		for _, s := range spans {
			m.in(2, func(m *message) { span(m, s) })
		}
	})
}

func span(m *message, s Span) {
	m.bytes(1, s.Trace[:])
	m.bytes(2, s.ID[:])
	if s.Parent != [8]byte{} {
		m.bytes(4, s.Parent[:])
	}
	m.text(5, s.Name)
	m.number(6, 1) // SPAN_KIND_INTERNAL
	m.at(7, s.Begun)
	m.at(8, s.Ended)
	m.attributes(9, s.Attributes)
	m.in(15, func(m *message) {
		code := uint64(1) // STATUS_CODE_OK
		if s.Failed {
			code = 2 // STATUS_CODE_ERROR
		}
		m.number(3, code)
	})
}

// unitOf is a name's unit, as UCUM writes it.
func unitOf(name string) string {
	for _, u := range []struct{ end, unit string }{{"_seconds", "s"}, {"_seconds_total", "s"}} {
		if len(name) > len(u.end) && name[len(name)-len(u.end):] == u.end {
			return u.unit
		}
	}
	return "1"
}

func base64Value(s string) string {
	if s == "" {
		return "=" // that is how the Pushgateway wants nothing
	}
	return base64.RawURLEncoding.EncodeToString([]byte(s))
}
