package rotated_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/rotated"
)

func TestWatch(t *testing.T) {
	v := versions(t)
	v.add(1)
	v.move(1)
	synctest.Test(t, func(t *testing.T) {
		source := rotated.Dir(v.path, "username", "password")
		first, err := source.Current(t.Context())
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		var seen []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			for c, err := range source.Watch(ctx, first, time.Second) {
				word := c.Field("password")
				if err != nil {
					word = "error"
				}
				seen = append(seen, time.Since(start).String()+" "+word)
			}
		}()
		time.Sleep(2500 * time.Millisecond) // told at 3 s
		v.add(2)
		v.move(2)
		time.Sleep(2 * time.Second) // gone at 5 s, which is said once
		must(t, os.Rename(filepath.Join(v.path, "current"), filepath.Join(v.path, "away")))
		time.Sleep(3 * time.Second) // back at 8 s: nothing new
		must(t, os.Rename(filepath.Join(v.path, "away"), filepath.Join(v.path, "current")))
		time.Sleep(3 * time.Second) // told at 11 s
		v.add(3)
		v.move(3)
		time.Sleep(time.Second)
		cancel()
		<-done
		want := []string{"3s p2", "5s error", "11s p3"}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("Watch told (-want +got):\n%s", diff)
		}
	})
}

func TestWatchFromNothingTellsAtOnceAndStops(t *testing.T) {
	v := versions(t)
	v.add(1)
	v.move(1)
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		told := 0
		for c, err := range rotated.Dir(v.path, "username", "password").Watch(t.Context(), rotated.Credential{}, time.Hour) {
			must(t, err)
			told++
			if c.Field("username") != "u1" || time.Since(start) != 0 {
				t.Errorf("Watch told %s after %v", c.Field("username"), time.Since(start))
			}
			break
		}
		if told != 1 {
			t.Errorf("Watch told %d times, want once", told)
		}
	})
}
