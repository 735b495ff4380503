package githubfake

import (
	"archive/tar"
	"compress/gzip"
	"maps"
	"net/http"
	"slices"
	"strings"
)

func archiveRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}/tarball/{ref...}", http.StatusFound, "contents=read", func(c *call) (any, error) {
			at := c.repo.resolve(c.value("ref"))
			if at == nil {
				return nil, notFound()
			}
			c.header.Set("Location", c.s.URL+"/_codeload/"+c.repo.FullName()+"/"+at.sha)
			return nil, nil
		}},
	}
}

// codeload serves what a tarball's answer leads to. The address itself is what
// lets its bearer in.
func (s *Server) codeload(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.git.commits[r.PathValue("sha")]
	if at == nil {
		http.NotFound(w, r)
		return
	}
	top := r.PathValue("owner") + "-" + r.PathValue("repo") + "-" + at.sha[:7] + "/"
	w.Header().Set("Content-Type", "application/x-gzip")
	packed := gzip.NewWriter(w)
	out := tar.NewWriter(packed)
	_ = out.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": at.sha}})
	_ = out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: top, Mode: 0o775, ModTime: at.committer.Date})
	files := s.git.files(at.tree)
	folders := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for i := range name {
			if folder := name[:i]; strings.HasPrefix(name[i:], "/") && !folders[folder] {
				folders[folder] = true
				_ = out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: top + folder + "/", Mode: 0o775, ModTime: at.committer.Date})
			}
		}
		text := s.git.blobs[files[name].sha]
		_ = out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: top + name, Mode: 0o664, Size: int64(len(text)), ModTime: at.committer.Date})
		_, _ = out.Write(text)
	}
	_ = out.Close()
	_ = packed.Close()
}

// download serves one file, as raw.githubusercontent.com does.
func (s *Server) download(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.git.commits[r.PathValue("ref")]
	if at == nil {
		http.NotFound(w, r)
		return
	}
	e, ok := s.git.files(at.tree)[r.PathValue("path")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(s.git.blobs[e.sha])
}
