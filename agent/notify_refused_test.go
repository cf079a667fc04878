package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	"deploytools/registry/wire"
	"deploytools/verify/spec"
)

// Nobody was told of a revision that no deployment was begun for: its checks may
// not be carried out here, or an older agent cannot read it.
func TestNotifyTellsOfARevisionWhoseChecksAreRefused(t *testing.T) {
	exec := spec.Check{Type: spec.Exec, Args: []string{"/bin/true"}}
	unreadable := func(h *host) {
		c := h.src.verifies(tcpAt("mail", "conf:9"))
		h.src.set(func() { c.Digest[0]++ }) // as one who does not know a key of a check computes it
	}
	bubble(t, func(t *testing.T, h *host) {
		n := newNotified(h)
		var reason string
		n.run = func(_ context.Context, env map[string]string) error {
			reason = env["DEPLOY_REASON"]
			return nil
		}
		stop := n.serve()
		for _, s := range []struct {
			name string
			do   func()
			want string
		}{
			{"good", func() { h.src.put("v1", one("1")) }, ""},
			{"may not", func() { h.src.verifies(exec) }, "rolled-back 2"},
			{"tried again", func() { must(h.agent.Retry(t.Context())) }, "rolled-back 2"},
			{"may not either", func() { h.src.verifies(exec, exec) }, "rolled-back 3"},
			{"may", func() { h.src.verifies(tcpAt("mail", "conf:1")) }, "recovered"},
			{"not understood", func() { unreadable(h) }, "rolled-back 5"},
			{"another, not understood either", func() { unreadable(h) }, "rolled-back 6"},
			{"fails in a deployment", func() { h.src.put("v2", with(failHook)) }, "rolled-back 7"},
			{"other layers, refused in a deployment", func() { h.src.put("v3", one("3")); h.src.verifies(exec) }, "rolled-back 9"},
			{"not understood again", func() { unreadable(h) }, "rolled-back 10"},
			{"what is live is back", func() { h.src.put("v1", one("1")) }, "recovered"},
		} {
			s.do()
			pass(3 * time.Hour)
			if got := n.take(); got != s.want {
				t.Errorf("%s: notified %q, want %q\n%s", s.name, got, s.want, h.logged)
			}
			if s.want != "" && s.want != "recovered" && reason == "" {
				t.Errorf("%s: no reason was given", s.name)
			}
		}
		h.src.verifies(exec)
		pass(3 * time.Hour)
		n.want("rolled-back 12")
		stop()
		stop = n.serve()
		pass(3 * time.Hour)
		n.want("")                                                            // the next agent says it no second time
		h.src.set(func() { h.src.now = h.agent.Record().Live.Configuration }) // a backup is restored
		pass(3 * time.Hour)
		n.want("recovered")
		stop()
	})
}

// A document that an older agent cannot read is no fault of the version: it is
// taken up by the agent that can.
func TestARevisionThatCannotBeReadIsNotMarked(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	n := newNotified(h)
	h.src.put("v1", one("1"))
	h.want("v1", nil)
	c := h.src.put("v2", one("2"))
	readable := c.Digest
	c.Digest[0]++
	a := h.new()
	a.notifier.run = n.script
	if err := a.Run(t.Context()); !errors.Is(err, wire.ErrConfiguration) {
		t.Fatalf("Run = %v, want %v", err, wire.ErrConfiguration)
	}
	n.want("rolled-back 2")
	if marks := h.agent.Record().Marks; len(marks) != 0 {
		t.Errorf("marked %v, want nothing", marks)
	}
	c.Digest = readable
	h.want("v2", nil)
	if h.agent.Record().Refused != nil {
		t.Error("it is still on record as refused")
	}
	h.src.verifies(spec.Check{Type: spec.Exec, Args: []string{"/bin/true"}})
	h.want("v2", ErrRolledBack)
	h.src.verifies(tcpAt("mail", "conf:1"))
	h.want("v2", nil)
	if h.agent.Record().Refused != nil {
		t.Error("it is still on record as refused, with checks that may be")
	}
}
