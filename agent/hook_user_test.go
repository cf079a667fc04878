package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	passwdFile = `root:x:0:0:root:/root:/bin/bash
www:x:33:33:www-data:/var/www:/usr/sbin/nologin
odd:x:1001:1001::/home/odd:
33:x:1002:1002::/home/33:/bin/sh
half:x:1003
+::::::
keep:x:4294967295:33::/:/bin/sh
`
	groupFile = `root:x:0:
www:x:33:
tls:x:110:odd,www
media:x:111:www
wwwx:x:112:wwwx
`
)

func TestUserIsWhatTheFilesSay(t *testing.T) {
	www := User{Name: "www", Home: "/var/www", Shell: "/usr/sbin/nologin", UID: 33, GID: 33, Groups: []uint32{33, 110, 111}}
	inMedia := www
	inMedia.GID, inMedia.Groups = 111, []uint32{111, 110}
	for text, want := range map[string]User{
		"www":       www,
		"www:media": inMedia,
		"www:111":   inMedia,
		"33":        {Name: "33", Home: "/home/33", Shell: "/bin/sh", UID: 1002, GID: 1002, Groups: []uint32{1002}}, // a name first
		"1001":      {Name: "odd", Home: "/home/odd", Shell: "/bin/sh", UID: 1001, GID: 1001, Groups: []uint32{1001, 110}},
	} {
		if u, err := lookupUser(text, passwdFile, groupFile); err != nil || !reflect.DeepEqual(*u, want) {
			t.Errorf("%s: %+v, %v, want %+v", text, u, err, want)
		}
	}
	for text, want := range map[string]string{
		"nobody-here": `user "nobody-here": not in /etc/passwd`, "": `user "": not in /etc/passwd`,
		"half": `user "half": not in`, "keep": `user "keep": not in`, "4711": `user "4711": not in`,
		"www:": `group "": not in /etc/group`, "www:none": `group "none": not in /etc/group`,
	} {
		if u, err := lookupUser(text, passwdFile, groupFile); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want ...%s", text, u, err, want)
		}
	}
}

// stranger is nobody's user, in two groups.
func stranger(t *testing.T) *User {
	t.Helper()
	needsRoot(t)
	return &User{Name: "stranger", Home: "/nowhere", Shell: "/bin/false", UID: 54321, GID: 54322, Groups: []uint32{54322, 54323}}
}

func TestHookRunsAsTheUserAndNothingMore(t *testing.T) {
	h := newHookTest(t, `[ $DEPLOY_ATTEMPT = 1 ] || exit 9
id -u; id -g; id -G
grep -E '^(Uid|Gid|CapInh|CapPrm|CapEff|CapAmb)' /proc/self/status
cat $D/deploy.output 2>&1 | grep -o denied
echo x > $D/deploy.status.json || echo refused; exit 3`)
	h.h.user = stranger(t)
	open(t, h.c.Dir)
	r := h.mustRun()
	want := []string{"54321", "54322", "54322 54323",
		"Uid:\t54321\t54321\t54321\t54321", "Gid:\t54322\t54322\t54322\t54322",
		"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000",
		"denied", "refused"}
	got := slices.DeleteFunc(h.lines, func(l string) bool { return strings.Contains(l, "cannot create") })
	if r.Exit != 3 || !slices.Equal(got, want) {
		t.Errorf("run = %+v with\n%q, want exit 3 with\n%q", r, got, want)
	}
	for _, kind := range []string{"output", "status.json", "attempt.json", "lock"} {
		var s unix.Stat_t
		if err := unix.Stat(h.c.file(kind), &s); err != nil || s.Uid != uint32(os.Getuid()) || s.Mode&0o777 != 0o600 {
			t.Errorf("%s: %v of user %d with mode %o, want the agent's alone", kind, err, s.Uid, s.Mode)
		}
	}
}

// open lets others through to a test's directory, and write into it where the
// scripts of these tests do.
func open(t *testing.T, dir string) {
	t.Helper()
	for at := range parents(dir) {
		if info, err := os.Stat(at); err == nil && strings.HasPrefix(at, os.TempDir()+"/") {
			must(os.Chmod(at, info.Mode()|0o011))
		}
	}
	must(os.Chmod(dir, 0o755))
	must(os.WriteFile(dir+"/runs", nil, 0o666))
	must(os.Chmod(dir+"/runs", 0o666))
}

