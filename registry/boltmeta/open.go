package boltmeta

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// Options says how to open a file. The zero value is ready.
type Options struct {
	// Timeout is how long to wait for another process to let go of the file;
	// 0 = 5 s.
	Timeout time.Duration
}

func (o Options) timeout() time.Duration { return cmp.Or(o.Timeout, 5*time.Second) }

// format is what this package reads and writes.
const format = 2

var (
	bucketKeys  = []byte("m2")
	bucketAbout = []byte("about")
	keyFormat   = []byte("format")
)

var (
	// ErrDamaged says that the file is not a whole state file. It is as it was.
	ErrDamaged = errors.New("file is damaged, nothing was changed: restore it from a backup")
	// ErrNewer says that a newer program wrote the file. It is as it was.
	ErrNewer = errors.New("file was written by a newer deploy-registry, nothing was changed: use that one")
	// ErrUpstream says that the file is one of the archived tool set. It is as
	// it was.
	ErrUpstream = errors.New("file has the layout of the archived deploy-registry and must be imported first, nothing was changed")
	// ErrInUse says that another process has the file open. It is as it was.
	ErrInUse = bolterrors.ErrTimeout
)

// Open opens the state file path, making it when it is missing; its directory
// is there. It reads the whole file and proves that its structure is sound.
// A file that is damaged, newer or upstream's is left as it is.
func Open(path string, o Options) (*DB, error) {
	o.Timeout = o.timeout()
	err := present(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = create(path)
	}
	if err != nil {
		return nil, err
	}
	if err := inspect(path, o, recognise); err != nil {
		return nil, err
	}
	b, err := openSound(path, o)
	if err != nil {
		return nil, err
	}
	if err := sweep(path); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return newDB(b), nil
}

// Inspect returns the error with which Open would refuse the state file path, having read
// the whole of it without a right to write. While a registry has it open, it wraps ErrInUse.
func Inspect(path string, o Options) error {
	o.Timeout = o.timeout()
	if err := present(path); err != nil {
		return err
	}
	return inspect(path, o, func(tx *bolt.Tx, path string) error {
		return cmp.Or(recognise(tx, path), soundness(tx))
	})
}

// present refuses what can be no state file.
func present(path string) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && !info.Mode().IsRegular():
		err = fmt.Errorf("state file %q: not a regular file", path)
	case err == nil && info.Size() == 0: // bbolt would make a new database of it
		err = fmt.Errorf("state file %q: %w: it is empty", path, ErrDamaged)
	}
	return err
}

// inspect looks at the file without a right to write to it.
func inspect(path string, o Options, look func(*bolt.Tx, string) error) (err error) {
	return guard(path, func(opened func(*os.File)) error {
		b, err := openBolt(path, bolt.Options{Timeout: o.Timeout, ReadOnly: true}, opened)
		if err != nil {
			return err
		}
		defer b.Close()
		return b.View(func(tx *bolt.Tx) error { return look(tx, path) })
	})
}

// openSound opens the file for good and checks the whole of it. Opening writes
// nothing, as inspect has seen that it is one of ours.
func openSound(path string, o Options) (b *bolt.DB, err error) {
	err = guard(path, func(opened func(*os.File)) error {
		b, err = openBolt(path, bolt.Options{
			Timeout:      o.Timeout,
			FreelistType: bolt.FreelistMapType,
			// Growing the mapping waits for every View that runs, and new ones
			// wait behind it. This much address space (not memory) puts that
			// off for long.
			InitialMmapSize: 1 << 28,
		}, opened)
		if err != nil {
			return err
		}
		b.AllocSize = 1 << 20 // the step in which the file grows
		return b.View(soundness)
	})
	if err != nil && b != nil {
		b.Close()
	}
	return b, err
}

// soundness checks that each page has one use.
func soundness(tx *bolt.Tx) error {
	var first error
	for err := range tx.Check() { // to its end: it runs on a goroutine of its own
		if first == nil {
			first = damaged{err}
		}
	}
	return first
}

// recognise says whether tx is of a file of ours, whole and of our format.
func recognise(tx *bolt.Tx, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() < tx.Size() { // touching what is missing would be a SIGBUS
		return damaged{fmt.Errorf("it has %d bytes of %d", info.Size(), tx.Size())}
	}
	about := tx.Bucket(bucketAbout)
	if about == nil {
		for _, name := range []string{"components", "configs", "files"} {
			if tx.Bucket([]byte(name)) != nil {
				return ErrUpstream
			}
		}
		return damaged{errors.New("it is not a database of deploy-registry")}
	}
	n, err := strconv.Atoi(string(about.Get(keyFormat)))
	switch {
	case err != nil || n < format:
		return damaged{fmt.Errorf("its format is %q", about.Get(keyFormat))}
	case n > format:
		return fmt.Errorf("%w: its format is %d, known is %d", ErrNewer, n, format)
	}
	keys := tx.Bucket(bucketKeys)
	if keys == nil {
		return damaged{fmt.Errorf("it has no bucket %q", bucketKeys)}
	}
	// bbolt compares each page with its place when it walks over it, and this
	// walk can bear a fault where tx.Check, on its own goroutine, could not.
	return keys.ForEach(func(k, v []byte) error { return nil })
}

// damaged is what is wrong with a file that is not whole.
type damaged struct{ error }

func (d damaged) Error() string   { return fmt.Sprintf("%v: %v", ErrDamaged, d.error) }
func (d damaged) Unwrap() []error { return []error{ErrDamaged, d.error} }

// guard calls open and names the file in its error. bbolt panics over what it
// does not expect in a file, and a page that is not there is a fault: both are
// turned into ErrDamaged, and the file that open told of is closed.
func guard(path string, open func(opened func(*os.File)) error) (err error) {
	var file *os.File
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			release(file)
			err = damaged{fmt.Errorf("%v", v)}
		}
		if err != nil && !errors.Is(err, ErrInUse) {
			err = fmt.Errorf("state file %q: %w", path, err)
		}
	}()
	return open(func(f *os.File) { file = f })
}

// release closes the file that bbolt had open when it panicked. Its mapping
// stays behind and would keep the lock.
func release(f *os.File) {
	if f != nil {
		unix.Flock(int(f.Fd()), unix.LOCK_UN)
		f.Close()
	}
}

// openBolt opens the file, which exists.
func openBolt(path string, o bolt.Options, opened func(*os.File)) (*bolt.DB, error) {
	o.OpenFile = func(path string, flag int, perm fs.FileMode) (*os.File, error) {
		f, err := os.OpenFile(path, flag&^os.O_CREATE, perm)
		opened(f)
		return f, err
	}
	b, err := bolt.Open(path, 0o600, &o)
	if err == nil {
		return b, nil
	}
	if errors.Is(err, ErrInUse) { // upstream's words, which scripts look for
		return nil, fmt.Errorf("failed to acquire lock/open state file %q: %w", path, err)
	}
	if _, ok := errors.AsType[unix.Errno](err); ok { // the system's, and not the content's
		return nil, err
	}
	return nil, damaged{err}
}
