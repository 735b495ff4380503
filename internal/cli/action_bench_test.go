package cli_test

import (
	"encoding/json"
	"testing"
)

// BenchmarkImage starts the image of the action, as a probe or a step does, and says
// its size.
func BenchmarkImage(b *testing.B) {
	k := &stack{shop: &shop{t: b}, engine: stackEngine(b)}
	k.buildAction()
	out, err := k.docker(b.Context(), "image", "inspect", actionImage).Output()
	k.must(err)
	var images []struct{ Size float64 }
	k.must(json.Unmarshal(out, &images))
	for b.Loop() {
		k.must(k.docker(b.Context(), "run", "--rm", "--network", "none", actionImage, "version").Run())
	}
	b.ReportMetric(images[0].Size/1e6, "MB")
}
