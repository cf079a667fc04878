package sftpfs

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pkg/sftp"

	"deploytools/layers/digest"
	"deploytools/registry"
)

// goOn continues path after from bytes, as a client that resumes: it looks how
// much is there, opens without cutting, and writes the rest.
func goOn(t *testing.T, c *sftp.Client, path string, from int64, content string) {
	t.Helper()
	if info, err := c.Stat(path); err != nil || info.Size() != from {
		t.Fatalf("Stat(%s) = %v, %v, want %d bytes", path, info, err, from)
	}
	f, err := c.OpenFile(path, os.O_WRONLY|os.O_CREATE)
	if err != nil {
		t.Fatalf("OpenFile(%s) = %v", path, err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != from {
		t.Errorf("FSTAT = %v, %v, want %d bytes", info, err, from)
	}
	_, err = f.WriteAt([]byte(content[from:]), from)
	if err != nil {
		t.Errorf("WriteAt(%d) = %v", from, err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if got := read(t, c, path); got != content {
		t.Errorf("%s holds %q, want %q", path, got, content)
	}
}

// cutOff writes content to path and breaks the connection.
func cutOff(t *testing.T, r *registry.Registry, path, content string) {
	t.Helper()
	c, _, cut := session(t, r, ann)
	f, err := c.Create(path)
	if err == nil {
		_, err = f.Write([]byte(content))
	}
	if err != nil {
		t.Fatal(err)
	}
	cut()
}

func TestACutUploadGoesOn(t *testing.T) {
	for name, flags := range map[string]int{
		"OpenSSH's reput":       os.O_WRONLY | os.O_CREATE | os.O_APPEND,
		"lftp, WinSCP, sshfs":   os.O_WRONLY | os.O_CREATE,
		"psftp, FileZilla":      os.O_WRONLY,
		"one that reads it too": os.O_RDWR,
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, options())
			cutOff(t, r, "f", "half of")
			c, n, _ := session(t, r, ann)
			if _, err := c.Open("f"); err == nil {
				t.Error("a part can be read")
			}
			if _, err := c.Stat("f.sha256"); err == nil {
				t.Error("a part has a digest")
			}
			f, err := c.OpenFile("f", flags)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte(" it"), 7); err != nil {
				t.Error(err)
			}
			if flags&os.O_RDWR != 0 {
				if b := make([]byte, 4); must(f.ReadAt(b, 0)) != 4 || string(b) != "half" {
					t.Errorf("it reads %q", b)
				}
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			if want := fmt.Sprintf("stored %s 10 bytes f\n", digest.Of([]byte("half of it"))); n.String() != want {
				t.Errorf("the user sees %q, want %q", n, want)
			}
			addver(t, r, "code", "v1", "half of it")
		})
	}
}

func TestACutUploadIsBegunAnew(t *testing.T) {
	for name, flags := range map[string]int{
		"cutting it":             os.O_WRONLY | os.O_CREATE | os.O_TRUNC,
		"over it, as scp writes": os.O_WRONLY | os.O_CREATE,
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, options())
			cutOff(t, r, "f", "something longer")
			c, _, _ := session(t, r, ann)
			f, err := c.OpenFile("f", flags)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte("content"), 0); err != nil {
				t.Error(err)
			}
			if err := f.Truncate(7); err != nil { // scp does it at the end
				t.Error(err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			if got := read(t, c, "f"); got != "content" {
				t.Errorf("f holds %q", got)
			}
			if all, err := r.Uploads(t.Context()); len(all) != 1 || err != nil {
				t.Errorf("Uploads() = %+v, %v, want one", all, err)
			}
		})
	}
}

// Whoever stops sftp with Ctrl-C gets a file that was closed well.
func TestAClosedPartGoesOnWhenItIsRefused(t *testing.T) {
	o := options()
	o.Check = func(ctx context.Context, r io.Reader, _ func(int64) error) (registry.Archive, error) {
		b, err := io.ReadAll(r)
		a := registry.Archive{Size: int64(len(b))}
		if err == nil && !strings.HasSuffix(string(b), "end") {
			err = &registry.Error{Kind: registry.ErrRefused, Text: "ends too early"}
		}
		return a, err
	}
	r := open(t, o)
	c, n, _ := session(t, r, ann)
	put(t, c, "f", "half")
	goOn(t, c, "f", 4, "half, and the end")
	put(t, c, "f", "half again")
	put(t, c, "f", "all to the end")
	if got := n.String(); strings.Count(got, "refused f: ends too early") != 2 || strings.Contains(got, "error") {
		t.Errorf("the user sees %q", got)
	}
	addver(t, r, "code", "v1", "half, and the end")
	addver(t, r, "code", "v2", "all to the end")
}

// A great part may be opened again before its check has come to the end.
func TestAClosedPartGoesOnOnceItIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options()
		o.Check = func(ctx context.Context, r io.Reader, _ func(int64) error) (registry.Archive, error) {
			a, _ := check(ctx, r, nil)
			time.Sleep(1500 * time.Millisecond)
			return a, &registry.Error{Kind: registry.ErrRefused, Text: "ends too early"}
		}
		c, _, cut := session(t, open(t, o), ann)
		put(t, c, "f", "half of")
		goOn(t, c, "f", 7, "half of it")
		cut()
	})
}

