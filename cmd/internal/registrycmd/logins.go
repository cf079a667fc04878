package registrycmd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"deploytools/cmd/internal/cli"
	"deploytools/registry"
	"deploytools/registry/keys"
	"deploytools/registry/sshd"
)

// logins is a keys file, or a directory of them, and the keys that it last gave.
// Current is safe for concurrent use, also beside load, which is not.
type logins struct {
	path  string
	role  registry.Role
	flag  string              // that names the path
	files map[string]keysFile // by name, as far as they were good
	keys  atomic.Pointer[keys.Set]
}

// keysFile is a file that was read.
type keysFile struct {
	text []byte // as it was read last
	keys *keys.Set
}

// keysSuffix is that of the files that count in a directory.
const keysSuffix = ".keys"

// Current returns the keys that were read last.
func (l *logins) Current() *keys.Set { return l.keys.Load() }

// load reads the files, and reports whether there is anything new. Lines that
// are refused are logged, each with its number, and give nobody access. A file
// that cannot be used is an error, and keeps the keys that it had: whatever it
// is, it is more likely a slip than a wish. Files that have not changed are not
// talked about, unless again is set.
func (l *logins) load(log *slog.Logger, again bool) (changed bool, err error) {
	names, err := l.list()
	if err != nil {
		return false, l.explain(err)
	}
	files := map[string]keysFile{}
	var errs []error
	for _, name := range names {
		was, known := l.files[name]
		text, err := os.ReadFile(name)
		if err == nil && known && bytes.Equal(text, was.text) && !again {
			files[name] = was
			continue
		}
		now := keysFile{text: text}
		if err == nil {
			now.keys, err = l.parse(name, text, log)
		}
		if err != nil {
			errs = append(errs, l.explain(err))
			now.keys = was.keys
		} else if !bytes.Equal(text, was.text) {
			changed = true
		}
		if now.keys != nil {
			files[name] = now
		}
	}
	changed = changed || len(files) != len(l.files)
	l.files = files
	var sets []*keys.Set
	for _, name := range slices.Sorted(maps.Keys(files)) {
		sets = append(sets, files[name].keys)
	}
	l.keys.Store(keys.Join(sets...))
	if changed || again {
		l.warn(log)
	}
	return changed, errors.Join(errs...)
}

// list returns the files to read.
func (l *logins) list() ([]string, error) {
	info, err := os.Stat(l.path)
	if err != nil || !info.IsDir() {
		return []string{l.path}, err
	}
	entries, err := os.ReadDir(l.path)
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), keysSuffix) && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, filepath.Join(l.path, e.Name()))
		}
	}
	if err == nil && names == nil {
		err = fmt.Errorf("keys directory %s: no file *%s", l.path, keysSuffix)
	}
	return names, err
}

func (l *logins) parse(name string, text []byte, log *slog.Logger) (*keys.Set, error) {
	set, refused, err := keys.Parse(name, text, keys.Rules{Role: l.role, Key: sshd.CheckKey, Command: sshd.CheckCommand})
	if err != nil {
		return nil, err
	}
	for _, line := range refused {
		log.Error("key refused", "error", fmt.Errorf("%s: %w", name, line))
	}
	return set, nil
}

func (l *logins) explain(err error) error {
	return cli.WithHint(err, "it needs a public key on a line, as ssh-keygen writes them; "+l.flag+" names the file, or a directory of *"+keysSuffix)
}

// warn tells of agents whose lines leave them everything, as those of the
// original tool set do.
func (l *logins) warn(log *slog.Logger) {
	lines := map[string][]int{}
	for g := range l.Current().All() {
		if g.Caller.Role == registry.Agent && g.Caller.Configs == "" {
			lines[g.File] = append(lines[g.File], g.Line)
		}
	}
	for _, file := range slices.Sorted(maps.Keys(lines)) {
		log.Warn("agents may read every configuration", "error", fmt.Sprintf("%s: %s without configs=", file, listed(lines[file])))
	}
}

// listed names lines for a message: the first of them, where there are many.
func listed(lines []int) string {
	const most = 20
	slices.Sort(lines)
	var words []string
	for _, n := range lines[:min(most, len(lines))] {
		words = append(words, strconv.Itoa(n))
	}
	text := "line " + strings.Join(words, ", ")
	if more := len(lines) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// leftOut is about a line of a list whose other lines count.
type leftOut struct{ error }

// revocations is a list of what is revoked, and what it last held. Current is
// safe for concurrent use, also beside load, which is not.
type revocations struct {
	path string // "" is none
	text []byte
	read bool
	list atomic.Pointer[keys.Revoked]
}

// Current returns what was read last.
func (r *revocations) Current() *keys.Revoked { return r.list.Load() }

// load reads the list, and reports whether there is anything new. From a list
// with a fault every good line counts, and nothing that was revoked before is
// let in again: a leftOut says so. At the first time a fault is an error, and there is no list.
func (r *revocations) load(again bool) (changed bool, err error) {
	if r.path == "" {
		return false, nil
	}
	text, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = cli.WithHint(err, "make it: touch "+r.path)
	}
	if err != nil {
		return false, err
	}
	if r.read && bytes.Equal(text, r.text) && !again {
		return false, nil
	}
	list, bad := keys.ParseRevoked(text)
	if len(bad) > 0 {
		list = list.Plus(r.Current())
		err = cli.WithHint(leftOut{fmt.Errorf("revoked list %s: %w", r.path, bad[0])}, "a line is a fingerprint, a key, 'serial: NUMBER' or 'id: TEXT': see docs/keys.md")
		if !r.read {
			return false, err
		}
	}
	changed = !r.read || !bytes.Equal(text, r.text)
	r.text, r.read = text, true
	r.list.Store(list)
	return changed, err
}
