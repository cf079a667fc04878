package console

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"deploytools/registry"
)

// acting are the flags of every command that changes something.
type acting struct {
	dryRun bool
	note   string
}

func (a *acting) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&a.note, "note", "", "`text` that says why, for the record")
	fs.BoolVar(&a.dryRun, "dry-run", false, "change nothing, but say what would be done")
}

func isDryRun(fs *pflag.FlagSet) bool {
	f := fs.Lookup("dry-run")
	return f != nil && f.Value.String() == "true"
}

func (a *acting) act(s *Session) registry.Act {
	return registry.Act{Caller: s.Caller, Command: s.words, Note: a.note, DryRun: a.dryRun}
}

// expecting are the flags of every command that changes a configuration.
type expecting struct {
	acting
	expect uint64
}

func (e *expecting) Flags(fs *pflag.FlagSet) {
	fs.Uint64Var(&e.expect, "expect", 0, "`revision` that the configuration must be at, or nothing is changed; 0 is any")
	e.acting.Flags(fs)
}

func (e *expecting) act(s *Session) registry.Act {
	a := e.acting.act(s)
	a.Expect = e.expect
	return a
}

// plan is what a dry run prints.
type plan struct {
	Schema Schema `json:"schema"`
	DryRun bool   `json:"dry_run"`
	What   string `json:"what"`
}

func (p plan) Text(w io.Writer) error {
	_, err := fmt.Fprintf(w, "dry run, nothing was changed: %s\n", p.What)
	return err
}

// told is what a command prints that has nothing to say but in a dry run.
func (a *acting) told(what string, err error) (Result, error) {
	if err != nil || !a.dryRun {
		return nil, err
	}
	return plan{DryRun: true, What: what}, nil
}

// refused puts on record that the command was refused or failed. The flag -name
// says what it was about.
func (s *Session) refused(ctx context.Context, fs *pflag.FlagSet, reason error) {
	a, name := registry.Act{Caller: s.Caller, Command: s.words}, ""
	if f := fs.Lookup("name"); f != nil {
		name = f.Value.String()
	}
	// Whoever ends the command early is on record all the same.
	err := s.Registry.Refused(context.WithoutCancel(ctx), a, name, StatusOf(reason), reason.Error())
	if err != nil {
		fmt.Fprintf(s.Stderr, "warning: this is not on record: %s\n", Clean(err.Error()))
	}
}
