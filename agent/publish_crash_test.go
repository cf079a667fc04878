package agent

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"

	"deploytools/registry/wire"
)

// killedAt is what a test ends an agent with, at a point.
type killedAt string

// runUntil runs an agent that ends at the nth point that it passes, and returns
// the point; "": it passed fewer.
func (h *host) runUntil(n int) (point string) {
	passed := 0
	h.seam = func(p string) {
		if passed++; passed == n {
			panic(killedAt(p))
		}
	}
	defer func() {
		h.seam = func(string) {}
		if at, ok := recover().(killedAt); ok {
			point = string(at)
		}
	}()
	h.run()
	return ""
}

// The files are all old or all new after an end at any point, as the link is, and
// with the record or the store lost as well: whichever it is, the hook was told of it
// last. A usual run tries one point in twelve of each way.
func TestCrashWithPublishedFiles(t *testing.T) {
	first, step := 1, 1
	if os.Getenv("DEPLOY_TEST_EVERY_POINT") == "" {
		step = 12
	}
	for _, lost := range []string{"", "journal.json", storeName} {
		for _, bad := range []string{"", failCheck, failHook, failVerify} {
			for _, later := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, later %t, lost %s", bad, later, lost), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { crashPublished(t, bad, later, lost, first, step) })
					first = first%step + 1 // another sample of each
				})
			}
		}
	}
}

// crashPublished is one way of a deployment. It lets the agent end at every step-th
// point, and at those that are of sets alone.
func crashPublished(t *testing.T, bad string, later bool, lost string, first, step int) {
	var points []string
	s, old := sitePublishing(t, bad, later)
	s.seam = func(p string) { points = append(points, p) }
	s.run()
	if len(points) < 20 {
		t.Fatalf("only %d points: %q", len(points), points)
	}
	for n := 1; n <= len(points); n++ {
		if (n-first)%step != 0 && !pointsOfSets[points[n-1]] {
			continue
		}
		s, _ := sitePublishing(t, bad, later)
		if at := s.runUntil(n); at != points[n-1] {
			t.Fatalf("point %d is %q, and was %q", n, at, points[n-1])
		}
		if lost != "" {
			must(os.RemoveAll(s.dir + "/" + lost))
		}
		when := fmt.Sprintf("point %d, %s", n, points[n-1])
		if err := s.run(); err != nil && !errors.Is(err, ErrRolledBack) {
			t.Errorf("%s: Run = %v\n%s", when, err, s.logged)
		}
		want, version := of("2", "b"), "v2"
		if bad != "" {
			if want, version = old, ""; later {
				version = "v1"
			}
		}
		if got := s.live(); got != version {
			t.Errorf("%s: %q is live, want %q\n%s", when, got, version, s.logged)
		}
		if lost == storeName {
			s.shows(when, want) // what was staged before the record had the journal lies there, hidden
		} else {
			s.holds(when, want)
		}
		s.invariants()
		if r := s.agent.Record(); !maps.Equal(publishedList(r.Published).texts(), want) {
			t.Errorf("%s: on record is %v, want %v", when, r.Published, want)
		}
		if t.Failed() {
			return
		}
	}
}

// pointsOfSets are tried in every run.
var pointsOfSets = map[string]bool{"set announced": true, "set prepared": true, "set committed": true, "link back": true, "document committed": true}

// sitePublishing returns a host that deploys the version 2 next, and what is
// published before.
func sitePublishing(t *testing.T, bad string, later bool) (*site, files) {
	s, old := newSite(t), files{}
	if later {
		s.src.put("v1", s.layer("1", "a", ""))
		s.want("v1", nil)
		old = of("1", "a")
	}
	s.src.put("v2", s.layer("2", "b", bad))
	s.hooks.exit = func(env map[string]string) int {
		if env["DEPLOY_ACTION"] == "rollback" {
			s.shows("to the hook that brings the old root back", old)
		}
		return 0
	}
	return s, old
}

func (l publishedList) texts() files {
	all := files{}
	for _, p := range l {
		b, err := os.ReadFile(p.To)
		must(err)
		all[filepath.Base(p.To)] = string(b)
	}
	return all
}

// A person's rollback too: the files are those of the root that the link names,
// with the registry away, and where the record is lost.
func TestCrashInARollbackByHandWithPublishedFiles(t *testing.T) {
	for _, lost := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var points []string
			s := siteGoingBack(t)
			s.seam = func(p string) { points = append(points, p) }
			s.run()
			if !slices.Contains(points, "set committed") {
				t.Fatalf("points: %q", points)
			}
			for n, point := range points {
				if !pointsOfSets[point] && point != "before deploy" && point != "after deploy" {
					continue
				}
				s := siteGoingBack(t)
				s.runUntil(n + 1)
				if lost {
					must(os.Remove(s.dir + "/journal.json"))
				}
				s.src.set(func() { s.src.down = wire.ErrUnreachable })
				if err := s.run(); !errors.Is(err, wire.ErrUnreachable) {
					t.Errorf("%s: Run = %v", point, err)
				}
				live := s.live()
				if live != "v1" && !(lost && live == "v2") {
					t.Errorf("%s: %q is live", point, live)
				}
				s.holds(fmt.Sprintf("%s, record lost %t, %s is live", point, lost, live), of(live[1:], "a"+live[1:]))
			}
		})
	}
}

// siteGoingBack returns a host that goes back from version 2 to 1 next, for a person.
func siteGoingBack(t *testing.T) *site {
	s := newSite(t)
	for _, v := range []string{"1", "2"} {
		s.src.put("v"+v, s.layer(v, "a"+v, ""))
		s.want("v"+v, nil)
	}
	r := s.agent.Record().clone()
	r.Wanted = r.Back.Dir
	b, err := encode(r)
	must(err)
	must(os.WriteFile(s.dir+"/journal.json", b, 0o600))
	return s
}
