package agent

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

// elsewhere is a path beside the directory of the fixed paths.
func (s *site) elsewhere() string {
	path := s.etc + ".elsewhere"
	s.Cleanup(func() { os.RemoveAll(path) })
	return path
}

// atSwitch has something happen when the next switch begins.
func (s *site) atSwitch(happens func()) {
	s.o.Observe.Enter = func(state State) {
		if state == Switching && happens != nil {
			happens()
			happens = nil
		}
	}
}

// What happens on the host between check and switch is no version's fault: the
// deployment is taken back, nothing is told to a program, and it begins anew.
func TestPublishTakenBackBeforeTheSwitch(t *testing.T) {
	for name, test := range map[string]struct {
		happens func(*site)
		kept    int
	}{
		"edited":        {func(s *site) { must(os.WriteFile(s.etc+"/key.pem", []byte("edited by hand"), 0o600)) }, 1},
		"store removed": {func(s *site) { must(os.RemoveAll(s.dir + "/" + storeName)) }, 0},
		"directory replaced": {func(s *site) {
			must(os.Rename(s.etc, s.elsewhere()))
			must(os.Mkdir(s.etc, 0o755))
		}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			s.src.put("v1", s.layer("1", "", ""))
			s.want("v1", nil)
			s.src.put("v2", s.layer("2", "", ""))
			s.atSwitch(func() { test.happens(s) })
			s.want("v2", nil)
			s.holds(name, files{"cert.pem": "cert 2", "key.pem": "key 2"})
			r := s.agent.Record()
			if s.runs("deploy") != 2 || s.runs("rollback") != 0 || r.failedHere(r.Live.Configuration.Digest) {
				t.Errorf("%s: it was marked, or a hook was told of what never was\n%s", name, s.logged)
			}
			if kept := s.agent.Status().Files[1].Kept; len(kept) != test.kept {
				t.Errorf("%s: kept is %q", name, kept)
			}
		})
	}
}

// The mapping says nothing of the mode, so the file has that which a person has
// given it, also at the last moment.
func TestPublishedFileMadePrivateBeforeTheSwitch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLiveSite(t, "")
		s.src.put("v2", s.layer("2", "", ""))
		s.atSwitch(func() { must(os.Chmod(s.etc+"/cert.pem", 0o600)) })
		s.want("v2", nil)
		s.holds("in the end", files{"cert.pem": "cert 2", "key.pem": "key 2"})
		if info, err := os.Stat(s.etc + "/cert.pem"); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		if r := s.agent.Record(); s.runs("deploy") != 2 || s.runs("rollback") != 0 || r.failedHere(r.Live.Configuration.Digest) {
			t.Errorf("it was marked, or a hook was told of what never was\n%s", s.logged)
		}
	})
}

// Nothing was there before: the disk alone cannot say that somebody came between.
// What happens time after time is not tried for ever.
func TestPublishThatTheHostCannot(t *testing.T) {
	for _, ever := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			s.src.put("v1", s.layer("1", "", ""))
			place, times := s.elsewhere(), 0
			s.o.Observe.Enter = func(state State) {
				if state == Switching && (ever || times == 0) {
					times++
					must(os.RemoveAll(place))
					must(os.Rename(s.etc, place))
					must(os.Mkdir(s.etc, 0o755))
				}
			}
			if err := s.run(); ever != errors.Is(err, ErrRolledBack) || !ever && err != nil {
				t.Errorf("ever %v: Run = %v", ever, err)
			}
			want := files{"cert.pem": "cert 1", "key.pem": "key 1"}
			if ever {
				want = files{}
			}
			s.holds("in the end", want)
			if marks := len(s.agent.Record().Marks); times > 2 || ever != (marks > 0) {
				t.Errorf("ever %v: %d tries, %d marks", ever, times, marks)
			}
		})
	}
}

// A person moves the directory and leaves a link: the files are where they were,
// by both names, and what is published no longer goes away.
func TestPublishedDirectoryMovedBehindALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLiveSite(t, "more.pem")
		place := s.elsewhere()
		must(os.Rename(s.etc, place))
		must(os.Symlink(place, s.etc))
		s.src.put("v2", s.layer("2", "", ""))
		s.want("v2", nil)
		s.holds("moved", files{"cert.pem": "cert 2", "key.pem": "key 2"})
		s.src.put("v3", s.layer("3", "", failHook))
		s.want("v2", ErrRolledBack)
		s.holds("rolled back", files{"cert.pem": "cert 2", "key.pem": "key 2"})
	})
}

// Another directory has taken the place, with a file of that name: not ours to remove.
func TestPublishedDirectoryReplacedByALinkLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLiveSite(t, "more.pem")
		place := s.elsewhere()
		must(os.RemoveAll(s.etc))
		must(os.Mkdir(place, 0o755))
		must(os.Symlink(place, s.etc))
		must(os.WriteFile(s.etc+"/more.pem", []byte("another"), 0o600))
		s.src.put("v2", s.layer("2", "", ""))
		s.want("v2", nil)
		s.holds("replaced", files{"cert.pem": "cert 2", "key.pem": "key 2", "more.pem": "another"})
	})
}

// Two configurations that know one directory by two names have the same files in it.
func TestPublishNamesTheOtherConfigurationThroughAMount(t *testing.T) {
	needsRoot(t)
	h, _ := publisher(t, files{"a": "A"})
	dirs := map[string]string{}
	for _, name := range []string{"agents/web", "agents/api", "etc", "alias"} {
		dirs[name] = memoryDir(t)
	}
	must(unix.Mount(dirs["etc"], dirs["alias"], "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(unix.Unmount(dirs["alias"], 0)) })
	b, err := encode(&Record{Name: "api", State: Idle, Published: []Published{{Mapping: mapping("x=" + dirs["etc"] + "/x")}}})
	must(err)
	must(os.WriteFile(dirs["agents/api"]+"/journal.json", b, 0o600))
	h.o.Dir, h.o.Publish.Agents = dirs["agents/web"], []string{dirs["agents/api"]}
	for name, refused := range map[string]bool{"x": true, "y": false} {
		err := h.new().unclaimed([]Published{{Mapping: mapping("x=" + dirs["alias"] + "/" + name)}})
		if refused != (err != nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
