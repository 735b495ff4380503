package vaultapi

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
)

// ExampleURL is one of a server.
const ExampleURL = "https://vault-1.example.com:8200"

// What names and paths look like.
var (
	RoleForm  = regexp.MustCompile(`^\w(([\w.@-]+)?\w)?$`) // Vault's own
	MountForm = regexp.MustCompile(`^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$`)
)

// A FaultFunc is told what is wrong with a key.
type FaultFunc func(path, tip, format string, args ...any)

// Check tells what is wrong with the settings of an access.
func (a Access) Check(fault FaultFunc) {
	if len(a.Servers) == 0 {
		fault("servers", "write them as ["+ExampleURL+"]", "no server is named")
	}
	CheckURLs("servers", a.Servers, a.InsecureTLS, fault)
	if tip, problem := a.Token.Problem(); problem != "" {
		fault("token", tip, "the administrator's token %s", problem)
	}
	for i, w := range a.InsecureTLS {
		if !slices.Contains(remote.Weakenings, w) {
			fault(fmt.Sprintf("insecure-tls.%d", i), "known are "+strings.Join(remote.Weakenings, ", "), "unknown weakening")
		}
	}
}

// CheckURLs tells what is wrong with URLs of servers.
func CheckURLs(key string, urls, weaker []string, fault FaultFunc) {
	for i, u := range urls {
		if tip, problem := remote.Problem(u, ExampleURL, weaker); problem != "" {
			fault(fmt.Sprintf("%s.%d", key, i), tip, "%s", problem)
		} else if slices.Contains(urls[:i], u) {
			fault(fmt.Sprintf("%s.%d", key, i), "name each once", "the same URL stands there twice")
		}
	}
}

// ParseTTL reads a time to live as Vault takes it, which may be days: 120d, 36h.
func ParseTTL(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 12)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}

// ShowTTL writes a time to live as the configuration has it.
func ShowTTL(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return d.String()
}
