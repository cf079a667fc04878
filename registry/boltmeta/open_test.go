package boltmeta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"deploytools/registry"
)

func TestNewFileIsWholeAndPrivate(t *testing.T) {
	path := statePath(t)
	open(t, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	wantOnly(t, path)
}

// wantOnly expects nothing in the directory of path but path.
func wantOnly(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("the directory has %v, %v, want only %s", entries, err, filepath.Base(path))
	}
}

func TestOpenGoesOnWhereCreatingWasCut(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, path, left string){
		"before anything was written": func(t *testing.T, path, left string) {
			writeFile(t, left, nil)
		},
		"in the first write": func(t *testing.T, path, left string) {
			writeFile(t, left, make([]byte, 5000))
		},
		"before it had its name": func(t *testing.T, path, left string) {
			open(t, left).Close()
		},
		"before the first name went": func(t *testing.T, path, left string) {
			open(t, path).Close()
			if err := os.Link(path, left); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := statePath(t)
			prepare(t, path, filepath.Join(filepath.Dir(path), ".state.db-123.new"))
			db := open(t, path)
			if err := db.Update(t.Context(), func(tx registry.Tx) error { return tx.Put("a", nil) }); err != nil {
				t.Error(err)
			}
			wantOnly(t, path)
		})
	}
}

func TestCreateReplacesNothing(t *testing.T) {
	path := statePath(t)
	writeFile(t, path, []byte("somebody else's"))
	if err := create(path); err != nil {
		t.Errorf("create = %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "somebody else's" {
		t.Errorf("create replaced the file that was there")
	}
	wantOnly(t, path)
}

func TestCannotMakeInMissingDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "state.db")
	if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Open = %v, want an error with the path", err)
	}
}

func TestWhatTheSystemRefusesIsNotCalledDamaged(t *testing.T) {
	if _, err := Open(t.TempDir(), Options{}); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("Open of a directory = %v, want an error that is not ErrDamaged", err)
	}
	path := statePath(t)
	open(t, path).Close()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); !errors.Is(err, unix.EMFILE) || errors.Is(err, ErrDamaged) {
		t.Errorf("Open without descriptors = %v, want EMFILE and not ErrDamaged", err)
	}
}

func TestSecondOpenTimesOutInUpstreamsWords(t *testing.T) {
	path := statePath(t)
	open(t, path)
	_, err := Open(path, Options{Timeout: time.Millisecond})
	if want := fmt.Sprintf("failed to acquire lock/open state file %q: timeout", path); !errors.Is(err, ErrInUse) || err.Error() != want {
		t.Errorf("Open = %v, want %s", err, want)
	}
}

// makeBolt makes a bbolt file with these buckets, and format in about unless it
// is empty.
func makeBolt(t *testing.T, path, format string, buckets ...string) {
	t.Helper()
	b, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Update(func(tx *bolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		if format == "" {
			return nil
		}
		return tx.Bucket(bucketAbout).Put(keyFormat, []byte(format))
	}); err != nil {
		t.Fatal(err)
	}
}

func TestRefusedFilesStayAsTheyAre(t *testing.T) {
	bolts := func(format string, buckets ...string) func(*testing.T, string) {
		return func(t *testing.T, path string) { makeBolt(t, path, format, buckets...) }
	}
	content := func(b []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) { writeFile(t, path, b) }
	}
	for _, c := range []struct {
		name string
		make func(t *testing.T, path string)
		want error
		says string
	}{
		{"newer format", bolts("3", "about", "m2"), ErrNewer, "format is 3"},
		{"far newer format without our keys", bolts("12", "about", "m9"), ErrNewer, "12"},
		{"older format", bolts("1", "about", "m2"), ErrDamaged, "format"},
		{"no number", bolts("x", "about", "m2"), ErrDamaged, `"x"`},
		{"no format", bolts("", "about", "m2"), ErrDamaged, `""`},
		{"no keys", bolts("2", "about"), ErrDamaged, "m2"},
		{"upstream's", bolts("", "components", "configs", "files"), ErrUpstream, "imported"},
		{"upstream's, one bucket", bolts("", "files"), ErrUpstream, "nothing was changed"},
		{"somebody else's bbolt file", bolts("", "users"), ErrDamaged, "not a database of deploy-registry"},
		{"bbolt without buckets", bolts(""), ErrDamaged, "restore"},
		{"empty", content(nil), ErrDamaged, "empty"},
		{"one byte", content([]byte("x")), ErrDamaged, "restore"},
		{"text", content(bytes.Repeat([]byte("state\n"), 10000)), ErrDamaged, "restore"},
		{"zeros", content(make([]byte, 65536)), ErrDamaged, "restore"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := statePath(t)
			c.make(t, path)
			before, _ := os.ReadFile(path)
			_, err := Open(path, Options{})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("Open = %v, want %v with %q and the path", err, c.want, c.says)
			}
			if err != nil && strings.Contains(err.Error(), "goroutine") {
				t.Errorf("Open = %v, a trace", err)
			}
			if err != nil && strings.Contains(err.Error(), "(deploy-registry ") {
				t.Errorf("Open = %v, which tells to run a command that there is not", err)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
			wantOnly(t, path)
		})
	}
}

