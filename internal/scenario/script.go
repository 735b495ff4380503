package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Script is what people use today, for the stack and its n-th password. It uses
// the docker and psql programs, and the update settings that the service has.
func (k *Stack) Script(n int) string {
	old, fresh := k.Secret, fmt.Sprintf("%s_%d", k.Secret, n+1)
	if n > 1 {
		old = fmt.Sprintf("%s_%d", k.Secret, n)
	}
	return fmt.Sprintf(`
password=$(head -c 32 /dev/urandom | base64 | tr -d '+/=\n')
printf %%s "$password" | docker secret create %[2]s -
echo "ALTER ROLE %[4]s PASSWORD '$password'" | psql -q
docker service update --quiet --secret-rm %[1]s --secret-add source=%[2]s,target=%[3]s %[5]s
docker secret rm %[1]s
`[1:], old, fresh, k.Secret, k.Name, k.Service())
}

// RunScript rotates the stack's password for the n-th time by the script.
func (k *Stack) RunScript(ctx context.Context, n int) (Rotation, error) {
	var r Rotation
	if err := k.calm(ctx); err != nil {
		return r, err
	}
	err := k.counted(&r, func() error {
		began := time.Now()
		run, err := k.scene.shell(ctx, k.Script(n))
		if err := errors.Join(err, run.OK()); err != nil {
			return err
		}
		update, err := k.update(ctx)
		r.Phases = []Phase{{Name: "script", Began: began, Took: run.Took, Update: update, Runs: []Run{run}}}
		return err
	})
	if err != nil {
		return r, fmt.Errorf("rotating %q by the script: %w", k.Name, err)
	}
	return r, nil
}

// shell runs a shell script as the administrator of the scene's servers.
func (s *Scenario) shell(ctx context.Context, text string) (Run, error) {
	cmd := s.command(ctx, "/bin/sh", "-euc", text)
	// A password file, as a careful script has it: nothing stands in an argument.
	passFile := filepath.Join(s.dir, "pgpass")
	if err := os.WriteFile(passFile, []byte("*:*:*:*:"+s.postgres.AdminPassword()+"\n"), 0o600); err != nil {
		return Run{}, err
	}
	host, port, _ := strings.Cut(s.postgres.Addr(), ":")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "DOCKER_HOST=" + s.engine.Host(),
		"DOCKER_CONFIG=" + filepath.Join(s.dir, "docker"), "PGHOST=" + host, "PGPORT=" + port, "PGUSER=postgres",
		"PGDATABASE=" + database, "PGPASSFILE=" + passFile, "PGSSLMODE=verify-full", "PGSSLROOTCERT=" + s.postgres.CAFile()}
	return s.run(cmd, strings.TrimSuffix(text, "\n"))
}
