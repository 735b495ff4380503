package githubfake

import (
	"fmt"
	"strings"
	"time"
)

const actionsBot = "github-actions[bot]"

// An Account is a person, an organisation or the bot of an App.
type Account struct {
	ID    int64
	Login string
	Type  string // User, Bot or Organization
	Name  string
	Email string
}

// AddUser makes a person, and gives it a role in the repository: read, triage,
// write, maintain, admin, or "none".
func (r *Repo) AddUser(login, role string) *Account {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	a := r.s.account(login)
	r.roles[a.Login] = role
	return a
}

// account returns the account of that login, which is made when there is none.
func (s *Server) account(login string) *Account {
	if a := s.accounts[login]; a != nil {
		return a
	}
	a := &Account{ID: s.id(), Login: login, Type: "User", Name: login}
	if strings.HasSuffix(login, "[bot]") {
		a.Type = "Bot"
	}
	a.Email = fmt.Sprintf("%d+%s@users.noreply.github.com", a.ID, login)
	s.accounts[login] = a
	return a
}

// byEmail is whose commits an address marks, or nil.
func (s *Server) byEmail(email string) *Account {
	for _, a := range s.accounts {
		if strings.EqualFold(a.Email, email) {
			return a
		}
	}
	return nil
}

// user shows an account as GitHub's "simple user".
func (s *Server) user(a *Account) any {
	if a == nil {
		return nil
	}
	at := s.URL + "/users/" + a.Login
	return object{
		"login": a.Login, "id": a.ID, "node_id": node("U", a.ID), "avatar_url": "https://avatars.example/u/" + fmt.Sprint(a.ID),
		"gravatar_id": "", "url": at, "html_url": web + "/" + a.Login, "followers_url": at + "/followers",
		"following_url": at + "/following{/other_user}", "gists_url": at + "/gists{/gist_id}", "starred_url": at + "/starred{/owner}{/repo}",
		"subscriptions_url": at + "/subscriptions", "organizations_url": at + "/orgs", "repos_url": at + "/repos",
		"events_url": at + "/events{/privacy}", "received_events_url": at + "/received_events", "type": a.Type,
		"site_admin": false, "user_view_type": "public",
	}
}

func accountRoutes() []route {
	return []route{
		{"GET /user", 200, "", func(c *call) (any, error) {
			if c.by.installation {
				return nil, inaccessible("")
			}
			return c.s.profile(c.by.account), nil
		}},
		{"GET /users/{username}", 200, "", func(c *call) (any, error) {
			if a := c.s.accounts[c.value("username")]; a != nil {
				return c.s.profile(a), nil
			}
			return nil, notFound()
		}},
	}
}

// profile shows an account as its own page has it.
func (s *Server) profile(a *Account) object {
	o := s.user(a).(object)
	for _, null := range []string{"bio", "blog", "company", "email", "hireable", "location"} {
		o[null] = nil
	}
	o["name"], o["blog"] = a.Name, ""
	for _, zero := range []string{"followers", "following", "public_gists", "public_repos"} {
		o[zero] = 0
	}
	o["created_at"], o["updated_at"] = date(epoch), date(epoch)
	return o
}

// epoch is when everything began that has no time of its own.
var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
