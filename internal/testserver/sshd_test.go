package testserver_test

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/testserver"
)

// TestSSHD logs in, runs a command as the server's own user, is cut off, and
// finds nothing left behind.
func TestSSHD(t *testing.T) {
	t.Parallel()
	line, private, err := testserver.NewSSHKey()
	if err != nil {
		t.Fatal(err)
	}
	server, err := testserver.StartSSHD(t.Context(), testserver.SSHDOptions{Authorized: []string{line}, Socket: "/nowhere.sock"})
	testserver.Require(t, err)
	defer server.Stop()
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	_, _, host, _, _, err := ssh.ParseKnownHosts([]byte(server.KnownHosts()))
	if err != nil {
		t.Fatal(err)
	}
	client, err := ssh.Dial("tcp", server.Addr(), &ssh.ClientConfig{User: testserver.SSHUser, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.FixedHostKey(host)})
	if err != nil {
		text, _ := server.LogText()
		t.Fatalf("logging in: %v\n%s", err, text)
	}
	shell, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := shell.CombinedOutput("id -un; readlink /run/docker.sock")
	if got := strings.Fields(string(out)); err != nil || len(got) != 2 || got[0] != testserver.SSHUser || got[1] != "/nowhere.sock" {
		t.Errorf("a command at the server says %q, %v", out, err)
	}
	if n, err := server.Cut(); err != nil || n == 0 {
		t.Errorf("Cut() = %d, %v, want at least one process", n, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- client.Wait() }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the connection is there, although its process was killed")
	}
	text, err := server.LogText()
	if err != nil || !strings.Contains(text, "Accepted publickey") {
		t.Errorf("the log of the server lacks the login: %v", err)
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
	if left := traces(t, server.Dir()); len(left) > 0 {
		t.Errorf("Stop() left %q", left)
	}
}
