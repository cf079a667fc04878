package agent

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"deploytools/registry/wire"
)

// status returns the status of the agent that runs, as a reader of the JSON has it.
func (h *host) status() Status {
	h.Helper()
	b, err := json.Marshal(h.agent.Status())
	must(err)
	var s Status
	must(json.Unmarshal(b, &s))
	return s
}

func TestStatusAndWhySayWhatIsInTheWay(t *testing.T) {
	verb := func(v string) string { return "VERB " + v }
	for name, test := range map[string]struct {
		do    func(h *host)
		cause Cause
		kinds []BlockKind
		says  string // in the words of why, somewhere
		does  string
	}{
		"newest":            {func(*host) {}, CauseNewest, nil, "runs revision 2, verified. That is the newest", ""},
		"a hold":            {func(h *host) { must(h.agent.Hold(h.Context(), "freeze", Until{})) }, Cause(BlockHold), []BlockKind{BlockHold}, "until somebody resumes: freeze.", "VERB resume ends it"},
		"a hold for a time": {func(h *host) { must(h.agent.Hold(h.Context(), "freeze", Until{At: time.Now().Add(time.Hour)})) }, Cause(BlockHold), []BlockKind{BlockHold}, "until 2000-01-01T01:0", "VERB resume ends it"},
		"rolled back":       {func(h *host) { h.rollback("") }, Cause(BlockHold), []BlockKind{BlockHold}, "until the registry has a later revision", "VERB resume ends it"},
		"the registry's hold": {func(h *host) { h.src.set(func() { h.src.hold = &wire.Hold{Reason: "sale"} }) }, Cause(BlockRegistryHold), []BlockKind{BlockRegistryHold},
			"The registry holds the configuration: sale.", "deployctl resume -name web"},
		"failed here":     {func(h *host) { h.src.put("v3", with(failHook)) }, Cause(BlockFailed), []BlockKind{BlockFailed}, "has revision 3. It failed here at", "VERB retry tries the same again"},
		"its hook failed": {func(h *host) { h.src.put("v3", with(failHook)) }, Cause(BlockFailed), []BlockKind{BlockFailed}, "call failure", "VERB log shows what it has printed"},
		"away":            {func(h *host) { h.src.set(func() { h.src.down = wire.ErrUnreachable }) }, Cause(BlockAway), []BlockKind{BlockAway}, "cannot be asked since 2000", "VERB run-once asks now"},
		"held and away": {func(h *host) {
			must(h.agent.Hold(h.Context(), "freeze", Until{}))
			h.src.set(func() { h.src.down = wire.ErrUnreachable })
		}, Cause(BlockHold), []BlockKind{BlockHold, BlockAway}, "Besides, registry away", "VERB resume ends it"},
		"held and failed": {func(h *host) {
			h.src.put("v3", with(failHook))
			pass(time.Minute)
			must(h.agent.Hold(h.Context(), "freeze", Until{}))
		}, Cause(BlockHold), []BlockKind{BlockHold, BlockFailed}, "Besides, failed here", "VERB resume ends it\nVERB retry tries again"},
		"a step waits": {func(h *host) {
			h.hooks.unready = map[string]error{"./deploy.sh": errors.New("no such file")}
			h.src.put("v3", one("3"))
		}, Cause(BlockWaiting), []BlockKind{BlockWaiting}, "of revision 3 waits in Checking and is tried again at 2000", "VERB rollback gives it up"},
		"a rollback waits": {func(h *host) {
			h.hooks.unready = map[string]error{"./deploy.sh": errors.New("no such file")}
			h.rollback("")
		}, Cause(BlockWaiting), []BlockKind{BlockWaiting}, "of revision 1 waits in Checking", "VERB rollback -to 000002-0636c1846f35 gives it up"},
		"under way": {func(h *host) {
			h.patience = 10 * time.Minute
			h.src.put("v3", with(failVerify))
		}, CauseUnderWay, nil, "of revision 3 is under way, in Verifying since 2000", "VERB rollback gives it up"},
		"checks do not pass": {func(h *host) {
			h.patience = 10 * time.Minute
			h.src.put("v3", with(failVerify))
		}, CauseUnderWay, nil, "these checks are tried again: ", "VERB rollback gives it up"},
		"other checks": {func(h *host) { h.src.verifies(tcpAt("mail", "conf:1")) }, CauseNewest, nil, "runs revision 3, verified. That is the newest", ""},
		"other checks, which look": {func(h *host) {
			h.env = func() bool { return true }
			h.patience = 10 * time.Minute
			h.src.verifies(tcpAt("mail", "conf:1"))
		}, CauseLooking, nil, "has revision 3. Revision 3 has other checks and the same layers, so nothing is deployed: since 2000-01-01T00:", "changeconf"},
		"live root gone": {func(h *host) { must(os.RemoveAll(h.agent.path(h.agent.Record().Live.Dir))) }, Cause(BlockHold), []BlockKind{BlockHold}, "is gone.", "VERB repair makes"},
		"a hold, as `current` is deleted": {func(h *host) { must(os.Remove(h.dir + "/current")) }, Cause(BlockHold), []BlockKind{BlockHold},
			"until the registry has a later revision: `current` was deleted by hand.",
			"VERB resume ends it, and has `current` name roots/000002-0636c1846f35 again\nVERB repair deploys that"},
		"a hold, as `current` is moved": {func(h *host) { must(os.Remove(h.dir + "/current")); must(os.Symlink("/tmp", h.dir+"/current")) }, Cause(BlockHold), []BlockKind{BlockHold},
			"and `current` names /tmp. ", "VERB resume ends it, and has `current` name"},
		"a hold, as `current` is a directory": {func(h *host) { must(os.Remove(h.dir + "/current")); must(os.Mkdir(h.dir+"/current", 0o755)) }, Cause(BlockHold), []BlockKind{BlockHold},
			"and `current` is no link, but a directory or a file. ", "move `current` away, which is no link\nVERB resume ends it, and has `current` name"},
		"a hold, as both are gone": {func(h *host) {
			must(os.RemoveAll(h.agent.path(h.agent.Record().Live.Dir)))
			must(os.Remove(h.dir + "/current"))
		}, Cause(BlockHold), []BlockKind{BlockHold},
			"Revision 2 is deployed, and its root roots/000002-0636c1846f35 is gone.", "VERB repair makes the live root anew\nVERB rollback makes that of the version before live"},
		"broken": {func(h *host) {
			h.hooks.exit = func(env map[string]string) int { return map[bool]int{true: 1}[env["DEPLOY_ACTION"] == "rollback"] }
			h.src.put("v3", with(failHook))
		}, Cause(BlockBroken), []BlockKind{BlockBroken}, "Neither the new nor the old root works", "VERB retry closes it"},
		"no configuration": {func(h *host) { h.src.set(func() { h.src.now = nil }) }, CauseNothing, nil, `has no configuration "web"`, "deployctl addconf"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *host) {
				h.versions(2)
				stop := h.serve()
				defer stop()
				pass(time.Minute)
				test.do(h)
				pass(time.Minute)
				s := h.status()
				why := s.Why(verb)
				says, does := strings.Join(why.Says, " "), strings.Join(why.Do, "\n")
				if why.Cause != test.cause || !strings.Contains(says, test.says) || !strings.Contains(does, test.does) || (does == "") != (test.does == "") {
					t.Errorf("why: %+v", why)
				}
				var kinds []BlockKind
				for _, b := range s.Blocks {
					kinds = append(kinds, b.Kind)
				}
				if strings.Join(texted(kinds), ",") != strings.Join(texted(test.kinds), ",") {
					t.Errorf("blocks %+v, want %q", s.Blocks, test.kinds)
				}
				if !s.Running || s.Live == nil || s.Back == nil || s.Newest == nil || s.Live.Checks[0] != "tcp 127.0.0.1:1 (host)" {
					t.Errorf("status %+v", s)
				}
				if why.Newest != (name == "newest" || name == "other checks" || name == "a rollback waits" || strings.HasPrefix(name, "a hold") || name == "the registry's hold" || name == "live root gone" || strings.Contains(name, "away")) {
					t.Errorf("newest is %t: %+v", why.Newest, s.Newest)
				}
			})
		})
	}
}

