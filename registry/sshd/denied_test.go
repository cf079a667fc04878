package sshd

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"deploytools/registry"
)

// recorded returns what is on record.
func (d *daemon) recorded(t *testing.T) (all []registry.Entry) {
	t.Helper()
	for e, err := range d.o.Registry.Audit(t.Context(), registry.AuditFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// An agent that asks for commands without end is cut, and neither fills the
// record nor keeps others from writing to it.
func TestAnAgentThatAsksForCommandsIsCut(t *testing.T) {
	d := start(t)
	c := d.mustDial(t, AgentUser, d.agent)
	ch, _, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	line := ssh.Marshal(struct{ Line string }{strings.Repeat("\x01", 10_000)})
	for range 10_000 {
		if _, err := ch.SendRequest("exec", false, line); err != nil {
			break
		}
	}
	if l := d.log.wait(t, "connection closed"); l["error"] != "64 requests refused" {
		t.Errorf("log %v, want why", l)
	}
	all := d.recorded(t)
	if len(all) == 0 || len(all) > 60 {
		t.Fatalf("%d entries, want some and not more than 60", len(all))
	}
	for _, e := range all {
		if size := len(strings.Join(e.Command, " ")); size > 4*maxLogged || strings.Contains(e.Command[1], "\x01") {
			t.Errorf("an entry has %d bytes: %.80q", size, e.Command)
		}
	}
}

// What is refused beside commands is on record: a tunnel, and SFTP to a key that
// is for one command.
func TestRefusalsBesideCommandsAreOnRecord(t *testing.T) {
	d := start(t)
	c := d.mustDial(t, "anna", d.operator)
	if _, _, err := c.OpenChannel("direct-tcpip", nil); err == nil {
		t.Error("a tunnel is served")
	}
	for end := time.Now().Add(10 * time.Second); len(d.recorded(t)) == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if all := d.recorded(t); len(all) != 1 || strings.Join(all[0].Command, " ") != "open direct-tcpip" {
		t.Errorf("on record: %+v", all)
	}
}
