package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
	"deploytools/verify"
	"deploytools/verify/spec"
)

// How a Run in Mode.Once ended, and why one cannot work.
var (
	// ErrRolledBack: the configuration failed, in this Run or before, and what was
	// there serves again.
	ErrRolledBack = errors.New("rolled back")
	// ErrBroken: neither root serves, or did when the rollback failed as well.
	ErrBroken = errors.New("broken: neither the new nor the old version works")
	// ErrHeld: a hold keeps the registry's configuration from this host.
	ErrHeld = errors.New("held")
	// ErrRegistryHolds: a hold at the registry does.
	ErrRegistryHolds = errors.New("held by the registry")
	// ErrNotNow: the check script asks for patience.
	ErrNotNow = errors.New("not now")
	// ErrCrossed: somebody writes to published files whenever they are to be switched.
	ErrCrossed = errors.New("a published file is written by somebody else at each deployment")
	// ErrForeign: the directory is another configuration's.
	ErrForeign = errors.New("belongs to configuration")
	// ErrUnderWay: a deployment is under way.
	ErrUnderWay = errors.New("a deployment is under way")
	// ErrNoRoot: no such committed root is kept.
	ErrNoRoot = errors.New("no committed root of this name or revision is kept")
	// ErrLive: the record has it as the live root already.
	ErrLive = errors.New("it is live")
)

// Agent keeps one configuration on one host. Make it with New.
type Agent struct {
	o       Options
	workDir string
	hooks   programs
	look    looks
	users   func(ctx context.Context, roots string, ids []string) (map[string]string, error)
	crash   func(point string) // tests end the process here, with a panic
	locked  fs.FileInfo        // of the directory that is ours
	pulse   pulse
	reports *reports
	began   func() // a supervisor has been started; nil: nobody wants to know

	// The machine's own, used by Run's goroutine only.
	rec       *Record // working copy: durable after enter or save
	begun     bool    // enter has counted the try that comes next
	retrying  bool    // the step comes again: it was not done, or the process ended in it
	result    error   // of the deployments of this Run
	waits     *backoff
	refetched string            // deployment that has met a damaged layer in the cache
	away      time.Time         // since when the registry cannot be asked; zero: it can be
	said      map[string]string // last text said, by subject
	held      string            // the registry's hold in words, as of the last poll; "": none
	collect   collector
	ahead     *ahead // nil: nothing is being unpacked
	arrival   arrival
	staged    string    // what the check script can look at: see Publish
	notifier  *notifier // nil: nobody is to be notified
	glanced   time.Time // when the live root was last looked at, or this process began to
	hasLooked bool      // it is the former
	doubted   bool      // nobody knows whether the live root serves: it is looked at once
	patrol    patrol
	crossed   crossed
	had       disk   // when something was last thought to fit
	filled    filled // the disk, because it did not

	obeys    bool      // a person does something
	asked    bool      // a person wants what is new now, whatever the window says
	shutTo   string    // what waits for the window, as of the last poll; "": nothing
	dry      bool      // a person asks for a dry run at the next poll
	waiters  []*waiter // of people who want to know how it ends
	commands chan func()
	hurry    chan struct{} // a person did something: who polls beside a step polls now
	uptime   func() time.Duration
	alone    bool // commands act at once: no Run does, and nobody else has the directory

	mu      sync.Mutex // guards what follows
	saved   *Record    // the last that was entered or saved; never changed
	present present
	behind  []chan struct{} // of those who want to see what an act leads to
}

// programs runs the host's programs: a hookRunner.
type programs interface {
	run(ctx context.Context, c hookCall, onLine func(string)) (hookResult, error)
	quiet(ctx context.Context, dir string) error
	end(ctx context.Context, dir, label string) error
	forget(dir, label string) error
	startable(path string) error
	readable(dir string) error
}

// looks are the ways to look from outside: those of package verify.
type looks struct {
	once, soak func(context.Context, spec.Spec, verify.Vars) verify.Report
	run        func(_ context.Context, _ spec.Spec, _ verify.Vars, missed func([]verify.Finding)) verify.Report
}