// What is told in a word is explained, and a deployment that is under way has one
// way out, not that of the root after it.
func TestWhyIsInPlainWords(t *testing.T) {
	verb := func(v string) string { return "VERB " + v }
	failing := &Watched{Failing: &Failing{What: "tcp-1"}}
	live := &Shown{Revision: 7, Verification: Environment}
	s := Status{Running: true, State: Idle, Live: live, Newest: &Newest{Revision: 7, Here: true}, Watched: failing}
	if why := s.Why(verb); why.Says[0] != "The host runs revision 7, whose checks fail as they did before it." || len(why.Do) != 2 {
		t.Errorf("why: %+v", why)
	}
	s = Status{Running: true, State: Idle, Live: &Shown{Revision: 7, Root: "roots/7"}, Current: "elsewhere", Newest: &Newest{Revision: 8}}
	if why := s.Why(verb); why.Says[0] != "Revision 7 is deployed, in roots/7, and `current` names elsewhere; the registry has revision 8." {
		t.Errorf("why: %+v", why)
	}
	s = Status{Running: true, Live: live, Newest: &Newest{Revision: 7, Here: true}, Watched: failing}
	s.State, s.Under = Verifying, &Deployed{Revision: 8}
	if why := s.Why(verb); strings.Join(why.Do, "\n") != "VERB rollback gives it up" || !strings.Contains(strings.Join(why.Says, " "), "fails its checks: tcp-1") {
		t.Errorf("why, under way: %+v", why)
	}
}

