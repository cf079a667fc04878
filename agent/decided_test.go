package agent

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestDecided(t *testing.T) {
	for name, test := range map[string]struct {
		do      func(h *host)
		decided bool
		err     error
		waits   string
	}{
		"live":        {func(h *host) { h.src.put("v3", one("3")) }, true, nil, ""},
		"rolled back": {func(h *host) { h.src.put("v3", with(failHook)) }, true, ErrRolledBack, ""},
		"broken": {func(h *host) {
			h.hooks.exit = func(env map[string]string) int { return map[bool]int{true: 1}[env["DEPLOY_ACTION"] == "rollback"] }
			h.src.put("v3", with(failHook))
		}, true, ErrBroken, ""},
		"under way": {func(h *host) {
			h.patience = time.Hour
			h.src.put("v3", with(failVerify))
		}, false, nil, "revision 3, in Verifying"},
		"looked at with other checks": {func(h *host) {
			h.env, h.patience = func() bool { return true }, time.Hour
			h.src.verifies(tcpAt("mail", "conf:1"))
		}, false, nil, "revision 3, with whose checks"},
		"held": {func(h *host) {
			must(h.agent.Hold(h.Context(), "freeze", Until{}))
			h.src.put("v3", one("3"))
		}, false, nil, "hold: freeze"},
		"no such configuration": {func(h *host) { h.src.set(func() { h.src.now = nil }) }, false, nil, "revision 0"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *host) {
				h.versions(2)
				stop := h.serve()
				defer stop()
				pass(time.Minute)
				s := h.status()
				if decided, _, err := s.Decided(time.Time{}); !decided || err != nil {
					t.Errorf("before: %t, %v", decided, err)
				}
				if decided, waits, _ := s.Decided(s.Newest.Polled); decided || waits != "the next poll" {
					t.Errorf("as of the same poll: %t, %q", decided, waits)
				}
				test.do(h)
				pass(time.Minute)
				seen := s.Newest.Polled
				s = h.status()
				decided, waits, err := s.Decided(seen)
				if decided != test.decided || !errors.Is(err, test.err) || !strings.Contains(waits, test.waits) {
					t.Errorf("%t, %q, %v", decided, waits, err)
				}
			})
		})
	}
}

// A deployment whose rollback failed as well, and that was closed later.
func TestDecidedAfterBroken(t *testing.T) {
	s := Status{State: Idle, Newest: &Newest{Revision: 3, Polled: time.Now()}, Last: &Deployed{Revision: 3, Outcome: NotServing, Reason: "hook"},
		Blocks: []Block{{Kind: BlockFailed, Text: "hook"}}}
	if decided, _, err := s.Decided(time.Time{}); !decided || !errors.Is(err, ErrBroken) {
		t.Errorf("%t, %v, want ErrBroken", decided, err)
	}
}
