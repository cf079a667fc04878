package agentcmd

import (
	"net"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A start that takes long, as where a million names are compared, asks the service
// manager for more time as long as it gets on, and no longer.
func TestStartingAsksForMoreTime(t *testing.T) {
	more := "EXTEND_TIMEOUT_USEC=60000000"
	for name, test := range map[string]struct {
		during func(told *told, stuck *atomic.Bool)
		want   []string
	}{
		"until all are known": {func(told *told, _ *atomic.Bool) {
			time.Sleep(30 * time.Second)
			told.know("a")
			time.Sleep(20 * time.Second)
			told.know("b")
			time.Sleep(time.Hour)
		}, []string{more, more, more, "READY=1"}},
		"not when it is stuck": {func(_ *told, stuck *atomic.Bool) {
			time.Sleep(30 * time.Second)
			stuck.Store(true)
			time.Sleep(time.Hour)
		}, []string{more, more}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "notify")
			conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			t.Setenv("NOTIFY_SOCKET", path)
			synctest.Test(t, func(t *testing.T) {
				told, stuck := newTold([]string{"a", "b"}), new(atomic.Bool)
				go told.starting(t.Context(), func() bool { return !stuck.Load() })
				test.during(told, stuck)
			})
			var got []string
			conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // all of it was sent
			for buf := make([]byte, 100); ; {
				n, err := conn.Read(buf)
				if err != nil {
					break
				}
				got = append(got, string(buf[:n]))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("told %q, want %q", got, test.want)
			}
		})
	}
}
