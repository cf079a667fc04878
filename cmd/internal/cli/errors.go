package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"deploytools/layers"
	"deploytools/registry/client"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// Error is an error with what the command line makes of it. Empty fields are
// taken from the errors it wraps.
type Error struct {
	Status wire.Status // wire.OK means: not decided here
	Hint   string      // what to do next, best a command that can be run
	// Err is the cause. Nil means that the user has been told already: the
	// program ends with Status and prints nothing.
	Err error
}

// Error returns the text of the cause.
func (e *Error) Error() string {
	if e.Err == nil {
		return "exit status " + e.Status.String()
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Usage returns an error that says what is wrong with the command line.
func Usage(format string, a ...any) error {
	return &Error{Status: wire.Usage, Err: fmt.Errorf(format, a...)}
}

// WithHint adds what to do next, which replaces an earlier hint. A nil err
// stays nil.
func WithHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &Error{Hint: hint, Err: err}
}

// DirHint says what to do about the directory of -dir when it cannot be used.
const DirHint = "make the directory and give it to the user that runs this, or choose another with -dir"

// FullHint says what to do where a disk is full.
const FullHint = "make room there, of space and inodes (df, df -i), or have the quota raised; then try again"

// Unwritable adds DirHint or FullHint if err is about a place that cannot be written
// to and has no hint.
func Unwritable(err error) error {
	switch {
	case HintOf(err) != "":
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return WithHint(err, DirHint)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return WithHint(err, FullHint)
	}
	return err
}

// WithStatus sets the exit status, in place of an earlier one. A nil err stays
// nil.
func WithStatus(err error, status wire.Status) error {
	if err == nil {
		return nil
	}
	return &Error{Status: status, Err: err}
}

// StatusOf returns the exit status for err: the outermost that an Error in its
// chain decides, else wire.Failed; wire.OK for nil.
func StatusOf(err error) wire.Status {
	if err == nil {
		return wire.OK
	}
	for e := range chain(err) {
		if e.Status != wire.OK {
			return e.Status
		}
	}
	return wire.Failed
}

// HintOf returns the outermost hint in the chain of err, or that of the client
// of a registry or of the refusal of a layer, or nothing.
func HintOf(err error) string {
	for e := range chain(err) {
		if e.Hint != "" {
			return e.Hint
		}
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Hint
	}
	if e, ok := errors.AsType[*layers.Refusal](err); ok {
		return e.Hint
	}
	return ""
}

// chain yields every Error that err wraps, outermost first.
func chain(err error) func(yield func(*Error) bool) {
	return func(yield func(*Error) bool) {
		for {
			e, ok := errors.AsType[*Error](err)
			if !ok || !yield(e) {
				return
			}
			err = e.Err
		}
	}
}

// Report prints err and its hint as the lines `error: ...` and `hint: ...` and
// returns the exit status. An err that comes from the end of ctx by a signal
// is told as an interruption.
func Report(ctx context.Context, w io.Writer, err error) wire.Status {
	f := failure(ctx, err)
	if f.Error != "" {
		fmt.Fprintln(w, "error:", f.Error)
	}
	if f.Hint != "" {
		fmt.Fprintln(w, "hint:", f.Hint)
	}
	return f.Status
}

// ReportJSON is Report in one object, as the registry's console prints it.
func ReportJSON(ctx context.Context, w io.Writer, err error) wire.Status {
	f := failure(ctx, err)
	if f.Error != "" || f.Hint != "" {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.Encode(f) // no error that anybody could be told
	}
	return f.Status
}

// failure is what a user is told about err.
func failure(ctx context.Context, err error) console.Failure {
	if err == nil {
		return console.Failure{Status: wire.OK}
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return console.Failure{Error: "interrupted", Status: wire.Failed}
	}
	f := console.Failure{Hint: Clean(HintOf(err)), Status: StatusOf(err)}
	if e, ok := errors.AsType[*Error](err); !ok || e.Err != nil {
		f.Error = Clean(err.Error())
	}
	return f
}

// Clean is console.Clean: see there.
func Clean(s string) string { return console.Clean(s) }
