package cmd_test

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"deploytools/registry/wire"
)

// A trial is one column of the matrix: each begins with a place where a good
// version serves, but for the first, and leaves one. run returns the verdict,
// and fails where it is not what it has to be.
type trial struct {
	name, about string
	run         func(t *testing.T, p *place) string
}

// Trials that recipes name.
const (
	validateFails = "validate fails"
	reloadFails   = "reload fails"
	wrong         = "wrong certificate"
	edited        = "edited by hand"
)

var trials = []trial{
	{"good", "A first version starts the server, and a second one is taken over.", tryGood},
	{"nothing new", "The agent looks again: no hook is run.", tryNothingNew},
	{validateFails, "The server's own check refuses the version. It is never asked to load it.", tryValidateFails},
	{reloadFails, "The server passes the check, but cannot load the version.", tryReloadFails},
	{"reload fails twice", "Neither the new version nor the old one can be loaded: a person is needed. When the reload works again, the agent ends it.", tryReloadFailsTwice},
	{wrong, "All goes well, but what is served is not the root's certificate.", tryWrong},
	{"slow reload", "The command for the reload returns long before the server has done it.", trySlow},
	{"not running", "The server has crashed before the deployment.", tryNotRunning},
	{edited, "Somebody has put something else where the server reads, and reloaded it. A repair puts it right.", tryEdited},
	{"20 switches", "Requests that failed while two versions took turns, on new connections, kept ones, and ones that read slowly.", trySwitches},
}

func tryGood(t *testing.T, p *place) string {
	for _, name := range []string{"v1", "v2", "other"} {
		p.publish(t, name, nil)
	}
	p.deployed(t, "v1")
	p.deployed(t, "v2")
	if calls := p.text("calls"); calls != "check deploy v1\ndeploy deploy v1\ncheck deploy v2\ndeploy deploy v2\n" {
		t.Errorf("hooks run: %q", calls)
	}
	return "deployed"
}

func tryNothingNew(t *testing.T, p *place) string {
	before := p.text("calls")
	if ended, log := p.agent(t); ended != wire.OK || p.text("calls") != before {
		t.Fatalf("the agent ends with %d, and hooks were run: %q\n%s", ended, strings.TrimPrefix(p.text("calls"), before), log)
	}
	return "no hook run"
}

func tryValidateFails(t *testing.T, p *place) string {
	p.publish(t, "invalid", p.spoil(t, validateFails))
	before := p.text("calls")
	ended, log := p.deploy(t, "invalid")
	if ended != wire.RolledBack || !strings.Contains(log, p.refused) {
		t.Fatalf("the agent ends with %d, want %d and %q\n%s", ended, wire.RolledBack, p.refused, log)
	}
	if calls := strings.TrimPrefix(p.text("calls"), before); calls != "check deploy invalid\n" {
		t.Errorf("hooks run: %q", calls)
	}
	p.stillServes(t, log)
	return "refused before the switch"
}

func tryReloadFails(t *testing.T, p *place) string {
	spoiled := p.spoiled[reloadFails]
	if spoiled == nil { // all that it can load it can load
		spoiled = files{"refuse": "yes"}
	}
	p.publish(t, "unloadable", spoiled)
	return p.rolledBack(t, "unloadable", "from_state=Hooking")
}

