package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tampering are ways to modify the root dir.
var tampering = map[string]func(dir string){
	"content":  func(dir string) { flip(dir + "/etc/motd") },
	"mode":     func(dir string) { must(os.Chmod(dir+"/etc/motd", 0o755)) },
	"missing":  func(dir string) { must(os.Remove(dir + "/etc/motd")) },
	"extra":    func(dir string) { must(os.WriteFile(dir+"/pid", nil, 0o600)) },
	"manifest": func(dir string) { flip(dir + ".manifest") },
	"lost":     func(dir string) { must(os.Remove(dir + ".manifest")) },
	"gone":     func(dir string) { must(os.RemoveAll(dir)) },
	"nothing":  func(string) {},
}

// twoRoots is a host on which v1 and then v2 were committed.
func twoRoots(h *host) (one, two string) {
	for _, v := range []string{"1", "2"} {
		h.src.put("v"+v, archive(files{"etc/motd": v}))
		h.want("v"+v, nil)
	}
	r := h.agent.Record()
	return h.dir + "/" + r.Back.Dir, h.dir + "/" + r.Live.Dir
}

// A modified root is no rollback target while an unmodified one exists; after
// that the least modified is.
func TestRollbackTargetIsWhole(t *testing.T) {
	for _, test := range []struct{ one, two, live string }{
		{"nothing", "nothing", "v2"},
		{"nothing", "content", "v1"},
		{"nothing", "mode", "v1"},
		{"nothing", "missing", "v1"},
		{"nothing", "extra", "v1"},
		{"nothing", "manifest", "v1"},
		{"nothing", "lost", "v1"},
		{"nothing", "gone", "v1"},
		{"content", "nothing", "v2"},
		{"content", "content", "v2"},
		{"extra", "content", "v1"},
		{"lost", "content", "v1"},
		{"content", "lost", "v2"},
		{"extra", "lost", "v1"},
		{"gone", "content", "v2"},
		{"extra", "extra", "v2"},
		{"gone", "gone", ""},
	} {
		bubble(t, func(t *testing.T, h *host) {
			one, two := twoRoots(h)
			tampering[test.one](one)
			tampering[test.two](two)
			h.src.put("v3", with(failVerify))
			if err := h.run(); !errors.Is(err, ErrRolledBack) || h.live() != test.live {
				t.Errorf("v1 %s, v2 %s: Run = %v, %q is live, want %q\n%s", test.one, test.two, err, h.live(), test.live, h.logged)
			}
			link, _ := os.Readlink(h.dir + "/current")
			serving, _ := os.ReadFile(h.dir + "/serving")
			if r := h.agent.Record(); r.Live != nil && (link != r.Live.Dir || string(serving) != filepath.Base(link)) {
				t.Errorf("v1 %s, v2 %s: `current` names %q, and %q serves", test.one, test.two, link, serving)
			}
			loud := h.lines("ERROR", "no unmodified root")+h.lines("WARN", "no unmodified root") == 1
			if want := test.one != "nothing" && test.two != "nothing" && test.live != ""; loud != want {
				t.Errorf("v1 %s, v2 %s: said that there is no unmodified root: %t, want %t\n%s", test.one, test.two, loud, want, h.logged)
			}
			if doubt := h.agent.Record().Last.Doubt; (doubt != "") != loud {
				t.Errorf("v1 %s, v2 %s: the record doubts %q", test.one, test.two, doubt)
			}
		})
	}
}

func TestRollbackByHandIsToAWholeRoot(t *testing.T) {
	for how, tamper := range tampering {
		bubble(t, func(t *testing.T, h *host) {
			h.src.put("v0", archive(files{"etc/motd": "0"}))
			h.want("v0", nil)
			one, _ := twoRoots(h)
			tamper(one)
			stop := h.serve()
			h.rollback("")
			pass(1e9)
			stop()
			want := "v0"
			if how == "nothing" {
				want = "v1"
			}
			if h.live() != want {
				t.Errorf("%s: %q is live, want %q\n%s", how, h.live(), want, h.logged)
			}
		})
	}
}

// A failed deployment that led to another root than the one before it, since that was
// modified, leaves somewhere to go back to from there.
func TestAnotherRootIsBehindTheOneFallenBackOn(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v0", archive(files{"etc/motd": "0"}))
		h.want("v0", nil)
		_, two := twoRoots(h)
		tampering["content"](two)
		h.src.put("v3", with(failVerify))
		if err := h.run(); !errors.Is(err, ErrRolledBack) || h.live() != "v1" {
			t.Fatalf("Run = %v, %q is live, want v1", err, h.live())
		}
		stop := h.serve()
		h.rollback("")
		pass(1e9)
		stop()
		if h.live() != "v0" {
			t.Errorf("%q is live, want v0\n%s", h.live(), h.logged)
		}
	})
}

