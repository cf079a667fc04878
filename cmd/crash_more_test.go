package cmd_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"deploytools/registry/wire"
)

// crashSite is a site with the versions.
func crashSite(t *testing.T) *site {
	t.Helper()
	s := startSite(t)
	for name, files := range versions {
		s.publish(t, "code", name, files)
	}
	return s
}

// oldHost is a host on which the version old is live.
func (s *site) oldHost(t *testing.T, name string) *host {
	t.Helper()
	h := &host{s: s, dir: t.TempDir(), name: name}
	h.write(t)
	s.deployctl(t, "addconf", "-name", h.name, "-layer", "code:old")
	h.deploys(t)
	return h
}

// TestCrashMatrixRemove lets every fault happen to an agent that takes its
// configuration off the host. Said again, remove ends what was begun: the script
// has run, and nothing but the lock is left. What was not its own stays.
func TestCrashMatrixRemove(t *testing.T) {
	t.Parallel()
	h := crashSite(t).oldHost(t, "leaves")
	gone := "#!/bin/sh\necho \"$DEPLOY_PHASE $(cat \"$OLDROOT/version\")\" >>calls\n"
	for name, text := range map[string]string{"gone.sh": gone, "agent/foreign": "not ours", "agent/roots/foreign": "nor this"} {
		if err := os.WriteFile(h.file(name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.more = []string{"remove", "-remove-script", "./gone.sh", "-yes"}
	points := (&stricken{before: h}).countPointsFrom(t, 15)
	for _, f := range faults(8) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			c := &stricken{fault: f, before: h, old: "old"}
			for n := range f.sample(t, points) {
				c.strike(t, n, func(h *host, ended wire.Status, log string) {
					if ended != wire.OK && ended != wire.NotFound { // it had all been done
						t.Errorf("point %d: remove ends with %d\n%s", n, ended, log)
					}
					h.checkGone(t, n, log)
				})
			}
		})
	}
}

// checkGone: all that is ours is gone, and the remove script has run on what served.
func (h *host) checkGone(t *testing.T, n int, log string) {
	t.Helper()
	var left []string
	for _, dir := range []string{"", "roots/"} {
		entries, err := os.ReadDir(h.file("agent/" + dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			left = append(left, dir+e.Name())
		}
	}
	left = slices.DeleteFunc(left, func(name string) bool { return name == "lock" || name == "lost+found" })
	if !slices.Equal(left, []string{"foreign", "roots", "roots/foreign"}) {
		t.Errorf("point %d: left %q, want what is foreign\n%s", n, left, log)
	}
	if _, err := os.Lstat(h.file("state.json")); err == nil {
		t.Errorf("point %d: the state file is left\n%s", n, log)
	}
	if b, err := os.ReadFile(h.file("calls")); err != nil || !strings.HasPrefix(string(b), "deploy old\nremove old\n") {
		t.Errorf("point %d: programs run: %q, %v\n%s", n, b, err, log)
	}
}

// TestCrashMatrixHookUser is TestCrashMatrixAgent with programs that run as
// another user.
func TestCrashMatrixHookUser(t *testing.T) {
	t.Parallel()
	s := crashSite(t)
	for way, end := range map[string]string{"good": "good", "hook": "old"} {
		h := s.oldHost(t, "humble-"+way)
		h.humble(t)
		s.deployctl(t, "changeconf", "-name", h.name, "-component", "code", "-version", way)
		points := (&stricken{before: h}).countPoints(t)
		for _, f := range faults(16) {
			t.Run(f.name+"/"+way, func(t *testing.T) {
				t.Parallel()
				c := &stricken{fault: f, before: h, old: "old", way: way}
				for n := range f.sample(t, points) {
					c.strike(t, n, func(h *host, ended wire.Status, log string) {
						c.check(t, h, n, ended, log)
						if got := h.serves(t); got != end && !c.fails() {
							t.Errorf("point %d: %q serves\n%s", n, got, log)
						}
						b, err := os.ReadFile(h.file("users"))
						if users := strings.Fields(string(b)); err != nil || slices.ContainsFunc(users, func(u string) bool { return u != "nobody" }) {
							t.Errorf("point %d: programs ran as %q, %v\n%s", n, users, err, log)
						}
					})
				}
			})
		}
	}
}

// humble has the host's programs run as nobody, who may write to their files.
func (h *host) humble(t *testing.T) {
	t.Helper()
	h.more, h.open = []string{"-hook-user", "nobody"}, true
	hook, err := os.ReadFile(h.file("hook.sh"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(hook), "\n", "\nid -un >>users\n", 1)
	if err := os.WriteFile(h.file("hook.sh"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	do(t, "chmod", "0777", h.dir)
	do(t, "chmod", "0666", h.file("calls"))
}
