// Stepca is the authority of step-ca with an ACME and a JWK provisioner, as small as tests need it: it
// makes a root, an intermediate and the key of the provisioner when it starts, tells what it revoked at once in a list, and
// listens where it is told to.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/smallstep/certificates/acme"
	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/ca"
	_ "github.com/smallstep/certificates/cas/softcas" // it signs with keys in files
	"go.step.sm/crypto/jose"
	_ "go.step.sm/crypto/kms/softkms" // which are here
)

func main() {
	dir := flag.String("dir", "", "`folder` of its state")
	quiet := flag.Bool("no-list", false, "it tells nobody what was revoked")
	listen := flag.String("listen", "127.0.0.1:9000", "`address` for HTTPS")
	insecure := flag.String("insecure", "", "`address` for HTTP: the list of what was revoked")
	port := flag.Int("http01", 80, "`port` where answers to HTTP-01 are looked for")
	resolver := flag.String("resolver", "", "`address` of the DNS server that is asked")
	flag.Parse()
	acme.InsecurePortHTTP01 = *port
	if *resolver != "" {
		net.DefaultResolver.PreferGo = true
		net.DefaultResolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, *resolver)
		}
	}
	if err := run(*dir, *listen, *insecure, !*quiet); err != nil {
		fmt.Fprintln(os.Stderr, "stepca:", err)
		os.Exit(1)
	}
}

func run(dir, listen, insecure string, list bool) error {
	if err := mint(dir); err != nil {
		return err
	}
	key, err := provisionerKey(dir)
	if err != nil {
		return err
	}
	text, err := json.Marshal(map[string]any{
		"root": filepath.Join(dir, "root.pem"), "crt": filepath.Join(dir, "intermediate.pem"), "key": filepath.Join(dir, "intermediate.key"),
		"address": listen, "insecureAddress": insecure, "dnsNames": []string{"127.0.0.1"}, "logger": map[string]string{"format": "json"},
		"db":  map[string]string{"type": "badgerv2", "dataSource": filepath.Join(dir, "db")},
		"crl": map[string]any{"enabled": list, "generateOnRevoke": true, "cacheDuration": "1h"},
		"authority": map[string]any{"provisioners": []any{map[string]any{"type": "ACME", "name": "acme",
			"claims": map[string]string{"minTLSCertDuration": "1m", "defaultTLSCertDuration": "24h"}},
			map[string]any{"type": "JWK", "name": "keyturn", "key": key, "claims": map[string]string{"minTLSCertDuration": "1m", "defaultTLSCertDuration": "24h", "maxTLSCertDuration": "48h"}}}},
	})
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "ca.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	c, err := config.LoadConfiguration(file)
	if err != nil {
		return err
	}
	server, err := ca.New(c, ca.WithConfigFile(file), ca.WithQuiet(true))
	if err != nil {
		return err
	}
	return server.Run()
}

// provisionerKey makes the key of the JWK provisioner, which is written beside the rest, and
// returns its public half.
func provisionerKey(dir string) (*jose.JSONWebKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	public := &jose.JSONWebKey{Key: key.Public(), Use: "sig", Algorithm: jose.ES256}
	if public.KeyID, err = jose.Thumbprint(public); err != nil {
		return nil, err
	}
	return public, os.WriteFile(filepath.Join(dir, "provisioner.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// mint makes a root, and an intermediate below it that signs.
func mint(dir string) error {
	rootKey, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	key, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	now := time.Now()
	authority := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	}
	root, intermediate := authority(1, "Keyturn test root"), authority(2, "Keyturn test intermediate")
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		return err
	}
	if root, err = x509.ParseCertificate(rootDER); err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, intermediate, root, key.Public(), rootKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	write := func(name, kind string, der []byte) error {
		return os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	}
	return errors.Join(write("root.pem", "CERTIFICATE", rootDER), write("intermediate.pem", "CERTIFICATE", der), write("intermediate.key", "EC PRIVATE KEY", keyDER))
}
