package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"deploytools/atomic"
)

// A pin is the file roots/ID.pin beside a root, with the reason in it. A person
// may also make it, or remove it, with any other tool.

// Pin keeps the root of that name, such as 000042-1f3a9c77d2e0, from collection
// until Unpin. It needs no agent; one may be at work in dir. A second reason
// replaces the first. The error wraps fs.ErrNotExist if there is no such root.
func Pin(dir, id, reason string) error {
	file, err := pinFile(dir, id)
	if err != nil {
		return err
	}
	if info, err := os.Lstat(strings.TrimSuffix(file, ".pin")); err != nil || !info.IsDir() {
		return fmt.Errorf("root %s: %w", id, fs.ErrNotExist)
	}
	return atomic.WriteFile(file, []byte(oneLine(reason)+"\n"), 0o644)
}

// Unpin takes the pin away, and reports whether there was one. A root without one is
// left as it is.
func Unpin(dir, id string) (was bool, err error) {
	file, err := pinFile(dir, id)
	if err != nil {
		return false, err
	}
	_, err = os.Lstat(file)
	return err == nil, atomic.Remove(file)
}

// Kept returns the roots of an agent's directory that have been committed and are kept,
// the last that was committed last.
func Kept(dir string) ([]Shown, error) {
	a, err := Look(Options{Dir: dir})
	if err != nil {
		return nil, err
	}
	roots, err := a.roots()
	var kept []Shown
	for _, r := range roots {
		if !r.Committed.IsZero() {
			kept = append(kept, *shown(r))
		}
	}
	return kept, err
}

// RootNames returns the names of the roots of an agent's directory, in order.
func RootNames(dir string) (names []string, err error) {
	entries, err := os.ReadDir(filepath.Join(dir, "roots"))
	for _, e := range entries {
		if e.IsDir() && rootName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// FindRoot returns the name of the root that text means: the name, as it is or
// behind roots/, or its number. The error wraps fs.ErrNotExist if there is none.
func FindRoot(dir, text string) (string, error) {
	text = strings.TrimPrefix(text, "roots/")
	names, err := RootNames(dir)
	if err != nil {
		return "", err
	}
	n, noNumber := strconv.ParseUint(text, 10, 64)
	for _, name := range names {
		if name == text || noNumber == nil && number(name) == n {
			return name, nil
		}
	}
	return "", unkept(text)
}

// unkept is fs.ErrNotExist about a root that is not among those that are kept.
type unkept string

func (n unkept) Error() string        { return fmt.Sprintf("no root %q is kept here", string(n)) }
func (n unkept) Is(target error) bool { return target == fs.ErrNotExist }

func pinFile(dir, id string) (string, error) {
	if !rootName.MatchString(id) {
		return "", fmt.Errorf("%q: not the name of a root, which is such as 000042-1f3a9c77d2e0", id)
	}
	return filepath.Join(dir, "roots", id+".pin"), nil
}

// pinned returns the rule that keeps a root which has a pin; "": it has none. A
// pin that cannot be read is one.
func (a *Agent) pinned(id string) string {
	b, err := os.ReadFile(a.path("roots", id+".pin"))
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if reason := strings.TrimSpace(string(b)); reason != "" {
		return "pinned: " + oneLine(reason)
	}
	return "pinned"
}
