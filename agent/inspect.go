package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"deploytools/layers/digest"
)

// Inspection says what Inspect looks at. The zero value: every byte of the live
// root.
type Inspection struct {
	All    bool // every root, the cached layers and the records
	Quick  bool // no files that have not changed since they were unpacked: see How.Since
	Owner  bool // compare user and group as well
	Idle   bool // give way to whoever else needs the processor or the disk
	Gentle bool // read a quarter of the time only, and rest else

	prove bool // set Condition.proof
}

// Damage is a stored thing, other than a root, that is not as it was written.
type Damage struct {
	Name   string `json:"name"` // relative to the agent's directory
	Detail string `json:"detail"`
}

// Integrity is what Inspect found.
type Integrity struct {
	Roots   []Condition     `json:"roots"`
	Damaged []Damage        `json:"damaged,omitempty"`
	Files   []PublishedFile `json:"published,omitempty"` // at fixed paths
	Looked  *Looked         `json:"looked_at,omitempty"` // by an inspection of all
}

// Looked counts what an inspection of all has looked at besides roots.
type Looked struct {
	Layers  int `json:"cached_layers"`
	Records int `json:"records"` // the machine's, and the documents and indexes of roots
}

// Whole reports whether nothing was found.
func (i *Integrity) Whole() bool {
	return len(i.Damaged) == 0 && !slices.ContainsFunc(i.Files, func(p PublishedFile) bool { return p.Differs != "" }) && !slices.ContainsFunc(i.Roots, func(c Condition) bool { return !c.Whole() })
}

// Text writes what was found, a line for each path.
func (i *Integrity) Text(w io.Writer) error {
	for _, c := range i.Roots {
		if err := c.Text(w); err != nil {
			return err
		}
	}
	for _, d := range i.Damaged {
		if _, err := fmt.Fprintf(w, "%s: %s\n", d.Name, d.Detail); err != nil {
			return err
		}
	}
	for _, p := range i.Files {
		if _, err := fmt.Fprintf(w, "%s: %s\n", p.Path, cmp.Or(p.Differs, "as published")); err != nil {
			return err
		}
	}
	if l := i.Looked; l != nil {
		_, err := fmt.Fprintf(w, "looked at: %s, %s, %s\n", counted(len(i.Roots), "root"), counted(l.Layers, "cached layer"), counted(l.Records, "record"))
		return err
	}
	return nil
}

// counted is such as "1 root" and "2 roots".
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// Inspect looks whether what an agent keeps in dir is as it was written. It
// changes nothing, and needs no agent; one may be at work there. The error says
// why it could not look.
func Inspect(ctx context.Context, dir string, what Inspection) (*Integrity, error) {
	type result struct {
		found *Integrity
		err   error
	}
	done := make(chan result)
	go func() { // ends with the inspection
		if what.Idle {
			runtime.LockOSThread() // for good: the thread ends with the goroutine
			giveWay()
		}
		i := &inspector{ctx: ctx, dir: dir, what: what, found: Integrity{Roots: []Condition{}}}
		if what.All {
			i.found.Looked = &i.looked
		}
		err := i.look()
		done <- result{&i.found, err}
	}()
	r := <-done
	return r.found, r.err
}

// giveWay lowers the thread's priorities, where that is allowed: nice(2) and
// ioprio_set(2), class idle.
func giveWay() {
	const whoProcess, idle = 1, 3 << 13
	unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19)
	unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, uintptr(unix.Gettid()), idle)
}

type inspector struct {
	ctx    context.Context
	dir    string
	what   Inspection
	found  Integrity
	looked Looked
	known  map[string]*Root // by Dir: as the record has them
	live   string           // the root that is live by the record; "": none
}

