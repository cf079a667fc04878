package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/registry/wire"
	"deploytools/verify/spec"
)

// Checks says which checks count besides the host's own, Options.Verify, and what
// is looked at between deployments. docs/checks.md has the rules.
type Checks struct {
	HostOnly  bool // neither those of the revision nor those of the root
	AllowExec bool // theirs may run programs and look into processes

	Every      time.Duration // between two looks at the live root; 0: none
	WarnExpiry time.Duration // how long a certificate should still be valid; 0: whatever
	Inspect    time.Duration // between two comparisons of the live root with its manifest; 0: none
}

// gather returns the checks of a root that is filled, which lies at dir and is of
// c, and where each comes from; nil: all from the host. What the revision or the root ask for and may not,
// or cannot be understood, is definite: it would be left out else.
func (a *Agent) gather(c *wire.Configuration, dir string) (spec.Spec, []spec.Source, error) {
	host := spec.Part{From: spec.Host, Spec: a.o.Verify}
	if a.o.Checks.HostOnly {
		return a.o.Verify, nil, nil
	}
	conf := spec.Part{From: spec.Configuration}
	if c.Verify != nil {
		conf.Spec = *c.Verify
	}
	text, err := readRootFile(dir)
	if err != nil {
		return spec.Spec{}, nil, err
	}
	root := spec.Part{From: spec.Root}
	if root.Spec.Checks, err = spec.ParseLines(text, spec.FromHost); err != nil {
		return spec.Spec{}, nil, bad(fmt.Errorf("%s of the root: %w", spec.RootFile, err))
	}
	if !a.o.Checks.AllowExec {
		if err := refuseExec(conf, root); err != nil {
			return spec.Spec{}, nil, bad(err)
		}
	}
	s, from := spec.Merge(host, conf, root)
	if !slices.ContainsFunc(from, func(one spec.Source) bool { return one != spec.Host }) {
		from = nil
	}
	if err := s.Validate(spec.FromHost); err != nil {
		return spec.Spec{}, nil, bad(fmt.Errorf("checks of all sources together: %w", err))
	}
	return s, from, nil
}

// refuseExec names the checks that only the host's own flags may ask for.
func refuseExec(parts ...spec.Part) error {
	var all []string
	for _, p := range parts {
		for _, name := range p.Spec.OnHostOnly() {
			all = append(all, fmt.Sprintf("check %q of the %s", name, p.From))
		}
	}
	if all == nil {
		return nil
	}
	return fmt.Errorf("%s: %w; -allow-exec-checks allows them here", strings.Join(all, ", "), spec.ErrHostOnly)
}

// readRootFile returns what the file of checks in a root says; "": there is none.
// No link in the tree leads out of it, and nothing but a regular file is read. An
// error of the disk is not definite.
func readRootFile(dir string) (string, error) {
	wrong := func(err error) (string, error) { return "", bad(fmt.Errorf("%s of the root: %w", spec.RootFile, err)) }
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	f, err := root.OpenFile(spec.RootFile, os.O_RDONLY|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		for _, name := range []string{path.Dir(spec.RootFile), spec.RootFile} {
			if info, lerr := root.Lstat(name); lerr == nil && info.Mode()&fs.ModeSymlink != 0 {
				return wrong(errors.New(name + " is a link that leads nowhere")) // somebody meant something
			}
		}
		return "", nil
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENOMEM):
		return "", err
	case err != nil:
		return wrong(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return "", err
	} else if !info.Mode().IsRegular() {
		return wrong(errors.New("not a regular file"))
	}
	b, err := io.ReadAll(io.LimitReader(f, spec.MaxFileBytes+1))
	if err != nil {
		return "", err
	}
	if len(b) > spec.MaxFileBytes {
		return wrong(spec.ErrTooLarge)
	}
	return string(b), nil
}

// settleChecks is the part of Checking that says what NEWROOT is looked at with,
// and keeps that beside it. A root that was committed before has its own. It can
// be called again.
func (a *Agent) settleChecks(d *Deployment) error {
	if d.ByHand {
		return nil
	}
	s, from, err := a.gather(d.New.Configuration, a.path(d.New.Dir))
	if err != nil {
		return err
	}
	same := sameSpec(s, d.New.Spec) && slices.Equal(from, d.New.From)
	d.New.Spec, d.New.From = s, from
	if same {
		return nil
	}
	return a.writeRoot(&d.New)
}

// CheckedByHost reports whether a check of the root comes from the host's flags.
func (r *Root) CheckedByHost() bool {
	return len(r.Spec.Checks) > 0 && (r.From == nil || slices.Contains(r.From, spec.Host))
}

// specOf returns what the root is looked at with: all that it was deployed with, but
// for what runs programs here and may not any more. A permission that was taken
// back is not given again by going back.
func (a *Agent) specOf(r *Root) spec.Spec {
	s := r.Spec
	if a.o.Checks.AllowExec || r.From == nil {
		return s
	}
	s.Checks = nil
	for i, c := range r.Spec.Checks {
		if r.sourceOf(i) == spec.Host || (spec.Spec{Checks: []spec.Check{c}}).OnHostOnly() == nil {
			s.Checks = append(s.Checks, c)
		}
	}
	if left := len(r.Spec.Checks) - len(s.Checks); left > 0 {
		a.say("checks left out of "+r.Dir, "checks left out that are for the host itself", fmt.Sprint(left), "root", r.Dir, "count", left)
	}
	return s
}

// sourceOf returns where check i of the root comes from.
func (r *Root) sourceOf(i int) spec.Source {
	if i < len(r.From) {
		return r.From[i]
	}
	return spec.Host
}