// A rollback finds the root that is there, whatever became of the one on record, also
// once a repair has come between.
func TestRollbackFindsWhatIsKept(t *testing.T) {
	for _, gone := range []bool{false, true} {
		for _, repaired := range []bool{false, true} {
			bubble(t, func(t *testing.T, h *host) {
				h.o.Keep.Roots = 5
				h.versions(3)
				repair := func() {
					h.o.Mode.Repair = true
					must(h.run())
					h.o.Mode.Repair = false
				}
				r, want := h.agent.Record(), "v1"
				if gone {
					must(os.RemoveAll(h.dir + "/" + r.Back.Dir))
				} else { // the record names another root of the same version
					repair()
					was := r.Live
					changed := *h.agent.Record()
					changed.Back, want = was, "v2"
					b, err := encode(&changed)
					must(errors.Join(err, os.WriteFile(h.dir+"/journal.json", b, 0o600)))
				}
				if repaired {
					repair()
				}
				stop := h.serve()
				pass(time.Minute)
				h.rollback("")
				pass(time.Minute)
				stop()
				if h.live() != want {
					t.Errorf("gone: %t, repaired: %t: %q is live, want %s\n%s", gone, repaired, h.live(), want, h.logged)
				}
			})
		}
	}
}

// The record is lost in the middle of a deployment.
func TestRootToRestoreWithoutRecordIsWhole(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		_, two := twoRoots(h)
		h.src.put("v3", archive(files{"etc/motd": "3"}))
		points, hosts := h.killed(memoryDir(t))
		for i, k := range hosts {
			if !strings.HasSuffix(points[i], "entered Verifying") {
				continue
			}
			flip(k.dir + "/roots/" + filepath.Base(two) + "/etc/motd")
			flip(k.dir + "/journal.json")
			k.src.put("v1", archive(files{"etc/motd": "1"})) // is live then: nothing is deployed
			if err := k.run(); k.live() != "v1" {
				t.Errorf("Run = %v, %q is live, want v1\n%s", err, k.live(), k.logged)
			}
		}
	})
}

// What the switch makes live is what was unpacked, whoever was at it before.
func TestModifiedNewRootIsUnpackedAgain(t *testing.T) {
	for how, tamper := range tampering {
		bubble(t, func(t *testing.T, h *host) {
			twoRoots(h)
			h.src.put("v3", archive(files{"etc/motd": "3"}))
			dir := ""
			h.seam = func(p string) {
				if p == "entered Checking" {
					dir = h.agent.Record().Deployment.New.Dir
					tamper(h.dir + "/" + dir)
				}
			}
			if err := h.run(); err != nil || h.live() != "v3" {
				t.Fatalf("%s: Run = %v, %q is live\n%s", how, err, h.live(), h.logged)
			}
			again := h.agent.Record().Live.Dir != dir
			if again == (how == "nothing" || how == "extra") {
				t.Errorf("%s: unpacked again: %t", how, again)
			}
			if b, err := os.ReadFile(h.dir + "/current/etc/motd"); string(b) != "3" {
				t.Errorf("%s: %q is live, %v", how, b, err)
			}
			if link, _ := os.Readlink(h.dir + "/current"); link != h.agent.Record().Live.Dir {
				t.Errorf("%s: `current` names %q", how, link)
			}
		})
	}
}

func TestCheckScriptMayAddButNotModify(t *testing.T) {
	for how, want := range map[string]error{"extra": nil, "nothing": nil, "content": ErrRolledBack, "missing": ErrRolledBack} {
		bubble(t, func(t *testing.T, h *host) {
			twoRoots(h)
			h.o.Hook.CheckScript = "./check.sh"
			h.hooks.exit = func(env map[string]string) int {
				if env["DEPLOY_PHASE"] == "check" {
					tampering[how](env["NEWROOT"])
				}
				return 0
			}
			h.src.put("v3", archive(files{"etc/motd": "3"}))
			if err := h.run(); !errors.Is(err, want) || (h.live() == "v3") != (want == nil) {
				t.Errorf("%s: Run = %v, want %v; %q is live\n%s", how, err, want, h.live(), h.logged)
			}
		})
	}
}

// A root that nobody has modified does not become another one by a restart.
func TestRestartBeforeTheEndKeepsTheEarlierRoot(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		one, _ := twoRoots(h)
		h.src.put("v3", with(failVerify))
		points, hosts := h.killed(memoryDir(t))
		for i, k := range hosts {
			k.run()
			if back := k.agent.Record().Back; back == nil || filepath.Base(back.Dir) != filepath.Base(one) {
				t.Errorf("after a kill at %q a person's rollback leads to %v, want %s", points[i], back, one)
			}
		}
	})
}
