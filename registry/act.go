package registry

import (
	"context"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Act is one request to change something: who makes it, in which words, why and
// on which conditions.
type Act struct {
	Caller  Caller
	Command []string // its words, as they were given
	Note    string   // why, for the record
	Expect  uint64   // the newest revision that the configuration must have; 0: any
	DryRun  bool     // change nothing, but say what would be done
}

// maxNote bounds a note, and a value of what is kept with a version, in bytes.
const maxNote = 1000

// check says what is wrong with the act itself.
func (a Act) check() error { return checkText("note", a.Note) }

// checkText holds the rule for texts of people: one line that any terminal can
// show.
func checkText(what, s string) error {
	switch {
	case len(s) > maxNote:
		return fail(ErrUsage, "%s is longer than %d bytes", what, maxNote)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fail(ErrUsage, "%s should be one line of text", what)
	}
	return nil
}

// done is what an act did: the object that it is about, and the change in words.
type done struct {
	name, what string
	nothing    bool // all was so already
}

// fileAct is the act of c that SFTP asks for, as a command.
func fileAct(c Caller, words ...string) Act {
	return Act{Caller: c, Command: append([]string{"sftp"}, words...)}
}

// actWrites is how many writes of an Update the record of the act takes.
const actWrites = 2

// errDryRun takes back the Update of a dry run.
var errDryRun = errors.New("dry run")

// act is the one way to change what people ask for: in one Update it runs change
// and puts on record what that did. A dry run is the same Update, taken back. It
// returns the change in words.
func (r *Registry) act(ctx context.Context, a Act, change func(Tx) (done, error)) (what string, err error) {
	if err := a.check(); err != nil {
		return "", err
	}
	err = r.o.Meta.Update(ctx, func(tx Tx) error {
		what = ""
		did, err := change(tx)
		if err != nil {
			return err
		}
		what = did.what
		if a.DryRun {
			return errDryRun
		}
		if did.nothing {
			// Whoever repeats such acts could fill the disk as with refusals.
			if n, _, err := r.idle(tx, Entry{Key: a.Caller.Fingerprint}); err != nil || n >= maxIdle {
				return err
			}
		}
		return r.record(tx, a, did)
	})
	if errors.Is(err, errDryRun) {
		err = nil
	}
	return what, err
}

// Did puts on record an act about name that changes nothing that is stored: what
// was done, or is done next. It returns what.
func (r *Registry) Did(ctx context.Context, a Act, name, what string) (string, error) {
	return r.act(ctx, a, func(Tx) (done, error) { return done{name: name, what: what}, nil })
}