func newAgent(o Options, workDir string) *Agent {
	o.Observe.Log = o.Observe.Log.With("configuration", o.Name)
	a := &Agent{
		o: o, workDir: workDir,
		hooks:    &hookRunner{log: o.Observe.Log, argv: o.Hook.Supervisor, user: o.Hook.User, alone: filepath.Join(o.Dir, "roots")},
		look:     looks{once: verify.Once, run: verify.RunTelling, soak: verify.Soak},
		users:    usersOf,
		crash:    func(string) {},
		waits:    newBackoff(o.Poll, o.Name),
		pulse:    pulse{since: time.Now()},
		glanced:  time.Now(),
		said:     map[string]string{},
		commands: make(chan func()),
		hurry:    make(chan struct{}),
		uptime:   uptime,
	}
	if o.Hook.NotifyScript != "" {
		a.notifier = newNotifier(a)
	}
	a.reports = newReports(a)
	return a
}

// Run works until ctx is done and returns its cause; with Mode.Once until there
// is nothing left to do. It ends no hook that runs: the next Run goes on with
// it. Two agents on one directory: the second one's error wraps atomic.ErrLocked
// and names the process of the first. Run may be called once.
func (a *Agent) Run(ctx context.Context) error {
	a.pulse.within(lockPatience)
	defer a.pulse.rest()
	if err := atomic.MkdirAll(a.o.Dir, 0o755); err != nil {
		return err
	}
	release, err := a.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	if a.o.Observe.Locked != nil {
		defer a.o.Observe.Locked(a)()
	}
	a.show(func(p *present) { p.started = now() })
	defer a.collect.stop()
	defer a.patrol.stop()
	defer a.dropAhead()
	defer a.o.Source.Close()
	a.notifier.start(ctx)
	defer a.notifier.finish()
	if err := a.start(ctx); err != nil {
		return a.refuse(ctx, err)
	}
	a.logStart()
	if !a.o.Mode.Once {
		defer a.reports.start(ctx)()
	}
	if a.o.Mode.Retry {
		if err := errors.Join(a.resumeNow(), a.retryNow()); err != nil {
			return err
		}
	}
	if a.o.Mode.Repair {
		if err := a.repairNow(); err != nil {
			return err
		}
	}
	if !a.o.Mode.Once && a.rec.State == Idle {
		a.wait(ctx, a.waits.spread())
	}
	for ctx.Err() == nil {
		if err := a.displaced(); err != nil {
			return err
		}
		if a.rec.State != Discarding { // what is closed in a moment is in nobody's way
			a.obey()
		}
		if done, err := a.turn(ctx); done {
			if a.o.Mode.Once && ctx.Err() == nil {
				a.tellLast(ctx)
			}
			return err
		}
	}
	return context.Cause(ctx)
}

// turn is one advance and the wait that follows where it took no arrow.
func (a *Agent) turn(ctx context.Context) (done bool, err error) {
	a.pulse.within(a.longest(a.rec.State))
	err = a.advance(ctx)
	if a.shutTo != "" && errors.Is(err, errStay) {
		a.reports.met(errors.New(a.shutTo))
	} else {
		a.reports.met(err)
	}
	a.retrying = err != nil && !errors.Is(err, errStay)
	switch {
	case ctx.Err() != nil:
		return false, nil
	case err == nil:
		a.waits.reset()
		return false, nil
	case errors.Is(err, errAgain), a.refetches(err), a.freed(err):
		return false, nil
	case errors.Is(err, errStay):
		a.waits.reset()
		a.asked = false
		a.unsay("step")
		a.tell(a.status())
		a.rest(nil)
		if a.o.Mode.Once {
			if a.unlooked() && a.glance(ctx) != nil {
				return false, nil
			}
			return true, a.outcome()
		}
		a.waitWatching(ctx, a.waits.poll())
		return false, nil
	case a.o.Mode.Once:
		a.rest(err)
		return true, err
	}
	wait := a.waits.next()
	if errors.Is(err, ErrCrossed) {
		wait = a.waits.poll()
	}
	a.sayError("step", "step not done", err, "state", a.rec.State, "wait", wait)
	a.tell(a.status() + ", waiting: " + line(err))
	if full(err) {
		a.collect.start(a, 0)
	}
	a.renewReserve()
	if _, is := errors.AsType[*fullNow](err); is {
		a.filled = filled{a.rec.Deployment.New.Configuration.Digest, a.had, time.Now().Add(again)}
	}
	a.rest(err)
	a.show(func(p *present) { p.waiting = line(err) })
	a.waitWatching(ctx, wait)
	a.show(func(p *present) { p.waiting = "" })
	if a.rec.State != Idle {
		a.collect.stop()
	}
	return false, nil
}

