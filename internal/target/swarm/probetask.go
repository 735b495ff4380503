package swarm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// The exit codes of a probe's task. Any other one answers nothing: 0, with
// which any image may end that is not Keyturn's, or those of a program that
// could not start or that panicked.
const (
	ExitAlive   = 40
	ExitDead    = 41
	ExitUnfit   = 42
	ExitUnknown = 43
)

// ProbeArgs returns the arguments with which a probe's task starts the keyturn
// program, the entry point of the probe's image. The command calls [RunProbe]
// with the values of its flags.
func ProbeArgs() []string { return []string{"probe", "--spec", probeSpecPath, "--dir", probeDir} }

// answerOf returns the answer that an exit code stands for.
func answerOf(code int) (rotation.Answer, bool) {
	switch code {
	case ExitAlive:
		return rotation.Alive, true
	case ExitDead:
		return rotation.Dead, true
	case ExitUnfit:
		return rotation.Unfit, true
	case ExitUnknown:
		return rotation.Inconclusive, true
	}
	return rotation.Inconclusive, false
}

func codeOf(a rotation.Answer) int {
	switch a {
	case rotation.Alive:
		return ExitAlive
	case rotation.Dead:
		return ExitDead
	case rotation.Unfit:
		return ExitUnfit
	}
	return ExitUnknown
}

// RunProbe is the inside of a probe's task: it reads the [rotation.ProbeSpec]
// at specPath and the fields of the credential in dir, one file each, tries the
// login that login returns for the spec's backend, writes the
// [rotation.ProbeResult] to out as one line of JSON, and returns the exit code.
// Login returns nil for a backend it does not know.
func RunProbe(ctx context.Context, specPath, dir string, login func(backend string) rotation.Login, out io.Writer) int {
	result := runProbe(ctx, specPath, dir, login)
	if err := json.NewEncoder(out).Encode(result); err != nil {
		return ExitUnknown
	}
	return codeOf(result.Answer)
}

func runProbe(ctx context.Context, specPath, dir string, login func(string) rotation.Login) rotation.ProbeResult {
	unknown := func(err error) rotation.ProbeResult {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: err.Error()}
	}
	data, err := os.ReadFile(specPath)
	if err != nil {
		return unknown(fmt.Errorf("reading what to probe: %w", err))
	}
	var spec rotation.ProbeSpec
	if err := json.Unmarshal(data, &spec); err != nil {
		return unknown(fmt.Errorf("reading what to probe: %w", err))
	}
	try := login(spec.Backend)
	if try == nil {
		return unknown(fmt.Errorf("this image knows no backend %q: is it of the same release?", spec.Backend))
	}
	m, err := material(dir)
	if err != nil {
		return unknown(fmt.Errorf("reading the credential as user %d: %w", os.Getuid(), err))
	}
	defer m.Wipe()
	return try(ctx, spec, m)
}

// material reads the mounted fields, as applications do: without one trailing
// newline.
func material(dir string) (rotation.Material, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	m := rotation.Material{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			m.Wipe()
			return nil, err
		}
		m[e.Name()] = secret.New(secret.TrimNewline(data))
		clear(data)
	}
	return m, nil
}

// printed reads what the task of a probe wrote: its result, in which no value is.
func (t *Target) printed(ctx context.Context, service string) (rotation.ProbeResult, error) {
	var result rotation.ProbeResult
	logs, err := t.engine.ServiceLogs(ctx, service, container.LogsOptions{ShowStdout: true})
	if err != nil {
		return result, fault(err)
	}
	defer func() { _ = logs.Close() }()
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, io.Discard, io.LimitReader(logs, 1<<20)); err != nil {
		return result, err
	}
	for _, line := range bytes.Split(out.Bytes(), []byte("\n")) {
		if json.Unmarshal(line, &result) == nil && result.Answer != "" {
			return result, nil
		}
	}
	return result, errors.New("it printed no result")
}
