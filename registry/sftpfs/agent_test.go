package sftpfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"

	"deploytools/layers/digest"
	"deploytools/registry"
	"deploytools/registry/wire"
)

func agent(t *testing.T) (*sftp.Client, *registry.Registry) {
	r := open(t, options())
	stock(t, r)
	c, _ := dial(t, Agent(t.Context(), r, registry.Caller{Role: registry.Agent}, nil))
	return c, r
}

func TestAgentSeesTheTreeOfTheOriginal(t *testing.T) { // U-18, B-14
	c, r := agent(t)
	one, two := digest.Of([]byte("code v1")).String(), digest.Of([]byte("code v2")).String()
	if two < one {
		one, two = two, one
	}
	rev, err := r.Configuration(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	text, err := rev.Encode()
	if err != nil {
		t.Fatal(err)
	}
	size := fmt.Sprint(len(text))
	for path, want := range map[string]string{
		"/": "drwxr-x--- 0 1970-01-01 00:00:00 configs\ndrwx------ 0 1970-01-01 00:00:00 files\n",
		"/configs": "-rw-r--r-- " + size + " 2026-11-21 20:00:00 api.json\n" +
			"-rw-r--r-- " + size + " 2026-11-21 20:00:00 web.json\n",
		"files": "-rw------- 7 2026-11-21 20:00:00 " + one + "\n-rw------- 7 2026-11-21 20:00:00 " + two + "\n",
	} {
		if got := ls(t, c, path); got != want {
			t.Errorf("ls %s:\n%swant\n%s", path, got, want)
		}
	}
	for _, path := range []string{"/configs/web.json", "configs/web.json", "./configs/../configs/web.json", "/../configs/web.json"} {
		if got := read(t, c, path); got != string(text) {
			t.Errorf("%s holds %q, want %q", path, got, text)
		}
	}
	got, err := wire.DecodeConfiguration([]byte(read(t, c, "configs/web.json")))
	if err != nil {
		t.Fatal(err)
	}
	if content := read(t, c, got.Layers[0].File); content != "code v2" {
		t.Errorf("%s holds %q", got.Layers[0].File, content)
	}
	if info, err := c.Stat("files/" + one); err != nil || info.Size() != 7 || info.Mode() != 0o600 {
		t.Errorf("Stat = %+v, %v", info, err)
	}
}

// B-12, B-13: what is not there is missing for stat and at open.
func TestAgentMissesWhatIsNotThere(t *testing.T) {
	c, r := agent(t)
	v, err := r.Versions(t.Context(), "code")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"/configs/nope.json", "/configs/web", "/configs/.json", "/configs/a/b.json", "/configs/web.json/x", "/configs/web.JSON",
		"/files/" + digest.Of([]byte("nothing")).String(), "/files/" + strings.ToUpper(v[0].Digest.String()), "/files/x", "/files/" + v[0].Digest.String() + "/x",
		"/files/" + v[0].Manifest.String(), "/nope", "/state.db", "/codev1", "/codev1.sha256", "/configs\x00", "/" + strings.Repeat("x", 5000),
		"/configs/\xff.json",
	} {
		if _, err := c.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat(%.80q) = %v, want no such file", path, err)
		}
		if _, err := c.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Lstat(%.80q) = %v, want no such file", path, err)
		}
		if _, err := c.Open(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open(%.80q) = %v, want no such file", path, err)
		}
		if _, err := c.ReadDir(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ReadDir(%.80q) = %v, want no such file", path, err)
		}
	}
	for _, dir := range []string{"/", "/configs", "/files"} {
		if _, err := c.Open(dir); err == nil {
			t.Errorf("Open(%s) succeeds", dir)
		}
	}
	if _, err := c.ReadDir("/configs/web.json"); err == nil {
		t.Error("ReadDir of a file succeeds")
	}
}

func TestAgentChangesNothing(t *testing.T) {
	c, r := agent(t)
	for _, path := range []string{"/configs/web.json", "/configs/new.json", "/files/x", "/new", "/", "/configs", "/a\nb"} {
		for name, err := range map[string]error{
			"Create": func() error { _, err := c.Create(path); return err }(),
			"append": func() error { _, err := c.OpenFile(path, os.O_WRONLY|os.O_APPEND); return err }(),
			"rw":     func() error { _, err := c.OpenFile(path, os.O_RDWR); return err }(),
			"Remove": c.Remove(path), "Mkdir": c.Mkdir(path), "RemoveDirectory": c.RemoveDirectory(path),
			"Rename": c.Rename(path, "/other"), "PosixRename": c.PosixRename(path, "/other"), "Chmod": c.Chmod(path, 0o777),
			"Truncate": c.Truncate(path, 0), "Link": c.Link(path, "/other"), "Symlink": c.Symlink(path, "/other"),
			"Chtimes": c.Chtimes(path, moment, moment), "Chown": c.Chown(path, 0, 0),
		} {
			if !errors.Is(err, fs.ErrPermission) && !strings.Contains(path, "\n") || err == nil {
				t.Errorf("%s(%q) = %v, want permission denied", name, path, err)
			}
		}
	}
	if _, err := c.ReadLink("/configs"); err == nil {
		t.Error("ReadLink succeeds")
	}
	if all, err := r.Uploads(t.Context()); len(all) != 0 || err != nil {
		t.Errorf("Uploads() = %+v, %v", all, err)
	}
}

// Ranges of one layer come on several channels at once.
func TestAgentReadsRangesAtOnce(t *testing.T) {
	r := open(t, options())
	content := make([]byte, 1<<20)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	c, _, _ := session(t, r, ann)
	put(t, c, "x", string(content))
	addver(t, r, "code", "v1", string(content))
	c, _ = dial(t, Agent(t.Context(), r, registry.Caller{Role: registry.Agent}, nil))
	f, err := c.Open("files/" + digest.Of(content).String())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			part := make([]byte, len(content)/4)
			off := int64(i * len(part))
			if n, err := f.ReadAt(part, off); n != len(part) || err != nil && err != io.EOF || !bytes.Equal(part, content[off:off+int64(n)]) {
				t.Errorf("ReadAt(%d) = %d, %v, or other content", off, n, err)
			}
		})
	}
	wg.Wait()
}

func TestMtimeIsTheRevisions(t *testing.T) {
	o := options()
	now := moment
	o.Now = func() time.Time { return now }
	r := open(t, o)
	stock(t, r)
	now = now.Add(time.Hour)
	if _, err := r.ChangeConfiguration(t.Context(), registry.Act{Caller: ann}, "web", []registry.LayerRef{{Component: "code", Version: "v1"}}, registry.Checks{}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	c, _ := dial(t, Agent(t.Context(), r, registry.Caller{Role: registry.Agent}, nil))
	for name, want := range map[string]time.Time{"web": moment.Add(time.Hour), "api": moment} {
		if info, err := c.Stat("configs/" + name + ".json"); err != nil || !info.ModTime().Equal(want) {
			t.Errorf("Stat(%s) = %v, %v, want %v", name, info, err, want)
		}
	}
}