func (i *inspector) look() error {
	link, err := os.Readlink(filepath.Join(i.dir, "current"))
	switch {
	case err == nil:
		err = fmt.Errorf("names %q, which is no root of this agent", link)
	case errors.Is(err, unix.EINVAL):
		err = errors.New("is no link")
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	i.record()
	if link != i.live && !i.ours(link) { // what should be live is looked at all the same
		i.damaged("current", err)
		link = i.live
	}
	if !i.what.All {
		if link == "" {
			return nil
		}
		return i.root(i.document(filepath.Base(link)), true)
	}
	entries, err := os.ReadDir(filepath.Join(i.dir, "roots"))
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, e := range entries {
		id, isDocument := strings.CutSuffix(e.Name(), ".json")
		if !isDocument || strings.HasPrefix(id, ".") {
			continue
		}
		d := i.document(id)
		seen[d] = true
		if err := i.root(d, d == link); err != nil {
			return err
		}
	}
	for _, d := range slices.Sorted(maps.Keys(i.known)) {
		if !seen[d] { // its document is lost
			i.damaged(filepath.Join("roots", filepath.Base(d)+".json"), fs.ErrNotExist)
			if err := i.root(d, d == link); err != nil {
				return err
			}
		}
	}
	return i.cache()
}

func (i *inspector) damaged(name string, err error) {
	i.found.Damaged = append(i.found.Damaged, Damage{name, reason(err)})
}

// ours reports whether a root of the agent's has this name.
func (i *inspector) ours(dir string) bool {
	r, err := readRoot(filepath.Join(i.dir, "roots", filepath.Base(dir)+".json"))
	return err == nil && r.Dir == dir
}

// record reads the machine's record. A directory need not have one.
func (i *inspector) record() {
	i.known = map[string]*Root{}
	b, err := os.ReadFile(filepath.Join(i.dir, "journal.json"))
	r := new(Record)
	if err == nil {
		i.looked.Records++
		err = decode(b, r)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			i.damaged("journal.json", err)
		}
		return
	}
	for _, root := range []*Root{r.Back, r.Live} {
		if root != nil {
			i.known[root.Dir] = root
		}
	}
	if r.Live != nil && r.Removing == nil {
		i.live = r.Live.Dir
	}
	if i.found.Files, err = publishedIn(i.ctx, i.dir, r); err != nil {
		i.damaged(storeName, err)
	}
}

// document reads the document of a root and returns where that root lies.
func (i *inspector) document(id string) (dir string) {
	name := filepath.Join("roots", id+".json")
	r, err := readRoot(filepath.Join(i.dir, name))
	if !errors.Is(err, fs.ErrNotExist) {
		i.looked.Records++
	}
	if err == nil {
		i.known[r.Dir] = r
		return r.Dir
	}
	if !errors.Is(err, fs.ErrNotExist) { // else collected by now
		i.damaged(name, err)
	}
	return filepath.Join("roots", id)
}

func (i *inspector) root(dir string, live bool) error {
	there := func() bool {
		info, err := os.Lstat(filepath.Join(i.dir, dir))
		return err == nil && info.IsDir()
	}
	r := i.known[dir]
	if r == nil {
		r = &Root{Dir: dir}
	}
	if !there() && !live && i.known[dir] == nil { // not yet, or no longer
		return nil
	}
	how := How{Owner: i.what.Owner, Gentle: i.what.Gentle}
	if i.what.Quick {
		how.Since = r.Filled
	}
	if i.what.prove {
		how.proof = newProof(filepath.Join(i.dir, "roots"))
	}
	c, err := examine(i.ctx, i.dir, r, how)
	if err != nil {
		return err
	}
	if c.rank() < 2 {
		c.proof = how.proof
	}
	if !c.Whole() && !live && !there() { // collected meanwhile
		return nil
	}
	c.Live = live
	i.found.Roots = append(i.found.Roots, *c)
	if i.what.All {
		i.index(filepath.Join("roots", filepath.Base(dir)+indexSuffix))
	}
	return nil
}

func (i *inspector) cache() error {
	entries, err := os.ReadDir(filepath.Join(i.dir, "cache"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a cache may be deleted at any time
		return err
	}
	for _, e := range entries {
		d, err := digest.Parse(e.Name())
		if err != nil {
			continue
		}
		name := filepath.Join("cache", e.Name())
		err = provedWhile(i.ctx, filepath.Join(i.dir, name), d)
		if i.ctx.Err() != nil {
			return context.Cause(i.ctx)
		}
		if errors.Is(err, fs.ErrNotExist) { // collected meanwhile
			continue
		}
		i.looked.Layers++
		if err != nil {
			i.damaged(name, err)
		}
	}
	return nil
}

// provedWhile is proved that ends with ctx.
func provedWhile(ctx context.Context, path string, d digest.Digest) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	defer context.AfterFunc(ctx, func() { f.Close() })()
	_, err = io.Copy(io.Discard, digest.NewReader(f, d))
	return err
}
