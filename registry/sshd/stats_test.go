package sshd

import (
	"encoding/json"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/pkg/sftp"

	"deploytools/registry"
	"deploytools/registry/console"
)

// What the commands that look at the daemon show of a real one.
func TestSessionsShowsWhoDoesWhat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		p := d.serveInMemory()
		agent := d.member(t, p.connect("192.0.2.1:1"), AgentUser, d.agent)
		if _, err := sftp.NewClient(agent); err != nil {
			t.Fatal(err)
		}
		admin := d.member(t, p.connect("192.0.2.2:2"), "anna", d.operator)
		out, err := session1(t, admin).Output("sessions -json")
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Sessions []struct {
				ID                          uint64
				Role, User, Comment, Remote string
				Received                    int64 `json:"received_bytes"`
				Sent                        int64 `json:"sent_bytes"`
				Doing                       []string
			}
		}
		if err := json.Unmarshal(out, &got); err != nil || len(got.Sessions) != 2 {
			t.Fatalf("sessions: %s, %v", out, err)
		}
		a, o := got.Sessions[0], got.Sessions[1]
		if a.Role != "agent" || a.Comment != "host1" || a.Remote != "192.0.2.1:1" || strings.Join(a.Doing, ";") != "sftp" || a.Received < 1000 || a.Sent < 1000 {
			t.Errorf("the agent: %+v", a)
		}
		if o.Role != "admin" || o.User != "anna" || strings.Join(o.Doing, ";") != "sessions -json" || o.ID == a.ID {
			t.Errorf("the operator: %+v", o)
		}
		if err := session1(t, admin).Run("disconnect " + strconv.FormatUint(a.ID, 10)); err != nil {
			t.Errorf("disconnect: %v", err)
		}
		synctest.Wait()
		if err := agent.Wait(); err == nil {
			t.Error("the agent ended its connection in peace")
		}
		if l := d.log.lines(t, "connection closed"); len(l) != 1 || l[0]["error"] != "disconnected by anna" {
			t.Errorf("log %v, want why and by whom", l)
		}
		session1(t, admin).Run("nonsense \x1b[2J")
		session1(t, admin).Run("components")
		s := d.Stats()
		counts := ""
		for _, c := range s.Commands {
			counts += c.Name + " " + c.Status.String() + ": " + strconv.FormatInt(c.Calls, 10) + "; "
		}
		if want := "components 0: 1; disconnect 0: 1; sessions 0: 1; sftp 0: 1; unknown 2: 1; "; counts != want {
			t.Errorf("counted %q, want %q", counts, want)
		}
		if s.Accepted != 2 || s.Agents != 0 || s.Operators != 1 || s.Waiting != 0 || s.Received < 2000 || s.Sent < 2000 || s.Files != 0 {
			t.Errorf("Stats() = %+v", s)
		}
		admin.Close()
		d.end(t)
	})
}

func TestDisconnectFindsOnlyWhoIsThere(t *testing.T) {
	if newDaemon(t).Disconnect(1, registry.Caller{}) {
		t.Error("nobody is there, and was disconnected")
	}
}

// The console is told what runs in it; what ended is not listed any more.
func TestWorkIsListedInItsOrder(t *testing.T) {
	var w work
	a, b := w.begin("a"), w.begin("b")
	if got := strings.Join(w.list(), ","); got != "a,b" {
		t.Errorf("list = %s", got)
	}
	a()
	c := w.begin("c")
	if got := strings.Join(w.list(), ","); got != "b,c" {
		t.Errorf("list = %s", got)
	}
	b()
	c()
	if len(w.list()) != 0 {
		t.Errorf("list = %v", w.list())
	}
}

// FAULTS: 3,000 handles took 309 MiB. Here the connection has its share, over
// all its sessions, and what is closed, or was never opened, does not count.
func TestOpenFilesPerConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t, func(o *Options) { o.Limits.Files = 5 })
		p := d.serveInMemory()
		admin := d.member(t, p.connect("192.0.2.2:2"), "anna", d.operator)
		var trees []*sftp.Client
		for range 2 {
			c, err := sftp.NewClient(admin)
			if err != nil {
				t.Fatal(err)
			}
			trees = append(trees, c)
		}
		for range 10 {
			if _, err := trees[0].Open("/files/" + strings.Repeat("0", 64)); err == nil {
				t.Fatal("what is not there was opened")
			}
		}
		var open []*sftp.File
		for i := range 5 {
			f, err := trees[i%2].OpenFile("/up"+strconv.Itoa(i), os.O_RDWR|os.O_CREATE)
			if err != nil {
				t.Fatalf("file %d: %v", i+1, err)
			}
			open = append(open, f)
		}
		if _, err := trees[1].Create("/more"); err == nil || !strings.Contains(err.Error(), "5 files are open") {
			t.Errorf("the sixth file: %v", err)
		}
		if n := d.Stats().Files; n != 5 {
			t.Errorf("%d files are open, want 5", n)
		}
		io.WriteString(open[0], "content")
		if err := open[0].Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
		if _, err := trees[1].Create("/more"); err != nil {
			t.Errorf("after one was closed: %v", err)
		}
		admin.Close()
		synctest.Wait()
		if n := d.Stats().Files; n != 0 {
			t.Errorf("%d files are open after the connection has ended", n)
		}
		d.end(t)
	})
}

// Many connections together have a share of the descriptors, no more.
func TestOpenFilesOfAllTogether(t *testing.T) {
	total := &quota{limit: 3}
	one, other := &quota{limit: 2}, &quota{limit: 2}
	var back []func()
	take := func(q *quota) error {
		f, err := counted{quotas: []*quota{q, total}}.take()
		if err == nil {
			back = append(back, f)
		}
		return err
	}
	for i, q := range []*quota{one, one, other} {
		if err := take(q); err != nil {
			t.Errorf("file %d: %v", i+1, err)
		}
	}
	if err := take(other); err == nil || other.n.Load() != 1 {
		t.Errorf("the fourth: %v, and %d count for its connection", err, other.n.Load())
	}
	for _, f := range back {
		f()
		f()
	}
	if total.n.Load() != 0 || one.n.Load() != 0 || other.n.Load() != 0 {
		t.Errorf("after all were closed twice %d, %d, %d are left", total.n.Load(), one.n.Load(), other.n.Load())
	}
}

var _ console.Daemon = (*Server)(nil)
