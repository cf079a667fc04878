package boltmeta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"deploytools/registry"
)

// upstreamFile makes a database as the archived tool set has it, from texts by
// their path of buckets.
func upstreamFile(t *testing.T, path string, values map[string]string) []byte {
	t.Helper()
	b, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = b.Update(func(tx *bolt.Tx) error {
		for _, key := range slices.Sorted(maps.Keys(values)) {
			parts := strings.Split(key, "|")
			bucket, err := tx.CreateBucketIfNotExists([]byte(parts[0]))
			for _, name := range parts[1 : len(parts)-1] {
				if err == nil {
					bucket, err = bucket.CreateBucketIfNotExists([]byte(name))
				}
			}
			if err != nil {
				return err
			}
			if err := bucket.Put([]byte(parts[len(parts)-1]), []byte(values[key])); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, b.Close()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func hashOf(c byte) string { return strings.Repeat(string(c), 64) }

// layer is upstream's record of a version, without what extra takes away.
func layer(component, version string, hash byte, ctime string) string {
	return fmt.Sprintf(`{"Name":%q,"Version":%q,"File":"files/%s","Hash":%q,"Ctime":%q}`, component, version, hashOf(hash), hashOf(hash), ctime)
}

func configuration(name, mtime, layers string) string {
	return fmt.Sprintf(`{"Name":%q,"Mtime":%q,"Hash":%q,"Layers":[%s]}`, name, mtime, hashOf('c'), layers)
}

// walkthrough is a small upstream database.
func walkthrough() map[string]string {
	v9 := layer("code", "v9", 'a', "2017-03-01T11:28:18.1Z")
	v10 := layer("code", "v10", 'b', "2017-03-01T11:28:18.2Z")
	first, second := configuration("web", "2017-03-01T11:29:00.5Z", v9), configuration("web", "2017-03-01T11:30:00.5Z", v10)
	return map[string]string{
		"components|code|byVersion|v9":                     v9,
		"components|code|byVersion|v10":                    v10,
		"components|code|byTime|2017-03-01T11:28:18Z#v9":   v9,
		"components|code|byTime|2017-03-01T11:28:18Z#v10":  v10,
		"components|config|byVersion|v1":                   `{}`, // its digest and time are elsewhere
		"components|config|byTime|2017-03-01T11:23:36Z#v1": `{}`,
		"configs|web|2017-03-01T11:29:00Z#ccccc":           first,
		"configs|web|2017-03-01T11:30:00Z#ccccc":           second,
		"configs|web|current":                              second,
		"configs|gone|2017-03-01T11:29:00Z#ccccc":          configuration("gone", "2017-03-01T11:29:00Z", v9),
		"files|" + hashOf('a'):                             `[{"Component":"code","Version":"v9"}]`,
		"files|" + hashOf('d'):                             `[{"Component":"config","Version":"v1"}]`,
		"files|" + hashOf('e'):                             `[]`,
	}
}

// What is there is read in the order in which it was made, to the fraction of a
// second that upstream's own order does not know (B-06, B-07).
func TestReadUpstream(t *testing.T) {
	path := statePath(t)
	before := upstreamFile(t, path, walkthrough())
	up, err := ReadUpstream(path, Options{})
	if err != nil || len(up.Unreadable) > 0 {
		t.Fatalf("ReadUpstream = %v, %v", up.Unreadable, err)
	}
	var got []string
	for _, v := range up.Versions {
		got = append(got, fmt.Sprintf("%s:%s %s %s", v.Component, v.Version, v.Hash.String()[:1], v.Ctime.Format(time.RFC3339Nano)))
	}
	want := []string{"config:v1 d 2017-03-01T11:23:36Z", "code:v9 a 2017-03-01T11:28:18.1Z", "code:v10 b 2017-03-01T11:28:18.2Z"}
	if !slices.Equal(got, want) {
		t.Errorf("versions\n%q\nwant\n%q", got, want)
	}
	got = nil
	for _, c := range up.Configurations {
		for _, s := range c.States {
			got = append(got, fmt.Sprintf("%s %t %s", c.Name, c.Deleted, s.Layers[0].Version))
		}
	}
	if want := []string{"gone true v9", "web false v9", "web false v10"}; !slices.Equal(got, want) {
		t.Errorf("configurations %q, want %q", got, want)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("reading changed the file")
	}
}

func TestWhatCannotBeReadOfUpstreamIsNamed(t *testing.T) {
	for key, value := range map[string]string{
		"components|code|byVersion|v9": "{", "components|code|byVersion|vX": "{}", "configs|web|current": "nonsense",
	} {
		path, values := statePath(t), walkthrough()
		values[key] = value
		upstreamFile(t, path, values)
		up, err := ReadUpstream(path, Options{})
		if err != nil || len(up.Unreadable) != 1 {
			t.Errorf("%s: ReadUpstream = %q, %v, want it to be named", key, up.Unreadable, err)
		}
	}
}

func TestOnlyUpstreamsFilesAreImported(t *testing.T) {
	path := statePath(t)
	open(t, path).Close()
	fill := func(registry.Upstream) (map[string][]byte, error) {
		t.Error("fill was called")
		return nil, nil
	}
	if err := Import(path, Options{}, fill); !errors.Is(err, ErrNotUpstream) {
		t.Errorf("Import of a file of ours = %v, want ErrNotUpstream", err)
	}
	writeFile(t, path, []byte("nonsense"))
	if err := Import(path, Options{}, fill); !errors.Is(err, ErrDamaged) {
		t.Errorf("Import of nonsense = %v, want ErrDamaged", err)
	}
	path = statePath(t)
	b, err := bolt.Open(path, 0o600, nil) // the archived program runs
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := Import(path, Options{Timeout: time.Millisecond}, fill); !errors.Is(err, ErrInUse) {
		t.Errorf("Import of a file that is open = %v, want ErrInUse", err)
	}
}

func TestOneImportAtATime(t *testing.T) {
	path := statePath(t)
	upstreamFile(t, path, walkthrough())
	err := Import(path, Options{}, func(registry.Upstream) (map[string][]byte, error) {
		return nil, Import(path, Options{}, nil)
	})
	if !errors.Is(err, ErrInUse) {
		t.Errorf("Import within an import = %v, want ErrInUse", err)
	}
}

// TestImportCrashesAtEveryStep: path is the old file or the new one, whole, and
// the next import or start goes on. A crash fails the clean-up too.
func TestImportCrashesAtEveryStep(t *testing.T) {
	records := map[string][]byte{}
	for i := range 250 {
		records[fmt.Sprintf("key/%03d", i)], _ = json.Marshal(i)
	}
	fill := func(registry.Upstream) (map[string][]byte, error) { return records, nil }
	crash := errors.New("the power is out")
	for n := 0; ; n++ {
		path := statePath(t)
		old := upstreamFile(t, path, walkthrough())
		steps := 0
		unlock, err := LockDir(filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		err = importing{path: path, fill: fill, step: func(string) error {
			if steps++; steps > n {
				return crash
			}
			return nil
		}}.run()
		unlock()
		through := err == nil
		if !through {
			if !errors.Is(err, crash) {
				t.Fatalf("import that crashes at step %d = %v", n, err)
			}
			if now, _ := os.ReadFile(path); !bytes.Equal(now, old) {
				t.Fatalf("crash at step %d: the old file is not as it was", n)
			}
			if err := Import(path, Options{}, fill); err != nil {
				t.Fatalf("import after a crash at step %d = %v", n, err)
			}
		}
		got := map[string][]byte{}
		db := open(t, path) // which takes away what was left
		if err := db.View(t.Context(), func(tx registry.Tx) error {
			maps.Insert(got, tx.Scan(""))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !maps.EqualFunc(got, records, bytes.Equal) {
			t.Errorf("crash at step %d: %d records were imported, want %d", n, len(got), len(records))
		}
		if kept, _ := os.ReadFile(path + KeptSuffix); !bytes.Equal(kept, old) {
			t.Errorf("crash at step %d: the old file is not kept as it was", n)
		}
		if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 2 {
			t.Errorf("crash at step %d: left %v", n, entries)
		}
		if through {
			if n < 8 {
				t.Errorf("there are only %d steps", n)
			}
			return
		}
	}
}

// A file of that name that is somebody else's is not lost.
func TestImportReplacesNoKeptFile(t *testing.T) {
	path := statePath(t)
	old := upstreamFile(t, path, walkthrough())
	writeFile(t, path+KeptSuffix, []byte("another"))
	err := Import(path, Options{}, func(registry.Upstream) (map[string][]byte, error) { return nil, nil })
	if err == nil || !strings.Contains(err.Error(), "in the way") {
		t.Errorf("Import = %v", err)
	}
	if now, _ := os.ReadFile(path); !bytes.Equal(now, old) {
		t.Error("the old file is not as it was")
	}
}
