package agent

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
)

// SuperviseCommand is the hidden command of the agent's program that ends in
// [Supervise].
const SuperviseCommand = "__supervise"

const (
	hookGrace    = 10 * time.Second       // between TERM and KILL
	hookPatience = time.Minute            // how long a supervisor tries to record a result
	hookTick     = 100 * time.Millisecond // how often the agent looks at the output and the lock
	hookRuns     = 3                      // supervisors that one call of run may lose
)

// hookCall is one run of one of the host's programs.
type hookCall struct {
	Dir     string        // the deployment's directory, absolute; lock, output and result go there
	Label   string        // check, deploy, rollback, remove: names the files, "deploy.lock"
	Path    string        // the program; it gets no arguments; without a slash it is looked up in PATH
	Env     []string      // its whole environment; DEPLOY_ATTEMPT is put in by run
	WorkDir string        // its working directory: the agent's own
	Timeout time.Duration // for each attempt: TERM to its process group then, KILL after 10 s more
	Alone   string        // directory whose lock makes it the only program that runs, put in by run; empty: it need not be
	User    *User         // whom it runs as, put in by run; nil: the agent's own
	Guard   *guard        // what the supervisor does after its end; nil: nothing
	began   func()        // is called when a supervisor has been started; nil: nothing
}

func (c *hookCall) file(kind string) string { return filepath.Join(c.Dir, c.Label+"."+kind) }

func (c *hookCall) check() error {
	if !filepath.IsAbs(c.Dir) || c.Label == "" || c.Path == "" || c.Timeout <= 0 {
		return fmt.Errorf("internal error: hook call %q %q in %q with deadline %v", c.Label, c.Path, c.Dir, c.Timeout)
	}
	return nil
}

// hookResult is how an attempt ended.
type hookResult struct {
	Path     string        // of the call
	Exit     int           // exit status; -1 if there is none
	Signal   string        `json:",omitempty"` // that ended the program, "SIGKILL"
	TimedOut bool          // the deadline passed; no process of the group is left, whatever Exit says
	Timeout  time.Duration // that deadline
	Failure  string        `json:",omitempty"` // why the program could not be started, or not be ended
	Unbegun  bool          `json:",omitempty"` // the program could not be started, in this attempt
	Attempt  int           // from 1
	Started  time.Time
	Ended    time.Time
}

// callFailure is in each message about a program that was run: upstream's words.
const callFailure = "call failure"

// Err returns nil if the program exited with status 0 before its deadline, and
// otherwise what a person should read. It is a definite failure.
func (r hookResult) Err() error {
	const failed = "%q " + callFailure + ": %s"
	switch {
	case r.Failure != "":
		return fmt.Errorf(failed, r.Path, r.Failure)
	case r.TimedOut:
		return fmt.Errorf(failed, r.Path, fmt.Sprintf("not done after %v", r.Timeout))
	case r.Signal != "":
		return fmt.Errorf(failed, r.Path, "signal: "+unix.SignalNum(r.Signal).String())
	case r.Exit != 0:
		return fmt.Errorf(failed, r.Path, fmt.Sprintf("exit status %d", r.Exit))
	}
	return nil
}

// purposes say what a program of a kind was run for: one script deploys, and is run
// again on the way back.
var purposes = map[string]string{
	"check":    "check script",
	"deploy":   "hook of the deployment",
	"rollback": "hook of the way back",
	"remove":   "remove script of the way back",
}

// as is Err, and says what the program was run for.
func (r hookResult) as(kind string) error {
	if err := r.Err(); err != nil {
		return fmt.Errorf("%s: %w", purposes[kind], err)
	}
	return nil
}

// hookRunner runs the host's programs, each under a supervisor that outlives
// the agent: see [Supervise]. The zero value is ready. It keeps no state, so
// that it does not matter which agent process began a run.
type hookRunner struct {
	log      *slog.Logger  // nil: nothing is logged
	argv     []string      // the supervisor; nil: our own program with SuperviseCommand
	user     *User         // whom programs run as; nil: ours
	alone    string        // see hookCall.Alone
	grace    time.Duration // 0: hookGrace
	patience time.Duration // 0: hookPatience
}

// run returns the result of the call c: of a run that has ended since forget,
// or of one that is under way, or else of a new one. It starts the program again, with a
// higher DEPLOY_ATTEMPT, where an attempt was begun whose result nobody knows
// (its supervisor was killed, the power failed) and where the result is of
// another boot: what a success had started is gone, and a failure may have been
// the shutdown's work. So a program runs at least once, and never twice at a time.
//
// An error says that there is no result: ctx is done (then it wraps the cause,
// the program goes on, and the next run finds it), or the machine did not let
// us run anything (no space, no processes, files of a newer format).
//
// onLine gets each line of the output file, from its beginning, without the
// newline, raw, and cut after 8 KiB; nil is allowed. It is called by the
// goroutine of run only. A run that is taken over gives all its lines once more.
func (h *hookRunner) run(ctx context.Context, c hookCall, onLine func(string)) (hookResult, error) {
	if err := c.check(); err != nil {
		return hookResult{}, err
	}
	c.User, c.Alone = h.user, h.alone
	t := &tail{path: c.file("output"), onLine: onLine, most: hookLogged}
	defer t.close()
	for lost := 0; ; lost++ {
		if err := h.awaitFree(ctx, &c, t); err != nil {
			return hookResult{}, err
		}
		switch r, ok, err := c.result(); {
		case err != nil:
			return hookResult{}, err
		case ok:
			t.finish(ctx)
			if t.err != nil {
				h.logger().Warn("hook output unreadable", "command", c.Label, "error", t.err)
			}
			return r, nil
		case lost == hookRuns:
			return hookResult{}, fmt.Errorf("%q: %d supervisors ended without a result", c.Path, lost)
		case lost > 0:
			h.logger().Warn("hook supervisor lost", "command", c.Label, "attempt", lost)
		}
		if err := h.supervised(ctx, &c, t); err != nil {
			return hookResult{}, err
		}
	}
}

