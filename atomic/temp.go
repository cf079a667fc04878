package atomic

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The names of what is not finished. A temp does not carry the final name: that
// may already be as long as a name can be.
const (
	tempPrefix = ".atomic-"
	tempSuffix = ".tmp"
	tempRandom = 26 // characters of base 32, lower case: 130 bits

	stagedPrefix = "."
	stagedSuffix = ".partial"
)

// nameless is err without the name of a temp, which is another one each time and
// says nothing to anybody.
func nameless(err error) error {
	switch e := err.(type) {
	case *fs.PathError:
		if isTemp(filepath.Base(e.Path)) {
			return fmt.Errorf("%s: %w", e.Op, e.Err)
		}
	case *os.LinkError:
		if isTemp(filepath.Base(e.Old)) || isTemp(filepath.Base(e.New)) {
			return fmt.Errorf("%s: %w", e.Op, e.Err)
		}
	}
	return err
}

// tempName returns a new name beside path. Nobody else has it, by chance.
func tempName(path string) string {
	return filepath.Join(filepath.Dir(path), tempPrefix+strings.ToLower(rand.Text())+tempSuffix)
}

// isTemp reports whether tempName makes such names.
func isTemp(name string) bool {
	name, ok := strings.CutPrefix(name, tempPrefix)
	if !ok {
		return false
	}
	name, ok = strings.CutSuffix(name, tempSuffix)
	return ok && len(name) == tempRandom && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// stagedName returns the name under which the tree for path is filled.
func stagedName(path string) string {
	dir, name := filepath.Split(path)
	return dir + stagedPrefix + name + stagedSuffix
}

// Staged reports whether name, without its directory, is the name of a staged
// directory, and of which final name. It looks at the text only. What has such
// a name and belongs to no [Dir] in use was left by a crash.
func Staged(name string) (final string, ok bool) {
	final, ok = strings.CutPrefix(name, stagedPrefix)
	if !ok {
		return "", false
	}
	final, ok = strings.CutSuffix(final, stagedSuffix)
	if !ok || !stageable(final) {
		return "", false
	}
	return final, true
}

// stageable says which final names a staged directory can have: the others
// could not be told from names that are not finished.
func stageable(name string) bool {
	return name != "" && name[0] != '.' && !strings.Contains(name, "/")
}

// Sweep removes the temps that calls cut short have left in dir, of any age,
// and nothing else: it goes by their names, does not look into subdirectories,
// and leaves staged directories. Only the owner of dir may call it, holding
// its lock and while no other call of this package works in dir: the temps of
// calls under way have the same names. It goes on after an error and returns
// all of them; that dir does not exist is none. Sweeping is not made durable:
// what comes back is swept the next time.
func Sweep(dir string) error { return disk{}.sweep(dir) }

func (d disk) sweep(dir string) error {
	entries, err := d.readDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot sweep %s: %w", dir, err)
	}
	var errs []error
	for _, e := range entries {
		if !isTemp(e.Name()) {
			continue
		}
		err := d.remove(filepath.Join(dir, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("cannot sweep %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}
