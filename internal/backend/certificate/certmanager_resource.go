package certificate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A resource is a Certificate of cert-manager, as far as it matters here.
type resource struct {
	Metadata struct {
		UID        string `json:"uid"`
		Generation int64  `json:"generation"`
		Deleted    string `json:"deletionTimestamp"`
	} `json:"metadata"`
	Spec struct {
		DNSNames       []string          `json:"dnsNames"`
		IPAddresses    []string          `json:"ipAddresses"`
		URIs           []string          `json:"uris"`
		EmailAddresses []string          `json:"emailAddresses"`
		OtherNames     []json.RawMessage `json:"otherNames"`
		CommonName     string            `json:"commonName"`
		IsCA           bool              `json:"isCA"`
		PrivateKey     struct {
			RotationPolicy string `json:"rotationPolicy"`
		} `json:"privateKey"`
	} `json:"spec"`
	Status struct {
		Conditions  []condition `json:"conditions"`
		Revision    int         `json:"revision"` // 0: nothing was issued yet
		RenewalTime time.Time   `json:"renewalTime"`
	} `json:"status"`

	whole map[string]any // as it came, with what is not known here
}

// A condition is one of cert-manager's.
type condition struct {
	Type               string `json:"type"`
	Status             string `json:"status"`
	Reason             string `json:"reason"`
	Message            string `json:"message"`
	ObservedGeneration int64  `json:"observedGeneration"`
}

// The conditions of a Certificate.
const (
	conditionIssuing = "Issuing"
	conditionReady   = "Ready"
)

func parseResource(raw []byte) (*resource, error) {
	r := &resource{}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := errors.Join(json.Unmarshal(raw, r), decoder.Decode(&r.whole)); err != nil {
		return nil, rotation.Errorf(rotation.Unknown, "is this cert-manager with its API v1?", "certificate: reading the Certificate: it is not as expected")
	}
	if r.Metadata.UID == "" {
		return nil, rotation.Errorf(rotation.Unknown, "is cert-manager.api the URL of a Kubernetes API server?", "certificate: reading the Certificate: the answer is none")
	}
	return r, nil
}

// condition returns the condition of a kind; the zero one if it is not there.
func (r *resource) condition(kind string) condition {
	i := slices.IndexFunc(r.Status.Conditions, func(c condition) bool { return c.Type == kind })
	if i < 0 {
		return condition{}
	}
	return r.Status.Conditions[i]
}

func (r *resource) issuing() bool { return r.condition(conditionIssuing).Status == "True" }

// words says how a condition stands, for people.
func (c condition) words() string {
	switch {
	case c.Status == "":
		return "it has no such condition"
	case c.Message == "":
		return c.Reason
	}
	return c.Reason + ": " + c.Message
}

// setIssuing sets the condition as cert-manager's own cmctl renew does, and leaves everything
// else as it came: conditions are a list by type, and the time is that of the last change.
func (r *resource) setIssuing(now time.Time) {
	fresh := map[string]any{"type": conditionIssuing, "status": "True", "reason": "ManuallyTriggered", "message": "Certificate re-issuance manually triggered",
		"lastTransitionTime": now.UTC().Format(time.RFC3339)}
	if r.Metadata.Generation != 0 {
		fresh["observedGeneration"] = r.Metadata.Generation
	}
	status, _ := r.whole["status"].(map[string]any)
	if status == nil {
		status = map[string]any{}
		r.whole["status"] = status
	}
	all, _ := status["conditions"].([]any)
	i := slices.IndexFunc(all, func(c any) bool {
		old, _ := c.(map[string]any)
		return old["type"] == conditionIssuing
	})
	if i < 0 {
		status["conditions"] = append(all, fresh)
		return
	}
	if old := all[i].(map[string]any); old["status"] == "True" && old["lastTransitionTime"] != nil {
		fresh["lastTransitionTime"] = old["lastTransitionTime"]
	}
	all[i] = fresh
}

// conflicts is how often a change is tried again that somebody else's came before.
const conflicts = 8

// trigger has the Certificate issued again, unless that is not needed: needed looks at it as
// it stands. A change of somebody else's in between is read, and only our condition
// is set upon it.
func (c *cluster) trigger(ctx context.Context, now func() time.Time, needed func(*resource) (bool, error)) (triggered bool, err error) {
	for range conflicts {
		var r *resource
		if r, err = c.certificate(ctx); err != nil {
			return false, err
		}
		if need, err := needed(r); err != nil || !need {
			return false, err
		}
		if err := rotation.CheckLease(ctx); err != nil {
			return false, err
		}
		r.setIssuing(now())
		var answer json.RawMessage
		err = c.ask(ctx, "telling cert-manager to issue "+c.settings.name(), http.MethodPut, c.path()+"/status", r.whole, &answer)
		if said(err) != http.StatusConflict {
			return err == nil, err
		}
	}
	return false, err
}

// A request is a CertificateRequest: what cert-manager had issued, without the key.
type request struct {
	Metadata struct {
		Annotations map[string]string `json:"annotations"`
		Owners      []struct {
			UID string `json:"uid"`
		} `json:"ownerReferences"`
	} `json:"metadata"`
	Status struct {
		Certificate []byte `json:"certificate"` // with its chain, PEM
		CA          []byte `json:"ca"`
	} `json:"status"`
}

const revisionAnnotation = "cert-manager.io/certificate-revision"

// issued returns the certificate of the Certificate's revision; nil if none was issued yet.
// It is read from the request for it: a Secret would show the key, too.
func (c *cluster) issued(ctx context.Context, r *resource) (*issuance, error) {
	revision := r.Status.Revision
	if revision == 0 {
		return nil, nil
	}
	var found request
	err := c.requests(ctx, func(q request) bool {
		ours := slices.ContainsFunc(q.Metadata.Owners, func(o struct {
			UID string `json:"uid"`
		}) bool {
			return o.UID == r.Metadata.UID
		})
		if !ours || q.Metadata.Annotations[revisionAnnotation] != strconv.Itoa(revision) || len(q.Status.Certificate) == 0 {
			return false
		}
		found = q
		return true
	})
	if err != nil {
		return nil, err
	}
	if len(found.Status.Certificate) == 0 {
		return nil, refused("let it be issued once more, so that there is one: cmctl renew --namespace "+c.settings.Namespace+" "+c.settings.Certificate,
			"no CertificateRequest is left of revision %d of Certificate %s: which certificate it is cannot be told", revision, c.settings.name())
	}
	i, err := parseChain(found.Status.Certificate)
	if err != nil {
		return nil, fmt.Errorf("certificate: revision %d of Certificate %s: %w", revision, c.settings.name(), err)
	}
	if root, err := parseChain(found.Status.CA); err == nil && i.issuer == nil && i.leaf.CheckSignatureFrom(root.leaf) == nil {
		i.issuer = root.leaf
	}
	return i, nil
}
