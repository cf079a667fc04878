package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const usage = "crashat -match DIR [-n N [-one | -power FLAG | -err ERRNO [-sticky]]] [-calls NAME,...] [-log FILE] -- PROGRAM ARGS..."

// becomeArg is the first word of the second process: see become.
const becomeArg = "--become"

func main() {
	if len(os.Args) > 2 && os.Args[1] == becomeArg {
		fmt.Fprintln(os.Stderr, "crashat:", become(3, os.Args[2:]))
		os.Exit(126)
	}
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "crashat:", err)
		os.Exit(2)
	}
	os.Exit(status)
}

// plan is what is to happen.
type plan struct {
	match string // absolute, without links
	only  map[string]bool
	n     int
	errno unix.Errno // 0: kill
	one   bool       // kill the caller alone
	stick bool
	end   time.Duration // of what lives on after the point; 0: never
	power int           // flag of FS_IOC_SHUTDOWN; 0: none
	log   io.Writer
}

func run(args []string) (status int, err error) {
	p := &plan{log: io.Discard}
	fs := flag.NewFlagSet("crashat", flag.ContinueOnError)
	fs.Usage = func() { fmt.Fprintln(os.Stderr, "usage:", usage); fs.PrintDefaults() }
	match := fs.String("match", "", "directory whose files count")
	only := fs.String("calls", "", "count only these calls")
	errName := fs.String("err", "", "let the call fail with this error, such as ENOSPC, instead of the kill")
	log := fs.String("log", "", "file for a line per point: number, call, paths")
	fs.IntVar(&p.n, "n", 0, "the point; 0 lets the program run to its end")
	fs.BoolVar(&p.stick, "sticky", false, "let all later points fail, too")
	fs.DurationVar(&p.end, "end", 0, "so long after calls began to fail, kill all that still lives; 0 waits for its end")
	fs.BoolVar(&p.one, "one", false, "kill only the process that makes the call; the others go on")
	fs.IntVar(&p.power, "power", 0, "before the kill, shut the file system of -match down: 1 writes its journal but no data, 2 writes nothing")
	if err := fs.Parse(args); err != nil {
		return 0, err
	}
	if fs.NArg() == 0 || *match == "" {
		fs.Usage()
		return 0, errors.New("give -match and a program")
	}
	if p.match, err = filepath.Abs(*match); err == nil {
		p.match, err = filepath.EvalSymlinks(p.match)
	}
	if err != nil {
		return 0, err
	}
	if *errName != "" {
		if p.errno = errnoOf(*errName); p.errno == 0 {
			return 0, fmt.Errorf("no error is named %s", *errName)
		}
	}
	if p.only, err = named(*only); err != nil {
		return 0, err
	}
	if *log != "" {
		f, err := os.Create(*log)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		p.log = f
	}
	return p.run(fs.Args())
}

// named returns the calls of a list, or nil for an empty one.
func named(list string) (map[string]bool, error) {
	if list == "" {
		return nil, nil
	}
	known := map[string]bool{}
	for _, c := range calls {
		known[c.name] = true
	}
	only := map[string]bool{}
	for name := range strings.SplitSeq(list, ",") {
		if !known[name] {
			return nil, fmt.Errorf("%s is no call that changes files", name)
		}
		only[name] = true
	}
	return only, nil
}

// errnoOf returns the error of this name, or 0.
func errnoOf(name string) unix.Errno {
	for e := unix.Errno(1); e < 200; e++ {
		if unix.ErrnoName(e) == name {
			return e
		}
	}
	return 0
}

// killed is the exit status of a program that was killed, as a shell has it.
const killed = 128 + int(unix.SIGKILL)

// run starts the program and watches its calls until it has ended.
func (p *plan) run(argv []string) (int, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	cmd := exec.Command("/proc/self/exe", append([]string{becomeArg}, argv...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs} // its descriptor 3
	runtime.LockOSThread()              // whose end would be taken for ours
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	over := make(chan struct{}) // closed when all was killed before its time
	var ending atomic.Bool
	end := sync.OnceFunc(func() {
		ending.Store(true)
		killAll()
		close(over)
	})
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	theirs.Close()
	go func() { // ends with the process
		for s := range signals {
			if s == unix.SIGQUIT {
				end()
			}
			cmd.Process.Signal(s)
		}
	}()
	listener, err := receiveListener(pair[0])
	if err != nil {
		cmd.Wait()
		return 0, err
	}
	if err := p.watch(listener, end); err != nil {
		killAll()
		return killed, ignoreCrash(err)
	}
	status := exitStatus(cmd.Wait())
	if ending.Load() {
		<-over
		status = killed
	}
	return status, nil
}

// errCrash ends watching: the point is reached.
var errCrash = errors.New("point reached")

func ignoreCrash(err error) error {
	if err == errCrash {
		return nil
	}
	return err
}

// exitStatus returns what a shell would show.
func exitStatus(err error) int {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return 0
	}
	if s := exit.Sys().(syscall.WaitStatus); s.Signaled() {
		return 128 + int(s.Signal())
	}
	return exit.ExitCode()
}

// watch counts the points until nobody is left, or errCrash at the one to die
// at, whose caller still waits then. It may call end, later.
func (p *plan) watch(listener int, end func()) error {
	for point := 0; ; {
		n, ok, err := next(listener)
		if err != nil || !ok {
			return err
		}
		errno := unix.Errno(0)
		if c, paths := p.counts(n); c != "" && waits(listener, n) {
			point++
			fmt.Fprintln(p.log, point, c, strings.Join(paths, " "))
			switch {
			case p.n == 0 || point < p.n:
			case p.one && point > p.n:
			case p.one:
				unix.Kill(int(n.tid), unix.SIGKILL) // all its threads; the call is never made
				continue
			case p.errno == 0:
				return p.crash()
			case point == p.n || p.stick:
				errno = p.errno
			}
			if errno != 0 && point == p.n && p.end > 0 {
				time.AfterFunc(p.end, end)
			}
		}
		if err := reply(listener, n, errno); err != nil {
			return err
		}
	}
}

// counts returns the name of a call that is a point and the paths that make it
// one.
func (p *plan) counts(n notification) (name string, paths []string) {
	c := calls[n.nr]
	if p.only != nil && !p.only[c.name] || c.changes != nil && !c.changes(n.args) {
		return "", nil
	}
	for _, path := range c.paths(n) {
		if path == p.match || strings.HasPrefix(path, p.match+"/") {
			paths = append(paths, path)
		}
	}
	if paths == nil {
		return "", nil
	}
	return c.name, paths
}

// fsShutdown is FS_IOC_SHUTDOWN of linux/fs.h.
const fsShutdown = 0x8004587d

// crash cuts the power, if that is wanted. The kill follows.
func (p *plan) crash() error {
	if p.power == 0 {
		return errCrash
	}
	f, err := os.Open(p.match)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), fsShutdown, p.power); err != nil {
		return fmt.Errorf("cannot cut the power of %s: %w", p.match, err)
	}
	return errCrash
}
