package atomic

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func symlinksAreRefusedOrFollowed(t *testing.T, s site) {
	s.write(t, "target", "old", 0o640)
	must(os.Symlink("target", s.etc+"/link"))
	must(os.Symlink("nothing", s.etc+"/dangling"))
	p := Plan{ID: "set", Files: []Target{{Path: s.etc + "/link", Bytes: []byte("new")}}}
	if err := s.applies(t, p); !errors.Is(err, ErrPlanInvalid) || !errors.Is(err, ErrOccupied) {
		t.Errorf("refusing: %v", err)
	}
	p.Symlinks = FollowSymlinks
	if err := s.applies(t, p); err != nil {
		t.Errorf("following: %v", err)
	}
	s.wants(t, "dangling Lrwxrwxrwx -> nothing", "link Lrwxrwxrwx -> target", `target -rw-r----- "new"`)
	p.Files[0].Path = s.etc + "/dangling"
	if err := s.applies(t, p); !errors.Is(err, ErrPlanInvalid) {
		t.Errorf("following into nothing: %v", err)
	}
}

func locksGoByDirectoryAndEndWithTheContext(t *testing.T, s site) {
	s.furnish(t)
	must(os.Symlink("etc", filepath.Dir(s.etc)+"/alias"))
	set, err := s.Prepare(t.Context(), s.plan("set"))
	must(err)
	defer set.Close()
	other, err := OpenStore(filepath.Dir(s.etc) + "/other")
	must(err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = other.Prepare(ctx, Plan{ID: "x", Files: []Target{{Path: filepath.Dir(s.etc) + "/alias/cert"}}})
	if !errors.Is(err, ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("another store, by another name of the directory: %v", err)
	}
}

func verifyIsInsideTheLock(t *testing.T, s site) {
	s.furnish(t)
	other, err := OpenStore(filepath.Dir(s.etc) + "/other")
	must(err)
	looked := 0
	_, err = s.Apply(t.Context(), s.plan("set"), Hooks{Verify: func(ctx context.Context, phase Phase) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		if _, err := other.Apply(ctx, Plan{Files: []Target{{Path: s.etc + "/cert"}}}, Hooks{}); !errors.Is(err, ErrBusy) {
			t.Errorf("in %s, another Apply = %v", phase, err)
		}
		if looked++; phase == Deploying {
			return errHook
		}
		return nil
	}})
	if !errors.Is(err, ErrVerifyFailed) || !errors.Is(err, errHook) || looked != 2 {
		t.Errorf("Apply = %v after %d looks, want 2", err, looked)
	}
}

func previewIsKeyedAsGiven(t *testing.T, s site) {
	s.furnish(t)
	given := s.etc + "/../etc//cert"
	set, err := s.Prepare(t.Context(), Plan{ID: "set", Files: []Target{{Path: given, Bytes: []byte("new")}}})
	must(err)
	defer set.Close()
	p, err := set.Staged(nil)
	must(err)
	if b, err := os.ReadFile(p.Paths[given]); string(b) != "new" {
		t.Errorf("%q leads to %q, %v", given, b, err)
	}
}

func validateSeesTheNewContent(t *testing.T, s site) {
	s.furnish(t)
	s.write(t, "beside", "live", 0o644)
	must(os.Symlink(s.etc+"/cert", s.etc+"/to-cert"))
	err := errors.New("not run")
	_, applyErr := s.Apply(t.Context(), s.plan("set"), Hooks{Validate: func(_ context.Context, p Preview) error {
		err = nil
		for name, want := range map[string]string{"cert": "new cert", "to-cert": "new cert", "extra": "extra", "beside": "live", "gone": ""} {
			b, _ := os.ReadFile(p.Dir + s.etc + "/" + name)
			if string(b) != want {
				t.Errorf("the check reads %s: %q, want %q", name, b, want)
			}
		}
		return nil
	}})
	if err != nil || applyErr != nil {
		t.Error(err, applyErr)
	}
}