func tryReloadFailsTwice(t *testing.T, p *place) string {
	if err := os.WriteFile(p.file("refuse"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ended, log := p.deploy(t, p.next())
	if ended != wire.Broken || !strings.Contains(log, "the reload is refused") {
		t.Fatalf("the agent ends with %d, want %d\n%s", ended, wire.Broken, log)
	}
	p.stillServes(t, log)
	if err := os.Remove(p.file("refuse")); err != nil {
		t.Fatal(err)
	}
	ended, log = p.agent(t)
	p.stillServes(t, log)
	p.current(t, p.live)
	if ended != wire.OK && ended != wire.RolledBack {
		t.Errorf("mended: the agent ends with %d\n%s", ended, log)
	}
	return "broken; then the old one, by itself"
}

func tryWrong(t *testing.T, p *place) string {
	p.publish(t, "wrong", p.spoil(t, wrong))
	return p.rolledBack(t, "wrong", "from_state=Verifying")
}

func trySlow(t *testing.T, p *place) string {
	p.publish(t, "slow", files{"slow": "yes"})
	p.deployed(t, "slow")
	return "deployed"
}

func tryNotRunning(t *testing.T, p *place) string {
	p.kill(t)
	p.deployed(t, "v2")
	return "started, deployed"
}

func tryEdited(t *testing.T, p *place) string {
	do(t, "cp", "-r", p.file("versions/other")+"/.", p.file(cmp.Or(p.edits, "agent/current"))+"/")
	cmd := exec.Command(p.file("reload"))
	cmd.Env = append(p.s.env(), "NEWROOT="+p.file("agent/current"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("reload: %v: %s", err, out)
	}
	err := poll(func() (bool, error) {
		got, err := p.serves()
		return got == "other", err
	})
	if err != nil {
		t.Fatalf("what somebody has put there does not serve: %v", err)
	}
	ended, log := p.agent(t, "-repair")
	if ended != wire.OK {
		t.Fatalf("the agent ends with %d\n%s", ended, log)
	}
	p.stillServes(t, log)
	return "repaired"
}

func trySwitches(t *testing.T, p *place) string {
	switches := 20
	if os.Getenv("CI") != "" { // which has little time, and writes no matrix
		switches = 5
	}
	l := p.startLoad()
	for range switches {
		if name := p.next(); !p.deployed(t, name) {
			break
		}
	}
	l.end()
	t.Log(l)
	if l.dropped.Load() > l.asked.Load()*int64(p.drops)/1000 {
		t.Errorf("requests failed: %v", l.failures())
	}
	return l.String()
}

// next returns a good version that does not serve now.
func (p *place) next() string {
	if p.live == "v1" {
		return "v2"
	}
	return "v1"
}

// spoil returns what the version of a trial has otherwise.
func (p *place) spoil(t *testing.T, trial string) files {
	t.Helper()
	spoiled := p.spoiled[trial]
	if spoiled == nil {
		t.Fatalf("the recipe of %s has no version for the trial %q", p.name, trial)
	}
	return spoiled
}

// deployed: a good version is deployed, verified, and serves.
func (p *place) deployed(t *testing.T, version string) bool {
	t.Helper()
	ended, log := p.deploy(t, version)
	got, err := p.serves()
	if ended != wire.OK || got != version || err != nil {
		t.Errorf("the agent ends with %d and %q serves, %v; want 0 and %q\n%s", ended, got, err, version, log)
		return false
	}
	p.live = version
	p.current(t, version)
	return true
}

// rolledBack: a version is taken back from a state, and what served before
// serves again, and was verified again.
func (p *place) rolledBack(t *testing.T, version, from string) string {
	t.Helper()
	ended, log := p.deploy(t, version, "-verify-total", "2s")
	if ended != wire.RolledBack || !strings.Contains(log, "state=Restoring "+from) {
		t.Errorf("the agent ends with %d, want %d after a rollback with %q\n%s", ended, wire.RolledBack, from, log)
	}
	if !strings.Contains(log, "state=Discarding from_state=Reverifying") {
		t.Errorf("the version from before was not verified again\n%s", log)
	}
	p.stillServes(t, log)
	return "rolled back, verified again"
}

// stillServes: the version from before serves.
func (p *place) stillServes(t *testing.T, log string) {
	t.Helper()
	if got, err := p.serves(); got != p.live || err != nil {
		t.Errorf("%q serves, %v; want %q\n%s", got, err, p.live, log)
	}
}

// current: the link names this version.
func (p *place) current(t *testing.T, version string) {
	t.Helper()
	if got := p.text("agent/current/version"); got != version {
		t.Errorf("current is %q, want %q", got, version)
	}
}

// String is the cell of the matrix.
func (l *load) String() string {
	s := fmt.Sprintf("%d of %d requests dropped", l.dropped.Load(), l.asked.Load())
	if n := l.again.Load(); n > 0 {
		s += fmt.Sprintf(", %d asked again on a new connection", n)
	}
	return s
}
