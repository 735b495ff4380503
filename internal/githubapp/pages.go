package githubapp

import (
	"context"
	"time"

	"github.com/google/go-github/v60/github"
)

// All reads every page of a list. List asks for one page, with the options given.
func All[T any](list func(github.ListOptions) ([]T, *github.Response, error)) ([]T, error) {
	o := github.ListOptions{PerPage: 100}
	var all []T
	for {
		page, resp, err := list(o)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if resp.NextPage == 0 {
			return all, nil
		}
		o.Page = resp.NextPage
	}
}

// Wait waits, unless the context ends before.
func Wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
