package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/cmd/internal/cli"
	"deploytools/registry/wire"
)

// echo answers with what it is asked; "hang" waits for the end of its caller.
type echo struct{ left chan error }

func (e *echo) handle(ctx context.Context, verb string, args json.RawMessage, note func(string)) (any, error) {
	switch verb {
	case "hang":
		note("hanging")
		<-ctx.Done()
		e.left <- context.Cause(ctx)
		return nil, context.Cause(ctx)
	case "fail":
		return map[string]string{"half": "done"}, cli.WithHint(cli.WithStatus(errors.New("broken"), wire.Broken), "mend it")
	}
	return args, nil
}

func listen(t *testing.T, dir string) (*echo, *Server) {
	t.Helper()
	e := &echo{left: make(chan error, 100)}
	s, err := Listen(dir, e.handle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return e, s
}

func none(string) {}

func TestCall(t *testing.T) {
	dir := t.TempDir()
	if err := Call(t.Context(), dir, "x", nil, none, nil); !errors.Is(err, ErrNobody) {
		t.Errorf("without an agent: %v", err)
	}
	listen(t, dir)
	info, err := os.Lstat(filepath.Join(dir, Name))
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	var got map[string]string
	if err := Call(t.Context(), dir, "x", map[string]string{"a": "<b>\n"}, none, &got); err != nil || got["a"] != "<b>\n" {
		t.Errorf("Call = %v, %v", got, err)
	}
	err = Call(t.Context(), dir, "fail", nil, none, &got)
	if err == nil || err.Error() != "broken" || cli.StatusOf(err) != wire.Broken || cli.HintOf(err) != "mend it" || got["half"] != "done" {
		t.Errorf("a failure: %v, %v", err, got)
	}
}

// A directory below a long path had no socket.
func TestSocketInALongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	_, s := listen(t, dir)
	var got string
	if err := Call(t.Context(), dir, "x", "y", none, &got); err != nil || got != "y" {
		t.Errorf("Call = %q, %v", got, err)
	}
	s.Close()
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestSocketOfADeadAgentIsReplaced(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{Name, hidden} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
	}
	if err := Call(t.Context(), dir, "x", nil, none, nil); !errors.Is(err, ErrNobody) {
		t.Errorf("of a dead agent: %v", err)
	}
	listen(t, dir)
	var got string
	if err := Call(t.Context(), dir, "x", "y", none, &got); err != nil || got != "y" {
		t.Errorf("Call = %q, %v", got, err)
	}
}

func TestGarbageDoesNothing(t *testing.T) {
	dir := t.TempDir()
	listen(t, dir)
	for _, text := range []string{"\n", "GET / HTTP/1.1\r\n\r\n", "{}\n", `{"verb":7}` + "\n", "\x00\xff\n", `{"verb":"x"`, "", strings.Repeat("x", 2*maxRequest) + "\n"} {
		c, err := net.Dial("unix", filepath.Join(dir, Name))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, text)
		c.(*net.UnixConn).CloseWrite()
		b, _ := io.ReadAll(c) // a reset is as good as an end
		c.Close()
		if len(b) > 0 && string(b) != `{"done":true,"status":2,"error":"not a request"}`+"\n" {
			t.Errorf("%.20q is answered with %q", text, b)
		}
	}
}

func TestCallerWhoLeavesEndsItsRequest(t *testing.T) {
	dir := t.TempDir()
	e, _ := listen(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	err := Call(ctx, dir, "hang", nil, func(text string) {
		if text != "hanging" {
			t.Errorf("note %q", text)
		}
		cancel()
	}, nil)
	if left := <-e.left; !errors.Is(err, context.Canceled) || left.Error() != "the caller has gone" {
		t.Errorf("Call = %v, the handler's context %v", err, left)
	}
}

func TestCloseEndsRequests(t *testing.T) {
	dir := t.TempDir()
	e, s := listen(t, dir)
	silent, err := net.Dial("unix", filepath.Join(dir, Name)) // asks nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	err = Call(t.Context(), dir, "hang", nil, func(string) { go s.Close() }, nil)
	if err == nil || err.Error() != errEnding.Error() {
		t.Errorf("Call = %v", err)
	}
	<-e.left
	s.Close()
	if _, err := bufio.NewReader(silent).ReadByte(); err == nil {
		t.Error("the silent one is answered")
	}
	if _, err := os.Lstat(filepath.Join(dir, Name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// The hint named no directory, so that it asked about another one.
func TestAgentThatEndsUnderACall(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, Name))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Close()
		}
	}()
	err = Call(t.Context(), dir, "x", nil, none, nil)
	if want := "deploy-agent status -dir '" + dir + "' says what it does"; cli.HintOf(err) != want {
		t.Errorf("Call = %v, hint %q, want %q", err, cli.HintOf(err), want)
	}
}

