package githubfake

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// A webhook is one of a repository, or of an organisation.
type webhook struct {
	id            int64
	active        bool
	events        []string
	url, secret   string
	contentType   string
	insecure      string
	made, changed time.Time
	deliveries    []*delivery
}

type delivery struct {
	id    int64
	guid  string
	event string
	at    time.Time
	code  int // 0: nobody answered
	took  time.Duration
	text  string
}

// A Hook is a webhook as it is now, with the secret that GitHub shows nobody.
type Hook struct {
	ID          int64
	URL, Secret string
	Active      bool
	Events      []string
}

func hookRoutes() []route {
	var all []route
	for _, place := range []struct{ path, permission string }{{"/repos/{owner}/{repo}/hooks", "repository_hooks"}, {"/orgs/{org}/hooks", "organization_hooks"}} {
		one := place.path + "/{id}"
		reads, writes := place.permission+"=read", place.permission+"=write"
		all = append(all,
			route{"GET " + place.path, 200, reads, func(c *call) (any, error) { return page(c, *c.hooks(), c.showHook), nil }},
			route{"POST " + place.path, 201, writes, createHook},
			route{"GET " + one, 200, reads, withHook(func(c *call, h *webhook) (any, error) { return c.showHook(h), nil })},
			route{"PATCH " + one, 200, writes, withHook(editHook)},
			route{"DELETE " + one, 204, writes, withHook(func(c *call, h *webhook) (any, error) {
				all := c.hooks()
				*all = slices.DeleteFunc(*all, func(x *webhook) bool { return x == h })
				return nil, nil
			})},
			route{"POST " + one + "/pings", 204, writes, withHook(func(c *call, h *webhook) (any, error) {
				c.s.deliver(h, "ping", object{"zen": "Keep it logically awesome.", "hook_id": h.id})
				return nil, nil
			})},
			route{"GET " + one + "/deliveries", 200, reads, withHook(func(c *call, h *webhook) (any, error) {
				newest := slices.Clone(h.deliveries)
				slices.Reverse(newest)
				return page(c, newest, c.showDelivery), nil
			})})
	}
	return all
}

// hooks are those of the place that the path names.
func (c *call) hooks() *[]*webhook {
	if c.repo != nil {
		return &c.repo.hooks
	}
	return c.s.hooksOf(c.value("org"))
}

func withHook(do func(*call, *webhook) (any, error)) func(*call) (any, error) {
	return func(c *call) (any, error) {
		all := *c.hooks()
		i := slices.IndexFunc(all, func(h *webhook) bool { return intText(h.id) == c.value("id") })
		if i < 0 {
			return nil, notFound()
		}
		return do(c, all[i])
	}
}

func (c *call) showHook(h *webhook) any {
	at := c.s.URL + "/orgs/" + c.value("org") + "/hooks/" + intText(h.id)
	if c.repo != nil {
		at = c.repo.api() + "/hooks/" + intText(h.id)
	}
	config := object{"url": h.url, "content_type": h.contentType, "insecure_ssl": h.insecure}
	if h.secret != "" {
		config["secret"] = "********"
	}
	return object{"type": "Repository", "id": h.id, "name": "web", "active": h.active, "events": h.events, "config": config, "created_at": date(h.made), "updated_at": date(h.changed),
		"url": at, "test_url": at + "/test", "ping_url": at + "/pings", "deliveries_url": at + "/deliveries", "last_response": object{"code": nil, "status": "unused", "message": nil}}
}

func (c *call) showDelivery(d *delivery) any {
	return object{"id": d.id, "guid": d.guid, "delivered_at": date(d.at), "redelivery": false, "duration": d.took.Seconds(), "status": d.text, "status_code": d.code,
		"event": d.event, "action": nil, "installation_id": nil, "repository_id": nil}
}

type hookIn struct {
	Active *bool
	Events []string
	Config *struct {
		URL         string
		ContentType string `json:"content_type"`
		Secret      *string
		InsecureSSL any `json:"insecure_ssl"`
	}
}

// createHook makes a webhook. GitHub wants each to have a configuration of its own
// where events overlap.
func createHook(c *call) (any, error) {
	in, err := decode[hookIn](c)
	if err != nil {
		return nil, err
	}
	h := &webhook{id: c.s.id(), active: true, events: []string{"push"}, contentType: "form", insecure: "0", made: c.s.time(), changed: c.s.time()}
	if err := h.take(in); err != nil {
		return nil, err
	}
	all := c.hooks()
	if slices.ContainsFunc(*all, func(o *webhook) bool {
		return o.url == h.url && slices.ContainsFunc(o.events, func(e string) bool { return slices.Contains(h.events, e) })
	}) {
		return nil, invalid("Hook", "", "custom", "Hook already exists on this repository")
	}
	*all = append(*all, h)
	if h.active {
		c.s.deliver(h, "ping", object{"zen": "Design for failure.", "hook_id": h.id})
	}
	return c.showHook(h), nil
}

