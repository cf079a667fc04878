package agent

import (
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// rewritten has somebody else write a published file whenever it is to be switched.
func (s *site) rewritten() (times *int) {
	times = new(int)
	s.o.Observe.Enter = func(state State) {
		if state == Switching {
			*times++
			must(os.WriteFile(s.etc+"/key.pem", []byte(strings.Repeat("x", *times)), 0o600))
		}
	}
	return times
}

// A program that wrote a published file at each switch kept -once from ending, and
// a daemon from ever waiting.
func TestAFileThatSomebodyWritesAtEachSwitchEndsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLiveSite(t, "")
		times := s.rewritten()
		v2 := s.src.put("v2", s.layer("2", "", ""))
		for range 2 {
			*times = 0
			err := s.run()
			if !errors.Is(err, ErrCrossed) || !strings.Contains(err.Error(), s.etc+"/key.pem: changed") || *times != crossedTimes {
				t.Fatalf("Run = %v after %d tries, want it to name the file after %d", err, *times, crossedTimes)
			}
			if s.live() != "v1" || s.agent.Record().failedHere(v2.Digest) || s.runs("rollback") != 0 {
				t.Errorf("%s is live, or the version is marked, or a hook was told\n%s", s.live(), s.logged)
			}
		}
		s.o.Observe.Enter = nil
		s.want("v2", nil)
	})
}

func TestAFileThatSomebodyWritesAtEachSwitchIsWaitedForByADaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLiveSite(t, "")
		times := s.rewritten()
		s.src.put("v2", s.layer("2", "", ""))
		s.o.Poll.Interval = time.Minute
		stop := s.serve()
		pass(time.Hour)
		if *times < 30 || *times > 70 {
			t.Errorf("%d tries in an hour, want about one a poll", *times)
		}
		st := s.agent.Status()
		if w := st.Why(func(v string) string { return v }); w.Cause != Cause(BlockWaiting) || !strings.Contains(strings.Join(w.Says, " "), "key.pem") {
			t.Errorf("why: %+v", w)
		}
		before := *times
		done, err := s.agent.RunOnce(t.Context())
		must(err)
		if r := <-done; !errors.Is(r.Err, ErrCrossed) || *times > before+2 {
			t.Errorf("run-once = %v after %d tries", r.Err, *times-before)
		}
		s.o.Observe.Enter = nil
		stop()
		s.o.Mode.Once = true
		s.want("v2", nil)
	})
}
