package scenario_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestBenchmarksPage holds the commands of docs/benchmarks.md to what there is:
// every benchmark that it names exists, and every other program is built.
func TestBenchmarksPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/benchmarks.md")
	must(t, err)
	commands := 0
	for _, line := range strings.Split(string(page), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] + " " + fields[1] {
		case "make bench", "make demo":
			commands++
			run(t, "make", "-C", "../..", "-n", fields[1])
		case "go run":
			commands++
			run(t, "go", "list", "../../"+fields[2])
		case "go test":
			commands++
			pattern := regexp.MustCompile(`-bench '?(\w+)`).FindStringSubmatch(line)
			if pattern == nil {
				t.Errorf("%q names no benchmark", line)
				continue
			}
			listed := run(t, "go", "test", "-list", "Benchmark"+pattern[1], "../../"+fields[len(fields)-1])
			if !strings.Contains(listed, "Benchmark"+pattern[1]) {
				t.Errorf("%q finds no benchmark, only %s", line, listed)
			}
		}
	}
	if commands < 4 {
		t.Errorf("the page has %d commands, want those of its figures", commands)
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
