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

// Unpin takes the pin away. A root without one is left as it is.
func Unpin(dir, id string) error {
	file, err := pinFile(dir, id)
	if err != nil {
		return err
	}
	return atomic.Remove(file)
}

// FindRoot returns the name of the root that text means: the name, as it is or
// behind roots/, or its number. The error wraps fs.ErrNotExist if there is none.
func FindRoot(dir, text string) (string, error) {
	text = strings.TrimPrefix(text, "roots/")
	entries, err := os.ReadDir(filepath.Join(dir, "roots"))
	if err != nil {
		return "", err
	}
	n, noNumber := strconv.ParseUint(text, 10, 64)
	for _, e := range entries {
		if name := e.Name(); e.IsDir() && rootName.MatchString(name) && (name == text || noNumber == nil && number(name) == n) {
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
