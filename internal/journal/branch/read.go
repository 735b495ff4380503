package branch

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/journal"
)

const (
	// maxArchive bounds what is read of a branch: some million entries.
	maxArchive = 1 << 30
	digits     = 9

	// fetches is how often an archive is fetched again.
	fetches = 2
)

// file returns the name of the file that begins with an entry.
func file(seq int64) string { return fmt.Sprintf("%s/%0*d.jsonl", folder, digits, seq) }

// load reads every entry of a commit, verified. The whole branch comes as one
// archive: an answer with its address, which is then fetched.
func (b *Branch) load(ctx context.Context, commit string) ([]journal.Entry, error) {
	text, err := b.Text(ctx, commit)
	if err != nil {
		return nil, err
	}
	return journal.Decode(bytes.NewReader(text))
}

// Text returns the journal of a commit as one file, unverified but for the names
// and the order of its files.
func (b *Branch) Text(ctx context.Context, commit string) ([]byte, error) {
	link, _, err := b.o.Client.Repositories.GetArchiveLink(ctx, b.o.Owner, b.o.Repo, github.Tarball,
		&github.RepositoryContentGetOptions{Ref: commit}, 1)
	if err != nil {
		return nil, fmt.Errorf("asking for the archive of commit %.12s: %w", commit, err)
	}
	for try := 0; ; try++ {
		text, err := b.fetch(ctx, link)
		_, broken := errors.AsType[*journal.Fault](err)
		if err == nil || broken {
			return text, err
		}
		if try == fetches || b.o.Sleep(ctx, time.Second<<try) != nil {
			return nil, fmt.Errorf("fetching the archive of commit %.12s from %s: %w", commit, link.Host, err)
		}
	}
}

// fetch gets an archive from its address. That holds a token of its own, so it
// is in no error; ours is not for its host.
func (b *Branch) fetch(ctx context.Context, link *url.URL) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, link.String(), nil)
	if err != nil {
		return nil, errors.New("its address cannot be read")
	}
	resp, err := b.o.Archives.Do(req)
	if asked, ok := errors.AsType[*url.Error](err); ok {
		return nil, asked.Err
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return untar(io.LimitReader(resp.Body, maxArchive))
}

// untar returns the files of the journal in an archive, one after the other.
func untar(r io.Reader) ([]byte, error) {
	plain, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	files := map[int64][]byte{}
	for archive := tar.NewReader(plain); ; {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		_, name, _ := strings.Cut(head.Name, "/") // without the folder that GitHub puts around
		if head.Typeflag != tar.TypeReg || path.Dir(name) != folder {
			continue
		}
		seq, err := seqOf(name)
		if err != nil {
			return nil, err
		}
		if files[seq], err = io.ReadAll(archive); err != nil {
			return nil, err
		}
	}
	return joined(files)
}

// seqOf returns the number of the first entry of a file, by its name.
func seqOf(name string) (int64, error) {
	seq, err := strconv.ParseInt(strings.TrimSuffix(path.Base(name), ".jsonl"), 10, 64)
	if err != nil || file(seq) != name {
		return 0, &journal.Fault{Kind: journal.Unreadable, Detail: fmt.Sprintf("%q is no file of a journal", name)}
	}
	return seq, nil
}

// joined puts files one after the other. Each begins with the entry that its name says.
func joined(files map[int64][]byte) ([]byte, error) {
	var seqs []int64
	for seq := range files {
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	var text bytes.Buffer
	next := int64(1)
	for _, seq := range seqs {
		if seq != next {
			kind := journal.Gap
			if seq < next {
				kind = journal.Fork
			}
			return nil, &journal.Fault{Seq: next, Line: int(next), Kind: kind, Detail: fmt.Sprintf("the file %s stands in its place", file(seq))}
		}
		text.Write(files[seq])
		next += int64(bytes.Count(files[seq], []byte("\n")))
		if !bytes.HasSuffix(files[seq], []byte("\n")) {
			return nil, &journal.Fault{Seq: seq, Line: int(seq), Kind: journal.Truncated, Detail: fmt.Sprintf("the file %s ends in the middle of an entry", file(seq))}
		}
	}
	return text.Bytes(), nil
}