// TestNoDamagePanics spoils each page and cuts the file at each page. Open must
// say so, or, where the page was not in use or a copy of it is left, have all of
// one version of the data. (What stands inside a page has no checksum: bytes of
// keys and values may differ unnoticed.)
func TestNoDamagePanics(t *testing.T) {
	path := statePath(t)
	versions := grownFile(t, path)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	damage := damages(page)
	files, refused := openFiles(t), map[string]string{}
	for name, spoil := range damage {
		for at := 0; at < len(whole); at += page {
			writeFile(t, path, spoil(bytes.Clone(whole), at))
			db, err := Open(path, Options{Timeout: time.Millisecond})
			if err != nil {
				refused[name] += err.Error() + "\n"
				if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "restore") {
					t.Errorf("%s at page %d: Open = %v, want ErrDamaged", name, at/page, err)
				}
				continue
			}
			if got := shape(t, db); !versions[got] && name != "noise after a good header" {
				t.Errorf("%s at page %d: Open succeeds with other data", name, at/page)
			}
			db.Close()
		}
	}
	if after := openFiles(t); after > files {
		t.Errorf("%d files were open before, %d after", files, after)
	}
	for name := range damage {
		if refused[name] == "" {
			t.Errorf("%s: no damage was found", name)
		}
	}
	for name, says := range map[string]string{"cut": "bytes of", "free list that lacks a page": "unreachable unfreed"} {
		if !strings.Contains(refused[name], says) {
			t.Errorf("%s: no error says %q", name, says)
		}
	}
}

// damages are ways to spoil the page at the offset at of a file.
func damages(page int) map[string]func(b []byte, at int) []byte {
	random := rand.New(rand.NewPCG(3, 4))
	return map[string]func(b []byte, at int) []byte{
		// Offsets are those of bbolt: flags at 8, count at 10, elements from 16.
		"branch that points far away": func(b []byte, at int) []byte {
			if b[at+8] == 0x01 {
				binary.NativeEndian.PutUint64(b[at+16+8:], 1<<24)
			}
			return b
		},
		"free list that lacks a page": func(b []byte, at int) []byte {
			if n := binary.NativeEndian.Uint16(b[at+10:]); b[at+8] == 0x10 && n > 0 {
				binary.NativeEndian.PutUint16(b[at+10:], n-1)
			}
			return b
		},
		"cut":        func(b []byte, at int) []byte { return b[:at] },
		"cut inside": func(b []byte, at int) []byte { return b[:at+page/3] },
		"zeros":      func(b []byte, at int) []byte { clear(b[at : at+page]); return b },
		"ones":       func(b []byte, at int) []byte { copy(b[at:], bytes.Repeat([]byte{0xff}, page)); return b },
		"noise": func(b []byte, at int) []byte {
			for i := range page {
				b[at+i] = byte(random.Uint32())
			}
			return b
		},
		"noise after a good header": func(b []byte, at int) []byte {
			for i := 16; i < page; i++ {
				b[at+i] = byte(random.Uint32())
			}
			return b
		},
	}
}

// shape returns the keys and the lengths of their values.
func shape(t *testing.T, db *DB) string {
	t.Helper()
	all := pairs(t, db)
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintln(&b, k, len(all[k]))
	}
	return b.String()
}

// grownFile makes a file with branches, values over several pages and free
// pages, and returns its shape after each of the last two updates.
func grownFile(t *testing.T, path string) map[string]bool {
	t.Helper()
	db, versions := open(t, path), map[string]bool{}
	for round := range 4 {
		if err := db.Update(t.Context(), func(tx registry.Tx) error {
			for i := range 60 {
				if err := tx.Put(fmt.Sprintf("key/%03d", i*5+round), bytes.Repeat([]byte{byte(i)}, 300)); err != nil {
					return err
				}
			}
			tx.Put("large", bytes.Repeat([]byte{byte(round)}, 9000))
			return tx.Delete(fmt.Sprintf("key/%03d", round))
		}); err != nil {
			t.Fatal(err)
		}
		if round >= 2 {
			versions[shape(t, db)] = true
		}
	}
	var used int64 // the rest is room to grow
	db.bolt.View(func(tx *bolt.Tx) error {
		used = tx.Size()
		return nil
	})
	if err := errors.Join(db.Close(), os.Truncate(path, used)); err != nil {
		t.Fatal(err)
	}
	return versions
}

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// openFiles counts the descriptors of this process.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
