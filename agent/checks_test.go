package agent

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"deploytools/registry/wire"
	"deploytools/verify/spec"
)

// verifies makes a revision of the newest configuration that has these checks.
func (r *fakeRegistry) verifies(checks ...spec.Check) *wire.Configuration {
	r.mu.Lock()
	c := *r.now
	r.mu.Unlock()
	c.Verify = nil
	if len(checks) > 0 {
		c.Verify = &spec.Spec{Checks: checks}
	}
	r.announce(&c)
	return &c
}

func tcpAt(name, addr string) spec.Check { return spec.Check{Type: spec.TCP, Name: name, Addr: addr} }

// checkedWith is what the live root was checked with.
func (h *host) checkedWith() string {
	h.Helper()
	live := h.status().Live
	if live == nil {
		return ""
	}
	return strings.Join(live.Checks, ", ")
}

func TestChecksOfAllSourcesMeet(t *testing.T) {
	root := files{"v": "1", spec.RootFile: "# ours\ntype=tcp,addr=root:1,name=site\ntype=tcp,addr=root:2,name=mail\n"}
	mixed := []spec.Check{tcpAt("site", "conf:1"), tcpAt("", "conf:2")}
	for _, test := range []struct {
		name     string
		host     []spec.Check
		conf     []spec.Check
		root     files
		hostOnly bool
		want     string
	}{
		{"host", []spec.Check{tcpAt("", "host:1")}, nil, files{"v": "1"}, false, "tcp host:1 (host)"},
		{"revision", nil, mixed, files{"v": "1"}, false, "tcp conf:1 (configuration), tcp conf:2 (configuration)"},
		{"root", nil, nil, root, false, "tcp root:1 (root), tcp root:2 (root)"},
		{"all, the nearer name wins", []spec.Check{tcpAt("site", "host:1")}, mixed, root, false, "tcp host:1 (host), tcp conf:2 (configuration), tcp root:2 (root)"},
		{"revision over root", nil, mixed, root, false, "tcp conf:1 (configuration), tcp conf:2 (configuration), tcp root:2 (root)"},
		{"only the host's", []spec.Check{tcpAt("", "host:1")}, mixed, root, true, "tcp host:1 (host)"},
		{"only the host's, which has none", nil, mixed, root, true, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t, newFakeRegistry())
			h.o.Verify.Checks, h.o.Checks.HostOnly = test.host, test.hostOnly
			h.src.put("v1", archive(test.root))
			if test.conf != nil {
				h.src.verifies(test.conf...)
			}
			h.want("v1", nil)
			if got := h.checkedWith(); got != test.want {
				t.Errorf("checked with %q, want %q", got, test.want)
			}
			verification := Verified
			if test.want == "" {
				verification = Unverified
			}
			r, err := readRoot(h.dir + "/" + h.agent.Record().Live.Dir + ".json")
			if err != nil || r.Verification != verification || len(r.Spec.Checks) != strings.Count(test.want, "tcp ") {
				t.Errorf("document: %+v, %v, want it to be %s", r, err, verification)
			}
		})
	}
}

