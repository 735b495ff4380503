package github

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strconv"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/rotation"
)

// maxReferences bounds what is read of a repository's references: 16 MiB are more
// than 100,000 of them.
const maxReferences = 16 << 20

// listing asks for the references of the repository, as git does.
func listing(ctx context.Context, r rotation.EndpointResult, client *ssh.Client, u *url.URL) rotation.EndpointResult {
	said, err := uploadPack(client, u.Path)
	switch {
	case err == nil:
		r.Answer = rotation.Alive
	case ctx.Err() != nil:
		r.Reason = transportText(ctx, err, "the ssh handshake failed")
	case bytes.Contains(said, []byte("Repository not found")), bytes.Contains(said, []byte("does not appear to be a git repository")):
		r.Answer, r.Code = rotation.Unfit, codeNotFound
		r.Reason = u.Hostname() + " takes the key, and has no such repository for it: it is a key of another one"
	default:
		r.Reason = "the key is taken, and the references cannot be read: " + err.Error()
	}
	return r
}

// uploadPack runs git-upload-pack for a path, reads the references that it tells of,
// and says that nothing more is wanted. Said is what the server wrote in words.
func uploadPack(client *ssh.Client, path string) (said []byte, err error) {
	session, err := client.NewSession()
	if err != nil {
		return nil, errors.New("the server opens no session")
	}
	defer session.Close()
	words := &limited{most: 4 << 10}
	session.Stderr = words
	out, err := session.StdoutPipe()
	if err != nil {
		return nil, err
	}
	in, err := session.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := session.Start("git-upload-pack '" + path + "'"); err != nil {
		return nil, errors.New("the server does not run git-upload-pack")
	}
	read := references(out)
	if read == nil {
		_, _ = io.WriteString(in, "0000") // we know what we wanted to know
	}
	_ = in.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(out, maxReferences))
	_ = session.Wait() // its status says no more than what was read
	return words.b, read
}

var reference = regexp.MustCompile(`^(?:[0-9a-f]{40}|[0-9a-f]{64}) \S+`)

// references reads lines of git's protocol up to the flush. An empty repository has
// none.
func references(out io.Reader) error {
	in := bufio.NewReader(io.LimitReader(out, maxReferences))
	for {
		line, flush, err := packet(in)
		switch {
		case err != nil:
			return err
		case flush:
			return nil
		case !reference.Match(line):
			return errors.New("the server answers something else than references")
		}
	}
}

// packet reads one pkt-line: four hexadecimal digits that count all of it, and the
// rest; "0000" is a flush. See gitprotocol-common(5).
func packet(in *bufio.Reader) (line []byte, flush bool, err error) {
	var size [4]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		return nil, false, errors.New("the server ended before it told of references")
	}
	n, err := strconv.ParseUint(string(size[:]), 16, 16)
	if err != nil || n > 0 && n < 4 {
		return nil, false, errors.New("the server does not speak git's protocol")
	}
	if n == 0 {
		return nil, true, nil
	}
	line = make([]byte, n-4)
	if _, err := io.ReadFull(in, line); err != nil {
		return nil, false, fmt.Errorf("the server ended within a line of references")
	}
	return line, false, nil
}

// limited keeps the beginning of what is written.
type limited struct {
	b    []byte
	most int
}

// Write implements [io.Writer].
func (l *limited) Write(p []byte) (int, error) {
	l.b = append(l.b, p[:min(len(p), l.most-len(l.b))]...)
	return len(p), nil
}
