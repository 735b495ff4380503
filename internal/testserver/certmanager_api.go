package testserver

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"
)

const managerPath = "/apis/cert-manager.io/v1/namespaces/"

// Make makes the Certificate, a new one if it was there before.
func (c *CertManager) Make(names ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []any
	for _, n := range names {
		list = append(list, n)
	}
	c.uid++
	c.object = map[string]any{"apiVersion": "cert-manager.io/v1", "kind": "Certificate",
		"metadata": map[string]any{"name": c.Name, "namespace": c.Namespace, "uid": fmt.Sprintf("0000-%d", c.uid), "generation": 3,
			"annotations": map[string]any{"kept": "as it is"}, "managedFields": []any{map[string]any{"manager": "helm", "operation": "Apply"}}},
		"spec": map[string]any{"secretName": "orders-tls", "dnsNames": list, "issuerRef": map[string]any{"name": "internal"}, "privateKey": map[string]any{"rotationPolicy": "Always"}},
		"status": map[string]any{"unknownToUs": json.Number("12345678901234567"), "conditions": []any{
			map[string]any{"type": "Ready", "status": "True", "reason": "Ready", "message": "Certificate is up to date and has not expired", "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": 3}}},
	}
	c.due = time.Time{}
	c.bump()
}

// bump gives the resource its next version.
func (c *CertManager) bump() {
	c.version++
	c.object["metadata"].(map[string]any)["resourceVersion"] = strconv.Itoa(c.version)
}

func (c *CertManager) status() map[string]any { return c.object["status"].(map[string]any) }

func (c *CertManager) revision() int {
	n, _ := strconv.Atoi(fmt.Sprint(c.status()["revision"]))
	return n
}

// set sets a condition as cert-manager does; status "" takes it away.
func (c *CertManager) set(kind, status, reason, message string) {
	all, _ := c.status()["conditions"].([]any)
	var kept []any
	for _, one := range all {
		if one.(map[string]any)["type"] != kind {
			kept = append(kept, one)
		}
	}
	if status != "" {
		kept = append(kept, map[string]any{"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": time.Now().UTC().Format(time.RFC3339)})
	}
	c.status()["conditions"] = kept
	c.bump()
}

// begin has cert-manager begin to issue.
func (c *CertManager) begin(reason string) {
	if reason != "" {
		c.set("Issuing", "True", reason, "it is issued")
	}
	if c.due = time.Now().Add(c.manager.Takes); c.manager.Takes < 0 {
		c.due = time.Now().Add(time.Hour)
	}
}

// advance brings an issuance to its end whose time has come.
func (c *CertManager) advance() {
	if c.due.IsZero() || time.Now().Before(c.due) {
		return
	}
	c.due = time.Time{}
	if c.manager.Fails != "" {
		c.status()["lastFailureTime"] = time.Now().UTC().Format(time.RFC3339)
		c.set("Issuing", "False", "Failed", "The certificate request has failed to complete and will be retried: "+c.manager.Fails)
		return
	}
	made, err := c.issue(c.revision() + 1)
	if err != nil {
		c.t.Errorf("issuing: %v", err)
		return
	}
	c.requests = append(c.requests, made)
	c.secret = &made.pair
	c.status()["revision"] = made.revision
	c.status()["renewalTime"] = time.Now().Add(5 * 24 * time.Hour).UTC().Format(time.RFC3339)
	delete(c.status(), "lastFailureTime")
	c.set("Issuing", "", "", "")
	if c.manager.NotReady {
		c.set("Ready", "False", "SecretMismatch", "the Secret is another one's")
	} else {
		c.set("Ready", "True", "Ready", "Certificate is up to date and has not expired")
	}
}

// refuse answers with a Status of Kubernetes.
func refuse(w http.ResponseWriter, code int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code})
}

func (c *CertManager) answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // whoever asked is gone
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, Call{r.Method, r.URL.String(), body})
	c.advance()
	here := managerPath + c.Namespace
	one := here + "/certificates/" + c.Name
	switch {
	case c.manager.Down:
		refuse(w, http.StatusServiceUnavailable, "ServiceUnavailable", "the server is currently unable to handle the request")
	case r.Header.Get("Authorization") != "Bearer "+c.Token:
		refuse(w, http.StatusUnauthorized, "Unauthorized", "Unauthorized")
	case r.Method == http.MethodPost && r.URL.Path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
		c.review(w, body)
	case r.Method == http.MethodGet && r.URL.Path == here+"/certificaterequests":
		c.list(w, r)
	case r.Method == http.MethodGet && r.URL.Path == one:
		if !c.may(w, "get", "certificates") {
			return
		}
		send(w, c.object)
	case r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, managerPath):
		refuse(w, http.StatusNotFound, "NotFound", `certificates.cert-manager.io "`+r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]+`" not found`)
	case r.Method == http.MethodPut && r.URL.Path == one+"/status":
		c.update(w, body)
	default:
		c.t.Errorf("the API was asked for %s %s, which it was not told of", r.Method, r.URL.Path)
		refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "not here")
	}
}

func send(w http.ResponseWriter, what any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(what)
}

// may refuses what the role does not have.
func (c *CertManager) may(w http.ResponseWriter, verb, resource string) bool {
	if c.manager.Forbidden[verb] != resource {
		return true
	}
	refuse(w, http.StatusForbidden, "Forbidden", fmt.Sprintf(`%s.cert-manager.io is forbidden: User "system:serviceaccount:shop:keyturn" cannot %s resource "%s" in API group "cert-manager.io" in the namespace "shop"`, resource, verb, resource))
	return false
}

