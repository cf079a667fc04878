package registry

import (
	"errors"
	"fmt"
)

// The kinds of errors of this package. A front end maps them to exit statuses;
// the texts around them are for people and, where the original tool set had
// them, stay as they were.
var (
	// ErrUsage: the request makes no sense. Nothing was changed.
	ErrUsage = errors.New("wrong request")
	// ErrNotFound: what was named does not exist. Nothing was changed.
	ErrNotFound = errors.New("not found")
	// ErrConflict: it exists already, is in use, or has changed meanwhile.
	// Nothing was changed.
	ErrConflict = errors.New("conflict")
	// ErrDenied: the caller may not do this. Nothing was changed.
	ErrDenied = errors.New("permission denied")
	// ErrNoContent is an ErrNotFound: the content of a new version was neither
	// uploaded nor is it stored. To try is how deployctl asks whether it is.
	ErrNoContent = fmt.Errorf("no such content: %w", ErrNotFound)
	// ErrHidden is an ErrNotFound, and looks like one to the caller: what was named
	// exists outside of the caller's scope.
	ErrHidden = fmt.Errorf("hidden: %w", ErrNotFound)
	// ErrRefused: an archive is not acceptable as a layer; it will never become
	// a version.
	ErrRefused = errors.New("not an acceptable layer")
	// ErrDamaged: stored content is not what its digest says, or is gone. It is
	// not served; storing the same content again mends it.
	ErrDamaged = errors.New("damaged content")
)

// Error is an error with its kind and what to do about it.
type Error struct {
	Kind error // one of the above
	Text string
	Hint string // what to do next; may be empty
}

// Error returns the text alone.
func (e *Error) Error() string { return e.Text }

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

func fail(kind error, format string, args ...any) *Error {
	return &Error{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

func (e *Error) hint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}