// awaitFree returns nil when no supervisor is at work, of whichever agent.
func (h *hookRunner) awaitFree(ctx context.Context, c *hookCall, t *tail) error {
	tick := time.NewTicker(hookTick)
	defer tick.Stop()
	for said := false; ; said = true {
		if ctx.Err() != nil {
			return fmt.Errorf("%q: %w", c.Path, context.Cause(ctx))
		}
		lock, err := atomic.Acquire(c.file("lock"))
		if err == nil {
			err = errors.Join(lock.Release(), c.idle())
		}
		if !errors.Is(err, atomic.ErrLocked) {
			return err
		}
		if !said {
			h.logger().Info("hook taken over", "command", c.Label)
		}
		t.poll(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// quiet returns nil when no program runs any more of those with files in dir: the
// agent may have been killed while one did, and its supervisor goes on.
func (h *hookRunner) quiet(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if label, ok := strings.CutSuffix(e.Name(), ".lock"); ok && err == nil {
			err = h.awaitFree(ctx, &hookCall{Dir: dir, Label: label, Path: label}, new(tail))
		}
	}
	return err
}

// supervised starts a supervisor and waits for its end. What it did is in the
// files; the error says that it could not do anything, or that ctx is done.
func (h *hookRunner) supervised(ctx context.Context, c *hookCall, t *tail) error {
	var said head
	cmd, err := h.start(c, &said)
	if err != nil {
		return fmt.Errorf("cannot start the supervisor of %q: %w", c.Path, err)
	}
	if c.began != nil {
		c.began()
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }() // ends with the supervisor, which may be after run
	tick := time.NewTicker(hookTick)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == superviseRefused {
				return fmt.Errorf("cannot run %q: %s", c.Path, bytes.TrimSpace(said.b))
			}
			if err != nil {
				h.logger().Warn("hook supervisor ended", "command", c.Label, "error", fmt.Sprintf("%v: %s", err, said.b))
			}
			return nil
		case <-tick.C:
			t.poll(ctx)
			if _, ok, _ := c.result(); ok && c.Guard != nil {
				return nil // the guard stands until we go on
			}
		case <-ctx.Done():
			return fmt.Errorf("%q: %w", c.Path, context.Cause(ctx))
		}
	}
}

// start re-executes our program in a session of its own: neither the end of the
// agent nor a signal to its group or terminal reaches the supervisor. The order goes through
// a pipe, which keeps the environment off the disk; gob, since JSON would alter
// what is not UTF-8. A supervisor that reads half an order does nothing; when start
// returns it has the whole, and needs us no longer.
func (h *hookRunner) start(c *hookCall, said *head) (*exec.Cmd, error) {
	o := hookOrder{Call: *c, Grace: h.grace, Patience: h.patience}
	if o.Grace == 0 {
		o.Grace = hookGrace
	}
	if o.Patience == 0 {
		o.Patience = hookPatience
	}
	var order bytes.Buffer
	if err := gob.NewEncoder(&order).Encode(o); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(c.file("output"), os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	// Not os.Executable: after an upgrade that names another program, or none.
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{os.Args[0], SuperviseCommand}}
	if h.argv != nil {
		cmd = &exec.Cmd{Path: h.argv[0], Args: h.argv}
	}
	stdin, orders, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer orders.Close()
	defer stdin.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, out, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if c.Guard != nil {
		cmd.ExtraFiles = []*os.File{agentLog - 3: os.Stderr}
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// One that has ended, or does not read, tells more by its own end.
	orders.SetWriteDeadline(time.Now().Add(hookGrace))
	orders.Write(order.Bytes())
	return cmd, nil
}

// forget makes the next run start anew, with attempt 1. A second forget does
// nothing. While a supervisor is at work, the error wraps [atomic.ErrLocked]
// and nothing is changed.
func (h *hookRunner) forget(dir, label string) error {
	c := hookCall{Dir: dir, Label: label}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	lock, err := atomic.Acquire(c.file("lock"))
	if err != nil {
		return err
	}
	defer lock.Release()
	// The result first: whatever a crash leaves, the next run is a run. The
	// lock file stays, as atomic.Lock demands.
	for _, kind := range []string{"status.json", "attempt.json", "output"} {
		if err := atomic.Remove(c.file(kind)); err != nil {
			return err
		}
	}
	return nil
}

func (h *hookRunner) logger() *slog.Logger {
	if h.log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return h.log
}

// head keeps the first 4 KiB of what is written to it.
type head struct{ b []byte }

func (h *head) Write(p []byte) (int, error) {
	h.b = append(h.b, p[:min(len(p), 4096-len(h.b))]...)
	return len(p), nil
}