// Those who hang keep nobody else out, up to a number; the others wait.
func TestManyCallers(t *testing.T) {
	dir := t.TempDir()
	e, _ := listen(t, dir)
	ctx, leave := context.WithCancel(t.Context())
	var hanging, calling sync.WaitGroup
	hanging.Add(maxCallers)
	for range maxCallers {
		calling.Go(func() { Call(ctx, dir, "hang", nil, func(string) { hanging.Done() }, nil) })
	}
	hanging.Wait()
	got := make(chan string)
	for range 20 {
		calling.Go(func() {
			var s string
			Call(t.Context(), dir, "x", "y", none, &s)
			got <- s
		})
	}
	leave()
	for range maxCallers {
		<-e.left
	}
	for range 20 {
		if s := <-got; s != "y" {
			t.Errorf("answered %q", s)
		}
	}
	calling.Wait()
}

// Connections that asked nothing kept everybody out until they were given up.
func TestThoseWhoNeverAskKeepNobodyOut(t *testing.T) {
	dir := t.TempDir()
	listen(t, dir)
	silent := make([]net.Conn, 600)
	for i := range silent {
		c, err := net.Dial("unix", filepath.Join(dir, Name))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent[i] = c
	}
	began := time.Now()
	var got string
	if err := Call(t.Context(), dir, "x", "y", none, &got); err != nil || got != "y" {
		t.Errorf("Call = %q, %v", got, err)
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("answered after %v", took)
	}
	silent[0].SetReadDeadline(began.Add(patience / 2))
	if _, err := silent[0].Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the oldest that did not ask: %v, want its end", err)
	}
	io.WriteString(silent[599], `{"verb":"x","args":"late"}`+"\n")
	if line, err := bufio.NewReader(silent[599]).ReadString('\n'); !strings.Contains(line, "late") {
		t.Errorf("one of the last that did not ask: %q, %v, want its answer", line, err)
	}
}

// The mode of the socket is one guard, and the kernel's word another.
func TestStrangersAreRefused(t *testing.T) {
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") != "":
		t.Fatal("CI should run this as root")
	default:
		t.Skip("needs root to be somebody else")
	}
	dir := t.TempDir()
	listen(t, dir)
	path := filepath.Join(dir, Name)
	if _, err := asStranger(path); !errors.Is(err, unix.EACCES) {
		t.Errorf("mode 0600: %v", err)
	}
	for p := path; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := asStranger(path); err != nil || !strings.Contains(got, `"status":5,"error":"user 65534 may not command this agent`) {
		t.Errorf("mode 0777: %q, %v", got, err)
	}
}

// asStranger returns what another user gets for a request.
func asStranger(path string) (string, error) {
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			got <- answer{"", err}
			return
		}
		defer unix.Close(fd)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); errno != 0 { // of this thread only
			got <- answer{"", errno}
			return
		}
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			got <- answer{"", err}
			return
		}
		unix.Write(fd, []byte(`{"verb":"x"}`+"\n"))
		b := make([]byte, 4096)
		n, err := unix.Read(fd, b)
		got <- answer{string(b[:max(n, 0)]), err}
	}()
	a := <-got
	return a.text, a.err
}

func TestWhoIsPermitted(t *testing.T) {
	for _, test := range []struct {
		peer, own uint32
		want      bool
	}{{0, 0, true}, {0, 7, true}, {7, 7, true}, {8, 7, false}, {7, 0, false}} {
		if got := permitted(test.peer, test.own); got != test.want {
			t.Errorf("permitted(%d, %d) = %t", test.peer, test.own, got)
		}
	}
}