// review answers what the role has.
func (c *CertManager) review(w http.ResponseWriter, body []byte) {
	var q struct {
		Kind string
		Spec struct{ ResourceAttributes map[string]string }
	}
	if err := json.Unmarshal(body, &q); err != nil || q.Kind != "SelfSubjectAccessReview" {
		refuse(w, http.StatusBadRequest, "BadRequest", "this is no SelfSubjectAccessReview")
		return
	}
	a := q.Spec.ResourceAttributes
	allowed := a["group"] == "cert-manager.io" && a["namespace"] == c.Namespace && c.manager.Forbidden[a["verb"]] != a["resource"]+"/"+a["subresource"]
	w.WriteHeader(http.StatusCreated)
	send(w, map[string]any{"status": map[string]any{"allowed": allowed}})
}

// list answers with the requests of the namespace, in pages of two: first one of another
// Certificate, with the same revision.
func (c *CertManager) list(w http.ResponseWriter, r *http.Request) {
	if !c.may(w, "list", "certificaterequests") {
		return
	}
	item := func(owner string, revision int, pem []byte) map[string]any {
		out := map[string]any{"metadata": map[string]any{"annotations": map[string]any{"cert-manager.io/certificate-revision": strconv.Itoa(revision)},
			"ownerReferences": []any{map[string]any{"kind": "Certificate", "uid": owner}}}, "status": map[string]any{}}
		if pem != nil {
			out["status"] = map[string]any{"certificate": pem, "ca": c.authority.PEM}
		}
		return out
	}
	uid := c.object["metadata"].(map[string]any)["uid"].(string)
	all := []any{item("another", c.revision(), c.own.PEM), item(uid, c.revision()+1, nil)}
	for _, k := range c.kept() {
		all = append(all, item(k.uid, k.revision, k.pem))
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("continue"))
	page, meta := all[min(from, len(all)):min(from+2, len(all))], map[string]any{}
	if from+2 < len(all) {
		meta["continue"] = strconv.Itoa(from + 2)
	}
	send(w, map[string]any{"apiVersion": "cert-manager.io/v1", "kind": "CertificateRequestList", "metadata": meta, "items": page})
}

// update is what the subresource status does: it takes the status alone, if it was made of
// the resource as it is.
func (c *CertManager) update(w http.ResponseWriter, body []byte) {
	if !c.may(w, "update", "certificates/status") {
		return
	}
	if c.manager.Rivals > 0 {
		c.manager.Rivals--
		c.status()["renewalTime"] = time.Now().Add(time.Duration(c.version) * time.Hour).UTC().Format(time.RFC3339)
		c.bump()
	}
	sent, meta := map[string]any{}, map[string]any(nil)
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	decoder.UseNumber()
	if err := decoder.Decode(&sent); err == nil {
		meta, _ = sent["metadata"].(map[string]any)
	}
	own := c.object["metadata"].(map[string]any)
	status, _ := sent["status"].(map[string]any)
	switch {
	case meta == nil || sent["kind"] != "Certificate" || sent["apiVersion"] != "cert-manager.io/v1" || meta["name"] != c.Name || meta["namespace"] != c.Namespace:
		refuse(w, http.StatusBadRequest, "BadRequest", "the object provided is none of this resource")
		return
	case meta["resourceVersion"] == nil || meta["resourceVersion"] == "":
		refuse(w, http.StatusUnprocessableEntity, "Invalid", "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update")
		return
	case meta["resourceVersion"] != own["resourceVersion"] || meta["uid"] != own["uid"]:
		refuse(w, http.StatusConflict, "Conflict", `Operation cannot be fulfilled on certificates.cert-manager.io "orders-tls": the object has been modified; please apply your changes to the latest version and try again`)
		return
	}
	if wrong := wrongStatus(status); wrong != "" {
		refuse(w, http.StatusUnprocessableEntity, "Invalid", wrong)
		return
	}
	before, after := issuingOf(c.status()), issuingOf(status)
	if !reflect.DeepEqual(c.status(), status) {
		c.object["status"] = status
		c.bump()
	}
	if before["status"] != "True" && after["status"] == "True" {
		if after["reason"] == "ManuallyTriggered" {
			c.renewed++
		}
		c.begin("")
	}
	if c.manager.Loses {
		c.manager.Loses = false
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
		return
	}
	send(w, c.object)
}

func issuingOf(status map[string]any) map[string]any {
	all, _ := status["conditions"].([]any)
	for _, one := range all {
		if c := one.(map[string]any); c["type"] == "Issuing" {
			return c
		}
	}
	return nil
}

// wrongStatus holds a status against the schema of the resource: conditions are a list by
// type, of which each has a status of three.
func wrongStatus(status map[string]any) string {
	all, _ := status["conditions"].([]any)
	seen := map[any]bool{}
	for i, one := range all {
		c, ok := one.(map[string]any)
		at := fmt.Sprintf("status.conditions[%d]", i)
		switch _, err := time.Parse(time.RFC3339, fmt.Sprint(c["lastTransitionTime"])); {
		case !ok || c["type"] == nil:
			return at + ".type: Required value"
		case c["status"] != "True" && c["status"] != "False" && c["status"] != "Unknown":
			return at + `.status: Unsupported value: supported values: "True", "False", "Unknown"`
		case seen[c["type"]]:
			return at + ": Duplicate value"
		case c["lastTransitionTime"] != nil && err != nil:
			return at + ".lastTransitionTime: Invalid value: must be a date-time"
		}
		seen[c["type"]] = true
	}
	return ""
}
