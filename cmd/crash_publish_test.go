package cmd_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"deploytools/registry/wire"
)

// TestCrashMatrixPublish lets every fault happen to an agent that publishes one to
// four files, in all ways of a deployment, at each system call that changes a file
// of its own or beside the published ones. At once after it a link that names the
// new root has the new files beside it; when the next agent has ended what was
// begun, they are all old or all new, and the hook was told of those last.
func TestCrashMatrixPublish(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	all := publishedVersions()
	for name, files := range all {
		s.publish(t, "code", name, files)
	}
	counts, turn := []int{1, 2, 3, 4}, commit()
	sampled := everyPoint() != 1
	if sampled {
		counts = counts[turn%4 : turn%4+1]
	}
	for _, count := range counts {
		for i, way := range slices.Sorted(maps.Keys(ways)) {
			for j, old := range []string{"", "old"} {
				p := &publishedCase{s: s, count: count, old: old, way: way, versions: all}
				p.crash(t, func(k int) bool { return sampled && k > 0 && (turn+k)%6 != 2*i+j })
			}
		}
	}
}

// publishedVersions are versions of a few files: of each, file-0 to file-3 are
// published.
func publishedVersions() map[string]map[string]string { return versionsOf(4, "file-%d") }

// publishedCase is one way of a deployment.
type publishedCase struct {
	s        *site
	count    int
	old, way string
	versions map[string]map[string]string
}

// crash makes the host, and lets each fault happen that is not to be skipped.
func (p *publishedCase) crash(t *testing.T, skip func(k int) bool) {
	t.Helper()
	name := fmt.Sprintf("publish-%d-%s-%s", p.count, p.old, p.way)
	h := &host{s: p.s, dir: t.TempDir(), name: strings.ReplaceAll(name, "--", "-first-"), fixed: t.TempDir(), versions: p.versions}
	h.write(t)
	do(t, "mkdir", "-p", h.file("world/agent"), h.file("world/etc"))
	do(t, "ln", "-s", "world/agent", h.file("agent"))
	// One of the files was there before anything was published.
	if err := os.WriteFile(h.file("world/etc/file-0"), []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range p.count {
		h.more = append(h.more, "-publish", fmt.Sprintf("file-%d=%s/world/etc/file-%d,mode=0640", i, h.fixed, i))
	}
	first := p.way
	if p.old != "" {
		first = p.old
	}
	p.s.deployctl(t, "addconf", "-name", h.name, "-layer", "code:"+first)
	if p.old != "" {
		if out, err := h.run(""); err != nil {
			t.Fatalf("deploying the old version: %v\n%s", err, out)
		}
		p.s.deployctl(t, "changeconf", "-name", h.name, "-component", "code", "-version", p.way)
	}
	points := (&stricken{before: h, watched: "world"}).countPoints(t)
	for k, f := range faults(16) {
		if skip(k) {
			continue
		}
		t.Run(f.name+"/"+h.name, func(t *testing.T) {
			t.Parallel()
			c := &stricken{fault: f, before: h, old: p.old, way: p.way, watched: "world", atOnce: p.atOnce}
			for n := range f.sample(t, points) {
				c.strike(t, n, func(h *host, ended wire.Status, log string) {
					c.check(t, h, n, ended, log)
					p.check(t, h, fmt.Sprintf("%s, point %d", f.name, n), log)
				})
			}
		})
	}
}

// atOnce: the link does not name the new root before all of its files are there.
func (p *publishedCase) atOnce(t *testing.T, h *host, serves, log string) {
	t.Helper()
	got, _ := p.published(t, h)
	if serves == p.way && !maps.Equal(got, p.want(p.way)) {
		t.Errorf("the link names the new root, and published is %q\n%s", got, log)
	}
}

// check: the files are those of what serves, all of them, and nothing is left of
// the set.
func (p *publishedCase) check(t *testing.T, h *host, when, log string) {
	t.Helper()
	got, left := p.published(t, h)
	if want := p.want(h.serves(t)); !maps.Equal(got, want) || len(left) > 0 {
		t.Errorf("%s: %q serves, and published is %q, left are %q\n%s", when, h.serves(t), got, left, log)
	}
	if _, err := os.Lstat(h.file("agent/published/journal.json")); err == nil {
		t.Errorf("%s: a set is left\n%s", when, log)
	}
}

// want is what has to lie at the fixed paths while a version serves.
func (p *publishedCase) want(version string) map[string]string {
	want := map[string]string{"file-0": "before\n"}
	for i := range p.count {
		if version != "" {
			want[fmt.Sprintf("file-%d", i)] = fmt.Sprintf("%s %d\n", version, i)
		}
	}
	return want
}

// published returns what lies at the fixed paths, and what is hidden beside it.
func (p *publishedCase) published(t *testing.T, h *host) (files map[string]string, hidden []string) {
	t.Helper()
	files = map[string]string{}
	entries, err := os.ReadDir(h.file("world/etc"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name()[0] == '.' {
			hidden = append(hidden, e.Name())
			continue
		}
		b, err := os.ReadFile(filepath.Join(h.file("world/etc"), e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	return files, hidden
}
