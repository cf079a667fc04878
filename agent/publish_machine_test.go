package agent

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/atomic"
)

// site is a host that publishes the files cert and key, and what a root says.
type site struct {
	*host
	etc string
}

func newSite(t *testing.T) *site {
	h := newHost(t, newFakeRegistry())
	s := &site{h, memoryDir(t)}
	h.o.Hook.CheckScript, h.o.Hook.RemoveScript = "./check.sh", "./remove.sh"
	h.o.Publish = Publish{Allow: []string{s.etc}, Files: []Mapping{
		mapping("cert=" + s.etc + "/cert.pem,optional=true"), mapping("key=" + s.etc + "/key.pem,mode=0600,optional=true")}}
	return s
}

// newLiveSite is newSite with version 1 live; more is as for layer.
func newLiveSite(t *testing.T, more string) *site {
	t.Helper()
	s := newSite(t)
	s.src.put("v1", s.layer("1", more, ""))
	s.want("v1", nil)
	return s
}

// layer has the two files and one of the root's own, called more; bad is a file
// that makes a program or check fail.
func (s *site) layer(version, more, bad string) []byte {
	f := files{"cert": "cert " + version, "key": "key " + version, "x": "more " + version, bad: ""}
	if more != "" {
		f[".deploy/publish"] = "x=" + s.etc + "/" + more + "\n"
	}
	delete(f, "")
	return archive(f)
}

// holds asserts what lies at the fixed paths, all of it.
func (s *site) holds(when string, want files) {
	s.Helper()
	got := s.there()
	if !maps.Equal(got, want) {
		s.Errorf("%s: published is %v, want %v\n%s", when, got, want, s.logged)
	}
}

// shows is holds of what has no dot at its beginning: a set under way has such names.
func (s *site) shows(when string, want files) {
	s.Helper()
	got := s.there()
	maps.DeleteFunc(got, func(name, _ string) bool { return name[0] == '.' })
	if !maps.Equal(got, want) {
		s.Errorf("%s: published is %v, want %v", when, got, want)
	}
}

func (s *site) there() files {
	got := files{}
	entries, err := os.ReadDir(s.etc)
	must(err)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(s.etc, e.Name()))
		must(err)
		got[e.Name()] = string(b)
	}
	return got
}

func of(version, more string) files {
	return files{"cert.pem": "cert " + version, "key.pem": "key " + version, more: "more " + version}
}

func TestPublishedFilesFollowTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		must(os.WriteFile(s.etc+"/cert.pem", []byte("older"), 0o644))
		s.src.put("v1", s.layer("1", "a", ""))
		s.hooks.exit = func(env map[string]string) int {
			if env["DEPLOY_PHASE"] == "check" {
				s.shows("before the switch", files{"cert.pem": "older"})
				if b, err := os.ReadFile(env["DEPLOY_STAGED"] + s.etc + "/cert.pem"); string(b) != "cert 1" {
					t.Errorf("the check script sees %q, %v", b, err)
				}
				return 0
			}
			s.shows("in the hook", of("1", "a"))
			return 0
		}
		s.want("v1", nil)
		s.hooks.exit = nil
		if info, err := os.Stat(s.etc + "/key.pem"); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("key: %v, %v", info.Mode(), err)
		}
		before := publishedList(s.agent.Record().Published)
		if len(before) != 3 || !slices.Equal(s.agent.Record().Live.changedPaths(), before.paths()) {
			t.Errorf("on record: %v", before)
		}
		// What the next root no longer publishes goes, and comes back with the rollback.
		s.src.put("v2", s.layer("2", "b", failVerify))
		s.want("v1", ErrRolledBack)
		s.holds("rolled back", of("1", "a"))
		s.src.put("v3", s.layer("3", "b", ""))
		s.want("v3", nil)
		s.holds("moved on", of("3", "b"))
		if got := s.agent.Record().Last.Publishing.Changes; len(got) != 4 || got[0] != (Change{s.etc + "/b", Created, "x"}) ||
			!slices.Contains(got, Change{Path: s.etc + "/a", Does: Removed}) || !slices.Contains(got, Change{s.etc + "/cert.pem", Replaced, "cert"}) {
			t.Errorf("changes on record: %+v", got)
		}
		// A person goes back, and forward.
		s.o.Mode.Once = false
		stop := s.serve()
		pass(time.Second)
		s.rollback("1")
		pass(time.Minute)
		s.holds("a person's rollback", of("1", "a"))
		s.rollback("3")
		pass(time.Minute)
		s.holds("and forward", of("3", "b"))
		stop()
		s.invariants()
		if left, err := s.agent.mustStore().Unfinished(t.Context()); left != nil || err != nil {
			t.Errorf("a set is left: %v, %v", left, err)
		}
	})
}

func (a *Agent) mustStore() *atomic.Store {
	s, err := a.store()
	must(err)
	return s
}

func (r *Root) changedPaths() []string { return publishedList(r.Published).paths() }

type publishedList []Published