func (h *webhook) take(in hookIn) error {
	if in.Active != nil {
		h.active = *in.Active
	}
	if in.Events != nil {
		h.events = in.Events
	}
	if in.Config == nil {
		return nil
	}
	if u, err := url.Parse(in.Config.URL); err != nil || u.Host == "" {
		return invalid("Hook", "url", "custom", "url is missing a scheme")
	}
	h.url, h.secret = in.Config.URL, ""
	if in.Config.Secret != nil {
		h.secret = *in.Config.Secret
	}
	if in.Config.ContentType != "" {
		h.contentType = in.Config.ContentType
	}
	if in.Config.InsecureSSL != nil {
		h.insecure, _ = in.Config.InsecureSSL.(string)
	}
	return nil
}

func editHook(c *call, h *webhook) (any, error) {
	in, err := decode[hookIn](c)
	if err != nil {
		return nil, err
	}
	h.changed = c.s.time()
	return c.showHook(h), h.take(in)
}

// deliver sends an event by a webhook, soon. The server is locked.
func (s *Server) deliver(h *webhook, event string, payload any) {
	s.deliverAs(guid(), h, event, payload)
}

func (s *Server) deliverAs(id string, h *webhook, event string, payload any) {
	body, err := json.Marshal(payload)
	if err != nil {
		panic(err)
	}
	d := &delivery{id: s.id(), guid: id, event: event}
	at, key := h.url, h.secret
	s.delivering.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		begun := time.Now()
		code := post(ctx, at, key, event, id, body)
		s.mu.Lock()
		defer s.mu.Unlock()
		d.at, d.code, d.took, d.text = s.time(), code, time.Since(begun), http.StatusText(code)
		h.deliveries = append(h.deliveries, d)
	})
}

func post(ctx context.Context, at, key, event, id string, body []byte) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header = http.Header{"Content-Type": {"application/json"}, "X-Github-Event": {event}, "X-Github-Delivery": {id}, "User-Agent": {"GitHub-Hookshot/044aadd"}}
	if key != "" {
		req.Header.Set("X-Hub-Signature-256", Signature(key, body))
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// Signature is how GitHub signs a body: the value of X-Hub-Signature-256.
func Signature(key string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func guid() string {
	text := hex.EncodeToString([]byte(rand.Text())[:16])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

// AddHook makes a webhook as people do, and returns its number.
func (r *Repo) AddHook(at, secret string, events ...string) int64 {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	h := r.s.byHand(at, secret, events)
	r.hooks = append(r.hooks, h)
	return h.id
}

func (s *Server) byHand(at, secret string, events []string) *webhook {
	return &webhook{id: s.id(), active: true, events: events, url: at, secret: secret, contentType: "json", insecure: "0", made: s.time(), changed: s.time()}
}

// AddOrgHook makes a webhook of an organisation as people do.
func (s *Server) AddOrgHook(org, at, secret string, events ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.hooksOf(org)
	*all = append(*all, s.byHand(at, secret, events))
}

// OrgHooks are the webhooks of an organisation, oldest first.
func (s *Server) OrgHooks(org string) []Hook {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now(*s.hooksOf(org))
}

func (s *Server) hooksOf(org string) *[]*webhook {
	if s.orgHooks[org] == nil {
		s.orgHooks[org] = &[]*webhook{}
	}
	return s.orgHooks[org]
}

func now(all []*webhook) (out []Hook) {
	for _, h := range all {
		out = append(out, h.now())
	}
	return out
}

// EditHook changes a webhook as people do.
func (r *Repo) EditHook(id int64, change func(h *Hook)) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	for _, h := range r.hooks {
		if h.id == id {
			now := h.now()
			change(&now)
			h.url, h.secret, h.active, h.events = now.URL, now.Secret, now.Active, now.Events
		}
	}
}

func (h *webhook) now() Hook { return Hook{h.id, h.url, h.secret, h.active, slices.Clone(h.events)} }

// Hooks are the repository's webhooks, oldest first.
func (r *Repo) Hooks() []Hook {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return now(r.hooks)
}

// Happen delivers an event by every active webhook that has it, under one id, and
// returns that.
func (r *Repo) Happen(event string, payload any) (id string) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	id = guid()
	for _, h := range r.hooks {
		if h.active && slices.Contains(h.events, event) {
			r.s.deliverAs(id, h, event, payload)
		}
	}
	return id
}

// Delivered waits until everything is delivered that happened so far.
func (s *Server) Delivered() { s.delivering.Wait() }
