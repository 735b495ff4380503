package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Bash itself runs the completion, with the program that was just built.
func TestBashCompletes(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatalf("bash is needed: %v", err)
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "keyturn"), "../../cmd/keyturn")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building keyturn: %v\n%s", err, out)
	}
	b, err := os.ReadFile("../config/testdata/ok/two-credentials.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "keyturn.yml"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	// What the package bash-completion brings and the script calls.
	const script = `
_get_comp_words_by_ref() { cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD; }
compopt() { :; }
__ltrim_colon_completions() { :; }
source <(keyturn completion bash)
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_TYPE=9
complete -p keyturn >/dev/null || exit 9
__start_keyturn
for c in "${COMPREPLY[@]}"; do echo "${c%% *}"; done`
	for line, want := range map[string]string{
		"keyturn clea": "cleanup",
		"keyturn comp": "completion",
		"keyturn --config keyturn.yml cutover st":         "stock-db",
		"keyturn --config keyturn.yml plan ":              "orders-db stock-db",
		"keyturn --config keyturn.yml rotate orders-db ":  "stock-db",
		"keyturn --config keyturn.yml setup postgres ord": "orders-db",
		"keyturn --config missing.yml plan ":              "",
		"keyturn completion z":                            "zsh",
	} {
		cmd := exec.Command(bash, append([]string{"--norc", "-c", script, "bash"}, strings.Split(line, " ")...)...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if got := strings.Join(strings.Fields(string(out)), " "); err != nil || got != want {
			t.Errorf("%q completes to %q (%v), want %q", line, got, err, want)
		}
	}
}