// What is complete is never changed: who writes there begins another upload,
// who means to continue is told, and who does nothing has done nothing.
func TestWhatIsCompleteIsLeftAlone(t *testing.T) {
	r := open(t, options())
	c, n, _ := session(t, r, ann)
	put(t, c, "f", "content")
	for name, act := range map[string]func(f *sftp.File) error{
		"nothing":       func(f *sftp.File) error { return nil },
		"its own size":  func(f *sftp.File) error { return f.Truncate(7) },
		"its own times": func(f *sftp.File) error { return c.Chtimes("f", moment, moment) },
	} {
		f, err := c.OpenFile("f", os.O_WRONLY)
		if err != nil {
			t.Fatalf("%s: OpenFile = %v", name, err)
		}
		if info, err := f.Stat(); err != nil || info.Size() != 7 {
			t.Errorf("%s: FSTAT = %v, %v", name, info, err)
		}
		if err := act(f); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := f.Close(); err != nil {
			t.Errorf("%s: Close = %v", name, err)
		}
	}
	f, err := c.OpenFile("f", os.O_WRONLY|os.O_CREATE)
	if err == nil {
		f.WriteAt([]byte(" more"), 7)
		err = f.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "cannot be continued") {
		t.Errorf("Close after continuing = %v", err)
	}
	if got := read(t, c, "f"); got != "content" {
		t.Errorf("f holds %q", got)
	}
	if got := n.String(); strings.Count(got, "stored") != 1 {
		t.Errorf("the user sees %q, want one upload", got)
	}
	if all, err := r.Uploads(t.Context()); len(all) != 1 || err != nil {
		t.Errorf("Uploads() = %+v, %v, want one", all, err)
	}
}

// Two jobs with the same key that write the same name hinder each other as
// little as two with other keys, whichever client they use.
func TestTwoSessionsWriteTheSameName(t *testing.T) {
	for name, flags := range map[string]int{"cutting": os.O_WRONLY | os.O_CREATE | os.O_TRUNC, "as scp": os.O_WRONLY | os.O_CREATE} {
		r := open(t, options())
		var clients []*sftp.Client
		var files []*sftp.File
		for i := range 2 {
			c, _, _ := session(t, r, ann)
			f, err := c.OpenFile("f", flags)
			if err != nil {
				t.Fatalf("%s: OpenFile by session %d = %v", name, i, err)
			}
			if _, err := f.Write([]byte("job")); err != nil {
				t.Fatal(err)
			}
			clients, files = append(clients, c), append(files, f)
		}
		for i, f := range files {
			if _, err := f.Write([]byte(fmt.Sprint(" ", i))); err != nil {
				t.Errorf("%s: Write by session %d = %v", name, i, err)
			}
			if err := f.Close(); err != nil {
				t.Errorf("%s: Close by session %d = %v", name, i, err)
			}
			if info, err := clients[i].Stat("f"); err != nil || info.Size() != 5 {
				t.Errorf("%s: Stat by session %d = %v, %v", name, i, info, err)
			}
		}
		addver(t, r, "code", "v0", "job 0")
		addver(t, r, "code", "v1", "job 1")
	}
}

// A connection that is dead and not yet noticed keeps nobody from going on.
func TestAStalledUploadGoesOnInAnotherSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		o := options()
		o.Now = func() time.Time { return now }
		r := open(t, o)
		first, _, cut := session(t, r, ann)
		f, err := first.Create("f")
		if err == nil {
			_, err = f.Write([]byte("half of"))
		}
		if err != nil {
			t.Fatal(err)
		}
		second, n, end := session(t, r, ann)
		if _, err := second.OpenFile("f", os.O_WRONLY|os.O_CREATE|os.O_APPEND); err == nil || !strings.Contains(n.String(), "another session") {
			t.Errorf("OpenFile beside a writer = %v, the user sees %q", err, n)
		}
		now = now.Add(time.Minute)
		goOn(t, second, "f", 7, "half of it")
		if _, err := f.Write([]byte("late")); err == nil {
			t.Error("the first session still writes")
		}
		cut()
		end()
	})
}

// Resuming is bound to the operator.
func TestAnotherKeyDoesNotGoOn(t *testing.T) {
	r := open(t, options())
	cutOff(t, r, "f", "half of")
	bob := registry.Caller{User: "ann", Role: registry.Publisher, Fingerprint: "SHA256:bob"}
	c, _, _ := session(t, r, bob)
	if _, err := c.OpenFile("f", os.O_WRONLY); err == nil {
		t.Error("another key opens it")
	}
	put(t, c, "f", "mine")
	own, _, _ := session(t, r, ann)
	goOn(t, own, "f", 7, "half of it")
	if got := read(t, c, "f"); got != "mine" {
		t.Errorf("the other key's f holds %q", got)
	}
}