func TestChecksFromElsewhereRunNothing(t *testing.T) {
	exec := spec.Check{Type: spec.Exec, Args: []string{"/bin/true"}}
	process := spec.Check{Type: spec.Process, Unit: "web.service", Name: "web"}
	for _, test := range []struct {
		name  string
		conf  []spec.Check
		root  files
		names string
	}{
		{"exec of the revision", []spec.Check{exec}, files{}, `check "exec-1" of the configuration`},
		{"process of the revision", []spec.Check{process}, files{}, `check "web" of the configuration`},
		{"exec of the root", nil, files{spec.RootFile: "type=exec,arg=bin/x,name=self"}, `check "self" of the root`},
		{"nonsense in the root", nil, files{spec.RootFile: "\n\ntype=tcp"}, "line 3"},
		{"a directory in the root", nil, files{spec.RootFile + "/x": ""}, "not a regular file"},
		{"too much in the root", nil, files{spec.RootFile: strings.Repeat("#", spec.MaxFileBytes+1)}, "larger than"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t, newFakeRegistry())
			h.src.put("v1", archive(files{"v": "1"}))
			h.want("v1", nil)
			layer := files{"v": "2"}
			for name, text := range test.root {
				layer[name] = text
			}
			h.src.put("v2", archive(layer))
			if test.conf != nil {
				h.src.verifies(test.conf...)
			}
			h.want("v1", ErrRolledBack)
			last := h.agent.Record().Last
			if last.Verdict != Bad || last.Switched || !strings.Contains(last.Reason, test.names) {
				t.Errorf("verdict %q, switched %v, because %q: want it refused before the switch with %q", last.Verdict, last.Switched, last.Reason, test.names)
			}
			if test.conf == nil && !strings.Contains(layer[spec.RootFile], "exec") {
				return
			}
			h.o.Checks.AllowExec = true
			h.o.Mode.Retry = true
			h.want("v2", nil)
		})
	}
}

// A link in the root that leads out of it says nothing of the host's files.
func TestChecksOfALinkOutOfTheRoot(t *testing.T) {
	dir := t.TempDir()
	must(os.Mkdir(dir+"/root", 0o755))
	must(os.Mkdir(dir+"/root/.deploy", 0o755))
	must(os.WriteFile(dir+"/secret", []byte("type=tcp,addr=a:1"), 0o600))
	must(os.Symlink("../../secret", dir+"/root/"+spec.RootFile))
	text, err := readRootFile(dir + "/root")
	if text != "" || !isDefinite(err) {
		t.Errorf("readRootFile of a link out of the root = %q, %v, want a definite error", text, err)
	}
}

// A link that leads nowhere would leave out what somebody asked for. A root whose
// .deploy is something else has no checks.
func TestChecksOfALinkToNowhere(t *testing.T) {
	for name, build := range map[string]func(dir string){
		"file": func(dir string) {
			must(os.Mkdir(dir+"/.deploy", 0o755))
			must(os.Symlink("gone", dir+"/"+spec.RootFile))
		},
		"not a dir": func(dir string) { must(os.WriteFile(dir+"/x", nil, 0o600)); must(os.Symlink("x", dir+"/.deploy")) },
		"directory": func(dir string) { must(os.Symlink("gone", dir+"/.deploy")) },
	} {
		dir := t.TempDir()
		build(dir)
		if text, err := readRootFile(dir); text != "" || !isDefinite(err) {
			t.Errorf("%s: %q, %v, want a definite error", name, text, err)
		}
	}
	dir := t.TempDir()
	must(os.WriteFile(dir+"/.deploy", nil, 0o600))
	if text, err := readRootFile(dir); text != "" || err != nil {
		t.Errorf("a file .deploy: %q, %v, want no checks", text, err)
	}
}

func TestARollbackUsesTheChecksOfItsOwnRoot(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	h.o.Verify.Checks = nil
	h.src.put("v1", archive(files{"v": "1", spec.RootFile: "type=tcp,addr=one:1"}))
	h.want("v1", nil)
	h.src.put("v2", archive(files{"v": "2", failVerify: "", spec.RootFile: "type=tcp,addr=two:2"}))
	h.want("v1", ErrRolledBack)
	last := h.agent.Record().Last
	if got := last.Restored; got == nil || len(got.Findings) != 1 || got.Findings[0].Target != "one:1" {
		t.Errorf("after the rollback %+v was looked at, want the old root's own check", got)
	}
	if last.New.Spec.Checks[0].Addr != "two:2" || !slices.Equal(last.New.From, []spec.Source{spec.Root}) {
		t.Errorf("the record of the deployment has the checks %v from %v", last.New.Spec.Lines(), last.New.From)
	}
}

