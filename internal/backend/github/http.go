package github

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// maxAnswer bounds what is read of an answer to a probe, in bytes.
const maxAnswer = 1 << 20

// prober follows no redirection: what is asked for is asked of that server alone. It
// keeps no connection.
var prober = &http.Client{
	Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// ask sends a request of a probe. The problem is in words of ours: a library's may
// hold anything.
func ask(ctx context.Context, req *http.Request) (status int, body []byte, problem string) {
	resp, err := prober.Do(req)
	if err != nil {
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			return 0, nil, "the server's certificate is not trusted"
		}
		return 0, nil, transportText(ctx, err, "the request failed")
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, nil, transportText(ctx, err, "the request failed")
	}
	return resp.StatusCode, body, ""
}

func statusCode(status int) string {
	if status == 0 {
		return ""
	}
	return strconv.Itoa(status)
}

// fieldOf returns a field of the material; or, where services mount it under another name,
// the one field that there is.
func fieldOf(m rotation.Material, field string) (secret.Value, bool) {
	if v, ok := m[field]; ok {
		return v, true
	}
	if len(m) == 1 {
		for _, v := range m {
			return v, true
		}
	}
	return secret.Value{}, false
}
