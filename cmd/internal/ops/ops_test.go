package ops

import (
	"context"
	"net"
	"path/filepath"
	"testing"
)

// manager is a service manager's end of the notify socket.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

func next(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 1024)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestTheServiceManagerIsTold(t *testing.T) {
	c := manager(t)
	Ready()
	Status("root 000001 serves")
	Stopping()
	for _, want := range []string{"READY=1", "STATUS=root 000001 serves", "STOPPING=1"} {
		if got := next(t, c); got != want {
			t.Errorf("the service manager got %q, want %q", got, want)
		}
	}
}

func TestWatchdogSpeaksOnlyForTheLiving(t *testing.T) {
	c := manager(t)
	t.Setenv("WATCHDOG_USEC", "3000")
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		Watchdog(ctx, func() bool {
			if asked++; asked > 3 {
				cancel()
			}
			return asked == 2
		})
	}()
	if got := next(t, c); got != "WATCHDOG=1" {
		t.Errorf("the service manager got %q", got)
	}
	<-done
	Status("end")
	if got := next(t, c); got != "STATUS=end" {
		t.Errorf("after one sign of life came %q", got)
	}
}

func TestWatchdogEndsAtOnceWhenNobodyAsks(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "")
	Watchdog(t.Context(), func() bool { t.Error("asked"); return true })
}
