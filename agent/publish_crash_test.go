package agent

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
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
// with the record lost as well: whichever it is, the hook was told of it last. A
// usual run tries one point in eight of each way.
func TestCrashWithPublishedFiles(t *testing.T) {
	first, step := 1, 1
	if os.Getenv("DEPLOY_TEST_EVERY_POINT") == "" {
		step = 8
	}
	for _, lost := range []bool{false, true} {
		for _, bad := range []string{"", failCheck, failHook, failVerify} {
			for _, later := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, later %t, record lost %t", bad, later, lost), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { crashPublished(t, bad, later, lost, first, step) })
					first = first%step + 1 // another sample of each
				})
			}
		}
	}
}

func crashPublished(t *testing.T, bad string, later, lost bool, first, step int) {
	for n := first; ; n += step {
		s := newSite(t)
		old := files{}
		if later {
			s.src.put("v1", s.layer("1", "a", ""))
			s.want("v1", nil)
			old = of("1", "a")
		}
		s.src.put("v2", s.layer("2", "b", bad))
		point := s.runUntil(n)
		if point == "" {
			if n < 20 {
				t.Errorf("only %d points", n)
			}
			return
		}
		if lost {
			must(os.Remove(s.dir + "/journal.json"))
		}
		when := fmt.Sprintf("point %d, %s", n, point)
		if err := s.run(); err != nil && !errors.Is(err, ErrRolledBack) {
			t.Errorf("%s: Run = %v\n%s", when, err, s.logged)
		}
		want, version := of("2", "b"), "v2"
		if bad != "" {
			if want, version = old, ""; later {
				version = "v1"
			}
		}
		// Of a lost record the marks are lost too: a bad version is tried again.
		if got := s.live(); got != version {
			t.Errorf("%s: %q is live, want %q\n%s", when, got, version, s.logged)
		}
		s.holds(when, want)
		s.invariants()
		if r := s.agent.Record(); !maps.Equal(publishedList(r.Published).texts(), want) {
			t.Errorf("%s: on record is %v, want %v", when, r.Published, want)
		}
		if t.Failed() {
			return
		}
	}
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
