package agent

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
)

// RescueCommand is the hidden command of the agent's program that ends in
// [Agent.Rescue]: RescueCommand, configuration, deployment, and the agent's own words.
const RescueCommand = "__rescue"

// GuardCommand is the hidden command that ends in [Stand].
const GuardCommand = "__guard"

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

// Guard starts a guard of the deployment under way in dir, of the configuration
// name, if our own program lies in the root to go back to: the service manager has it
// called when the agent has ended, since whoever stood guard may have ended with
// it. words are those of the agent's command line. The guard is a process of its own,
// which inherits our standard error; where one stands already, it ends at once. Where
// there is nothing to guard, Guard does nothing.
func Guard(dir, name string, words []string) error {
	a := &Agent{o: Options{Dir: dir, Name: name, Hook: Hook{Rescue: words}}}
	r, err := a.load()
	if err != nil && !errors.Is(err, errNewer) {
		return err
	}
	if r == nil || r.Name != name || r.Deployment == nil {
		return nil
	}
	g := a.guardOf(r.Deployment, "deploy")
	if g == nil || !g.deserted() {
		return nil
	}
	order, err := json.Marshal(g)
	if err != nil {
		return err
	}
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{os.Args[0], GuardCommand, string(order)}, Stderr: os.Stderr,
		ExtraFiles: []*os.File{agentLog - 3: os.Stderr}, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	return cmd.Start()
}

// Stand is the main of the agent's program under its hidden command [GuardCommand],
// whose one argument is what [Guard] has written.
func Stand(args []string) error {
	// As for a supervisor: signals to the agent's unit are not for us.
	signal.Notify(make(chan os.Signal, 1))
	if len(args) != 1 {
		return errors.New("a guard takes one argument")
	}
	g := new(guard)
	if err := json.Unmarshal([]byte(args[0]), g); err != nil {
		return err
	}
	return g.stand()
}

// stand returns when an agent has gone on with the deployment, or if another guard
// stands. After guardWait without an agent it becomes the rescue, by the program
// that it is itself. A hook that runs has its time: it may be what starts the agent.
func (g *guard) stand() error {
	only, err := lockShared(filepath.Join(g.Dir, g.Link), unix.LOCK_EX)
	if errors.Is(err, atomic.ErrLocked) {
		return nil
	}
	if err == nil { // else two guards are better than none
		defer only.Close()
	}
	if g.outlasted() {
		return nil
	}
	return g.rescue()
}

// outlasted waits for an agent to go on, and reports whether one has.
func (g *guard) outlasted() bool {
	for end := time.Now().Add(guardWait); g.deserted(); time.Sleep(guardTick) {
		if g.hookRuns() {
			end = time.Now().Add(guardWait)
		} else if time.Now().After(end) {
			return false
		}
	}
	return true
}

func (g *guard) hookRuns() bool {
	c := hookCall{Alone: filepath.Join(g.Dir, "roots")}
	return errors.Is(c.idle(), atomic.ErrLocked)
}

// deserted reports whether the machine still stands where the hook has left it,
// or whoever was killed before the hook, or on the way back before the link moved.
// Every agent that works takes the result at once and enters another state, or
// moves the link back if it cannot write. One that only keeps away from the
// record, as it is older, does neither. What a newer one has written is not ours.
func (g *guard) deserted() bool {
	a := &Agent{o: Options{Dir: g.Dir}}
	r, err := a.load()
	if err != nil {
		return !errors.Is(err, errNewer)
	}
	return r != nil && r.astride(g.ID) && a.linkSays("current", g.Link)
}

// astride: as far as the record says, no agent of NEWROOT has gone on with the
// deployment. The link may name NEWROOT already, or still.
func (r *Record) astride(id string) bool {
	return slices.Contains([]State{Switching, Hooking, Restoring}, r.State) && r.Deployment.ID == id
}

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
