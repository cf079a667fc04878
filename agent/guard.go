package agent

import (
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// RescueCommand is the hidden command of the agent's program that ends in
// [Agent.Rescue]: RescueCommand, configuration, deployment, and the agent's own words.
const RescueCommand = "__rescue"

const (
	guardWait = time.Minute            // for an agent, after the end of the hook
	guardTick = 500 * time.Millisecond // how often the guard looks
)

// guard is what the supervisor of a hook does after it, where the agent itself
// runs from the roots that it deploys: an agent started again is the new one,
// and if that cannot work, nobody is there to see it but the old supervisor.
type guard struct {
	Dir  string   // the agent's
	Name string   // of the configuration
	ID   string   // of the deployment
	Link string   // what `current` says as long as nobody went back
	Argv []string // the words of the agent's command line, without its name
}

// guardOf returns the guard of the deployment's hook; nil: it needs none.
func (a *Agent) guardOf(d *Deployment, kind string) *guard {
	if a.o.Hook.Rescue == nil || kind != "deploy" || d.Back == nil {
		return nil
	}
	return &guard{Dir: a.o.Dir, Name: a.o.Name, ID: d.ID, Link: d.New.Dir, Argv: a.o.Hook.Rescue}
}

// stand returns when an agent has gone on with the deployment. After guardWait
// without one it becomes the rescue, by the program that it is itself.
func (g *guard) stand() error {
	for end := time.Now().Add(guardWait); g.deserted(); time.Sleep(guardTick) {
		if time.Now().After(end) {
			return g.rescue()
		}
	}
	return nil
}

// deserted reports whether the machine still stands where the hook has left it.
// Every agent that works takes the result at once and enters another state, or
// moves the link back if it cannot write. One that only keeps away from the
// record, as it is older, does neither. What a newer one has written is not ours.
func (g *guard) deserted() bool {
	a := &Agent{o: Options{Dir: g.Dir}}
	r, err := a.load()
	if err != nil {
		return !errors.Is(err, errNewer)
	}
	return r != nil && r.hooking(g.ID) && a.linkSays("current", g.Link)
}

func (r *Record) hooking(id string) bool { return r.State == Hooking && r.Deployment.ID == id }

// rescue returns only if it cannot begin. Its log goes where the agent's went,
// and the service manager does not hear of it: it is not the service.
func (g *guard) rescue() error {
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(agentLog, fd, 0); err != nil {
			return err
		}
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NOTIFY_SOCKET=") || strings.HasPrefix(v, "WATCHDOG_")
	})
	argv := append([]string{os.Args[0], RescueCommand, g.Name, g.ID}, g.Argv...)
	return os.NewSyscallError("execve", unix.Exec("/proc/self/exe", argv, env))
}

// agentLog is the descriptor by which a supervisor has the agent's standard error.
const agentLog = 3