// At its deadline the agent ends what is another user's.
func TestHookOfAUserIsEndedAtItsDeadline(t *testing.T) {
	h := newHookTest(t, "trap '' TERM; sleep 1000 & echo $!; wait")
	h.h.user = stranger(t)
	open(t, h.c.Dir)
	h.c.Timeout = 500e6
	if r := h.mustRun(); !r.TimedOut || len(h.lines) != 1 || lives(h.numbers(h.lines[0])[0]) {
		t.Errorf("run = %+v with %q, want nobody left", r, h.lines)
	}
}

func TestUserThatCannotReadIsToldWhere(t *testing.T) {
	h := &hookRunner{user: stranger(t)}
	dir := t.TempDir()
	root := dir + "/agent/roots/000001-abc"
	must(os.MkdirAll(root, 0o755))
	must(os.WriteFile(dir+"/hook.sh", []byte("#!/bin/sh\n"), 0o755))
	open(t, dir)
	if err := errors.Join(h.readable(root), h.startable(dir+"/hook.sh")); err != nil {
		t.Errorf("what everybody can read: %v", err)
	}
	must(os.Chmod(dir+"/agent", 0o700))
	want := fmt.Sprintf("user %q cannot read %s: %s: permission denied", "stranger", root, dir+"/agent")
	if err := h.readable(root); !errors.Is(err, fs.ErrPermission) || err.Error() != want {
		t.Errorf("readable = %v, want %s", err, want)
	}
	must(os.Chmod(dir+"/agent", 0o711))
	must(os.Chmod(root, 0o711)) // can be gone through, and not be listed
	if err := h.readable(root); err == nil || !strings.HasSuffix(err.Error(), root+": permission denied") {
		t.Errorf("readable = %v", err)
	}
	must(os.Chmod(dir+"/hook.sh", 0o700))
	if err := h.startable(dir + "/hook.sh"); err == nil || !strings.Contains(err.Error(), `as user "stranger"`) {
		t.Errorf("startable = %v", err)
	}
	must(os.Chown(root, 0, 54323)) // a group that is not the first
	must(os.Chmod(root, 0o750))
	if err := h.readable(root); err != nil {
		t.Errorf("readable by a group: %v", err)
	}
	if err := new(hookRunner).readable(root); err != nil || unix.Geteuid() != 0 || unix.Getegid() != os.Getgid() {
		t.Errorf("and then as ourselves: %v, effective ids %d and %d", err, unix.Geteuid(), unix.Getegid())
	}
}

// A version whose root the user cannot read is waited for, and said: nothing has
// been touched.
func TestRootThatTheUserCannotReadIsNotSwitchedTo(t *testing.T) {
	h := realHost(t, makeLive)
	h.o.Hook.User = stranger(t)
	h.o.Verify.Checks = nil
	h.src.put("v1", one("1"))
	a := h.new()
	a.hooks = &hookRunner{log: a.log(), user: h.o.Hook.User}
	must(os.Chmod(h.dir, 0o700))
	err := a.Run(t.Context())
	if err == nil || a.Record().State != Checking || !strings.Contains(err.Error(), `user "stranger"`) || len(a.Record().Marks) > 0 {
		t.Errorf("Run = %v in %s", err, a.Record().State)
	}
	must(os.Chmod(h.dir, 0o777)) // the script writes into it
	a = h.new()
	a.hooks = &hookRunner{log: a.log(), user: h.o.Hook.User}
	if err := a.Run(t.Context()); err != nil || h.live() != "v1" || h.calledAs() != "deploy v1 1" {
		t.Errorf("Run = %v, called as %q\n%s", err, h.calledAs(), h.logged)
	}
}

func TestHookHasTheHomeOfItsUser(t *testing.T) {
	t.Setenv("HOME", "/root")
	t.Setenv("SHELL", "/bin/root")
	bubble(t, func(t *testing.T, h *host) {
		h.o.Hook.User = &User{Name: "www", Home: "/var/www", Shell: "/bin/sh", UID: 33}
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		env := h.calls[0]
		for name, want := range map[string]string{"HOME": "/var/www", "USER": "www", "LOGNAME": "www", "SHELL": "/bin/sh"} {
			if env[name] != want {
				t.Errorf("%s is %q, want %q", name, env[name], want)
			}
		}
	})
}
