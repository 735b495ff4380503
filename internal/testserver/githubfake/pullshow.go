package githubfake

func (r *Repo) pullURL(i *issue) string  { return r.api() + "/pulls/" + intText(int64(i.number)) }
func (r *Repo) pullPage(i *issue) string { return r.web() + "/pull/" + intText(int64(i.number)) }

// showEnd shows one end of a pull request.
func (r *Repo) showEnd(of *Repo, branch, sha string) object {
	return object{"label": of.Owner + ":" + branch, "ref": branch, "sha": sha, "user": r.s.user(r.s.account(of.Owner)), "repo": of.full(&token{installation: true})}
}

func (r *Repo) showRequested(p *pull) (users, teams []any) {
	users, teams = []any{}, []any{}
	for _, a := range p.requested {
		users = append(users, r.s.user(a))
	}
	for _, t := range p.teams {
		teams = append(teams, r.s.showTeam(t))
	}
	return users, teams
}

// simplePull shows a pull request as lists do.
func (r *Repo) simplePull(i *issue) object {
	o, p := r.showIssue(i).(object), i.pull
	at, page := r.pullURL(i), r.pullPage(i)
	for _, not := range []string{"labels_url", "repository_url", "events_url", "closed_by", "performed_via_github_app", "state_reason", "pull_request", "comments"} {
		delete(o, not)
	}
	users, teams := r.showRequested(p)
	comments, statuses := r.api()+"/issues/"+intText(int64(i.number))+"/comments", r.api()+"/statuses/"+p.head
	add := object{
		"url": at, "html_url": page, "diff_url": page + ".diff", "patch_url": page + ".patch", "issue_url": r.api() + "/issues/" + intText(int64(i.number)),
		"commits_url": at + "/commits", "review_comments_url": at + "/comments", "review_comment_url": r.api() + "/pulls/comments{/number}",
		"comments_url": comments, "statuses_url": statuses, "merged_at": date(p.merged), "merge_commit_sha": nullable(p.mergedAs), "draft": p.draft,
		"requested_reviewers": users, "requested_teams": teams, "head": r.showEnd(p.from, p.branch, p.head), "base": r.showEnd(r, p.base, r.baseOf(p)),
		"auto_merge": nil,
		"_links": object{"self": href(at), "html": href(page), "issue": href(r.api() + "/issues/" + intText(int64(i.number))), "comments": href(comments),
			"review_comments": href(at + "/comments"), "review_comment": href(r.api() + "/pulls/comments{/number}"), "commits": href(at + "/commits"),
			"statuses": href(statuses)},
	}
	for name, value := range add {
		o[name] = value
	}
	return o
}

func href(to string) object { return object{"href": to} }

// showPull shows a pull request with all that its own page has.
func (r *Repo) showPull(i *issue) any {
	o, p := r.simplePull(i), i.pull
	_, added, removed := r.showChanges(r.pullChanges(p), p.head)
	o["additions"], o["deletions"], o["changed_files"] = added, removed, len(r.pullChanges(p))
	o["commits"], o["comments"], o["review_comments"] = len(r.pullCommits(p)), len(i.comments), 0
	o["merged"], o["merged_by"], o["maintainer_can_modify"], o["rebaseable"] = !p.merged.IsZero(), r.s.user(p.merger), false, nil
	o["mergeable"], o["mergeable_state"] = r.mergeable(p), "clean"
	if !r.mergeable(p) {
		o["mergeable_state"] = "dirty"
	}
	return o
}