// The words of why: who was in the middle of a hook read that the old revision ran.
func TestWhySaysWhatCurrentNamesUnderWay(t *testing.T) {
	s := Status{Running: true, State: Hooking, Live: &Shown{Revision: 6, Root: "roots/6", Verification: Verified}, Under: &Deployed{Revision: 7, Root: "roots/7"}}
	for current, want := range map[string]string{
		"roots/6": "The host runs revision 6, verified.",
		"roots/7": "Revision 6 was deployed last, and `current` names roots/7, the root of revision 7.",
	} {
		s.Current = current
		if why := s.Why(func(v string) string { return v }); why.Says[0] != want {
			t.Errorf("`current` is %s: %q, want %q", current, why.Says[0], want)
		}
	}
}

// Every root was deleted: a rollback found none, and why offered it.
func TestRollbackTargetThatIsGone(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		one, two := twoRoots(h)
		stop := h.serve()
		defer stop()
		pass(time.Minute)
		must(os.RemoveAll(one))
		must(os.RemoveAll(two))
		pass(time.Minute)
		s := h.status()
		if s.Back == nil || !s.Live.Gone || !s.Back.Gone {
			t.Errorf("live %+v, previous %+v: want both gone", s.Live, s.Back)
		}
		if why := s.Why(func(v string) string { return v }); len(why.Do) != 1 || why.Do[0] != "repair makes the live root anew" {
			t.Errorf("why: %q", why.Do)
		}
	})
}

func texted(kinds []BlockKind) (out []string) {
	for _, k := range kinds {
		out = append(out, string(k))
	}
	return out
}

// What the record says is shown without an agent, and by one that cannot work.
func TestLookNeedsNoAgent(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		if _, err := Look(Options{Dir: h.dir}); !errors.Is(err, ErrNothing) {
			t.Errorf("Look at nothing = %v", err)
		}
		if _, _, err := Alone(t.Context(), Options{Dir: h.dir}); !errors.Is(err, ErrNothing) {
			t.Errorf("Alone with nothing = %v", err)
		}
		if left, _ := os.ReadDir(h.dir); len(left) > 0 {
			t.Errorf("that has left %v", left)
		}
		h.versions(2)
		a, err := Look(Options{Dir: h.dir})
		must(err)
		s := a.Status()
		if why := s.Why(func(v string) string { return v }); s.Running || s.Name != "web" || s.Live.Revision != 2 || why.Cause != CauseNotRunning || strings.Contains(why.Do[0], "systemctl") {
			t.Errorf("%+v, %+v", s, why)
		}
		s.Dir = UnitDir + "/web"
		if why := s.Why(func(v string) string { return v }); why.Do[0] != "systemctl start deploy-agent@web" || !strings.HasPrefix(why.Do[1], "run-once, with all of") {
			t.Errorf("in the unit's directory: %+v", why)
		}
		if rows, err := a.History(0); err != nil || len(rows) != 2 || rows[0].Revision != 2 || rows[0].Outcome != Committed || len(rows[0].States) < 5 {
			t.Errorf("History = %+v, %v", rows, err)
		}
		evidence := h.dir + "/deployments/" + s.Last.ID + "/" + evidenceName
		must(os.Rename(evidence, evidence+".aside"))
		must(os.WriteFile(evidence, []byte("{"), 0o600))
		if rows, err := a.History(1); err != nil || len(rows) != 1 || rows[0].Error == "" {
			t.Errorf("History with a damaged one = %+v, %v", rows, err)
		}
		must(os.Rename(evidence+".aside", evidence))
		if _, err := Look(Options{Dir: h.dir, Name: "api"}); err == nil {
			t.Error("Look takes another configuration's directory")
		}
		stop := h.serve()
		pass(time.Minute)
		if _, _, err := Alone(t.Context(), Options{Dir: h.dir}); err == nil || !strings.Contains(err.Error(), "held by process") {
			t.Errorf("Alone beside an agent = %v", err)
		}
		stop()
		a, release, err := Alone(t.Context(), Options{Dir: h.dir})
		must(err)
		must(a.Hold(t.Context(), "freeze", Until{}))
		release()
		h.src.put("v3", one("3"))
		h.want("v2", ErrHeld)
		must(os.WriteFile(h.dir+"/journal.json", []byte(`{"Format":99}`), 0o600))
		if _, err := Look(Options{Dir: h.dir}); !errors.Is(err, errNewer) {
			t.Errorf("Look at a newer one = %v", err)
		}
		stop = h.serve()
		pass(time.Minute)
		s = h.status()
		if why := s.Why(func(v string) string { return v }); why.Cause != Cause(BlockUnable) || h.agent.Hold(t.Context(), "x", Until{}) == nil {
			t.Errorf("of one that does nothing: %+v", why)
		}
		stop()
	})
}