// full reports whether room on the disk would help.
func full(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// lacks names what the host has too little of, where that is the fault: whatever file
// meets it first, it is the same fault. "": it is another one.
func lacks(err error) string {
	for _, kind := range []error{unix.ENOSPC, unix.EDQUOT, unix.EMFILE, unix.ENFILE} {
		if _, is := errors.AsType[*noRoom](err); errors.Is(err, kind) && !is {
			return kind.Error()
		}
	}
	return ""
}

// outcome is how a Run in Mode.Once ends when it waits.
func (a *Agent) outcome() error {
	err := a.verdict()
	if a.rec.State == Broken || errors.Is(err, ErrHeld) {
		return err
	}
	if err := a.collect.now(a); err != nil {
		a.log().Warn("collection not finished", "error", err)
	}
	return err
}

// verdict is what a machine that waits has to say.
func (a *Agent) verdict() error {
	switch {
	case a.rec.State == Broken:
		return fmt.Errorf("%w: %s", ErrBroken, a.rec.Deployment.Broken)
	case a.result == nil && a.rec.Hold != nil:
		return fmt.Errorf("%w: %s", ErrHeld, a.rec.Hold)
	}
	return a.result
}

// wait waits for d, for ctx, or for what a person wants.
func (a *Agent) wait(ctx context.Context, d time.Duration) { a.waitFor(ctx, d, now().Add(d)) }

// waitFor is wait; what is shown as waited for comes at next. It reports whether
// a person ended it.
func (a *Agent) waitFor(ctx context.Context, d time.Duration, next time.Time) (asked bool) {
	a.pulse.within(d)
	timer := time.NewTimer(d)
	defer timer.Stop()
	a.show(func(p *present) { p.next = next })
	a.caughtUp()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case do := <-a.commands:
		do()
		asked = true
	}
	a.show(func(p *present) { p.next = time.Time{} })
	return asked
}

// Record returns what the machine last made durable. The caller must not
// change what it points to.
func (a *Agent) Record() *Record {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.saved == nil {
		return &Record{Name: a.o.Name, State: Idle}
	}
	return a.saved
}

// path returns the absolute path of something in the agent's directory.
func (a *Agent) path(parts ...string) string {
	return filepath.Join(append([]string{a.o.Dir}, parts...)...)
}

func (a *Agent) log() *slog.Logger { return a.o.Observe.Log }

// tell tells the status, if it is another than before.
func (a *Agent) tell(status string) {
	if a.said["status"] == status {
		return
	}
	a.said["status"] = status
	if a.o.Observe.Notify != nil {
		a.o.Observe.Notify(status)
	}
}

// sayError warns once about what goes on in the same way: a registry that is
// down for a night is one line, not a thousand.
func (a *Agent) sayError(subject, message string, err error, keys ...any) {
	level, text := slog.LevelWarn, err.Error()
	if e, ok := errors.AsType[*noRoom](err); ok {
		text = e.needs
	}
	if a.rec != nil && a.rec.Deployment != nil && a.rec.Deployment.New.Dir != "" {
		text = strings.ReplaceAll(text, filepath.Base(a.rec.Deployment.New.Dir), "") // each try has its own
	}
	text = cmp.Or(lacks(err), text)
	if a.said[subject] == text {
		level = slog.LevelDebug
	}
	a.said[subject] = text
	a.log().Log(context.Background(), level, message, append(keys, "error", err)...)
}

// say is sayError for what is no error.
func (a *Agent) say(subject, message, detail string, keys ...any) {
	if a.said[subject] != message+detail {
		a.log().Info(message, keys...)
	}
	a.said[subject] = message + detail
}

func (a *Agent) unsay(subject string) { delete(a.said, subject) }

// line is oneLine of an error's text.
func line(err error) string { return oneLine(err.Error()) }

// oneLine makes one line without control characters of a text, at most 4 KiB of
// it: for the record, for the environment of a hook, and for the status.
func oneLine(text string) string {
	s := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	if len(s) > 4096 {
		s = strings.ToValidUTF8(s[:4096], "") + "..."
	}
	return s
}
