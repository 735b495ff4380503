package scenario_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestBenchmarksPage holds the commands of docs/benchmarks.md to what there is:
// every target and every benchmark that it names exists.
func TestBenchmarksPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/benchmarks.md")
	must(t, err)
	makefile, err := os.ReadFile("../../Makefile")
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
			if !strings.Contains(string(makefile), "\n"+fields[1]+":") {
				t.Errorf("%q: the Makefile has no such target", line)
			}
			for _, variable := range regexp.MustCompile(`([A-Z]+)=`).FindAllStringSubmatch(line, -1) {
				if !strings.Contains(string(makefile), "$("+variable[1]+")") {
					t.Errorf("%q: the Makefile knows no %s", line, variable[1])
				}
			}
		case "go test":
			commands++
			checkBenchmark(t, line, fields[len(fields)-1])
		}
	}
	if commands < 4 {
		t.Errorf("the page has %d commands, want those of its figures", commands)
	}
}

// checkBenchmark checks that a package has the benchmark that a command runs.
func checkBenchmark(t *testing.T, line, pkg string) {
	t.Helper()
	pattern := regexp.MustCompile(`-bench '?(\w+)`).FindStringSubmatch(line)
	if pattern == nil {
		t.Errorf("%q names no benchmark", line)
		return
	}
	files, err := filepath.Glob(filepath.Join("../..", pkg, "*_test.go"))
	must(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		if strings.Contains(string(text), "\nfunc Benchmark"+pattern[1]) {
			return
		}
	}
	t.Errorf("%q: %s has no benchmark of that name", line, pkg)
}
