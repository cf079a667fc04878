package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"deploytools/atomic"
)

// removable is a host on which v1 and v2 were deployed, and on which somebody
// else has a file.
func removable(t *testing.T) *host {
	t.Helper()
	src := newFakeRegistry()
	h := newHost(t, src)
	h.o.Hook.RemoveScript = "./remove.sh"
	h.o.StateFile = filepath.Join(h.dir, "state.json")
	for _, v := range []string{"v1", "v2"} {
		src.put(v, archive(files{"version": v}))
		h.want(v, nil)
	}
	must(os.WriteFile(filepath.Join(h.dir, "precious"), []byte("data"), 0o600))
	must(os.WriteFile(filepath.Join(h.dir, toldName), nil, 0o600)) // the notifier's
	h.calls = nil
	return h
}

// left returns what is in the directory, without the lock.
func (h *host) left() string {
	entries, err := os.ReadDir(h.dir)
	must(err)
	var all []string
	for _, e := range entries {
		if n := e.Name(); n != "lock" && n != "serving" { // the fake script's
			all = append(all, n)
		}
	}
	return strings.Join(all, " ")
}

func TestRemoveTakesAllThatIsOurs(t *testing.T) {
	h := removable(t)
	live := h.agent.Record().Live
	m, err := h.new().Remains(false)
	if err != nil || m.Root != live.Dir || m.Script != "./remove.sh" || m.StateFile == "" || !slices.Contains(m.Gone, filepath.Join(h.dir, "roots")) {
		t.Errorf("Remains = %+v, %v", m, err)
	}
	if err := h.new().Remove(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if got := h.left(); got != "precious" {
		t.Errorf("left: %s", got)
	}
	if len(h.calls) != 1 {
		t.Fatalf("%d calls of scripts, want 1", len(h.calls))
	}
	env := h.calls[0]
	for name, want := range map[string]string{"DEPLOY_PHASE": "remove", "DEPLOY_ACTION": "remove", "NEWROOT": "", "NEWID": "",
		"OLDROOT": filepath.Join(h.dir, live.Dir), "OLDID": live.Configuration.Hash.String(), "DEPLOY_REVISION": "2"} {
		if env[name] != want {
			t.Errorf("%s=%q, want %q", name, env[name], want)
		}
	}
	if err := h.new().Remove(t.Context(), false); !errors.Is(err, ErrNothing) {
		t.Errorf("a second time: %v", err)
	}
	h.want("v2", nil) // and it may come back
}

func TestRemoveKeepsData(t *testing.T) {
	h := removable(t)
	if err := h.new().Remove(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if got := h.left(); got != "cache deployments journal.json precious roots" {
		t.Errorf("left: %s", got)
	}
	h.src.offsets = nil
	h.want("v2", nil)
	if len(h.src.offsets) != 0 {
		t.Errorf("layers were fetched again at %v", h.src.offsets)
	}
}

// A script that fails has not taken it off: nothing else is touched, and no agent
// brings it back behind the operator's back.
func TestRemoveStopsWhereItsScriptFails(t *testing.T) {
	h := removable(t)
	h.hooks.exit = func(env map[string]string) int { return map[string]int{"remove": 1}[env["DEPLOY_ACTION"]] }
	for range 2 {
		if err := h.new().Remove(t.Context(), false); err == nil || !strings.Contains(err.Error(), "remove script: ") {
			t.Errorf("Remove = %v", err)
		}
	}
	if len(h.calls) != 2 {
		t.Errorf("the script ran %d times, want once each time", len(h.calls))
	}
	if _, err := os.Readlink(filepath.Join(h.dir, "current")); err != nil {
		t.Error(err)
	}
	if err := h.run(); !errors.Is(err, ErrRemoving) {
		t.Errorf("an agent: %v, want it to keep away", err)
	}
	a, err := Look(h.o)
	must(err)
	s := a.Status()
	if why := s.Why(func(verb string) string { return verb }); why.Cause != Cause(BlockRemoving) || !slices.Equal(why.Do, []string{
		"remove -remove-script PROGRAM brings that to its end", "resume calls it off: nothing is removed yet"}) {
		t.Errorf("why: %+v", why)
	}
	h.hooks.exit = nil
	if err := h.new().Remove(t.Context(), true); err != nil { // nothing has gone: so it counts
		t.Fatal(err)
	}
	if got := h.left(); got != "cache deployments journal.json precious roots" {
		t.Errorf("left: %s", got)
	}
}

// cutOff removes until the point.
func (h *host) cutOff(keepData bool, point string) {
	h.Helper()
	type killed struct{}
	h.seam = func(at string) {
		if at == point {
			panic(killed{})
		}
	}
	defer func() {
		h.seam = func(string) {}
		if _, ok := recover().(killed); !ok {
			h.Fatalf("not killed at %q", point)
		}
	}()
	must(h.new().Remove(h.Context(), keepData))
}

// What has begun to go with its data cannot leave it, and what has begun to go
// without does.
func TestRemoveDecidesOnDataBeforeAnythingGoes(t *testing.T) {
	h := removable(t)
	h.cutOff(false, "removal unlinked")
	before := h.left()
	if _, err := h.new().Remains(true); !errors.Is(err, ErrGoing) {
		t.Errorf("Remains = %v, want ErrGoing", err)
	}
	if err := h.new().Remove(t.Context(), true); !errors.Is(err, ErrGoing) || h.left() != before {
		t.Errorf("Remove = %v, want ErrGoing; left %s", err, h.left())
	}
	must(h.new().Remove(t.Context(), false))
	if got := h.left(); got != "precious" {
		t.Errorf("left: %s", got)
	}

	h = removable(t)
	h.cutOff(true, "removal unlinked")
	if m, err := h.new().Remains(false); err != nil || !m.KeepData {
		t.Errorf("Remains = %+v, %v", m, err)
	}
	must(h.new().Remove(t.Context(), false))
	if got := h.left(); got != "cache deployments journal.json precious roots" {
		t.Errorf("left: %s", got)
	}
}

func (h *host) callOff() error {
	a, release, err := Alone(h.Context(), h.o)
	must(err)
	defer release()
	return a.Resume(h.Context())
}

// A removal is called off as long as nothing is removed, wherever it was cut off,
// and all is as before; then it is not.
func TestResumeCallsOffARemoval(t *testing.T) {
	for point, whole := range map[string]bool{"removal announced": true, "before remove": true, "after remove": true, "removal failed": true,
		"removal forgot": true, "removal left": false, "removal unlinked": false, "removal of some of roots": false} {
		t.Run(point, func(t *testing.T) {
			h := removable(t)
			before := h.agent.Record()
			if point == "removal forgot" {
				h.hooks.exit = func(map[string]string) int { return 1 }
				h.new().Remove(t.Context(), false)
			}
			if point == "removal failed" || point == "after remove" {
				h.hooks.exit = func(map[string]string) int { return 1 }
			}
			h.cutOff(false, point)
			h.hooks.exit = nil
			left := h.left()
			err := h.callOff()
			if !whole {
				if !errors.Is(err, ErrRemoving) || h.left() != left {
					t.Errorf("Resume = %v, left %s", err, h.left())
				}
				must(h.new().Remove(t.Context(), false))
				return
			}
			a, lookErr := Look(h.o)
			must(errors.Join(err, lookErr))
			if r := a.Record(); r.Removing != nil || r.State != before.State || r.Live == nil || r.Live.Dir != before.Live.Dir || r.Seq != before.Seq+1 {
				t.Errorf("record: %+v", r)
			}
			h.want("v2", nil)
			h.calls = nil
			must(h.new().Remove(t.Context(), false))
			if len(h.calls) != 1 {
				t.Errorf("a later removal ran the script %d times", len(h.calls))
			}
		})
	}
}

// A hold stays, and so does a state that is not Idle.
func TestCallingOffARemovalRestoresWhatWasBefore(t *testing.T) {
	h := removable(t)
	a, release, err := Alone(t.Context(), h.o)
	must(err)
	must(a.Hold(t.Context(), "sale", Until{}))
	r := a.Record().clone()
	r.State, r.Deployment = Broken, &Deployment{ID: "000009-000000000000", New: *r.Live, From: r.Back, Back: r.Back, Broken: "both"}
	a.rec = r
	must(a.save())
	release()
	h.hooks.exit = func(map[string]string) int { return 1 }
	if err := h.new().Remove(t.Context(), false); err == nil {
		t.Fatal("removed")
	}
	c, release, err := Alone(t.Context(), h.o)
	must(err)
	if err := c.Retry(t.Context()); !errors.Is(err, ErrRemoving) {
		t.Errorf("Retry = %v, want ErrRemoving", err)
	}
	release()
	must(h.callOff())
	b, err := Look(h.o)
	must(err)
	if r := b.Record(); r.State != Broken || r.Deployment == nil || r.Hold == nil || r.Hold.Reason != "sale" {
		t.Errorf("record: %+v", r)
	}
}

// While its script runs, the version that it takes off does not come back.
func TestResumeWaitsForTheRemoveScript(t *testing.T) {
	h := removable(t)
	h.cutOff(false, "before remove")
	a, err := Look(h.o)
	must(err)
	lock, err := atomic.Acquire(filepath.Join(h.dir, "deployments", a.Record().Removing.ID, "remove.lock")) // as the supervisor does
	must(err)
	if err := h.callOff(); !errors.Is(err, ErrUnderWay) {
		t.Errorf("Resume = %v, want ErrUnderWay", err)
	}
	must(lock.Release())
	must(h.callOff())
}

// What the script has printed can be read when it has failed, and afterwards; and
// the removal is not taken for a deployment.
func TestOutputOfAFailedRemoveScriptStays(t *testing.T) {
	h := removable(t)
	last := h.agent.Record().Last.ID
	h.hooks.exit = func(map[string]string) int { return 1 }
	for range 2 {
		h.new().Remove(t.Context(), false)
	}
	must(h.callOff())
	d := OpenDeployments(h.dir)
	id, err := d.FindOutput("", "remove")
	if err != nil || id == last {
		t.Fatalf("FindOutput = %s, %v", id, err)
	}
	all := d.Programs(id, "remove")
	if len(all) != 1 {
		t.Fatalf("programs: %+v", all)
	}
	if b, err := d.Output(id, &all[0]); err != nil || string(b) != "remove of "+id+"\n" {
		t.Errorf("output %q, %v", b, err)
	}
	if got, err := d.Find(""); err != nil || got != last {
		t.Errorf("Find = %s, %v, want the last deployment %s", got, err, last)
	}
	a, err := Look(h.o)
	must(err)
	if all, err := a.History(0); err != nil || len(all) != 2 || all[0].ID != last {
		t.Errorf("History = %+v, %v", all, err)
	}
}

func TestRemoveRefusesWhatIsNotItsOwn(t *testing.T) {
	h := removable(t)
	before := h.left()
	other := h.o
	other.Name = "api"
	if a, err := New(other); err != nil {
		t.Fatal(err)
	} else if err := a.Remove(t.Context(), false); err == nil || !strings.Contains(err.Error(), "belongs to configuration") {
		t.Errorf("another configuration: %v", err)
	}
	h.hooks.unready = map[string]error{"./remove.sh": errors.New("no such file")}
	if script, ok := errors.AsType[*RemoveScriptError](h.new().Remove(t.Context(), false)); !ok || script.Ran {
		t.Error("removed without its script")
	}
	if got := h.left(); got != before {
		t.Errorf("left: %s, want %s", got, before)
	}
	h.hooks.unready = nil
	h.want("v2", nil)
	empty := h.o
	empty.Dir = filepath.Join(t.TempDir(), "x")
	if a, err := New(empty); err != nil {
		t.Fatal(err)
	} else if err := a.Remove(t.Context(), false); !errors.Is(err, ErrNothing) {
		t.Errorf("nothing there: %v", err)
	}
	if _, err := os.Lstat(empty.Dir); err == nil {
		t.Error("a directory was made")
	}
}

// Killed at each point, and called again: nothing of ours is left, the script has
// done its work, and at most the run that was cut off is repeated.
func TestRemoveGoesOnAfterAKillAtEachPoint(t *testing.T) {
	type killed struct{}
	for _, keep := range []bool{false, true} {
		seen := 0
		for kill, done := 0, false; !done; kill++ {
			h := removable(t)
			n := 0
			h.seam = func(point string) {
				if n++; n > kill {
					h.seam = func(string) {}
					h.Logf("killed at %q", point)
					panic(killed{})
				}
			}
			func() {
				defer func() {
					if p := recover(); p == nil {
						done = true
					} else if _, ok := p.(killed); !ok {
						panic(p)
					}
				}()
				must(h.new().Remove(t.Context(), keep))
			}()
			seen = kill
			h.seam = func(string) {}
			if err := h.new().Remove(t.Context(), keep); err != nil && !(done && !keep && errors.Is(err, ErrNothing)) {
				t.Fatalf("again after %d: %v", kill, err)
			}
			want := "precious"
			if keep {
				want = "cache deployments journal.json precious roots"
			}
			if got := h.left(); got != want {
				t.Errorf("keep %t, killed at %d: left %s", keep, kill, got)
			}
			if len(h.calls) == 0 || len(h.calls) > 2 {
				t.Errorf("keep %t, killed at %d: the script ran %d times", keep, kill, len(h.calls))
			}
			h.want("v2", nil)
		}
		if seen < 6 {
			t.Errorf("only %d points", seen)
		}
	}
}