func (l publishedList) paths() []string {
	var all []string
	for _, p := range l {
		all = append(all, p.To)
	}
	return all
}

func TestPublishedFilesOfAFirstDeploymentGoAway(t *testing.T) {
	for _, bad := range []string{failCheck, failHook, failVerify} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			must(os.WriteFile(s.etc+"/cert.pem", []byte("older"), 0o640))
			s.src.put("v1", s.layer("1", "a", bad))
			s.want("", ErrRolledBack)
			s.holds(bad, files{"cert.pem": "older"})
			if info, err := os.Stat(s.etc + "/cert.pem"); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("%s: %v, %v", bad, info, err)
			}
		})
	}
}

func TestPublishOfADryRunTouchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.o.Mode.DryRun = true
		s.src.put("v1", s.layer("1", "a", ""))
		s.want("", nil)
		s.holds("dry run", files{})
		if p := s.agent.Record().Last.Publishing; p == nil || len(p.Changes) != 3 || p.Changes[0].Does != Created {
			t.Errorf("the plan says %+v", p)
		}
	})
}

// What somebody has changed is not put back; the next deployment replaces it and
// keeps it.
func TestPublishedFileThatAPersonChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLiveSite(t, "")
		must(os.WriteFile(s.etc+"/cert.pem", []byte("by hand"), 0o644))
		s.want("v1", nil)
		s.holds("the agent does not fight", files{"cert.pem": "by hand", "key.pem": "key 1"})
		if s.lines("WARN", "published file changed by somebody else") != 1 {
			t.Errorf("not said once\n%s", s.logged)
		}
		st := s.agent.Status()
		if len(st.Files) != 2 || st.Files[0].Differs != "content" || st.Files[1].Differs != "" {
			t.Errorf("status: %+v", st.Files)
		}
		found, err := Inspect(t.Context(), s.dir, Inspection{})
		if err != nil || found.Whole() {
			t.Errorf("check: %+v, %v; want to name the file", found, err)
		}
		if w := st.Why(func(v string) string { return v }); !strings.Contains(strings.Join(w.Says, " "), s.etc+"/cert.pem") {
			t.Errorf("why: %+v", w)
		}
		// A rollback brings back what the person wrote.
		s.src.put("v2", s.layer("2", "", failHook))
		s.want("v1", ErrRolledBack)
		s.holds("rolled back", files{"cert.pem": "by hand", "key.pem": "key 1"})
		s.src.put("v3", s.layer("3", "", ""))
		s.want("v3", nil)
		s.holds("the next deployment", files{"cert.pem": "cert 3", "key.pem": "key 3"})
		kept := s.agent.Status().Files[0].Kept
		if len(kept) != 1 {
			t.Fatalf("nothing is kept: %+v", s.agent.Status().Files)
		}
		if b, err := os.ReadFile(kept[0]); string(b) != "by hand" {
			t.Errorf("kept is %q, %v", b, err)
		}
		if w := s.agent.Record().Last.Publishing.Warnings; !strings.Contains(strings.Join(w, " "), kept[0]) {
			t.Errorf("the evidence does not say where: %q", w)
		}
	})
}

// A person who wants the agent to put it back says repair.
func TestPublishRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLiveSite(t, "")
		must(os.WriteFile(s.etc+"/cert.pem", []byte("by hand"), 0o644))
		must(os.Remove(s.etc + "/key.pem"))
		if st := s.agent.Status(); st.Files[1].Differs != "missing" {
			t.Errorf("status: %+v", st.Files)
		}
		s.o.Mode.Repair = true
		s.want("v1", nil)
		s.holds("repaired", files{"cert.pem": "cert 1", "key.pem": "key 1"})
	})
}

// What another configuration publishes to is waited for, and given free when that no
// longer wants it.
func TestPublishWaitsForTheOtherConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		other := memoryDir(t)
		s.o.Publish.Agents = []string{s.dir, other}
		write := func(r *Record) {
			b, err := encode(r)
			must(err)
			must(os.WriteFile(other+"/journal.json", b, 0o600))
		}
		write(&Record{Name: "api", State: Idle, Published: []Published{{Mapping: mapping("c=" + s.etc + "/cert.pem")}}})
		s.src.put("v1", s.layer("1", "", ""))
		if err := s.run(); err == nil || !strings.Contains(err.Error(), "configurations web and api cannot both publish to") {
			t.Errorf("Run = %v, want both names", err)
		}
		s.holds("refused", files{})
		if r := s.agent.Record(); r.State != Checking || len(r.Deployment.New.Published) > 0 {
			t.Errorf("in %s it still wants %v: the other one would wait for it too", r.State, r.Deployment.New.Published)
		}
		write(&Record{Name: "api", State: Idle})
		s.want("v1", nil)
		s.holds("free", files{"cert.pem": "cert 1", "key.pem": "key 1"})
	})
}

func TestPublishedFileChangedByTheHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLiveSite(t, "")
		s.src.put("v2", s.layer("2", "", ""))
		s.hooks.exit = func(env map[string]string) int {
			if env["DEPLOY_ACTION"] == "deploy" && env["DEPLOY_PHASE"] == "deploy" {
				must(os.WriteFile(s.etc+"/cert.pem", []byte("hook's"), 0o644))
			}
			return 0
		}
		s.want("v1", ErrRolledBack)
		s.holds("rolled back", files{"cert.pem": "cert 1", "key.pem": "key 1"})
		if r := s.agent.Record().Last.Reason; !strings.Contains(r, "changed after the switch") || !strings.Contains(r, s.etc+"/cert.pem") {
			t.Errorf("reason %q", r)
		}
	})
}

// What stands in the way at a destination is the host's, and is waited for.
func TestPublishWaitsForWhatStandsInTheWay(t *testing.T) {
	for name, block := range map[string]func(path string){
		"directory": func(path string) { must(os.Mkdir(path, 0o755)) },
		"link":      func(path string) { must(os.Symlink("/etc/passwd", path)) },
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			block(s.etc + "/cert.pem")
			s.src.put("v1", s.layer("1", "", ""))
			if err := s.run(); err == nil || !errors.Is(err, atomic.ErrOccupied) || !strings.Contains(err.Error(), s.etc+"/cert.pem") {
				t.Errorf("%s: %v", name, err)
			}
			if r := s.agent.Record(); r.State != Checking || len(r.Marks) > 0 {
				t.Errorf("%s: %s, %v; want to wait in Checking", name, r.State, r.Marks)
			}
			must(os.Remove(s.etc + "/cert.pem"))
			s.want("v1", nil)
			s.holds(name, files{"cert.pem": "cert 1", "key.pem": "key 1"})
		})
	}
}

// Somebody writes between the check and the switch: no version's fault, and theirs
// is not lost.
func TestPublishedFileChangedBeforeTheSwitch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLiveSite(t, "")
		s.src.put("v2", s.layer("2", "", ""))
		s.atSwitch(func() { must(atomic.WriteFile(s.etc+"/key.pem", []byte("by hand"), 0o600)) })
		s.want("v2", nil)
		s.holds("in the end", files{"cert.pem": "cert 2", "key.pem": "key 2"})
		if s.runs("rollback") != 0 || s.agent.Record().failedHere(s.agent.Record().Live.Configuration.Digest) {
			t.Errorf("it was marked, or a hook was told of what never was\n%s", s.logged)
		}
		if kept := s.agent.Status().Files[1].Kept; len(kept) != 1 {
			t.Errorf("nothing is kept: %+v", s.agent.Status().Files)
		}
	})
}

func TestPublishedFilesOfARemoval(t *testing.T) {
	for _, keep := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			s.src.put("v1", s.layer("1", "a", ""))
			s.want("v1", nil)
			must(os.WriteFile(s.etc+"/a", []byte("by hand"), 0o644))
			m, err := s.new().Remains(keep)
			if err != nil || !slices.Contains(m.Stays, s.etc+"/a") || slices.Contains(m.Gone, s.etc+"/cert.pem") == keep {
				t.Errorf("keep %t: %+v, %v", keep, m, err)
			}
			must(s.new().Remove(t.Context(), keep))
			want := files{"a": "by hand"}
			if keep {
				want = of("1", "a")
				want["a"] = "by hand"
			}
			s.holds("removed", want)
			if _, err := os.Stat(s.dir + "/published"); keep != (err == nil) {
				t.Errorf("keep %t: the store: %v", keep, err)
			}
			if keep { // and deploys anew
				s.src.put("v2", s.layer("2", "", ""))
				s.want("v2", nil)
				s.holds("anew", files{"cert.pem": "cert 2", "key.pem": "key 2"})
			}
		})
	}
}

// The way back leads to another root than served before: its files come back too.
func TestPublishedFilesOfTheRootThatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		for _, v := range []string{"1", "2"} {
			s.src.put("v"+v, s.layer(v, "a"+v, ""))
			s.want("v"+v, nil)
		}
		must(os.WriteFile(s.dir+"/"+s.agent.Record().Live.Dir+"/cert", []byte("spoilt"), 0o644))
		s.src.put("v3", s.layer("3", "a3", failVerify))
		if err := s.run(); !errors.Is(err, ErrRolledBack) || s.live() != "v1" {
			t.Errorf("Run = %v, and %s is live", err, s.live())
		}
		s.holds("back to the first", of("1", "a1"))
		if got := s.agent.Record().Published; len(got) != 3 || got[0].To != s.etc+"/a1" {
			t.Errorf("on record: %v", got)
		}
		s.src.put("v4", s.layer("4", "a4", ""))
		if err := s.run(); err != nil {
			t.Error(err)
		}
		s.holds("forward", of("4", "a4"))
	})
}

func TestPublishWithoutMappingsMakesNoStore(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		if _, err := os.Lstat(h.dir + "/" + storeName); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("there is a store: %v", err)
		}
	})
}