func TestADryRunShowsTheChecks(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	h.o.Mode.DryRun = true
	h.src.put("v1", archive(files{"v": "1"}))
	h.src.verifies(tcpAt("site", "conf:1"))
	h.want("", nil)
	if d := h.agent.Record().Last; d.Verdict != DryRun || len(d.New.Spec.Checks) != 2 || !slices.Equal(d.New.From, []spec.Source{spec.Host, spec.Configuration}) {
		t.Errorf("dry run: verdict %q, checks %q from %q", d.Verdict, d.New.Spec.Lines(), d.New.From)
	}
}

// Other checks of the same layers are no deployment: what is live is looked at.
func TestOtherChecksOfTheSameLayers(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	h.src.put("v1", archive(files{"v": "1"}))
	h.want("v1", nil)
	calls := len(h.calls)
	h.src.verifies(tcpAt("mail", "conf:1"))
	h.want("v1", nil)
	r := h.agent.Record()
	if len(h.calls) != calls || r.Live.Configuration.Revision != 2 || r.Live.Verification != Verified || !r.Watch.Failing.IsZero() {
		t.Errorf("%d hooks ran, revision %d is %s, failing %q: want no hook, 2, verified", len(h.calls)-calls, r.Live.Configuration.Revision, r.Live.Verification, r.Watch.Checks)
	}
	if got := h.checkedWith(); got != "tcp 127.0.0.1:1 (host), tcp conf:1 (configuration)" {
		t.Errorf("checked with %q", got)
	}

	fails := true
	h.env = func() bool { return fails }
	h.src.verifies(tcpAt("mail", "conf:2"))
	h.want("v1", nil)
	if r := h.agent.Record(); r.Live.Verification != Unverified || r.Watch.Failing.IsZero() || len(h.calls) != calls {
		t.Errorf("after checks that fail: %s, %+v: want it unverified and failing, and no hook", r.Live.Verification, r.Watch)
	}

	h.src.verifies(spec.Check{Type: spec.Exec, Args: []string{"/bin/true"}})
	if err := h.run(); !errors.Is(err, ErrRolledBack) || !errors.Is(err, spec.ErrHostOnly) {
		t.Errorf("Run with an exec check of the registry = %v, want it refused", err)
	}
	if r := h.agent.Record(); r.Live.Configuration.Revision != 3 || len(r.Marks) != 1 {
		t.Errorf("revision %d is live, marks %v: want 3, and 4 marked", r.Live.Configuration.Revision, r.Marks)
	}
}

// A permission that was taken back came again with the root that it had been given
// for: by a rollback, after one, and between deployments.
func TestChecksThatMayRunNothingAnyMore(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Checks.AllowExec, h.o.Checks.Every = true, time.Minute
		h.src.put("v1", archive(files{"v": "1"}))
		h.src.verifies(spec.Check{Type: spec.Exec, Args: []string{"/bin/true"}, Name: "theirs"})
		h.want("v1", nil)
		if r := h.agent.Record().Last.Checks; len(r.Findings) != 2 {
			t.Fatalf("as long as it is allowed %d checks are made, want 2", len(r.Findings))
		}
		h.o.Checks.AllowExec = false
		var run []string
		h.onLook = func(s spec.Spec) { run = append(run, s.OnHostOnly()...) }
		stop := h.serve()
		pass(time.Hour) // it is looked at as it lives
		h.src.put("v2", with(failHook))
		pass(time.Hour) // and before a switch, and after the way back
		h.src.put("v3", archive(files{"v": "3"}))
		pass(time.Hour)
		<-h.rollback("")
		r := h.agent.Record()
		stop()
		if h.live() != "v1" || r.Live.Verification != Verified || len(run) > 0 {
			t.Errorf("%q is live, %s; these ran: %q, want v1, verified by the host's check, and none", h.live(), r.Live.Verification, run)
		}
	})
}