func attributesAreKeptAndObstaclesNamed(t *testing.T, s site) {
	needsRoot(t)
	s.furnish(t)
	cert := s.etc + "/cert"
	acl := []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x39\x30\x00\x00\x04\x00\x00\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff")
	must(unix.Setxattr(cert, "user.note", []byte("mine"), 0))
	must(unix.Setxattr(cert, "system.posix_acl_access", acl, 0))
	must(os.Link(cert, s.etc+"/second"))
	r, err := s.Apply(t.Context(), s.plan("set"), Hooks{})
	if err != nil || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "2 names") {
		t.Errorf("Apply = %+v, %v", r, err)
	}
	for name, want := range map[string][]byte{"user.note": []byte("mine"), "system.posix_acl_access": acl} {
		if got, err := attribute(cert, name); !bytes.Equal(got, want) {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
	s.obstacles(t)
}

// obstacles: what cannot be replaced is named before anything is touched.
func (s site) obstacles(t *testing.T) {
	t.Helper()
	run := func(argv ...string) {
		t.Helper()
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", argv, err, out)
		}
	}
	for name, c := range map[string]struct{ make, clear []string }{
		"mounted":   {[]string{"mount", "--bind", s.etc + "/second", s.etc + "/mounted"}, []string{"umount", s.etc + "/mounted"}},
		"immutable": {[]string{"chattr", "+i", s.etc + "/immutable"}, []string{"chattr", "-i", s.etc + "/immutable"}},
		"directory": {[]string{"mkdir", s.etc + "/directory"}, []string{"rmdir", s.etc + "/directory"}},
		"pipe":      {[]string{"mkfifo", s.etc + "/pipe"}, []string{"rm", s.etc + "/pipe"}},
	} {
		if name == "mounted" || name == "immutable" {
			s.write(t, name, "old", 0o644)
		}
		run(c.make...)
		_, err := s.Prepare(t.Context(), Plan{ID: "x", Files: []Target{{Path: s.etc + "/cert", Bytes: []byte("newer")}, {Path: s.etc + "/" + name}}})
		if !errors.Is(err, ErrPlanInvalid) || !errors.Is(err, ErrOccupied) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: Prepare = %v", name, err)
		}
		run(c.clear...)
		s.tidy(t)
	}
}

// zeros is a stream that is made while it is read.
type zeros struct{ left int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	clear(p[:n])
	z.left -= n
	return int(n), nil
}

func (z *zeros) Close() error { return nil }

func streamsAreNotReadWhole(t *testing.T, s site) {
	const size = 32 << 20
	opened := 0
	f := Target{Path: s.etc + "/big", Open: func() (io.ReadCloser, error) { opened++; return &zeros{size}, nil }}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	must(s.applies(t, Plan{ID: "set", Files: []Target{f}}))
	must(s.applies(t, Plan{ID: "set", Files: []Target{f}}))
	all, err := s.Published()
	must(err)
	f.Digest = all[0].Digest
	must(s.applies(t, Plan{ID: "set", Files: []Target{f}}))
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > size/8 || all[0].Size != size {
		t.Errorf("three times %d bytes take %d bytes of memory", all[0].Size, used)
	}
	if opened != 2 {
		t.Errorf("opened %d times, want 2: the third time the digest says enough", opened)
	}
}

func secondFileFailingTouchesNoFirst(t *testing.T, s site) {
	before, _ := s.furnish(t)
	p := s.plan("set")
	p.Files[1].Bytes, p.Files[1].Open = nil, func() (io.ReadCloser, error) { return io.NopCloser(&half{}), nil }
	if err := s.applies(t, p); !errors.Is(err, ErrPrepareFailed) || !errors.Is(err, unix.EIO) {
		t.Errorf("Apply = %v", err)
	}
	s.wants(t, before...)
	s.tidy(t)
}

// half is a stream that breaks.
type half struct{ given bool }

func (h *half) Read(p []byte) (int, error) {
	if h.given {
		return 0, unix.EIO
	}
	h.given = true
	return copy(p, "half"), nil
}

func reloadThatDidNothingIsFoundByVerify(t *testing.T, s site) {
	before, _ := s.furnish(t)
	serves := s.reader()
	_, err := s.Apply(t.Context(), s.plan("set"), Hooks{
		Reload: func(context.Context, Phase) error { return nil }, // and goes on with the old
		Verify: func(context.Context, Phase) error {
			if !slices.Equal(serves, s.reader()) {
				return errors.New("the old content is served")
			}
			return nil
		}})
	if !errors.Is(err, ErrVerifyFailed) {
		t.Errorf("Apply = %v", err)
	}
	s.wants(t, before...)
}

// needsRoot skips the test for whoever is not root. CI is, and fails.
func needsRoot(t testing.TB) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") != "":
		t.Fatal("CI should run this as root")
	default:
		t.Skip("needs root")
	}
}
