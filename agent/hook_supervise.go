package agent

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
)

// Exit statuses of the supervisor. After all others, death included, the agent
// looks at the files. 2 is what a panic exits with.
const (
	superviseDone    = 0 // a result stands, or another supervisor is at work
	superviseRefused = 1 // nothing was started, stderr says why
	superviseUnknown = 2 // the program ran, and its result could not be recorded
)

// hookOrder is what the agent tells the supervisor.
type hookOrder struct {
	Call     hookCall
	Grace    time.Duration
	Patience time.Duration
}

// Supervise is the main of the agent's program under its hidden command
// [SuperviseCommand]: it runs one program of the host to its end or deadline,
// and records the result. It takes no arguments: the order comes by standard
// input. Standard output is the program's; on standard error it tells the agent,
// if that still listens, why it did nothing.
//
// It decides alone, holding the locks of the call, from what is on disk; an agent only
// starts supervisors and reads what they recorded. Hence the argument that a
// program runs at least once and never twice at a time, by where a kill or a
// power cut (and with it the end of the lock) hits:
//
//   - Before the lock: nothing has happened. An agent started meanwhile sees the
//     lock free, and starts a second supervisor; one of the two gets the
//     lock, and the other ends, or finds the result when it gets the lock later.
//   - Before the attempt is durable: nothing was started; the number is used again.
//   - After that, before the start: the number is passed over. A higher number
//     says that an earlier attempt may have run, never that it did.
//   - While the program runs: it has lost its supervisor, not its life. The next
//     supervisor finds it by its session and ends it before the next attempt.
//   - After its end, before the result is durable: as if it had not ended.
//     It is run again; what it left in the background stays, as always.
//   - After that: the result stands until forget or another boot, and every
//     supervisor ends without doing anything.
//
// Where the agent deploys itself, the supervisor stays as its [guard] until an
// agent has gone on, or becomes the rescue.
//
// A power cut ends the program too, and the other boot id says so. The disk may
// refuse the result: then the supervisor tries again, holding the lock, for a
// minute, so that a short shortage costs nothing; the deadline needs no disk.
func Supervise(args []string) int {
	// Signals to the agent's unit or by the name of its program are not for us.
	// Notify, not Ignore: what is caught is default again in the program, and
	// what is ignored, even by an inheritance of the agent, would stay ignored.
	signal.Notify(make(chan os.Signal, 1))
	unix.Umask(0o022)
	status, err := superviseRefused, error(nil)
	var o hookOrder
	if len(args) > 0 {
		err = errors.New("the supervisor takes no arguments")
	} else if err = gob.NewDecoder(os.Stdin).Decode(&o); err != nil {
		err = fmt.Errorf("cannot read the order: %w", err)
	} else if err = keepDescriptors(); err == nil {
		status, err = o.supervise()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return status
}

// keepDescriptors sees to it that the program gets descriptors 0, 1 and 2 only:
// the agent may itself have inherited some that are not close-on-exec.
func keepDescriptors() error {
	open, err := os.ReadDir("/proc/self/fd")
	for _, e := range open {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return err
}

func (o *hookOrder) supervise() (int, error) {
	c := &o.Call
	if err := c.check(); err != nil {
		return superviseRefused, err
	}
	lock, err := atomic.Acquire(c.file("lock"))
	if errors.Is(err, atomic.ErrLocked) {
		return superviseDone, nil
	}
	if err != nil {
		return superviseRefused, err
	}
	defer lock.Release()
	alone, err := c.alone()
	if errors.Is(err, atomic.ErrLocked) {
		return superviseDone, nil
	}
	if err != nil {
		return superviseRefused, err
	}
	defer alone.Close()
	switch _, ok, err := c.result(); {
	case err != nil:
		return superviseRefused, err
	case ok:
		return superviseDone, nil
	}
	a, err := o.begin()
	if err != nil {
		return superviseRefused, err
	}
	r, err := o.attempt(a.Attempt)
	if err != nil {
		return superviseRefused, err
	}
	if err := o.record(hookStatus{Format: hookFormat, Boot: a.Boot, hookResult: r}); err != nil {
		return superviseUnknown, err
	}
	if c.Guard == nil {
		return superviseDone, nil
	}
	alone.Close()
	if err := lock.Release(); err != nil { // or no agent could take the result
		return superviseDone, err
	}
	return superviseDone, c.Guard.stand()
}

// begin ends what an attempt without a supervisor left running, and makes the
// number of the new attempt durable.
func (o *hookOrder) begin() (hookAttempt, error) {
	c := &o.Call
	last, err := c.lastAttempt()
	if err != nil {
		return last, err
	}
	boot, err := bootID()
	if err != nil {
		return last, err
	}
	if last.Boot == boot {
		if err := endLeftover(last, o.Grace); err != nil {
			return last, err
		}
	}
	if err := os.Chdir(c.WorkDir); err != nil {
		return last, err
	}
	a := hookAttempt{Format: hookFormat, Boot: boot, Attempt: last.Attempt + 1,
		Supervisor: os.Getpid(), Started: time.Now().Round(0)}
	if err := writeDocument(c.file("attempt.json"), a); err != nil {
		return a, err
	}
	if a.Attempt > 1 { // the last line of the attempt before may be half a line
		fmt.Printf("\n[attempt %d]\n", a.Attempt)
	}
	return a, nil
}

// attempt runs the program to its end or deadline. The error says that it was
// not started for a reason that has nothing to do with it.
func (o *hookOrder) attempt(n int) (hookResult, error) {
	c := &o.Call
	r := hookResult{Path: c.Path, Exit: -1, Timeout: c.Timeout, Attempt: n, Started: time.Now().Round(0)}
	p, err := startProgram(c, n)
	if err != nil {
		r.Unbegun = true
		r.Failure, err = startFailure(c.Path, err)
		r.Failure = c.User.blame(r.Failure)
	} else {
		o.watch(p, &r)
	}
	r.Ended = time.Now().Round(0)
	return r, err
}

// watch waits for the end of the program, which it enforces at the deadline.
func (o *hookOrder) watch(p *os.Process, r *hookResult) {
	exited := make(chan struct{})
	go func() { awaitExit(p.Pid); close(exited) }() // ends with the program
	// What the program left in the background stays: hooks start services.
	// Also after a failure: we cannot tell a stray helper from the service
	// that serves now, and the run that rolls back, which can, comes next.
	r.TimedOut = o.overdue(exited)
	if r.TimedOut && !endGroup(p.Pid, o.Grace) {
		// Waiting for a process that is stuck in the kernel has no deadline.
		r.Failure = fmt.Sprintf("not done after %v, and process group %d cannot be ended", r.Timeout, p.Pid)
		return
	}
	state, err := p.Wait()
	if err != nil {
		r.Failure = fmt.Sprintf("its end was not seen: %v", err)
		return
	}
	r.Exit = state.ExitCode()
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		r.Signal = unix.SignalName(ws.Signal())
	}
}

// overdue waits for the program or its deadline, and reports whether that came
// first. All the while it bounds what the output takes of the disk.
func (o *hookOrder) overdue(exited <-chan struct{}) bool {
	deadline := time.NewTimer(o.Call.Timeout) // monotonic: a set clock does not move it
	defer deadline.Stop()
	tick := time.NewTicker(hookTick)
	defer tick.Stop()
	defer freeMiddle(os.Stdout)
	for {
		select {
		case <-exited:
			return false
		case <-deadline.C:
			return true
		case <-tick.C:
			freeMiddle(os.Stdout)
		}
	}
}

// record writes the result, again and again while the disk refuses it.
func (o *hookOrder) record(s hookStatus) error {
	end := time.Now().Add(o.Patience)
	for wait := hookTick; ; wait = min(2*wait, 5*time.Second) {
		err := writeDocument(o.Call.file("status.json"), s)
		if errors.Is(err, fs.ErrNotExist) { // somebody has tidied up
			err = errors.Join(atomic.MkdirAll(o.Call.Dir, 0o711), writeDocument(o.Call.file("status.json"), s))
		}
		if err == nil || time.Now().Add(wait).After(end) {
			return err
		}
		time.Sleep(wait)
	}
}

// environment is the program's: all of the call, and the number of the attempt.
func (c *hookCall) environment(attempt int) []string {
	env := slices.DeleteFunc(slices.Clone(c.Env), func(s string) bool { return strings.HasPrefix(s, "DEPLOY_ATTEMPT=") })
	return append(env, attemptVariable(attempt))
}

func attemptVariable(n int) string { return "DEPLOY_ATTEMPT=" + strconv.Itoa(n) }
