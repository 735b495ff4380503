// Vault is a server for the tests: Vault's own core and API with the engines that they
// use, raft as its storage, and nothing but a folder, two addresses and a certificate to
// say. The official command takes twice as long to build.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	aead "github.com/hashicorp/go-kms-wrapping/wrappers/aead/v2"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/logical/pki"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/physical/raft"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/vault"
	"github.com/hashicorp/vault/vault/seal"
)

var (
	auths   = map[string]logical.Factory{"approle": approle.Factory}
	engines = map[string]logical.Factory{"kv": kv.Factory, "pki": pki.Factory}
)

// options are the flags.
type options struct {
	dir              string // holds cert.pem and key.pem, and data/ for the storage
	node             string // its name in the cluster
	address, cluster string // where it listens, HOST:PORT
	sealKey          string // a file with the 32 bytes by which it unseals itself; "" for shares
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "", "holds cert.pem, key.pem and the data")
	flag.StringVar(&o.node, "node", "", "the node's name in the cluster")
	flag.StringVar(&o.address, "address", "", "where the API listens: 127.0.0.1:8200")
	flag.StringVar(&o.cluster, "cluster-address", "", "where other nodes are listened to: 127.0.0.1:8201")
	flag.StringVar(&o.sealKey, "seal-key", "", "a file with 32 bytes: the server unseals itself with them")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, o options) error {
	logger := hclog.New(&hclog.LoggerOptions{Name: "vault", Level: hclog.Debug})
	storage, err := openStorage(o, logger)
	if err != nil {
		return err
	}
	sealed, err := openSeal(o, logger)
	if err != nil {
		return err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Seal:     sealed,
		Physical: storage, HAPhysical: storage.(physical.HABackend), StorageType: "raft",
		RedirectAddr: "https://" + o.address, ClusterAddr: "https://" + o.cluster, ClusterName: "test",
		BuiltinRegistry: registry{}, CredentialBackends: auths, LogicalBackends: engines,
		AuditBackends: map[string]audit.Factory{"file": audit.NewFileBackend},
		Logger:        logger, DisableMlock: true,
	})
	if err != nil {
		return err
	}
	if sealed != nil {
		go unseal(ctx, core)
	}
	cluster, err := net.ResolveTCPAddr("tcp", o.cluster)
	if err != nil {
		return err
	}
	core.SetClusterListenerAddrs([]*net.TCPAddr{cluster})
	handler := vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: &configutil.Listener{Type: "tcp", Address: o.address}})
	core.SetClusterHandler(handler)
	server := &http.Server{Addr: o.address, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() {
		served <- server.ListenAndServeTLS(filepath.Join(o.dir, "cert.pem"), filepath.Join(o.dir, "key.pem"))
	}()
	select {
	case err = <-served:
	case <-ctx.Done():
		ended, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err = server.Shutdown(ended)
	}
	return errors.Join(err, core.Shutdown())
}

// openSeal returns the seal of a server that unseals itself; nil for one that takes shares.
func openSeal(o options, logger hclog.Logger) (vault.Seal, error) {
	if o.sealKey == "" {
		return nil, nil
	}
	key, err := os.ReadFile(o.sealKey)
	if err != nil {
		return nil, err
	}
	wrapper := aead.NewWrapper()
	if err := wrapper.SetAesGcmKeyBytes(key); err != nil {
		return nil, err
	}
	access, err := seal.NewAccessFromWrapper(logger.Named("seal"), wrapper, "aead")
	if err != nil {
		return nil, err
	}
	return vault.NewAutoSeal(access), nil
}

// unseal unseals the server as soon as it is initialized.
func unseal(ctx context.Context, core *vault.Core) {
	for core.Sealed() {
		_ = core.UnsealWithStoredKeys(ctx) // it is tried again
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func openStorage(o options, logger hclog.Logger) (physical.Backend, error) {
	data := filepath.Join(o.dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	return raft.NewRaftBackend(map[string]string{"path": data, "node_id": o.node, "performance_multiplier": "1"}, logger.Named("raft"))
}
