package ops

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOnlyThisMachineReachesThePages(t *testing.T) {
	for addr, want := range map[string]bool{
		"localhost:0": true, "127.0.0.1:0": true, "127.9.9.9:0": true, "[::1]:0": true, "[::ffff:127.0.0.1]:0": true, "/run/x/http": true,
		":0": false, "0.0.0.0:0": false, "[::]:0": false, "192.0.2.1:80": false, "registry.example:80": false, "localhost.example:80": false,
		"LOCALHOST:80": false,
	} {
		if err := CheckLocal(addr); (err == nil) != want || err != nil && !errors.Is(err, ErrExposed) {
			t.Errorf("CheckLocal(%q) = %v, want it taken: %t", addr, err, want)
		}
		if want {
			continue
		}
		if l, err := Listen(t.Context(), addr); !errors.Is(err, ErrExposed) {
			l.Close()
			t.Errorf("Listen(%q) = %v", addr, err)
		}
	}
	for _, addr := range []string{"", "localhost", "http", "relative/path"} {
		if err := CheckLocal(addr); err == nil || errors.Is(err, ErrExposed) {
			t.Errorf("CheckLocal(%q) = %v, want what should be there", addr, err)
		}
	}
}

func TestSocketIsTakenOverOnlyWhenItsOwnerIsGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "http")
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	if _, err := Listen(t.Context(), path); err == nil || !strings.Contains(err.Error(), "somebody listens") {
		t.Errorf("while somebody listens: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as after a kill
	l.Close()
	again, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatalf("after its owner is gone: %v", err)
	}
	again.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), path); err == nil {
		t.Error("a file that is no socket was replaced")
	}
	if b, err := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

func TestPages(t *testing.T) {
	l, err := Listen(t.Context(), "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	var unready error
	p := Pages{
		Ready: func(context.Context) error { return unready }, Version: map[string]string{"version": "v1"},
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "metrics") }),
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- Serve(ctx, l, p) }()
	get := func(path string) (int, string) {
		r, err := http.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v, %v", path, r.Header, err)
		}
		return r.StatusCode, string(b)
	}
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n", "/version": `{"version":"v1"}` + "\n", "/metrics": "metrics"} {
		if status, got := get(path); status != 200 || got != want {
			t.Errorf("%s = %d, %q, want %q", path, status, got, want)
		}
	}
	if status, _ := get("/"); status != 404 {
		t.Errorf("/ = %d", status)
	}
	unready = errors.New("storage is read-only")
	if status, got := get("/readyz"); status != 503 || got != "storage is read-only\n" {
		t.Errorf("/readyz = %d, %q when it is not", status, got)
	}
	if status, _ := get("/healthz"); status != 200 {
		t.Errorf("/healthz = %d when it is not ready, but alive", status)
	}
	if r, err := http.Post("http://"+l.Addr().String()+"/healthz", "", nil); err != nil || r.StatusCode != 405 {
		t.Errorf("POST = %v, %v", r, err)
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

func TestServeSaysThatItsListenerIsGone(t *testing.T) {
	l, err := Listen(t.Context(), "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := Serve(t.Context(), l, Pages{Metrics: http.NotFoundHandler()}); err == nil {
		t.Error("Serve = nil")
	}
}
